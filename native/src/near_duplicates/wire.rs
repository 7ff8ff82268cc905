//! What the script in Redis is told of a batch, and what it replies.
//!
//! Redis holds, for each block, first digit of its bits and slot of time, a string of chunks, one for each batch that
//! had posts there: number of arrival (6 bytes), number of entries (4 bytes), entries. The script appends a batch's
//! chunks and returns what this process has not read of the buckets that its posts, and what they may be copies of,
//! belong in. Numbers have the most significant byte first.

use std::collections::{BTreeMap, BTreeSet};

use super::post::{ENTRY, Post};
use super::table::{Batch, Table};

const ARRIVAL: usize = 6;
const HEADER: usize = ARRIVAL + 4;

/// A bucket in Redis, and from which byte on it is read.
struct Part {
    slot: i64,
    block: usize,
    digit: u64,
    from: usize,
}

/// What is read for a batch.
pub struct Reads {
    parts: Vec<Part>,
}

impl Reads {
    /// For each bucket its name (`0:c:472222`) after its length (1 byte), and from which byte on it is read (6 bytes).
    pub fn request(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for Part {
            slot,
            block,
            digit,
            from,
        } in &self.parts
        {
            text(&mut out, &format!("{block}:{digit:x}:{slot}"));
            out.extend(&(*from as u64).to_be_bytes()[2..]);
        }
        out
    }
}

impl Table {
    /// What is written: for each bucket block and digit (`0:c`) and number of the slot, each after its length (1 byte),
    /// and after their length (4 bytes) number of entries (4 bytes) and entries.
    pub fn writes(&self, batch: &Batch) -> Vec<u8> {
        let mut buckets: BTreeMap<_, Vec<u8>> = BTreeMap::new();
        for post in &batch.added {
            for (number, block) in self.blocks.iter().enumerate() {
                let bucket = (number, block.digit(post.fingerprint), self.slot(post));
                post.write(buckets.entry(bucket).or_default());
            }
        }
        let mut out = Vec::new();
        for ((block, digit, slot), entries) in buckets {
            text(&mut out, &format!("{block}:{digit:x}"));
            text(&mut out, &slot.to_string());
            out.extend(four_bytes(4 + entries.len()));
            out.extend(four_bytes(entries.len() / ENTRY));
            out.extend(entries);
        }
        out
    }

    /// What is to be read: the buckets of the posts that are held anew, in their slots and in those beside them.
    pub fn reads(&mut self, batch: &Batch) -> Reads {
        let mut wanted = BTreeSet::new();
        for post in &batch.added {
            for slot in self.slot(post) - 1..=self.slot(post) + 1 {
                let blocks = self.blocks.iter().enumerate();
                wanted.extend(blocks.map(|(number, block)| (slot, number, block.digit(post.fingerprint))));
            }
        }
        let parts = wanted.into_iter().map(|(slot, block, digit)| {
            let from = self.used_slot(slot).read.get(&(block, digit)).copied().unwrap_or(0);
            Part {
                slot,
                block,
                digit,
                from,
            }
        });
        Reads { parts: parts.collect() }
    }

    /// Takes in what the script returned, one value for each bucket. False when these are no buckets.
    pub fn read<B: AsRef<[u8]>>(&mut self, reads: &Reads, reply: &[B]) -> bool {
        let is_read = reads.parts.len() == reply.len()
            && reply.iter().all(|value| {
                let mut rest = value.as_ref();
                while let Some((_, entries, after)) = chunk(rest) {
                    debug_assert!(entries.len() % ENTRY == 0);
                    rest = after;
                }
                rest.is_empty()
            });
        if !is_read {
            return false;
        }
        for (part, value) in reads.parts.iter().zip(reply) {
            let mut rest = value.as_ref();
            let end = part.from + rest.len();
            let read = self
                .used_slot(part.slot)
                .read
                .entry((part.block, part.digit))
                .or_default();
            *read = end.max(*read);
            while let Some((arrival, entries, after)) = chunk(rest) {
                for entry in entries.chunks_exact(ENTRY) {
                    self.insert(Post::read(entry, arrival));
                }
                rest = after;
            }
        }
        true
    }
}

/// Number of arrival and entries of the first chunk, and what comes after it.
fn chunk(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |all, &byte| all << 8 | u64::from(byte));
    let count = usize::try_from(number(&header[ARRIVAL..])).ok()?;
    let (entries, after) = rest.split_at_checked(ENTRY.checked_mul(count)?)?;
    Some((number(&header[..ARRIVAL]), entries, after))
}

fn four_bytes(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a batch is less than 4 GiB").to_be_bytes()
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.push(u8::try_from(value.len()).expect("a name is short"));
    out.extend(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINGERPRINT: u64 = 0x0123_4567_89ab_cdef;

    #[test]
    fn requests_name_buckets() {
        let mut table = Table::new(3, 3200);
        let batch = table.batch(vec![
            Post::new("a", FINGERPRINT, 1, 3300),
            Post::new("b", FINGERPRINT ^ 0xff, 2, 3300),
        ]);
        let writes = table.writes(&batch);
        assert!(writes.starts_with(b"\x030:c\x011\0\0\0\x3c\0\0\0\x02\x01\x23"));
        assert_eq!(writes.len(), 4 * (4 + 2 + 4 + 4 + 2 * ENTRY));
        let reads = table.reads(&batch).request();
        assert!(reads.starts_with(b"\x050:c:0\0\0\0\0\0\0\x051:8:0"));
        assert_eq!(reads.len(), 3 * 4 * 12);
        let nothing = table.batch(Vec::new());
        assert!(table.writes(&nothing).is_empty());
        assert!(table.reads(&nothing).request().is_empty());
    }

    #[test]
    fn what_was_read_is_not_asked_for_again_until_it_is_forgotten() {
        let mut table = Table::new(0, 3200);
        let batch = table.batch(vec![Post::new("a", FINGERPRINT, 1, 3300)]);
        let mut value = vec![0, 0, 0, 0, 0, 9, 0, 0, 0, 1];
        Post::new("b", FINGERPRINT, 2, 3300).write(&mut value);
        let reads = table.reads(&batch);
        assert!(table.read(&reads, &[&[], value.as_slice(), &[]]));
        table.remember(&batch);
        assert_eq!(table.answers(&batch), [Some(FINGERPRINT)]);
        let froms = |table: &mut Table| {
            table
                .reads(&batch)
                .parts
                .iter()
                .map(|part| part.from)
                .collect::<Vec<_>>()
        };
        assert_eq!(froms(&mut table), [0, HEADER + ENTRY, 0]);
        table.forget();
        assert_eq!(froms(&mut table), [0, 0, 0]);
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        let mut table = Table::new(0, 3200);
        let batch = table.batch(vec![Post::new("a", FINGERPRINT, 1, 3300)]);
        let reads = table.reads(&batch);
        assert!(!table.read(&reads, &[[0; HEADER]; 2]));
        assert!(!table.read(&reads, &[[0; HEADER + 1]; 3]));
        assert!(!table.read(&reads, &[[255; HEADER + ENTRY]; 3]));
        assert!(table.read(&reads, &[[0; HEADER]; 3]));
        assert_eq!(table.len(), 0);
    }
}
