//! Tests of [`super`].

use prost::Message;

use super::super::message::LAST_MS;
use super::super::message::peer::{ScoredPost, SocialPost};
use super::*;

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
        history_start_ms: None,
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
            late,
            ..
        } => format!(
            "{index} {}slide {} {} {mention_count}",
            if *late { "late " } else { "" },
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
fn a_post_after_the_end_of_slides_evaluates_them_again() {
    let posts = [39_999, 40_000, 95_000, 100_000].map(|at_ms| message(&at_ms.to_string(), START + at_ms, 0.5));
    let mut store = store(config());
    store.advance(START - 600_000);
    store.add_batch(&[message("0", START + 21_000, 0.5)], Some(START + 100_000), 0);
    let late = store.add_batch(&posts, Some(START + 100_000), 0);
    assert_eq!(
        shown(&store, &late.events),
        [
            // Slides that end before 60 s have less than ten minutes of history.
            "0 late slide BTC 60000 2",
            "0 late slide BTC 70000 2",
            "0 late slide BTC 80000 2",
            "1 late slide BTC 60000 3",
            "1 late slide BTC 70000 3",
            "1 late slide BTC 80000 3",
            "1 late slide BTC 90000 2",
            "2 late slide BTC 100000 2",
        ]
    );
    let again = store.add_batch(&posts, Some(START + 100_000), 0);
    assert_eq!(again.statuses, [Status::Duplicate; 4]);
    assert!(again.events.is_empty());
}
