//! One symbol's ring of slices and what can be read from it.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::message::Post;

/// Sums are kept in units of 2^-40, so that they do not depend on the order of the posts: a mean is off by less than
/// 1e-11 and an `i128` holds 10^25 posts.
const SCALE: f64 = (1_u64 << 40) as f64;

fn fixed(value: f64) -> i128 {
    (value * SCALE).round_ties_even() as i128
}

/// Passes on a key that is a hash already.
#[derive(Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

type HashedSet<T> = HashSet<T, BuildHasherDefault<Hashed>>;

fn hash64(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The identity of a post within one symbol.
pub fn post_key(post: &Post) -> u128 {
    let (id, symbol) = (post.post_id.as_str(), post.symbol.as_str());
    u128::from(hash64((0_u8, id, symbol))) << 64 | u128::from(hash64((1_u8, id, symbol)))
}

#[derive(Default)]
struct Slice {
    polarity_weight: i128,
    weight: i128,
    credibility: i128,
    count: u64,
    authors: HashedSet<u64>,
    platforms: BTreeMap<u32, u64>,
    ids: Vec<u128>,
}

/// Sums over a span of slices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    polarity_weight: i128,
    weight: i128,
    credibility: i128,
    pub count: u64,
    pub unique_authors: u64,
    /// Number of the platform to its posts.
    pub platforms: BTreeMap<u32, u64>,
}

impl Totals {
    /// Mean polarity weighted by engagement weight and credibility; 0.0 without weight.
    pub fn polarity(&self) -> f64 {
        ratio(self.polarity_weight, self.weight)
    }

    /// Mean credibility; 0.0 without posts.
    pub fn credibility(&self) -> f64 {
        ratio(self.credibility, i128::from(self.count) << 40)
    }
}

fn ratio(sum: i128, over: i128) -> f64 {
    if over == 0 { 0.0 } else { sum as f64 / over as f64 }
}

/// The slices of one symbol that hold posts, by number (`timestamp_ms / slice_ms`, rounded down).
#[derive(Default)]
pub struct Ring {
    slices: BTreeMap<i64, Slice>,
    ids: HashedSet<u128>,
}

impl Ring {
    /// Whether a post with this key is in the ring.
    pub fn contains(&self, key: u128) -> bool {
        self.ids.contains(&key)
    }

    /// Adds a post that is not in the ring yet.
    pub fn add(&mut self, number: i64, key: u128, platform: u32, post: &Post) {
        let slice = self.slices.entry(number).or_default();
        let weight = post.engagement_weight * post.credibility;
        slice.polarity_weight += fixed(post.polarity * weight);
        slice.weight += fixed(weight);
        slice.credibility += fixed(post.credibility);
        slice.count += 1;
        if !post.author_id.is_empty() {
            slice.authors.insert(hash64((platform, post.author_id.as_str())));
        }
        *slice.platforms.entry(platform).or_default() += 1;
        slice.ids.push(key);
        self.ids.insert(key);
    }

    /// Everything about the slices `first..end`.
    pub fn totals(&self, first: i64, end: i64) -> Totals {
        let mut totals = Totals::default();
        let mut authors: HashedSet<u64> = HashedSet::default();
        for (_, slice) in self.slices.range(first..end.max(first)) {
            totals.polarity_weight += slice.polarity_weight;
            totals.weight += slice.weight;
            totals.credibility += slice.credibility;
            totals.count += slice.count;
            authors.extend(&slice.authors);
            for (&platform, count) in &slice.platforms {
                *totals.platforms.entry(platform).or_default() += count;
            }
        }
        totals.unique_authors = authors.len() as u64;
        totals
    }

    /// Posts in the slices `first..end`.
    pub fn count(&self, first: i64, end: i64) -> u64 {
        self.slices
            .range(first..end.max(first))
            .map(|(_, slice)| slice.count)
            .sum()
    }

    /// Posts a platform in the slices `first..end`.
    pub fn platforms(&self, first: i64, end: i64) -> BTreeMap<u32, u64> {
        let mut platforms = BTreeMap::new();
        for (_, slice) in self.slices.range(first..end.max(first)) {
            for (&platform, count) in &slice.platforms {
                *platforms.entry(platform).or_default() += count;
            }
        }
        platforms
    }

    /// Number of the newest slice.
    pub fn newest(&self) -> Option<i64> {
        self.slices.keys().next_back().copied()
    }

    /// Forgets the slices before `first`.
    pub fn evict(&mut self, first: i64) {
        while let Some(entry) = self.slices.first_entry() {
            if *entry.key() >= first {
                break;
            }
            for key in entry.remove().ids {
                self.ids.remove(&key);
            }
        }
    }
}
