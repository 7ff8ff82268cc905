//! The clock, what it closes, and what late posts correct. All spans are whole slices; windows are `[start, end)`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::message::{LAST_MS, Post, parse};
use super::slices::{Ring, Totals, post_key};

/// How far a post's time may be ahead of the system clock: platforms' clocks agree far better than that.
pub const MAX_AHEAD_MS: i64 = 300_000;

/// Without a baseline of at least this span there are no slides: the first posts of a stream are no spike.
const MIN_HISTORY_MS: i64 = 600_000;

/// Spans in milliseconds and limits; see `WindowStore` in `sentimesh/_native.pyi`.
#[derive(Clone, Debug)]
pub struct Config {
    pub window_ms: i64,
    pub slice_ms: i64,
    pub span_ms: i64,
    pub allowed_lateness_ms: i64,
    pub slide_ms: i64,
    pub spike_window_ms: i64,
    pub baseline_ms: i64,
    pub spike_min_mentions: i64,
    pub min_credibility: f64,
    pub start_ms: Option<i64>,
}

impl Config {
    /// What is wrong with the configuration, if anything.
    pub fn check(&self) -> Result<(), String> {
        if self.slice_ms < 1 {
            return Err(format!("slice_ms is {}, not at least 1", self.slice_ms));
        }
        for (name, value) in [
            ("window_ms", self.window_ms),
            ("span_ms", self.span_ms),
            ("slide_ms", self.slide_ms),
            ("spike_window_ms", self.spike_window_ms),
            ("baseline_ms", self.baseline_ms),
        ] {
            if !(1..=LAST_MS).contains(&value) || value % self.slice_ms != 0 {
                return Err(format!(
                    "{name} is {value}, not a multiple of slice_ms ({})",
                    self.slice_ms
                ));
            }
        }
        if self.allowed_lateness_ms < 0 {
            return Err(format!(
                "allowed_lateness_ms is {}, which is negative",
                self.allowed_lateness_ms
            ));
        }
        let needed =
            (self.window_ms.saturating_add(self.allowed_lateness_ms)).max(self.baseline_ms + self.spike_window_ms);
        if self.span_ms < needed {
            return Err(format!(
                "span_ms is {}, under the {needed} that window_ms + allowed_lateness_ms and baseline_ms + \
                 spike_window_ms need",
                self.span_ms
            ));
        }
        if self.spike_min_mentions < 1 {
            return Err(format!(
                "spike_min_mentions is {}, not at least 1",
                self.spike_min_mentions
            ));
        }
        if !(0.0..=1.0).contains(&self.min_credibility) {
            return Err(format!("min_credibility is {}, not from 0 to 1", self.min_credibility));
        }
        match self.start_ms {
            Some(start_ms) => check_time("start_ms", start_ms),
            None => Ok(()),
        }
    }
}

/// Refuses a time from which arithmetic could overflow.
pub fn check_time(name: &str, time_ms: i64) -> Result<(), String> {
    if (0..=LAST_MS).contains(&time_ms) {
        Ok(())
    } else {
        Err(format!("{name} is {time_ms}, not from 0 to {LAST_MS}"))
    }
}

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

/// What the clock brought about, for the symbol of that number in [`Store::symbols`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A closed or corrected window.
    Window {
        symbol: usize,
        start_ms: i64,
        revision: u32,
        totals: Totals,
    },
    /// A sliding window with enough mentions.
    Slide {
        symbol: usize,
        end_ms: i64,
        mention_count: u64,
        baseline_rate: f64,
        platforms: BTreeMap<u32, u64>,
    },
}

/// What a batch brought about.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One a message.
    pub statuses: Vec<Status>,
    /// Index of a malformed message and what is wrong with it.
    pub errors: Vec<(usize, String)>,
    /// Index of the message whose time brought it about, and the event.
    pub events: Vec<(usize, Event)>,
}

struct Clock {
    now_ms: i64,
    /// Slice from which the baseline has a history.
    history_start: i64,
    /// Windows that start before this are never emitted.
    first_window_ms: i64,
    /// Start of the oldest window that is not closed.
    next_window_ms: i64,
}

