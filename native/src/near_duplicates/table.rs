//! The table of one process. It finds what is within `max_distance` bits by the pigeonhole principle: one hash table a
//! block, from the block's bits to the posts that have them, finds every candidate.
//!
//! A post comes after what arrived before its own first arrival, so it finds the same however often it is asked about.
//! Of the posts of one fingerprint in one cell of time the first two stand for all, and what follows them gets the
//! answer of the second: one that is known from then on, so that such posts are not held.
//!
//! Posts are kept by slots of time; a slot is at least as long as a post counts, so that what is near in time is in the
//! slot of a post or in one beside it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rustc_hash::{FxHashMap, FxHashSet};

use super::blocks::Block;
use super::post::Post;

/// A slot has as many cells.
const CELLS: i64 = 32;
/// A slot that so many batches had no use for is forgotten.
const UNUSED_BATCHES: u64 = 256;

/// The two posts that stand for their fingerprint in a cell of time, and what the second is a copy of.
struct Flood {
    ids: [u64; 2],
    original: u64,
}

/// The posts of a slot, each once.
#[derive(Default)]
pub struct Slot {
    posts: Vec<Post>,
    known: FxHashSet<u64>,
    /// For each block: fingerprints, and places in `posts`, by the block's bits.
    tables: Vec<FxHashMap<u64, Vec<(u64, u32)>>>,
    used: u64,
    /// How many bytes of each bucket in Redis were read, by block and digit.
    pub read: HashMap<(usize, u64), usize>,
}

/// Posts that are asked about together.
pub struct Batch {
    pub posts: Vec<Post>,
    /// Those that are to be held.
    pub added: Vec<Post>,
}

/// See the module's description.
pub struct Table {
    max_distance: u32,
    ttl_ms: i64,
    cell_ms: i64,
    pub blocks: Vec<Block>,
    slots: BTreeMap<i64, Slot>,
    arrival: u64,
    batches: u64,
    floods: FxHashMap<(u64, i64), Flood>,
    floods_limit: usize,
}

impl Table {
    /// An empty table; a post counts for `ttl_ms` (0 or more).
    pub fn new(max_distance: u32, ttl_ms: i64) -> Self {
        Self {
            max_distance,
            ttl_ms,
            cell_ms: (ttl_ms / CELLS + i64::from(ttl_ms % CELLS > 0)).max(1),
            blocks: Block::cut(max_distance),
            slots: BTreeMap::new(),
            arrival: 0,
            batches: 0,
            floods: FxHashMap::default(),
            floods_limit: 1024,
        }
    }

