//! How 64 bits are cut so that fingerprints of at most `max_distance` bits' difference agree in one block at least.

/// Largest distance: beyond it blocks are under eight bits and tables degenerate to scans.
pub const MAX_DISTANCE: u32 = 7;

/// Some neighbouring bits of a fingerprint.
pub struct Block {
    shift: u32,
    width: u32,
}

impl Block {
    /// The `max_distance + 1` blocks, the lowest bits first.
    pub fn cut(max_distance: u32) -> Vec<Self> {
        let count = max_distance + 1;
        (0..count)
            .map(|block| {
                let (first, end) = (64 * block / count, 64 * (block + 1) / count);
                Self {
                    shift: first,
                    width: end - first,
                }
            })
            .collect()
    }

    /// The fingerprint's bits in this block.
    pub fn bits(&self, fingerprint: u64) -> u64 {
        fingerprint >> self.shift & u64::MAX >> (64 - self.width)
    }

    /// The first four of them.
    pub fn digit(&self, fingerprint: u64) -> u64 {
        self.bits(fingerprint) >> (self.width - 4)
    }
}