/// Rings of slices, one a symbol, and the clock that closes windows over them.
pub struct Store {
    config: Config,
    symbols: Vec<String>,
    numbers: HashMap<String, usize>,
    rings: Vec<Ring>,
    platforms: Vec<String>,
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
    pub fn new(mut symbols: Vec<String>, config: Config) -> Self {
        symbols.sort_unstable();
        Self {
            config,
            numbers: symbols
                .iter()
                .enumerate()
                .map(|(number, symbol)| (symbol.clone(), number))
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
    pub fn symbols(&self) -> &[String] {
        &self.symbols
    }

    /// Names of the platforms seen, by number.
    pub fn platforms(&self) -> &[String] {
        &self.platforms
    }

    /// The clock, once something has moved it.
    pub fn clock_ms(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.now_ms)
    }

    /// Takes messages in order. With `clock_ms` that is the clock (system clock) and is moved to first; otherwise the
    /// clock follows the posts (event clock), and `latest_ms` is the largest time a post can have.
    pub fn add_batch<M: AsRef<[u8]>>(&mut self, messages: &[M], clock_ms: Option<i64>, latest_ms: i64) -> Outcome {
        let mut outcome = Outcome::default();
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
                    self.add(&post)
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
        self.numbers.get(symbol).copied()
    }

    fn slice(&self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.config.slice_ms)
    }

