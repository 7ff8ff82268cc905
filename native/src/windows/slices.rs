//! One symbol's ring of slices and what can be read from it.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use super::message::Post;

/// Sums are kept in units of 2^-40, so that they do not depend on the order of the posts: a mean is off by less than
/// 1e-11 and an `i128` holds 10^25 posts.
const SCALE: f64 = (1_u64 << 40) as f64;

/// `value`, at most 10, in units of the sums.
fn fixed(value: f64) -> i128 {
    i128::from((value * SCALE).round_ties_even() as i64)
}

/// Passes on a key that is a hash already.
#[derive(Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u128");
    }
    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

/// Posts by platform number. The first four, all that the contract names, have a place of their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlatformCounts {
    first: [u64; 4],
    more: Vec<(u32, u64)>,
}

impl PlatformCounts {
    fn add(&mut self, platform: u32, posts: u64) {
        let known = match self.first.get_mut(platform as usize) {
            Some(count) => Some(count),
            None => {
                let more = self.more.iter_mut();
                more.filter(|(known, _)| *known == platform)
                    .map(|(_, count)| count)
                    .next()
            }
        };
        match known {
            Some(count) => *count += posts,
            None => self.more.push((platform, posts)),
        }
    }

    /// Numbers of the platforms with posts, and the posts.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        let first = (0..).zip(self.first).filter(|(_, count)| *count > 0);
        first.chain(self.more.iter().copied())
    }
}

/// What a slice keeps of a post: the halves of its hash and the author's hash, 0 where it has none.
struct Trace {
    post: [u64; 2],
    author: u64,
}

#[derive(Default)]
struct Slice {
    polarity_weight: i128,
    weight: i128,
    credibility: i128,
    platforms: PlatformCounts,
    posts: Vec<Trace>,
}

/// Sums over a span of slices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    polarity_weight: i128,
    weight: i128,
    credibility: i128,
    pub count: u64,
    pub unique_authors: u64,
    pub platforms: PlatformCounts,
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

/// The slices of one symbol, by number (`timestamp_ms / slice_ms`, rounded down), from the oldest to the newest with
/// posts.
#[derive(Default)]
pub struct Ring {
    /// Number of the oldest slice.
    first: i64,
    /// Posts a slice, apart from the slices so that an hour's sum reads neighbouring memory.
    counts: VecDeque<u64>,
    /// None where there are no posts.
    slices: VecDeque<Option<Box<Slice>>>,
    ids: HashSet<u128, BuildHasherDefault<Hashed>>,
}

impl Ring {
    /// Adds a post, unless it is in the ring already; `platform` gives the number of its platform.
    pub fn add(&mut self, number: i64, post: &Post<'_>, platform: impl FnOnce() -> u32) -> bool {
        let key = xxh3_128(post.post_id);
        if !self.ids.insert(key) {
            return false;
        }
        let platform = platform();
        let place = self.place(number);
        self.counts[place] += 1;
        let slice = self.slices[place].get_or_insert_default();
        let weight = post.engagement_weight * post.credibility;
        slice.polarity_weight += fixed(post.polarity * weight);
        slice.weight += fixed(weight);
        slice.credibility += fixed(post.credibility);
        slice.platforms.add(platform, 1);
        let author = match post.author_id {
            [] => 0,
            author => xxh3_64_with_seed(author, u64::from(platform)),
        };
        slice.posts.push(Trace {
            post: [key as u64, (key >> 64) as u64],
            author,
        });
        true
    }

    /// Makes room for the slice of that number and returns where it is.
    fn place(&mut self, number: i64) -> usize {
        if self.slices.is_empty() {
            self.first = number;
        }
        while number < self.first {
            self.counts.push_front(0);
            self.slices.push_front(None);
            self.first -= 1;
        }
        let place = (number - self.first) as usize;
        if place >= self.slices.len() {
            self.counts.resize(place + 1, 0);
            self.slices.resize_with(place + 1, || None);
        }
        place
    }

    /// Where the slices `first..end` are, as far as there are any.
    fn places(&self, first: i64, end: i64) -> std::ops::Range<usize> {
        let place = |number: i64| (number - self.first).clamp(0, self.slices.len() as i64) as usize;
        place(first)..place(end.max(first))
    }

    fn held(&self, first: i64, end: i64) -> impl Iterator<Item = &Slice> {
        self.slices.range(self.places(first, end)).flatten().map(Box::as_ref)
    }

    /// Everything about the slices `first..end`.
    pub fn totals(&self, first: i64, end: i64) -> Totals {
        let mut totals = Totals {
            count: self.count(first, end),
            platforms: self.platforms(first, end),
            ..Totals::default()
        };
        let mut authors = Vec::new();
        for slice in self.held(first, end) {
            totals.polarity_weight += slice.polarity_weight;
            totals.weight += slice.weight;
            totals.credibility += slice.credibility;
            authors.extend(slice.posts.iter().map(|post| post.author).filter(|&author| author != 0));
        }
        authors.sort_unstable();
        authors.dedup();
        totals.unique_authors = authors.len() as u64;
        totals
    }

    /// Posts in the slices `first..end`.
    pub fn count(&self, first: i64, end: i64) -> u64 {
        self.counts.range(self.places(first, end)).sum()
    }

    /// Posts a platform in the slices `first..end`.
    pub fn platforms(&self, first: i64, end: i64) -> PlatformCounts {
        let mut platforms = PlatformCounts::default();
        for slice in self.held(first, end) {
            for (platform, count) in slice.platforms.iter() {
                platforms.add(platform, count);
            }
        }
        platforms
    }

    /// Number of the newest slice.
    pub fn newest(&self) -> Option<i64> {
        (!self.slices.is_empty()).then(|| self.first + self.slices.len() as i64 - 1)
    }

    /// Forgets the slices before `first`.
    pub fn evict(&mut self, first: i64) {
        let places = self.places(self.first, first);
        self.first += places.len() as i64;
        self.counts.drain(places.clone());
        for slice in self.slices.drain(places).flatten() {
            for Trace { post: [low, high], .. } in &slice.posts {
                self.ids.remove(&(u128::from(*low) | u128::from(*high) << 64));
            }
        }
    }
}
