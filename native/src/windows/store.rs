//! The clock, what it closes, and what late posts correct. All spans are whole slices; windows are `[start, end)`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::config::Config;
use super::message::{Post, parse};
use super::slices::{PlatformCounts, Ring, Totals};

/// How far a post's time may be ahead of the system clock: platforms' clocks agree far better than that.
pub const MAX_AHEAD_MS: i64 = 300_000;

/// Without a baseline of at least this span there are no slides: the first posts of a stream are no spike.
const MIN_HISTORY_MS: i64 = 600_000;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Accepted,
    Duplicate,
    Late,
    LowCredibility,
    Untracked,
    Malformed,
}

/// What the clock or a late post brought about, for the symbol of that number in [`Store::symbols`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A closed or corrected window.
    Window {
        symbol: usize,
        start_ms: i64,
        revision: u32,
        totals: Totals,
    },
    /// A sliding window with enough mentions; late when a post that came after its end is counted in.
    Slide {
        symbol: usize,
        end_ms: i64,
        mention_count: u64,
        baseline_rate: f64,
        platforms: PlatformCounts,
        late: bool,
    },
}

/// Index of the message that brought it about, and the event.
pub type Events = Vec<(usize, Event)>;

/// What a batch brought about.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One a message.
    pub statuses: Vec<Status>,
    /// Index of a malformed message and what is wrong with it.
    pub errors: Vec<(usize, String)>,
    pub events: Events,
}

struct Clock {
    now_ms: i64,
    /// Slice from which the baseline has a history.
    history_start: i64,
    /// Windows that start before this are never emitted.
    first_window_ms: i64,
    /// Start of the oldest window that is not closed.
    next_window_ms: i64,
    /// End of the last slide that has ended.
    slide_end_ms: i64,
    /// Up to this time, itself not included, the clock moves without closing or forgetting anything.
    idle_until_ms: i64,
}

/// Rings of slices, one a symbol, and the clock that closes windows over them.
pub struct Store {
    config: Config,
    symbols: Vec<Arc<str>>,
    /// A symbol's UTF-8 to its number.
    numbers: FxHashMap<Box<[u8]>, usize>,
    rings: Vec<Ring>,
    platforms: Vec<Arc<str>>,
    clock: Option<Clock>,
    /// Start of the oldest window that the rings hold.
    kept_ms: i64,
    /// Corrections so far of a (window start, symbol).
    revisions: BTreeMap<(i64, usize), u32>,
    /// Closed windows (start, symbol) that this batch has added late posts to.
    corrected: BTreeSet<(i64, usize)>,
}

impl Store {
    /// An empty store for these symbols, each given once.
    pub fn new(symbols: Vec<String>, config: Config) -> Self {
        let mut symbols: Vec<Arc<str>> = symbols.into_iter().map(Arc::from).collect();
        symbols.sort_unstable();
        Self {
            config,
            numbers: symbols
                .iter()
                .enumerate()
                .map(|(number, symbol)| (symbol.as_bytes().into(), number))
                .collect(),
            rings: symbols.iter().map(|_| Ring::default()).collect(),
            symbols,
            platforms: Vec::new(),
            clock: None,
            kept_ms: i64::MIN,
            revisions: BTreeMap::new(),
            corrected: BTreeSet::new(),
        }
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tracked symbols, sorted; an event's `symbol` is a number into them.
    pub fn symbols(&self) -> &[Arc<str>] {
        &self.symbols
    }

    /// Names of the platforms seen, by number.
    pub fn platforms(&self) -> &[Arc<str>] {
        &self.platforms
    }

    /// The clock, once something has moved it.
    pub fn clock_ms(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.now_ms)
    }