    fn window(&self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.config.window_ms) * self.config.window_ms
    }

    fn add(&mut self, post: &Post) -> Status {
        let Some(&symbol) = self.numbers.get(&post.symbol) else {
            return Status::Untracked;
        };
        if post.credibility < self.config.min_credibility {
            return Status::LowCredibility;
        }
        let window_ms = self.window(post.timestamp_ms);
        if let Some(clock) = &self.clock {
            if post.timestamp_ms < clock.now_ms - self.config.span_ms {
                return Status::Late;
            }
        }
        let key = post_key(post);
        if self.rings[symbol].contains(key) {
            return Status::Duplicate;
        }
        let platform = self.platform(&post.platform);
        let slice = self.slice(post.timestamp_ms);
        self.rings[symbol].add(slice, key, platform, post);
        if let Some(clock) = &self.clock {
            if (clock.first_window_ms..clock.next_window_ms).contains(&window_ms) {
                self.corrected.insert((window_ms, symbol));
            }
        }
        Status::Accepted
    }

    fn platform(&mut self, name: &str) -> u32 {
        let known = self.platforms.iter().position(|platform| platform == name);
        known.unwrap_or_else(|| {
            self.platforms.push(name.to_owned());
            self.platforms.len() - 1
        }) as u32
    }

    /// Moves the event clock. A jump of more than the span is a hole in a recording, not silence: windows go on up to
    /// the span after the old time, then from the one that contains the new time.
    fn follow(&mut self, time_ms: i64, index: usize, events: &mut Vec<(usize, Event)>) {
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

    fn move_clock(&mut self, to_ms: i64, index: usize, events: &mut Vec<(usize, Event)>) {
        let window_ms = self.config.window_ms;
        let (slice, window) = (self.slice(to_ms), self.window(to_ms));
        let clock = self.clock.get_or_insert_with(|| {
            let first_window_ms = match self.config.start_ms {
                Some(start_ms) => start_ms + (-start_ms).rem_euclid(window_ms),
                None => window,
            };
            Clock {
                now_ms: to_ms,
                history_start: slice,
                first_window_ms,
                next_window_ms: first_window_ms,
            }
        });
        let from_ms = clock.now_ms;
        if to_ms < from_ms {
            return;
        }
        clock.now_ms = to_ms;
        let closing_ms = window_ms + self.config.allowed_lateness_ms;
        let slide_ms = self.config.slide_ms;
        let mut slide = (from_ms.div_euclid(slide_ms) + 1) * slide_ms;
        let mut due = clock.next_window_ms + closing_ms;
        // No slide later than this can hold a post.
        let last_slide = if slide > to_ms {
            i64::MIN
        } else {
            to_ms.min(self.last_slide())
        };
        loop {
            if slide <= due && slide <= last_slide {
                self.slide(slide, index, events);
                slide += slide_ms;
            } else if due <= to_ms {
                self.close(due - closing_ms, index, events);
                due += window_ms;
                if let Some(clock) = &mut self.clock {
                    clock.next_window_ms += window_ms;
                }
            } else {
                break;
            }
        }
        self.evict(self.window(to_ms - self.config.span_ms), index, events);
    }

    /// Forgets what is before the window that starts at `kept_ms`: rings hold whole windows, so that a correction
    /// never reads half of one.
    fn evict(&mut self, kept_ms: i64, index: usize, events: &mut Vec<(usize, Event)>) {
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

    fn slide(&self, end_ms: i64, index: usize, events: &mut Vec<(usize, Event)>) {
        let config = &self.config;
        let end = self.slice(end_ms);
        let first = end - config.spike_window_ms / config.slice_ms;
        let history_start = self.clock.as_ref().map_or(first, |clock| clock.history_start);
        let baseline_first = (first - config.baseline_ms / config.slice_ms).max(history_start);
        let history_ms = (first - baseline_first) * config.slice_ms;
        if history_ms < MIN_HISTORY_MS.min(config.baseline_ms) {
            return;
        }
        for (symbol, ring) in self.rings.iter().enumerate() {
            let mention_count = ring.count(first, end);
            if mention_count < config.spike_min_mentions.unsigned_abs() {
                continue;
            }
            let before = ring.count(baseline_first, first) as f64;
            let event = Event::Slide {
                symbol,
                end_ms,
                mention_count,
                baseline_rate: before * config.spike_window_ms as f64 / history_ms as f64,
                platforms: ring.platforms(first, end),
            };
            events.push((index, event));
        }
    }

    fn close(&self, start_ms: i64, index: usize, events: &mut Vec<(usize, Event)>) {
        for symbol in 0..self.rings.len() {
            events.push((index, self.window_event(start_ms, symbol, 0)));
        }
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
    fn emit_corrections(&mut self, before_ms: i64, index: usize, events: &mut Vec<(usize, Event)>) {
        let kept = self.corrected.split_off(&(before_ms, 0));
        for (start_ms, symbol) in std::mem::replace(&mut self.corrected, kept) {
            let revision = self.revisions.entry((start_ms, symbol)).or_default();
            *revision += 1;
            let revision = *revision;
            events.push((index, self.window_event(start_ms, symbol, revision)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{ScoredPost, SocialPost};
    use super::*;
    use prost::Message;

    const START: i64 = 1_700_000_100_000;

    fn config() -> Config {
        Config {
            window_ms: 300_000,
            slice_ms: 10_000,
            span_ms: 7_200_000,
            allowed_lateness_ms: 0,
            slide_ms: 10_000,
            spike_window_ms: 60_000,
            baseline_ms: 3_600_000,
            spike_min_mentions: 2,
            min_credibility: 0.0,
            start_ms: None,
        }
    }

    fn store(config: Config) -> Store {
        config.check().unwrap();
        Store::new(vec!["ETH".into(), "BTC".into()], config)
    }

    fn message(id: &str, timestamp_ms: i64, polarity: f32) -> Vec<u8> {
        let post = SocialPost {
            post_id: id.into(),
            platform: "twitter".into(),
            symbol: "BTC".into(),
            author_id: "a".into(),
            timestamp_ms,
        };
        let scored = ScoredPost {
            post: Some(post),
            polarity,
            confidence: 1.0,
            credibility_score: 0.5,
            engagement_weight: 2.0,
        };
        scored.encode_to_vec()
    }

    fn shown(store: &Store, events: &[(usize, Event)]) -> Vec<String> {
        let show = |(index, event): &(usize, Event)| match event {
            Event::Window {
                symbol,
                start_ms,
                revision,
                totals,
            } => format!(
                "{index} window {} {} r{revision} {}@{}",
                store.symbols()[*symbol],
                start_ms - START,
                totals.count,
                totals.polarity()
            ),
            Event::Slide {
                symbol,
                end_ms,
                mention_count,
                ..
            } => format!(
                "{index} slide {} {} {mention_count}",
                store.symbols()[*symbol],
                end_ms - START
            ),
        };
        events.iter().map(show).collect()
    }

    #[test]
    fn a_window_closes_for_every_symbol_and_a_late_post_corrects_it() {
        let mut store = store(config());
        let first = store.add_batch(
            &[message("1", START + 1, 0.5), message("2", START + 300_000, 0.0)],
            None,
            LAST_MS,
        );
        assert_eq!(first.statuses, [Status::Accepted, Status::Accepted]);
        assert_eq!(
            shown(&store, &first.events),
            ["1 window BTC 0 r0 1@0.5", "1 window ETH 0 r0 0@0"]
        );
        let late = message("3", START + 2, -0.5);
        let second = store.add_batch(&[late.clone(), late], None, LAST_MS);
        assert_eq!(second.statuses, [Status::Accepted, Status::Duplicate]);
        assert_eq!(shown(&store, &second.events), ["1 window BTC 0 r1 2@0"]);
        let old = store.add_batch(&[message("4", START - 7_000_000, 0.0)], None, LAST_MS);
        assert_eq!((old.statuses[0], old.events.len()), (Status::Late, 0));
    }

    #[test]
    fn a_slide_comes_before_the_window_of_the_same_time() {
        let mut store = store(config());
        store.add_batch(
            &[
                message("0", START - 600_000, 0.5),
                message("1", START + 290_000, 0.5),
                message("2", START + 299_999, 0.5),
            ],
            None,
            LAST_MS,
        );
        let events: Vec<(usize, Event)> = store.advance(START + 300_000).into_iter().map(|e| (0, e)).collect();
        assert_eq!(
            shown(&store, &events),
            [
                "0 slide BTC 300000 2",
                "0 window BTC 0 r0 2@0.5",
                "0 window ETH 0 r0 0@0"
            ]
        );
    }

    #[test]
    fn a_hole_in_a_recording_is_not_silence() {
        let mut store = store(config());
        let outcome = store.add_batch(
            &[message("1", START, 0.5), message("2", START + 864_000_000, 0.5)],
            None,
            LAST_MS,
        );
        assert_eq!(outcome.events.len(), 2 * 7_200_000 / 300_000);
        let next = store.add_batch(&[message("3", START + 864_300_000, 0.5)], None, LAST_MS);
        assert_eq!(
            shown(&store, &next.events),
            ["0 window BTC 864000000 r0 1@0.5", "0 window ETH 864000000 r0 0@0"]
        );
    }

    #[test]
    fn silence_by_the_system_clock_is_windows_without_posts() {
        let mut store = store(config());
        store.add_batch(&[message("1", START, 0.5)], Some(START), 0);
        assert_eq!(store.advance(START + 86_400_000).len(), 2 * 288);
        assert_eq!(store.advance(START).len(), 0);
        assert_eq!(store.clock_ms(), Some(START + 86_400_000));
    }

    #[test]
    fn the_future_is_malformed() {
        let mut store = store(config());
        let clock = Some(START);
        let ahead = [message("1", START + 300_000, 0.0), message("2", START + 300_001, 0.0)];
        let outcome = store.add_batch(&ahead, clock, 0);
        assert_eq!(outcome.statuses, [Status::Accepted, Status::Malformed]);
        assert_eq!(outcome.errors[0].0, 1);
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused() {
        for (change, name) in [
            (
                Config {
                    window_ms: 1,
                    ..config()
                },
                "window_ms",
            ),
            (
                Config {
                    slice_ms: 0,
                    ..config()
                },
                "slice_ms",
            ),
            (
                Config {
                    span_ms: 3_600_000,
                    ..config()
                },
                "span_ms",
            ),
            (
                Config {
                    allowed_lateness_ms: -1,
                    ..config()
                },
                "allowed_lateness_ms",
            ),
            (
                Config {
                    min_credibility: f64::NAN,
                    ..config()
                },
                "min_credibility",
            ),
            (
                Config {
                    start_ms: Some(-1),
                    ..config()
                },
                "start_ms",
            ),
        ] {
            assert!(change.check().unwrap_err().starts_with(name), "{name}");
        }
    }
}
