//! A subscriber that only reads, over anything that can be read from and written to.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::protocol::{Delivery, Fault, Frame, parse};

/// How much room there is for each read, at least.
const CHUNK: usize = 256 * 1024;

/// Why reading ended.
#[derive(Debug)]
pub enum Failure {
    /// An argument that would break the protocol.
    Argument(&'static str),
    TimedOut,
    Closed,
    Refused(String),
    Malformed(Fault),
    /// The number of a delivery that did not follow the one before it.
    Lost(u64),
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(problem) => formatter.write_str(problem),
            Self::TimedOut => formatter.write_str("NATS sent nothing in time"),
            Self::Closed => formatter.write_str("NATS closed the connection"),
            Self::Refused(text) => write!(formatter, "NATS refuses: {text}"),
            Self::Malformed(fault) => write!(formatter, "NATS sent what is not its protocol: {fault}"),
            Self::Lost(number) => write!(formatter, "messages before delivery {number} were lost"),
            Self::Io(error) => write!(formatter, "the connection to NATS failed: {error}"),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Malformed(fault)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub subject: String,
    pub sequence: u64,
    pub data: Vec<u8>,
}

/// What was received and not yet used.
struct Received {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Received {
    fn unused(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Moves what is left to the front and makes room behind it.
    fn make_room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.bytes.len() < self.end + CHUNK {
            self.bytes.resize(self.end + CHUNK.max(self.end), 0);
        }
        &mut self.bytes[self.end..]
    }
}

/// One connection with one subscription to what a consumer pushes.
pub struct Reader<S> {
    stream: S,
    received: Received,
    timeout: Duration,
    deadline: Instant,
    delivered: u64,
    is_done: bool,
}

/// Connects over TCP; a wait for the server ends after `timeout`.
pub fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl<S: Read + Write> Reader<S> {
    /// A read of `stream` should give up after `timeout` by itself.
    pub fn new(stream: S, timeout: Duration) -> Self {
        Self {
            stream,
            received: Received {
                bytes: Vec::new(),
                start: 0,
                end: 0,
            },
            timeout,
            deadline: Instant::now() + timeout,
            delivered: 0,
            is_done: false,
        }
    }

    /// The server's greeting, a JSON object; it comes first.
    pub fn greeting(&mut self) -> Result<String, Failure> {
        self.wait_for(|frame| match frame {
            Frame::Info(text) => Some(text.to_owned()),
            _ => None,
        })
    }

    /// Introduces itself, subscribes, and waits until the server has seen both.
    pub fn subscribe(&mut self, connect_json: &str, inbox: &str) -> Result<(), Failure> {
        if connect_json.contains(['\r', '\n']) {
            return Err(Failure::Argument("connect_json has more than one line"));
        }
        if inbox.is_empty() || inbox.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Failure::Argument("inbox is not a subject"));
        }
        let commands = format!("CONNECT {connect_json}\r\nSUB {inbox} 1\r\nPING\r\n");
        self.stream.write_all(commands.as_bytes())?;
        self.wait_for(|frame| (frame == Frame::Pong).then_some(()))
    }

    /// The next messages of the stream up to and with `through_sequence`, at most `max_messages`; waits until there are so
    /// many. Fewer, and at last none, when the consumer has no more.
    pub fn read(&mut self, max_messages: usize, through_sequence: u64) -> Result<Vec<Message>, Failure> {
        let mut messages = Vec::new();
        let mut heard = self.delivered;
        self.deadline = Instant::now() + self.timeout;
        while !self.is_done && messages.len() < max_messages {
            let Some((frame, length)) = parse(self.received.unused())? else {
                if heard < self.delivered {
                    heard = self.delivered;
                    self.deadline = Instant::now() + self.timeout;
                }
                self.fill()?;
                continue;
            };
            match frame {
                Frame::Message { subject, reply, data } => match Delivery::of(reply)? {
                    Some(delivery) => {
                        if delivery.number != self.delivered + 1 {
                            return Err(Failure::Lost(delivery.number));
                        }
                        self.delivered = delivery.number;
                        let sequence = delivery.sequence;
                        if sequence <= through_sequence {
                            messages.push(Message {
                                subject: subject.to_owned(),
                                sequence,
                                data: data.to_vec(),
                            });
                        }
                        self.is_done = delivery.pending == 0 || sequence >= through_sequence;
                    }
                    // A heartbeat wants no answer, flow control goes on after it.
                    None if reply.is_empty() => {}
                    None => self.stream.write_all(format!("PUB {reply} 0\r\n\r\n").as_bytes())?,
                },
                Frame::Ping => self.stream.write_all(b"PONG\r\n")?,
                Frame::Error(text) => return Err(Failure::Refused(text.to_owned())),
                Frame::Info(_) | Frame::Pong | Frame::Ok => {}
            }
            self.received.start += length;
        }
        Ok(messages)
    }

    /// The first frame for which `wanted` has something.
    fn wait_for<T>(&mut self, wanted: impl Fn(Frame<'_>) -> Option<T>) -> Result<T, Failure> {
        self.deadline = Instant::now() + self.timeout;
        loop {
            let Some((frame, length)) = parse(self.received.unused())? else {
                self.fill()?;
                continue;
            };
            let found = wanted(frame);
            match frame {
                Frame::Ping => self.stream.write_all(b"PONG\r\n")?,
                Frame::Error(text) => return Err(Failure::Refused(text.to_owned())),
                _ => {}
            }
            self.received.start += length;
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// What it read from and wrote to.
    #[cfg(test)]
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Receives some more.
    fn fill(&mut self) -> Result<(), Failure> {
        // Heartbeats come all the time, and are not what is waited for.
        if Instant::now() >= self.deadline {
            return Err(Failure::TimedOut);
        }
        let count = loop {
            match self.stream.read(self.received.make_room()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if count == 0 {
            return Err(Failure::Closed);
        }
        self.received.end += count;
        Ok(())
    }
}