    /// Takes messages in order. With `clock_ms` that is the clock (system clock) and is moved to first; otherwise the
    /// clock follows the posts (event clock), and `latest_ms` is the largest time a post can have.
    pub fn add_batch<M: AsRef<[u8]>>(&mut self, messages: &[M], clock_ms: Option<i64>, latest_ms: i64) -> Outcome {
        let mut outcome = Outcome {
            statuses: Vec::with_capacity(messages.len()),
            ..Outcome::default()
        };
        if let Some(clock_ms) = clock_ms {
            self.move_clock(clock_ms, 0, &mut outcome.events);
        }
        let latest_ms = match clock_ms {
            Some(_) => self.clock_ms().unwrap_or(0) + MAX_AHEAD_MS,
            None => latest_ms,
        };
        for (index, message) in messages.iter().enumerate() {
            let parsed = parse(message.as_ref()).and_then(|post| {
                if post.timestamp_ms > latest_ms {
                    let ahead = "timestamp_ms is more than 5 minutes ahead of the clock";
                    return Err(format!("{ahead}: {}", post.timestamp_ms));
                }
                Ok(post)
            });
            outcome.statuses.push(match parsed {
                Ok(post) => {
                    if clock_ms.is_none() {
                        self.follow(post.timestamp_ms, index, &mut outcome.events);
                    }
                    self.add(&post, index, &mut outcome.events)
                }
                Err(error) => {
                    outcome.errors.push((index, error));
                    Status::Malformed
                }
            });
        }
        let last = messages.len().saturating_sub(1);
        self.emit_corrections(i64::MAX, last, &mut outcome.events);
        outcome
    }

    /// Moves the system clock; never back.
    pub fn advance(&mut self, clock_ms: i64) -> Vec<Event> {
        let mut events = Vec::new();
        self.move_clock(clock_ms, 0, &mut events);
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// The trailing window up to `end_ms`, rounded up to a whole slice, of the symbol of that number: start, totals.
    pub fn live(&self, symbol: usize, end_ms: i64) -> (i64, Totals) {
        let slice_ms = self.config.slice_ms;
        let end = end_ms.div_euclid(slice_ms) + i64::from(end_ms.rem_euclid(slice_ms) > 0);
        let first = end - self.config.window_ms / slice_ms;
        (first * slice_ms, self.rings[symbol].totals(first, end))
    }

    /// The number of a tracked symbol.
    pub fn number(&self, symbol: &str) -> Option<usize> {
        self.numbers.get(symbol.as_bytes()).copied()
    }

    fn slice(&self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.config.slice_ms)
    }

