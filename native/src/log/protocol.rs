//! The part of the NATS protocol that a subscriber reads: <https://docs.nats.io/reference/reference-protocols/nats-protocol>.

use std::fmt;

/// The longest line before a payload, with much room: a server of a large cluster lists the others in its greeting.
pub const MAX_LINE: usize = 64 * 1024;
/// The largest payload that a server can be configured to let through.
pub const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// What makes bytes no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Line,
    Operation,
    Arguments,
    Payload,
    Reply,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Line => "a line is too long or no text",
            Self::Operation => "an operation is unknown",
            Self::Arguments => "a message's arguments are not subject, id, reply and sizes",
            Self::Payload => "a payload is too large or does not end where it says",
            Self::Reply => "a delivery's numbers cannot be read",
        })
    }
}

/// What a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `data` is without headers; `reply` is empty when no answer is asked for.
    Message {
        subject: &'a str,
        reply: &'a str,
        data: &'a [u8],
    },
    Info(&'a str),
    Error(&'a str),
    Ping,
    Pong,
    Ok,
}

/// The first frame of `bytes` and its length, or None while it is not whole.
pub fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Fault> {
    let Some(end) = bytes.iter().take(MAX_LINE).position(|&byte| byte == b'\n') else {
        return if bytes.len() < MAX_LINE {
            Ok(None)
        } else {
            Err(Fault::Line)
        };
    };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| Fault::Line)?;
    let line = line.strip_suffix('\r').ok_or(Fault::Line)?;
    let (operation, arguments) = line.split_once(' ').unwrap_or((line, ""));
    let frame = match operation {
        "MSG" | "HMSG" => return message(bytes, end + 1, operation == "HMSG", arguments),
        "INFO" => Frame::Info(arguments),
        "-ERR" => Frame::Error(arguments),
        "PING" => Frame::Ping,
        "PONG" => Frame::Pong,
        "+OK" => Frame::Ok,
        _ => return Err(Fault::Operation),
    };
    Ok(Some((frame, end + 1)))
}

/// The message whose arguments are in the line before `start`.
fn message<'a>(
    bytes: &'a [u8],
    start: usize,
    has_headers: bool,
    arguments: &'a str,
) -> Result<Option<(Frame<'a>, usize)>, Fault> {
    let mut parts = arguments.split_ascii_whitespace();
    let mut total = size(parts.next_back())?;
    let headers = if has_headers { size(parts.next_back())? } else { 0 };
    let (Some(subject), Some(_id)) = (parts.next(), parts.next()) else {
        return Err(Fault::Arguments);
    };
    let reply = parts.next().unwrap_or("");
    if parts.next().is_some() {
        return Err(Fault::Arguments);
    }
    if total > MAX_PAYLOAD {
        return Err(Fault::Payload);
    }
    let Some(payload) = bytes.get(start..start + total + 2) else {
        return Ok(None);
    };
    let payload = payload.strip_suffix(b"\r\n").ok_or(Fault::Payload)?;
    let data = payload.get(headers..).ok_or(Fault::Payload)?;
    total += 2;
    Ok(Some((Frame::Message { subject, reply, data }, start + total)))
}

fn size(argument: Option<&str>) -> Result<usize, Fault> {
    argument.and_then(|text| text.parse().ok()).ok_or(Fault::Arguments)
}

/// What the subject for answers says of a message that JetStream delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number in the stream, from 1.
    pub sequence: u64,
    /// Its number among what the consumer has delivered, from 1.
    pub number: u64,
    /// How many the consumer has still to deliver.
    pub pending: u64,
}

impl Delivery {
    /// None for what is no delivery: flow control and heartbeats.
    ///
    /// `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<number>.<time>.<pending>`; newer servers may put a domain
    /// and an account before the stream and anything after the end.
    pub fn of(reply: &str) -> Result<Option<Self>, Fault> {
        let Some(rest) = reply.strip_prefix("$JS.ACK.") else {
            return Ok(None);
        };
        let before = match rest.split('.').count() {
            7 => 0,
            9.. => 2,
            _ => return Err(Fault::Reply),
        };
        let mut numbers = rest.split('.').skip(before + 3).map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).ok_or(Fault::Reply);
        let (sequence, number, _time, pending) = (next()?, next()?, next()?, next()?);
        Ok(Some(Self {
            sequence,
            number,
            pending,
        }))
    }
}
