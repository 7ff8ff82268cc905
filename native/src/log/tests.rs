//! A server that is a script: what it sends, in pieces of any size, and what it was sent.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::Duration;

use proptest::prelude::*;

use super::core::{Failure, Message, Reader};
use super::protocol::{Delivery, Fault, Frame, MAX_LINE, parse};

struct Script {
    pieces: VecDeque<Vec<u8>>,
    sent: Vec<u8>,
}

impl Read for Script {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(mut piece) = self.pieces.pop_front() else {
            return Ok(0);
        };
        let count = piece.len().min(into.len());
        into[..count].copy_from_slice(&piece[..count]);
        if count < piece.len() {
            self.pieces.push_front(piece.split_off(count));
        }
        Ok(count)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sent.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader of these bytes, which come in pieces of these sizes and then whole.
fn reader(bytes: &[u8], sizes: &[usize]) -> Reader<Script> {
    let mut pieces = VecDeque::new();
    let mut rest = bytes;
    for &size in sizes {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        pieces.push_back(piece.to_vec());
    }
    pieces.push_back(rest.to_vec());
    pieces.retain(|piece| !piece.is_empty());
    let script = Script {
        pieces,
        sent: Vec::new(),
    };
    Reader::new(script, Duration::from_secs(60))
}

fn message(sequence: u64, data: &[u8]) -> Message {
    Message {
        subject: format!("social.scored.{}.BTC", sequence % 20),
        sequence,
        data: data.to_vec(),
    }
}

/// The frame that delivers it.
fn frame(message: &Message, number: u64, pending: u64, headers: Option<&str>) -> Vec<u8> {
    let Message {
        subject,
        sequence,
        data,
    } = message;
    let reply = format!("$JS.ACK.SOCIAL_SCORED.abc.1.{sequence}.{number}.1700000000000000000.{pending}");
    let mut bytes = match headers {
        Some(headers) => {
            let total = headers.len() + data.len();
            format!("HMSG {subject} 1 {reply} {} {total}\r\n{headers}", headers.len()).into_bytes()
        }
        None => format!("MSG {subject} 1 {reply} {}\r\n", data.len()).into_bytes(),
    };
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

const HEADERS: &str = "NATS/1.0\r\nNats-Msg-Id: 1/BTC/scorer\r\n\r\n";
const FLOW_CONTROL: &str =
    "HMSG _INBOX.x 1 $JS.FC.SOCIAL_SCORED.abc.Xy 36 36\r\nNATS/1.0 100 FlowControl Request\r\n\r\n\r\n";
const HEARTBEAT: &str = "HMSG _INBOX.x 1 54 54\r\nNATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 3\r\n\r\n\r\n";

fn noise() -> impl Strategy<Value = &'static str> {
    let info = "INFO {\"ldm\":true}\r\n";
    prop::sample::select(vec!["", "PING\r\n", "+OK\r\n", FLOW_CONTROL, HEARTBEAT, info])
}

fn log() -> impl Strategy<Value = Vec<(Vec<u8>, bool, &'static str)>> {
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(b"\r\nMSG a 1 0\r\n".to_vec())
    ];
    prop::collection::vec((data, any::<bool>(), noise()), 1..30)
}

/// The log as the server sends it, and as it is to be read; sequences have gaps.
fn written(log: &[(Vec<u8>, bool, &str)]) -> (Vec<u8>, Vec<Message>) {
    let mut bytes = Vec::new();
    let mut messages = Vec::new();
    for (index, (data, has_headers, noise)) in log.iter().enumerate() {
        let number = index as u64 + 1;
        let message = message(number * 3, data);
        bytes.extend_from_slice(noise.as_bytes());
        let pending = (log.len() - index - 1) as u64;
        bytes.extend(frame(&message, number, pending, has_headers.then_some(HEADERS)));
        messages.push(message);
    }
    (bytes, messages)
}