    fn window(&self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.config.window_ms) * self.config.window_ms
    }

    /// Adds a post that the clock has been moved for.
    fn add(&mut self, post: &Post<'_>, index: usize, events: &mut Events) -> Status {
        let Some(&symbol) = self.numbers.get(post.symbol) else {
            return Status::Untracked;
        };
        if post.credibility < self.config.min_credibility {
            return Status::LowCredibility;
        }
        let clock = self.clock.as_ref();
        if clock.is_none_or(|clock| post.timestamp_ms < clock.now_ms - self.config.span_ms) {
            return Status::Late;
        }
        let slice = self.slice(post.timestamp_ms);
        let platform = || platform_number(&mut self.platforms, post.platform);
        if !self.rings[symbol].add(slice, post, platform) {
            return Status::Duplicate;
        }
        self.slide_again(symbol, post.timestamp_ms, index, events);
        self.correct(symbol, post.timestamp_ms);
        Status::Accepted
    }

    /// Notes that the closed window of this time, if it is closed, has to be emitted again.
    fn correct(&mut self, symbol: usize, time_ms: i64) {
        if let Some(clock) = self.clock.as_ref().filter(|clock| time_ms < clock.next_window_ms) {
            let start_ms = self.window(time_ms);
            if start_ms >= clock.first_window_ms {
                self.corrected.insert((start_ms, symbol));
            }
        }
    }

    /// Moves the event clock. A jump of more than the span is a hole in a recording, not silence: windows go on up to
    /// the span after the old time, then from the one that contains the new time.
    fn follow(&mut self, time_ms: i64, index: usize, events: &mut Events) {
        let span_ms = self.config.span_ms;
        let old_ms = match (&self.clock, self.config.start_ms) {
            (Some(clock), _) => Some(clock.now_ms),
            (None, start_ms) => start_ms,
        };
        if let Some(old_ms) = old_ms.filter(|old_ms| time_ms - old_ms > span_ms) {
            self.move_clock(old_ms + span_ms, index, events);
            let (window_ms, slice) = (self.window(time_ms), self.slice(time_ms));
            if let Some(clock) = &mut self.clock {
                clock.first_window_ms = clock.first_window_ms.max(window_ms);
                clock.next_window_ms = clock.next_window_ms.max(window_ms);
                clock.history_start = slice;
            }
        }
        self.move_clock(time_ms, index, events);
    }

    fn move_clock(&mut self, to_ms: i64, index: usize, events: &mut Events) {
        if self.clock.is_none() {
            self.clock = Some(self.started(to_ms));
        }
        let Some(clock) = self.clock.as_mut().filter(|clock| to_ms >= clock.now_ms) else {
            return;
        };
        clock.now_ms = to_ms;
        if to_ms >= clock.idle_until_ms {
            self.catch_up(to_ms, index, events);
        }
    }

    /// The clock as it starts at this time.
    fn started(&self, now_ms: i64) -> Clock {
        let (window_ms, slide_ms) = (self.config.window_ms, self.config.slide_ms);
        let first_window_ms = match self.config.start_ms {
            Some(start_ms) => start_ms + (-start_ms).rem_euclid(window_ms),
            None => self.window(now_ms),
        };
        Clock {
            now_ms,
            history_start: self.slice(now_ms.min(self.config.history_start_ms.unwrap_or(now_ms))),
            first_window_ms,
            next_window_ms: first_window_ms,
            slide_end_ms: now_ms.div_euclid(slide_ms) * slide_ms,
            idle_until_ms: i64::MIN,
        }
    }

    /// Evaluates the slides and closes the windows that ended up to this time, and forgets what is too old.
    fn catch_up(&mut self, to_ms: i64, index: usize, events: &mut Events) {
        let Some(clock) = &mut self.clock else { return };
        let (window_ms, slide_ms) = (self.config.window_ms, self.config.slide_ms);
        let closing_ms = window_ms + self.config.allowed_lateness_ms;
        let mut slide = clock.slide_end_ms + slide_ms;
        let mut due = clock.next_window_ms + closing_ms;
        clock.slide_end_ms = to_ms.div_euclid(slide_ms) * slide_ms;
        // No slide later than this can hold a post.
        let last_slide = if slide > to_ms {
            i64::MIN
        } else {
            to_ms.min(self.last_slide())
        };
        loop {
            if slide <= due && slide <= last_slide {
                for symbol in 0..self.rings.len() {
                    events.extend(self.slide(symbol, slide, false).map(|event| (index, event)));
                }
                slide += slide_ms;
            } else if due <= to_ms {
                // What late posts have changed is known to a window that closes after them, wherever batches end.
                self.emit_corrections(i64::MAX, index, events);
                for symbol in 0..self.rings.len() {
                    events.push((index, self.window_event(due - closing_ms, symbol, 0)));
                }
                due += window_ms;
                if let Some(clock) = &mut self.clock {
                    clock.next_window_ms += window_ms;
                }
            } else {
                break;
            }
        }
        self.evict(self.window(to_ms - self.config.span_ms), index, events);
        if let Some(clock) = &mut self.clock {
            let evicting_ms = self.kept_ms + window_ms + self.config.span_ms;
            clock.idle_until_ms = due.min(clock.slide_end_ms + slide_ms).min(evicting_ms);
        }
    }

    /// Forgets what is before the window that starts at `kept_ms`: rings hold whole windows, so that a correction
    /// never reads half of one.
    fn evict(&mut self, kept_ms: i64, index: usize, events: &mut Events) {
        if kept_ms <= self.kept_ms {
            return;
        }
        self.kept_ms = kept_ms;
        self.emit_corrections(kept_ms, index, events);
        self.revisions = self.revisions.split_off(&(kept_ms, 0));
        let first = self.slice(kept_ms);
        for ring in &mut self.rings {
            ring.evict(first);
        }
    }

    fn last_slide(&self) -> i64 {
        let newest = self.rings.iter().filter_map(Ring::newest).max();
        newest.map_or(i64::MIN, |slice| {
            (slice + 1) * self.config.slice_ms + self.config.spike_window_ms
        })
    }

    /// Evaluates the slides that have ended and hold a post of this time, which came after their end.
    fn slide_again(&self, symbol: usize, time_ms: i64, index: usize, events: &mut Events) {
        let Some(clock) = self.clock.as_ref().filter(|clock| time_ms < clock.slide_end_ms) else {
            return;
        };
        let slide_ms = self.config.slide_ms;
        let slice_start_ms = self.slice(time_ms) * self.config.slice_ms;
        let last_ms = clock.slide_end_ms.min(slice_start_ms + self.config.spike_window_ms);
        let mut end_ms = (time_ms.div_euclid(slide_ms) + 1) * slide_ms;
        while end_ms <= last_ms {
            events.extend(self.slide(symbol, end_ms, true).map(|event| (index, event)));
            end_ms += slide_ms;
        }
    }

    /// The slide that ends there, if it holds enough mentions and its baseline enough history.
    fn slide(&self, symbol: usize, end_ms: i64, late: bool) -> Option<Event> {
        let config = &self.config;
        let ring = &self.rings[symbol];
        let end = self.slice(end_ms);
        let first = end - config.spike_window_ms / config.slice_ms;
        let mention_count = ring.count(first, end);
        if mention_count < config.spike_min_mentions.unsigned_abs() {
            return None;
        }
        // What the ring has forgotten is no history: a late slide's baseline would take it for silence.
        let known = self.clock.as_ref()?.history_start.max(self.slice(self.kept_ms));
        let baseline_first = (first - config.baseline_ms / config.slice_ms).max(known);
        let history_ms = (first - baseline_first) * config.slice_ms;
        if history_ms < MIN_HISTORY_MS.min(config.baseline_ms) {
            return None;
        }
        let before = ring.count(baseline_first, first) as f64;
        Some(Event::Slide {
            symbol,
            end_ms,
            mention_count,
            baseline_rate: before * config.spike_window_ms as f64 / history_ms as f64,
            platforms: ring.platforms(first, end),
            late,
        })
    }

    fn window_event(&self, start_ms: i64, symbol: usize, revision: u32) -> Event {
        let end = self.slice(start_ms + self.config.window_ms);
        Event::Window {
            symbol,
            start_ms,
            revision,
            totals: self.rings[symbol].totals(self.slice(start_ms), end),
        }
    }

    /// Emits the corrected windows that start before `before_ms`.
    fn emit_corrections(&mut self, before_ms: i64, index: usize, events: &mut Events) {
        let kept = self.corrected.split_off(&(before_ms, 0));
        for (start_ms, symbol) in std::mem::replace(&mut self.corrected, kept) {
            let revision = self.revisions.entry((start_ms, symbol)).or_default();
            *revision += 1;
            let revision = *revision;
            events.push((index, self.window_event(start_ms, symbol, revision)));
        }
    }
}

/// The number of a platform, a new one when it was never seen.
fn platform_number(platforms: &mut Vec<Arc<str>>, name: &[u8]) -> u32 {
    let known = platforms.iter().position(|platform| platform.as_bytes() == name);
    known.unwrap_or_else(|| {
        platforms.push(String::from_utf8_lossy(name).into());
        platforms.len() - 1
    }) as u32
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