    /// Number of posts that are held.
    pub fn len(&self) -> usize {
        self.slots.values().map(|slot| slot.posts.len()).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Read every bucket again from its beginning, and hold what stands for floods again.
    pub fn forget(&mut self) {
        self.floods.clear();
        self.slots.values_mut().for_each(|slot| slot.read.clear());
    }

    fn cell(&self, post: &Post) -> (u64, i64) {
        (post.fingerprint, post.timestamp_ms / self.cell_ms)
    }

    /// The slot that a post is in.
    pub fn slot(&self, post: &Post) -> i64 {
        post.timestamp_ms / self.cell_ms / CELLS
    }

    /// A slot that is used now; posts of later batches need it for some time.
    pub fn used_slot(&mut self, number: i64) -> &mut Slot {
        let slot = self.slots.entry(number).or_default();
        slot.used = self.batches;
        slot
    }

    fn flood(&self, post: &Post) -> Option<&Flood> {
        let flood = self.floods.get(&self.cell(post));
        flood.filter(|flood| !flood.ids.contains(&post.id))
    }

    /// Puts a batch together.
    pub fn batch(&mut self, posts: Vec<Post>) -> Batch {
        self.batches += 1;
        for number in posts.iter().map(|post| self.slot(post)).collect::<BTreeSet<_>>() {
            for (_, slot) in self.slots.range_mut(number - 1..=number + 1) {
                slot.used = self.batches;
            }
        }
        let oldest = self.batches.saturating_sub(UNUSED_BATCHES);
        self.slots.retain(|_, slot| slot.used >= oldest);
        let mut cells: FxHashMap<_, Vec<u64>> = FxHashMap::default();
        let mut added = Vec::new();
        let mut ordered: Vec<&Post> = posts.iter().filter(|post| self.flood(post).is_none()).collect();
        ordered.sort_unstable_by_key(|post| post.order());
        for post in ordered {
            let ids = cells.entry(self.cell(post)).or_default();
            if ids.len() < 2 && !ids.contains(&post.id) {
                ids.push(post.id);
                added.push(*post);
            }
        }
        Batch { posts, added }
    }

    /// Holds a batch that arrives here alone.
    pub fn remember(&mut self, batch: &Batch) {
        let arrival = self.arrival + 1;
        for post in &batch.added {
            self.insert(Post { arrival, ..*post });
        }
    }

    /// Holds a post, unless it is held.
    pub fn insert(&mut self, post: Post) {
        self.arrival = self.arrival.max(post.arrival);
        let number = self.slot(&post);
        let slot = self.slots.entry(number).or_default();
        slot.used = self.batches;
        if !slot.known.insert(post.id.rotate_left(32) ^ post.fingerprint) {
            return;
        }
        let place = u32::try_from(slot.posts.len()).expect("a slot has less than 2^32 posts");
        slot.posts.push(post);
        slot.tables.resize_with(self.blocks.len(), FxHashMap::default);
        for (block, table) in self.blocks.iter().zip(&mut slot.tables) {
            let bucket = table.entry(block.bits(post.fingerprint)).or_default();
            bucket.push((post.fingerprint, place));
        }
    }

    /// The fingerprint of each post's original.
    pub fn answers(&mut self, batch: &Batch) -> Vec<Option<u64>> {
        let mut near = FxHashMap::default();
        let mut answers = Vec::with_capacity(batch.posts.len());
        for post in &batch.posts {
            answers.push(match self.flood(post) {
                Some(flood) => Some(flood.original),
                None => {
                    let near = near
                        .entry((post.fingerprint, self.slot(post)))
                        .or_insert_with(|| self.near(post));
                    self.answer(post, near)
                }
            });
        }
        answers
    }

    /// Who is within the distance, in the order of arrival.
    fn near(&self, post: &Post) -> Vec<Post> {
        let number = self.slot(post);
        let mut found = Vec::new();
        for (_, slot) in self.slots.range(number - 1..=number + 1) {
            let mut places = Vec::new();
            for (block, table) in self.blocks.iter().zip(&slot.tables) {
                let bucket = table.get(&block.bits(post.fingerprint));
                places.extend(bucket.into_iter().flatten().filter_map(|(fingerprint, place)| {
                    ((fingerprint ^ post.fingerprint).count_ones() <= self.max_distance).then_some(*place)
                }));
            }
            places.sort_unstable();
            places.dedup();
            found.extend(places.into_iter().map(|place| slot.posts[place as usize]));
        }
        found.sort_unstable_by_key(Post::order);
        found
    }

    fn answer(&mut self, post: &Post, near: &[Post]) -> Option<u64> {
        let cell = self.cell(post);
        let before = near.iter().take_while(|other| !other.is(post));
        let mut of_cell = before.filter(|other| self.cell(other) == cell);
        let (Some(first), Some(second)) = (of_cell.next(), of_cell.next()) else {
            return self.earliest(post, near);
        };
        let original = self.earliest(second, near)?;
        if self.floods.len() >= self.floods_limit {
            let oldest = cell.1 - 2 * CELLS;
            self.floods.retain(|(_, cell), _| *cell >= oldest);
            self.floods_limit = 2 * self.floods.len().max(512);
        }
        let ids = [first.id, second.id];
        self.floods.insert(cell, Flood { ids, original });
        Some(original)
    }

    /// The earliest that a post is a copy of, of those that stand for their cells.
    fn earliest(&self, post: &Post, near: &[Post]) -> Option<u64> {
        let mut cells: FxHashMap<_, u32> = FxHashMap::default();
        for other in near.iter().take_while(|other| !other.is(post)) {
            let count = cells.entry(self.cell(other)).or_default();
            *count += 1;
            let is_in_time = (other.timestamp_ms - post.timestamp_ms).abs() <= self.ttl_ms;
            if *count <= 2 && is_in_time && other.id != post.id {
                return Some(other.fingerprint);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocks::MAX_DISTANCE;
    use super::*;

    fn ask(table: &mut Table, posts: &[(&str, u64, i64)]) -> Vec<Option<u64>> {
        let posts = posts.iter().enumerate();
        let posts = posts.map(|(at, (id, fingerprint, ms))| Post::new(id, *fingerprint, at as i64, *ms));
        let batch = table.batch(posts.collect());
        table.remember(&batch);
        table.answers(&batch)
    }

    #[test]
    fn finds_within_the_distance_and_not_beyond() {
        for distance in 0..=MAX_DISTANCE {
            let mut table = Table::new(distance, 1000);
            let (near, far) = ((1_u64 << distance) - 1, (1_u64 << (distance + 1)) - 1);
            let posts = [("a", 0, 0), ("far", far << 9, 0), ("near", near << 30, 0)];
            assert_eq!(ask(&mut table, &posts), [None, None, Some(0)]);
        }
    }

    #[test]
    fn a_flood_is_held_in_a_few_posts() {
        let mut table = Table::new(3, 960);
        assert_eq!(ask(&mut table, &[("a", 7, 0)]), [None]);
        assert_eq!(ask(&mut table, &[("b", 7, 1), ("c", 7, 2), ("d", 7, 3)]), [Some(7); 3]);
        assert_eq!(table.len(), 3);
        for round in 0..100 {
            assert_eq!(ask(&mut table, &[(&format!("more {round}"), 7, 4)]), [Some(7)]);
        }
        assert_eq!(table.len(), 3);
        // The first one comes again, then the text in another cell.
        assert_eq!(ask(&mut table, &[("a", 7, 0)]), [None]);
        assert_eq!(ask(&mut table, &[("f", 7, 31)]), [Some(7)]);
        assert_eq!(table.len(), 4);
    }

    #[test]
    fn slots_that_are_over_are_forgotten() {
        let mut table = Table::new(3, 960);
        for hour in 0..10 {
            for round in 0..=UNUSED_BATCHES {
                let id = format!("{hour} {round}");
                ask(&mut table, &[(&id, 1 << (6 * hour), 960 * hour)]);
            }
        }
        // Two posts, and one in the batch that made them known, of the last slot and the one before.
        assert_eq!(table.len(), 6);
    }

    #[test]
    fn slots_that_are_in_use_stay() {
        let mut table = Table::new(3, 960);
        ask(&mut table, &[("a", 0, 900)]);
        for round in 0..=2 * UNUSED_BATCHES {
            ask(&mut table, &[(&format!("{round}"), 0xff, 970)]);
        }
        assert_eq!(ask(&mut table, &[("b", 1, 1800)]), [Some(0)]);
    }
}