fn read_all(reader: &mut Reader<Script>, max: usize, through: u64) -> Result<Vec<Message>, Failure> {
    let mut all = Vec::new();
    loop {
        let some = reader.read(max, through)?;
        assert!(some.len() <= max);
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}

proptest! {
    #[test]
    fn what_is_sent_is_read_whatever_the_pieces(
        log in log(),
        sizes in prop::collection::vec(1_usize..50, 0..100),
        max in 1_usize..10,
        through in 0_u64..100,
    ) {
        let (bytes, messages) = written(&log);
        let mut reader = reader(&bytes, &sizes);
        let wanted: Vec<_> = messages.into_iter().filter(|m| m.sequence <= through).collect();
        prop_assert_eq!(read_all(&mut reader, max, through).unwrap(), wanted);
        prop_assert!(reader.read(max, through).unwrap().is_empty());
    }

    #[test]
    fn a_server_that_stops_in_the_midst_is_an_error(log in log(), cut in any::<prop::sample::Index>()) {
        let (bytes, _) = written(&log);
        let mut reader = reader(&bytes[..cut.index(bytes.len())], &[]);
        let failure = read_all(&mut reader, 5, u64::MAX).unwrap_err();
        prop_assert!(matches!(failure, Failure::Closed), "{failure}");
    }

    #[test]
    fn bytes_that_are_changed_never_panic(
        log in log(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let (mut bytes, _) = written(&log);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read_all(&mut reader(&bytes, &[]), 5, u64::MAX);
    }

    #[test]
    fn anything_is_a_frame_or_unfinished_or_an_error(
        operation in prop::sample::select(vec!["", "MSG ", "HMSG ", "INFO ", "-ERR ", "PING"]),
        rest in "[a-z0-9 .$\\r\\n]{0,60}",
        bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        for bytes in [bytes, format!("{operation}{rest}\r\n").into_bytes()] {
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(0 < length && length <= bytes.len());
            }
        }
    }
}

fn sent(reader: Reader<Script>) -> String {
    String::from_utf8(reader.into_stream().sent).unwrap()
}

#[test]
fn the_server_is_greeted_and_answered() {
    let greeting = "INFO {\"headers\":true}\r\nPING\r\n+OK\r\nPONG\r\n";
    let last = frame(&message(7, b"x"), 1, 0, Some(HEADERS));
    let bytes = [
        [greeting, "PING\r\n", FLOW_CONTROL, HEARTBEAT].concat().as_bytes(),
        &last,
    ]
    .concat();
    let mut reader = reader(&bytes, &[]);
    assert_eq!(reader.greeting().unwrap(), "{\"headers\":true}");
    reader.subscribe("{}", "_INBOX.x").unwrap();
    assert_eq!(reader.read(10, 100).unwrap(), [message(7, b"x")]);
    assert_eq!(
        sent(reader),
        "CONNECT {}\r\nSUB _INBOX.x 1\r\nPING\r\nPONG\r\nPONG\r\nPUB $JS.FC.SOCIAL_SCORED.abc.Xy 0\r\n\r\n"
    );
}

#[test]
fn arguments_cannot_bring_commands_in() {
    for (connect, inbox) in [("{}\r\nPUB a 0", "a"), ("{}", "a 1\r\nPUB"), ("{}", "a b"), ("{}", "")] {
        let mut reader = reader(b"PONG\r\n", &[]);
        let failure = reader.subscribe(connect, inbox).unwrap_err();
        assert!(matches!(failure, Failure::Argument(_)), "{failure}");
        assert_eq!(sent(reader), "");
    }
}

#[test]
fn a_refusal_and_a_gap_are_errors() {
    let mut refused = reader(b"-ERR 'Authorization Violation'\r\n", &[]);
    let failure = refused.subscribe("{}", "a").unwrap_err();
    assert_eq!(failure.to_string(), "NATS refuses: 'Authorization Violation'");
    assert!(matches!(
        reader(b"-ERR 'x'\r\n", &[]).read(1, 1),
        Err(Failure::Refused(_))
    ));
    let gap = [frame(&message(1, b""), 1, 9, None), frame(&message(3, b""), 3, 7, None)].concat();
    assert!(matches!(reader(&gap, &[]).read(5, 9), Err(Failure::Lost(3))));
}

/// Never closes, never has anything but heartbeats.
struct Idle;

impl Read for Idle {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        into[..HEARTBEAT.len()].copy_from_slice(HEARTBEAT.as_bytes());
        Ok(HEARTBEAT.len())
    }
}

impl Write for Idle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn heartbeats_alone_are_waited_for_only_so_long() {
    let mut reader = Reader::new(Idle, Duration::from_millis(20));
    assert!(matches!(reader.read(1, 1), Err(Failure::TimedOut)));
}

#[test]
fn faults_have_names() {
    let long = vec![b'a'; MAX_LINE];
    let cases: [(&[u8], Fault); 12] = [
        (b"PING\n", Fault::Line),
        (b"\xff\r\n", Fault::Line),
        (&long, Fault::Line),
        (b"HELLO\r\n", Fault::Operation),
        (b"\r\n", Fault::Operation),
        (b"MSG a 1\r\n", Fault::Arguments),
        (b"MSG a 1 b c 2\r\n", Fault::Arguments),
        (b"MSG a 1 -2\r\n", Fault::Arguments),
        (b"MSG a 1 99999999999999999999\r\n", Fault::Arguments),
        (b"MSG a 1 99999999999\r\n", Fault::Payload),
        (b"HMSG a 1 3 2\r\nab\r\n", Fault::Payload),
        (b"MSG a 1 2\r\nabcd", Fault::Payload),
    ];
    for (bytes, fault) in cases {
        assert_eq!(parse(bytes), Err(fault), "{}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(parse(b"MSG a 1 2\r\nab\r"), Ok(None));
    let data = b"ab".as_slice();
    let frame = Frame::Message {
        subject: "a",
        reply: "",
        data,
    };
    assert_eq!(parse(b"HMSG a 1 1 3\r\nxab\r\nPING"), Ok(Some((frame, 19))));
}

#[test]
fn deliveries_are_told_from_the_rest() {
    let expected = Some(Delivery {
        sequence: 5,
        number: 6,
        pending: 8,
    });
    assert_eq!(Delivery::of("$JS.ACK.S.c.1.5.6.7.8"), Ok(expected));
    assert_eq!(Delivery::of("$JS.ACK.hub.hash.S.c.1.5.6.7.8"), Ok(expected));
    assert_eq!(Delivery::of("$JS.ACK._.hash.S.c.1.5.6.7.8.token"), Ok(expected));
    assert_eq!(Delivery::of("$JS.FC.S.c.x"), Ok(None));
    assert_eq!(Delivery::of(""), Ok(None));
    for reply in [
        "$JS.ACK.S.c.1.5.6.7",
        "$JS.ACK.d.S.c.1.5.6.7.8",
        "$JS.ACK.S.c.1.5.x.7.8",
        "$JS.ACK.",
    ] {
        assert_eq!(Delivery::of(reply), Err(Fault::Reply));
    }
}
