//! Reading Protocol Buffers where they lie: texts stay slices of the message, so that reading one allocates nothing.

use std::fmt;

/// As deep as groups may nest, prost's limit.
const MAX_DEPTH: u32 = 100;

/// Kinds of values, the lowest three bits of a field's key.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const GROUP: u32 = 3;
const GROUP_END: u32 = 4;
const FIXED32: u32 = 5;

/// The key of an `int64` field.
pub const fn int64(number: u32) -> u32 {
    number << 3 | VARINT
}

/// The key of a `string` or nested message.
pub const fn bytes(number: u32) -> u32 {
    number << 3 | BYTES
}

/// The key of a `float` field.
pub const fn float(number: u32) -> u32 {
    number << 3 | FIXED32
}

/// What makes bytes no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Truncated,
    Varint,
    Key,
    Group,
    Depth,
    Kind,
    Text,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Truncated => "it ends within a field",
            Self::Varint => "it holds a varint of more than 64 bits",
            Self::Key => "it holds a field without number or of an unknown kind",
            Self::Group => "it holds a group that ends where it should not",
            Self::Depth => "its groups nest too deep",
            Self::Kind => "a field is of another kind than in the contract",
            Self::Text => "a text is not UTF-8",
        })
    }
}

/// The fields of a message, in the order in which they were written: first a key, then its value or [`Self::skip`].
pub struct Fields<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Fields<'a> {
    /// The fields of a whole message.
    pub fn new(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            depth: MAX_DEPTH,
        }
    }

    /// The next field's key, or None at the end.
    #[inline(always)]
    pub fn key(&mut self) -> Result<Option<u32>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        u32::try_from(self.varint()?).map(Some).map_err(|_| Fault::Key)
    }

    /// An `int64`.
    #[inline(always)]
    pub fn int64(&mut self) -> Result<i64, Fault> {
        Ok(self.varint()? as i64)
    }

    /// A `float`.
    #[inline(always)]
    pub fn float(&mut self) -> Result<f32, Fault> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(f32::from_le_bytes(*value))
    }

    /// A `string`, as its bytes: most are ASCII, which is seen faster than that they are UTF-8.
    #[inline(always)]
    pub fn text(&mut self) -> Result<&'a [u8], Fault> {
        let text = self.bytes()?;
        if text.is_ascii() || std::str::from_utf8(text).is_ok() {
            Ok(text)
        } else {
            Err(Fault::Text)
        }
    }

    /// The fields of a nested message.
    #[inline(always)]
    pub fn message(&mut self) -> Result<Self, Fault> {
        Ok(Self {
            rest: self.bytes()?,
            depth: MAX_DEPTH - 1,
        })
    }

    /// Passes over the value of a field that nobody asked for; `known` has the bits of the numbers that are asked for,
    /// but with another kind of value.
    #[inline(always)]
    pub fn skip(&mut self, key: u32, known: u32) -> Result<(), Fault> {
        if key >> 3 < u32::BITS && known & 1 << (key >> 3) != 0 {
            return Err(Fault::Kind);
        }
        self.pass(key)
    }

    #[inline(always)]
    fn pass(&mut self, key: u32) -> Result<(), Fault> {
        if key >> 3 == 0 {
            return Err(Fault::Key);
        }
        match key & 7 {
            VARINT => self.varint().map(|_| ()),
            BYTES => self.bytes().map(|_| ()),
            FIXED32 => self.take(4).map(|_| ()),
            FIXED64 => self.take(8).map(|_| ()),
            GROUP => self.pass_group(key >> 3),
            GROUP_END => Err(Fault::Group),
            _ => Err(Fault::Key),
        }
    }

    #[cold]
    fn pass_group(&mut self, number: u32) -> Result<(), Fault> {
        self.depth -= 1;
        while let Some(key) = self.key()? {
            if key == (number << 3 | GROUP_END) {
                self.depth += 1;
                return Ok(());
            }
            if self.depth == 0 {
                return Err(Fault::Depth);
            }
            self.pass(key)?;
        }
        Err(Fault::Truncated)
    }

    #[inline(always)]
    fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.varint()?;
        self.take(usize::try_from(length).map_err(|_| Fault::Truncated)?)
    }

    #[inline(always)]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Fault> {
        if let [byte, rest @ ..] = self.rest {
            if *byte < 0x80 {
                self.rest = rest;
                return Ok(u64::from(*byte));
            }
        }
        if let Some(chunk) = self.rest.first_chunk() {
            let word = u64::from_le_bytes(*chunk);
            // The first byte without its highest bit is the last one.
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                self.rest = &self.rest[ends.trailing_zeros() as usize / 8 + 1..];
                return Ok(join_sevens(word & (ends ^ (ends - 1))));
            }
        }
        self.varint_by_byte()
    }

    #[cold]
    fn varint_by_byte(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                // Of the tenth byte one bit fits.
                if index == 9 && byte > 1 {
                    return Err(Fault::Varint);
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 {
            Fault::Truncated
        } else {
            Fault::Varint
        })
    }
}

/// Joins the lower seven bits of each byte, the first byte's lowest: neighbours by ones, twos and fours.
fn join_sevens(word: u64) -> u64 {
    let pairs = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    fours & 0x0fff_ffff | (fours & 0x0fff_ffff_0000_0000) >> 4
}
