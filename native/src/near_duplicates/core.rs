//! Exact search within `max_distance` bits by the pigeonhole principle: the 64 bits are cut into `max_distance + 1`
//! blocks, and two fingerprints that differ in at most `max_distance` bits agree in at least one of them. So one hash
//! table a block, from the block's bits to the entries that have them, finds every candidate.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

/// Largest distance an index can be made for: beyond it blocks are under eight bits and tables degenerate to scans.
pub const MAX_DISTANCE: u32 = 7;

struct Entry {
    id: Arc<str>,
    fingerprint: u64,
    timestamp_ms: i64,
}

/// The entries that share one value of one block, oldest insertion first.
type Bucket = VecDeque<(u64, u64)>;

struct Block {
    shift: u32,
    mask: u64,
    buckets: HashMap<u64, Bucket>,
}

impl Block {
    fn key(&self, fingerprint: u64) -> u64 {
        fingerprint >> self.shift & self.mask
    }
}

/// See the module's description. Entries are numbered in order of insertion.
pub struct Index {
    max_distance: u32,
    ttl_ms: i64,
    latest_ms: i64,
    next_number: u64,
    entries: HashMap<u64, Entry>,
    numbers: HashMap<Arc<str>, u64>,
    blocks: Vec<Block>,
    by_time: BinaryHeap<Reverse<(i64, u64)>>,
}

impl Index {
    /// An empty index. `max_distance` is at most [`MAX_DISTANCE`], `ttl_ms` at least 0.
    pub fn new(max_distance: u32, ttl_ms: i64) -> Self {
        let count = max_distance + 1;
        let blocks = (0..count)
            .map(|block| {
                let (first, end) = (64 * block / count, 64 * (block + 1) / count);
                Block {
                    shift: first,
                    mask: u64::MAX >> (64 - (end - first)),
                    buckets: HashMap::new(),
                }
            })
            .collect();
        Self {
            max_distance,
            ttl_ms,
            latest_ms: i64::MIN,
            next_number: 0,
            entries: HashMap::new(),
            numbers: HashMap::new(),
            blocks,
            by_time: BinaryHeap::new(),
        }
    }

    /// Number of live entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no live entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Id and fingerprint of the first-inserted live entry of another id within the distance; then inserts the entry.
    ///
    /// An id that is in the index is compared with entries inserted before it only, and not inserted again.
    pub fn check_and_insert(&mut self, id: &str, fingerprint: u64, timestamp_ms: i64) -> Option<(Arc<str>, u64)> {
        self.latest_ms = self.latest_ms.max(timestamp_ms);
        self.evict();
        let known = self.numbers.get(id).copied();
        let found = self.find(fingerprint, timestamp_ms, known.unwrap_or(u64::MAX));
        if known.is_none() && timestamp_ms >= self.latest_ms.saturating_sub(self.ttl_ms) {
            self.insert(id, fingerprint, timestamp_ms);
        }
        found
    }

    fn find(&self, fingerprint: u64, timestamp_ms: i64, before: u64) -> Option<(Arc<str>, u64)> {
        let oldest_ms = timestamp_ms.saturating_sub(self.ttl_ms);
        let mut best: Option<(u64, &Entry)> = None;
        for block in &self.blocks {
            let limit = best.map_or(before, |(number, _)| number);
            let Some(bucket) = block.buckets.get(&block.key(fingerprint)) else {
                continue;
            };
            best = bucket
                .iter()
                .take_while(|(number, _)| *number < limit)
                .filter(|(_, other)| (other ^ fingerprint).count_ones() <= self.max_distance)
                .map(|(number, _)| (*number, &self.entries[number]))
                .find(|(_, entry)| entry.timestamp_ms >= oldest_ms)
                .or(best);
        }
        best.map(|(_, entry)| (Arc::clone(&entry.id), entry.fingerprint))
    }

    fn insert(&mut self, id: &str, fingerprint: u64, timestamp_ms: i64) {
        let number = self.next_number;
        self.next_number += 1;
        let id: Arc<str> = id.into();
        for block in &mut self.blocks {
            let key = block.key(fingerprint);
            block.buckets.entry(key).or_default().push_back((number, fingerprint));
        }
        self.numbers.insert(Arc::clone(&id), number);
        self.by_time.push(Reverse((timestamp_ms, number)));
        self.entries.insert(
            number,
            Entry {
                id,
                fingerprint,
                timestamp_ms,
            },
        );
    }

    fn evict(&mut self) {
        let oldest_ms = self.latest_ms.saturating_sub(self.ttl_ms);
        while let Some(&Reverse((timestamp_ms, number))) = self.by_time.peek() {
            if timestamp_ms >= oldest_ms {
                break;
            }
            self.by_time.pop();
            let Some(entry) = self.entries.remove(&number) else {
                continue;
            };
            self.numbers.remove(&entry.id);
            for block in &mut self.blocks {
                let key = block.key(entry.fingerprint);
                if let Some(bucket) = block.buckets.get_mut(&key) {
                    if let Ok(at) = bucket.binary_search_by_key(&number, |(number, _)| *number) {
                        bucket.remove(at);
                    }
                    if bucket.is_empty() {
                        block.buckets.remove(&key);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(index: &mut Index, id: &str, fingerprint: u64, timestamp_ms: i64) -> Option<String> {
        index
            .check_and_insert(id, fingerprint, timestamp_ms)
            .map(|(id, _)| id.to_string())
    }

    #[test]
    fn finds_within_the_distance_and_not_beyond() {
        for distance in 0..=MAX_DISTANCE {
            let mut index = Index::new(distance, 1000);
            assert_eq!(check(&mut index, "a", 0, 0), None);
            let near = (1_u64 << distance) - 1;
            let far = (1_u64 << (distance + 1)) - 1;
            assert_eq!(check(&mut index, "far", far << 9, 0), None);
            assert_eq!(check(&mut index, "near", near << 30, 0), Some("a".into()));
        }
    }

    #[test]
    fn the_first_inserted_wins_and_asking_twice_gives_the_same() {
        let mut index = Index::new(3, 1000);
        assert_eq!(check(&mut index, "a", 0b0001, 0), None);
        assert_eq!(check(&mut index, "b", 0b0011, 0), Some("a".into()));
        assert_eq!(check(&mut index, "c", 0b0111, 0), Some("a".into()));
        assert_eq!(check(&mut index, "a", 0b0001, 0), None);
        assert_eq!(check(&mut index, "b", 0b0011, 0), Some("a".into()));
        assert_eq!(index.len(), 3);
    }

    #[test]
    fn entries_leave_after_their_time() {
        let mut index = Index::new(0, 100);
        check(&mut index, "a", 7, 0);
        assert_eq!(check(&mut index, "b", 7, 100), Some("a".into()));
        assert_eq!(check(&mut index, "c", 7, 101), Some("b".into()));
        assert_eq!(index.len(), 2);
        assert_eq!(check(&mut index, "d", 7, 1000), None);
        assert_eq!(check(&mut index, "old", 7, 5), Some("d".into()));
        assert_eq!(index.len(), 1);
    }
}
