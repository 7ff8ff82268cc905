//! A post as the table holds it, and as 28 bytes.

/// Fingerprint (8 bytes), sequence (6), time (6) and a hash of the id (8), most significant byte first.
pub const ENTRY: usize = 28;
/// Sequences and times have 48 bits.
const LARGEST: i64 = (1 << 48) - 1;

/// Time is in milliseconds, `arrival` the number of the batch in which the post came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Post {
    pub arrival: u64,
    pub fingerprint: u64,
    pub sequence: u64,
    pub timestamp_ms: i64,
    pub id: u64,
}

impl Post {
    /// A post that has not arrived. Sequence and time are brought into their ranges, 0 to 2^48 - 1.
    pub fn new(id: &str, fingerprint: u64, sequence: i64, timestamp_ms: i64) -> Self {
        Self {
            arrival: u64::MAX,
            fingerprint,
            sequence: sequence.clamp(0, LARGEST).unsigned_abs(),
            timestamp_ms: timestamp_ms.clamp(0, LARGEST),
            id: xxhash_rust::xxh3::xxh3_64(id.as_bytes()),
        }
    }

    /// Appends the post's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.fingerprint.to_be_bytes());
        out.extend(&self.sequence.to_be_bytes()[2..]);
        out.extend(&self.timestamp_ms.to_be_bytes()[2..]);
        out.extend(self.id.to_be_bytes());
    }

    /// Reads [`ENTRY`] bytes.
    pub fn read(entry: &[u8], arrival: u64) -> Self {
        let number = |from: usize, to: usize| entry[from..to].iter().fold(0, |all, &byte| all << 8 | u64::from(byte));
        Self {
            arrival,
            fingerprint: number(0, 8),
            sequence: number(8, 14),
            timestamp_ms: i64::try_from(number(14, 20)).unwrap_or(LARGEST),
            id: number(20, 28),
        }
    }

    /// Whether it is the same post, whenever it came.
    pub fn is(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.id == other.id
    }

    /// Posts are in the order in which their batches arrived, and within a batch in the order of the stream.
    pub fn order(&self) -> (u64, u64, u64) {
        (self.arrival, self.sequence, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let post = Post::new("a", u64::MAX - 5, LARGEST + 7, -1);
        let mut entry = Vec::new();
        post.write(&mut entry);
        assert_eq!(entry.len(), ENTRY);
        assert_eq!(Post::read(&entry, u64::MAX), post);
        assert_eq!((post.sequence, post.timestamp_ms), (LARGEST.unsigned_abs(), 0));
    }
}
