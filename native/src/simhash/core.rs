//! Text to fingerprint, in five steps:
//!
//! 1. Unicode's compatibility form NFKC, then lower case, character by character;
//! 2. leading `rt @name:` marks, links (`http://…`, `https://…`, `www.…` to the next white space) and `@names` dropped;
//! 3. runs of letters and digits kept, joined by single spaces;
//! 4. every run of four characters (the whole text, if it is shorter) hashed to 64 bits, see [`hash`];
//! 5. bit `i` of the fingerprint is set when more than half of the hashes have it.

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

const GRAM: usize = 4;

/// The fingerprint of a text; 0 when no letter or digit is left to hash.
pub fn fingerprint(text: &str) -> u64 {
    let mut votes = Votes::default();
    let mut key = 0;
    let mut length = 0;
    words(&lower(text), |character| {
        key = key << 16 ^ u64::from(character);
        length += 1;
        if length >= GRAM {
            votes.add(hash(key));
        }
    });
    if length == 0 {
        return 0;
    }
    if length < GRAM {
        votes.add(hash(key));
    }
    votes.majority()
}

/// Step 1 of the module's description.
fn lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    if is_nfkc_quick(text.chars()) == IsNormalized::Yes {
        return text.chars().flat_map(char::to_lowercase).collect();
    }
    text.nfkc().flat_map(char::to_lowercase).collect()
}

/// Gives the characters that are left by steps 2 and 3, one after the other.
fn words(lower: &str, mut give: impl FnMut(char)) {
    let mut rest = without_repost_marks(lower);
    let mut before = ' ';
    let (mut gap, mut started) = (false, false);
    while let Some(character) = rest.chars().next() {
        let mut end = character.len_utf8();
        if starts_link(rest, character, before) {
            end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            gap = true;
        } else if character == '@' && !is_word(before) {
            end += run(&rest[1..], is_name);
            gap = true;
        } else if character.is_alphanumeric() {
            if gap && started {
                give(' ');
            }
            give(character);
            (gap, started) = (false, true);
        } else {
            gap = true;
        }
        before = rest[..end].chars().next_back().unwrap_or(character);
        rest = &rest[end..];
    }
}

/// The text after white space and `rt @name` or `rt @name:` marks.
fn without_repost_marks(lower: &str) -> &str {
    let mut rest = lower.trim_start();
    while let Some(after) = after_repost_mark(rest) {
        rest = after.trim_start();
    }
    rest
}

fn after_repost_mark(text: &str) -> Option<&str> {
    let handle = text.strip_prefix("rt")?;
    let after = handle.trim_start().strip_prefix('@')?;
    let name = run(after, is_name);
    if !handle.starts_with(char::is_whitespace) || name == 0 {
        return None;
    }
    let after = &after[name..];
    Some(after.strip_prefix(':').unwrap_or(after))
}

fn starts_link(rest: &str, first: char, before: char) -> bool {
    match first {
        'h' => rest.starts_with("http://") || rest.starts_with("https://"),
        'w' => rest.starts_with("www.") && !is_word(before),
        _ => false,
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Length in bytes of the characters in front that are wanted.
fn run(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    text.find(|character| !wanted(character)).unwrap_or(text.len())
}

/// The hash of up to four characters: their code points, each 16 bits above the next one and combined by exclusive or,
/// through MurmurHash3's finalizer.
fn hash(key: u64) -> u64 {
    let hash = (key ^ (key >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// How many hashes have each bit. Byte `b` of lane `l` counts bit `8 b + l`, for as long as a byte can count.
#[derive(Default)]
struct Votes {
    lanes: [u64; 8],
    in_lanes: u8,
    counts: [[u32; 8]; 8],
    total: u32,
}

impl Votes {
    fn add(&mut self, hash: u64) {
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            *lane += hash >> at & 0x0101_0101_0101_0101;
        }
        self.in_lanes += 1;
        if self.in_lanes == u8::MAX {
            self.empty_lanes();
        }
    }

    fn empty_lanes(&mut self) {
        for (counts, lane) in self.counts.iter_mut().zip(&mut self.lanes) {
            for (count, votes) in counts.iter_mut().zip(lane.to_le_bytes()) {
                *count += u32::from(votes);
            }
            *lane = 0;
        }
        self.total += u32::from(self.in_lanes);
        self.in_lanes = 0;
    }

    fn majority(mut self) -> u64 {
        self.empty_lanes();
        let mut found = 0;
        for (lane, counts) in self.counts.iter().enumerate() {
            for (byte, count) in counts.iter().enumerate() {
                found |= u64::from(2 * count > self.total) << (8 * byte + lane);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(text: &str) -> String {
        let mut out = String::new();
        words(&lower(text), |character| out.push(character));
        out
    }

    #[test]
    fn only_words_are_left() {
        assert_eq!(
            fold("  RT @whale_alert: RT @x $BTC\n\n to the  MOON🚀🚀 https://t.co/x @you!"),
            "btc to the moon"
        );
        assert_eq!(
            fold("mail me@example.com, don’t_call"),
            "mail me example com don t call"
        );
        assert_eq!(fold("rt if you agree"), "rt if you agree");
        assert_eq!(fold("see www.example.com"), "see");
        assert_eq!(fold("#btchttps://t.co/a"), "btc");
        assert_eq!(fold("Ｂｉｔｃｏｉｎ ① 𝗺𝗼𝗼𝗻… купи Это"), "bitcoin 1 moon купи это");
    }

    #[test]
    fn nothing_left_is_zero() {
        assert_eq!(fingerprint(""), 0);
        assert_eq!(fingerprint(" @someone \u{3000} https://t.co/abc 🚀!"), 0);
        assert_ne!(fingerprint("a"), 0);
    }

    #[test]
    fn one_gram_is_its_hash() {
        assert_eq!(fingerprint("moon"), hash(0x006d_006f_006f_006e));
        assert_eq!(fingerprint("Ab"), hash(0x0061_0062));
    }

    #[test]
    fn long_texts_are_counted_to_the_end() {
        let text = format!("{}{}", "a".repeat(600), "b".repeat(900));
        assert_eq!(fingerprint(&text), fingerprint("bbbb"));
    }

    #[test]
    fn similar_texts_are_near_and_others_far() {
        let text = "Bitcoin just broke out of the falling wedge, next stop is ten thousand dollars, do not miss it";
        let copy = format!("RT @pump: {text} now! https://t.co/xyz");
        let other = "The weather in Lisbon has been lovely all week and the trams are full of tourists again";
        assert!((fingerprint(text) ^ fingerprint(&copy)).count_ones() <= 8);
        assert!((fingerprint(text) ^ fingerprint(other)).count_ones() > 12);
    }
}
