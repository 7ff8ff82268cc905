//! Text to fingerprint, in four steps:
//!
//! 1. lower case, character by character;
//! 2. leading `rt @name:` marks, links (`http://…`, `https://…`, `www.…` to the next white space) and `@names` dropped;
//! 3. runs of white space folded to one space, none at the ends;
//! 4. every run of four characters (the whole text, if it is shorter) hashed to 64 bits by FNV-1a over its UTF-8
//!    bytes and MurmurHash3's finalizer; bit `i` of the fingerprint is set when more than half of the hashes have it.

const GRAM: usize = 4;

/// The fingerprint of a text; 0 when nothing is left to hash.
pub fn fingerprint(text: &str) -> u64 {
    let folded = fold(text);
    if folded.is_empty() {
        return 0;
    }
    let mut votes = Votes::default();
    let starts: Vec<usize> = folded.char_indices().map(|(at, _)| at).collect();
    if starts.len() <= GRAM {
        votes.add(hash(folded.as_bytes()));
    } else {
        for first in 0..=starts.len() - GRAM {
            let end = starts.get(first + GRAM).copied().unwrap_or(folded.len());
            votes.add(hash(&folded.as_bytes()[starts[first]..end]));
        }
    }
    votes.majority()
}

/// Steps 1 to 3 of the module's description.
pub fn fold(text: &str) -> String {
    let lower: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
    let mut out = String::with_capacity(text.len());
    let mut at = skip_repost_marks(&lower);
    let mut gap = false;
    while at < lower.len() {
        let character = lower[at];
        let inside_word = at > 0 && is_word(lower[at - 1]);
        if character.is_whitespace() {
            gap = true;
            at += 1;
        } else if starts_link(&lower[at..], inside_word) {
            at += run(&lower[at..], |c| !c.is_whitespace());
        } else if character == '@' && !inside_word && lower.get(at + 1).copied().is_some_and(is_name) {
            at += 1 + run(&lower[at + 1..], is_name);
        } else {
            if gap && !out.is_empty() {
                out.push(' ');
            }
            gap = false;
            out.push(character);
            at += 1;
        }
    }
    out
}

/// Length of the leading white space and `rt @name` or `rt @name:` marks.
fn skip_repost_marks(lower: &[char]) -> usize {
    let mut at = run(lower, char::is_whitespace);
    loop {
        let rest = &lower[at..];
        if !rest.starts_with(&['r', 't']) {
            return at;
        }
        let spaces = run(&rest[2..], char::is_whitespace);
        let handle = 2 + spaces;
        let name = match rest.get(handle) {
            Some('@') => run(&rest[handle + 1..], is_name),
            _ => 0,
        };
        if spaces == 0 || name == 0 {
            return at;
        }
        let end = handle + 1 + name;
        at += end + usize::from(rest.get(end) == Some(&':'));
        at += run(&lower[at..], char::is_whitespace);
    }
}

fn starts_link(rest: &[char], inside_word: bool) -> bool {
    let starts = |prefix: &str| prefix.chars().enumerate().all(|(i, c)| rest.get(i) == Some(&c));
    starts("http://") || starts("https://") || (!inside_word && starts("www."))
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn run(characters: &[char], wanted: impl Fn(char) -> bool) -> usize {
    characters.iter().take_while(|&&c| wanted(c)).count()
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// 64 counters, one a bit, kept as bit planes: plane `p` holds bit `p` of every counter, so that one hash is added
/// to all of them by a ripple of carries (about two steps on average).
#[derive(Default)]
struct Votes {
    planes: [u64; 32],
    total: u64,
}

impl Votes {
    fn add(&mut self, hash: u64) {
        let mut carry = hash;
        for plane in &mut self.planes {
            let next = *plane & carry;
            *plane ^= carry;
            carry = next;
            if carry == 0 {
                break;
            }
        }
        self.total += 1;
    }

    fn majority(&self) -> u64 {
        (0..64)
            .filter(|bit| {
                let count: u64 = (0..32).map(|plane| (self.planes[plane] >> bit & 1) << plane).sum();
                2 * count > self.total
            })
            .fold(0, |found, bit| found | 1 << bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_case_links_mentions_and_white_space() {
        assert_eq!(
            fold("  RT @whale_alert: RT @x BTC\n\n to the  MOON https://t.co/x @you!"),
            "btc to the moon !"
        );
        assert_eq!(fold("mail me@example.com"), "mail me@example.com");
        assert_eq!(fold("rt if you agree"), "rt if you agree");
        assert_eq!(fold("see www.example.com"), "see");
        assert_eq!(fold("#btchttps://t.co/a"), "#btc");
    }

    #[test]
    fn nothing_left_is_zero() {
        assert_eq!(fingerprint(""), 0);
        assert_eq!(fingerprint(" @someone \u{3000} https://t.co/abc"), 0);
        assert_ne!(fingerprint("a"), 0);
    }

    #[test]
    fn one_gram_is_its_hash() {
        assert_eq!(fingerprint("moon"), hash(b"moon"));
        assert_eq!(fingerprint("Ab"), hash(b"ab"));
    }

    #[test]
    fn similar_texts_are_near_and_others_far() {
        let text = "Bitcoin just broke out of the falling wedge, next stop is ten thousand dollars, do not miss it";
        let copy = format!("RT @pump: {text}! https://t.co/xyz");
        let other = "The weather in Lisbon has been lovely all week and the trams are full of tourists again";
        assert!((fingerprint(text) ^ fingerprint(&copy)).count_ones() <= 6);
        assert!((fingerprint(text) ^ fingerprint(other)).count_ones() > 12);
    }
}
