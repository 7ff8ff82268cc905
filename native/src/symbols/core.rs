//! Which tracked assets a text names.
//!
//! A word or phrase that is a tracked symbol or name counts where it stands (the longest phrase wins). One that is
//! also an English word is held back until the whole text is known and counts only with support:
//!
//! * a context word directly after it (white space, `-` or `.` between): "link token", "atom holders"; before it stand
//!   "airdrop link" and "crypto hype"; or
//! * it is written as a name (a ticker in capitals, a name with a capital first), nobody is shouting, and a context
//!   word, a dollar amount or another mention stands within [`REACH`] tokens: "LINK at $7.42", "ETH and Polygon".
//!
//! Shouting is a word in capitals beside it that means nothing to us ("LINK TO BUY"), or no lower case at all within
//! reach but such a word or an amount ("BITCOIN NEAR $8,000").

use std::collections::{HashMap, HashSet};

use super::tokens::{Kind, Token, is_word, lower, tokenize};

/// Tokens either side within which support is looked for. Ordinary uses of "near", "link" or "one" stand this close to
/// "crypto" or "token" all the time (of 390 such posts in recordings nearly all were), so only names get it.
pub const REACH: usize = 6;

/// What a pair can be quoted in without that being a mention of it.
const MONEY: [&str; 14] = [
    "usd", "usdt", "usdc", "busd", "fdusd", "tusd", "dai", "eur", "gbp", "jpy", "krw", "aud", "cad", "perp",
];
/// Assets that pairs are quoted in: both sides of ETH/BTC are mentions.
const QUOTE_ASSETS: [&str; 3] = ["btc", "eth", "bnb"];
/// What can be glued to a ticker (BTCUSDT), longest first. English words do not end so.
const SUFFIXES: [&str; 11] = [
    "fdusd", "busd", "perp", "tusd", "usdc", "usdt", "btc", "eur", "jpy", "krw", "usd",
];

/// A tracked asset.
pub struct Asset {
    pub symbol: String,
    pub names: Vec<Name>,
    pub is_english_word: bool,
}

/// A word or phrase that means an asset.
pub struct Name {
    pub text: String,
    pub is_english_word: bool,
}

struct Phrase {
    words: Vec<String>,
    asset: usize,
    is_english_word: bool,
    is_symbol: bool,
}

/// Finds tracked assets; made once, used for any number of texts.
pub struct Extractor {
    symbols: Vec<String>,
    /// Lower-case symbol to asset.
    tickers: HashMap<String, usize>,
    /// Symbols and names in lower case and without separators, as a tag has them.
    tags: HashMap<String, usize>,
    /// First word to its phrases, longest first.
    phrases: HashMap<String, Vec<Phrase>>,
    context_words: HashSet<String>,
}

/// A word held back until the text's support is known.
struct Candidate {
    first: usize,
    end: usize,
    asset: usize,
    written_as_name: bool,
}

#[derive(Default)]
struct Findings {
    /// (token, asset) that count.
    mentions: Vec<(usize, usize)>,
    candidates: Vec<Candidate>,
    /// Token that quotes a pair and mentions nothing itself.
    quote: Option<usize>,
    amounts: Vec<usize>,
}

impl Extractor {
    /// Errors say which asset or context word is wrong.
    pub fn new(assets: &[Asset], context_words: &[String]) -> Result<Self, String> {
        let mut extractor = Self {
            symbols: Vec::new(),
            tickers: HashMap::new(),
            tags: HashMap::new(),
            phrases: HashMap::new(),
            context_words: HashSet::new(),
        };
        for (index, asset) in assets.iter().enumerate() {
            let ticker = lower(&asset.symbol);
            let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
            if ticker.is_empty() || !asset.symbol.chars().all(plain) {
                return Err(format!(
                    "assets[{index}] has the symbol {:?}, not A-Z and 0-9",
                    asset.symbol
                ));
            }
            if extractor.tickers.insert(ticker.clone(), index).is_some() {
                return Err(format!("assets[{index}] has the symbol {:?} again", asset.symbol));
            }
            extractor.symbols.push(asset.symbol.clone());
            extractor.tags.insert(ticker.clone(), index);
            extractor.add_phrase(vec![ticker], index, asset.is_english_word, true);
        }
        for (index, asset) in assets.iter().enumerate() {
            for name in &asset.names {
                let words: Vec<String> = lower(&name.text).split(is_joint).map(str::to_owned).collect();
                if words.iter().any(|word| word.is_empty() || !word.chars().all(is_word)) {
                    return Err(format!("assets[{index}] has the name {:?}, not words", name.text));
                }
                extractor.tags.entry(words.concat()).or_insert(index);
                extractor.add_phrase(words, index, name.is_english_word, false);
            }
        }
        for list in extractor.phrases.values_mut() {
            list.sort_by_key(|phrase| std::cmp::Reverse(phrase.words.len()));
        }
        for (index, word) in context_words.iter().enumerate() {
            let word = lower(word);
            if word.is_empty() || !word.chars().all(is_word) {
                return Err(format!("context_words[{index}] ({word:?}) is not a word"));
            }
            extractor.context_words.insert(word);
        }
        Ok(extractor)
    }

    /// The first asset that claims a phrase has it.
    fn add_phrase(&mut self, words: Vec<String>, asset: usize, is_english_word: bool, is_symbol: bool) {
        let list = self.phrases.entry(words[0].clone()).or_default();
        if list.iter().all(|phrase| phrase.words != words) {
            list.push(Phrase {
                words,
                asset,
                is_english_word,
                is_symbol,
            });
        }
    }

    /// The symbols that a text names, each once, in order of first appearance.
    pub fn extract(&self, text: &str) -> Vec<&str> {
        let characters: Vec<char> = text.chars().collect();
        let tokens = tokenize(&characters);
        let mut findings = Findings::default();
        let mut at = 0;
        while at < tokens.len() {
            at = self.read(&tokens, at, &characters, &mut findings);
        }
        let supported: Vec<(usize, usize)> = findings
            .candidates
            .iter()
            .filter(|candidate| self.is_supported(candidate, &tokens, &characters, &findings))
            .map(|candidate| (candidate.first, candidate.asset))
            .collect();
        findings.mentions.extend(supported);
        findings.mentions.sort_by_key(|(token, _)| *token);
        let mut found: Vec<usize> = Vec::new();
        for (_, asset) in findings.mentions {
            if !found.contains(&asset) {
                found.push(asset);
            }
        }
        found.into_iter().map(|asset| &*self.symbols[asset]).collect()
    }

    /// Reads what stands at token `at`; the answer is the next token to read.
    fn read(&self, tokens: &[Token], at: usize, text: &[char], findings: &mut Findings) -> usize {
        let token = &tokens[at];
        let quoted = self.quoted_in(tokens, at, text);
        match token.kind {
            Kind::Amount => findings.amounts.push(at),
            Kind::Cash | Kind::Hash => {
                let starts_with_digit = token.lower.starts_with(|c: char| c.is_ascii_digit());
                let is_number = token.lower.chars().all(|c| c.is_ascii_digit());
                let known = self.tags.get(&token.lower.replace('_', ""));
                if let Some(&asset) = known.filter(|_| token.kind == Kind::Hash || !is_number) {
                    findings.mentions.push((at, asset));
                    findings.quote = quoted.filter(|&quote| MONEY.contains(&&*tokens[quote].lower));
                } else if !self.read_glued_pair(token, at, findings) && token.kind == Kind::Cash && starts_with_digit {
                    findings.amounts.push(at);
                }
            }
            Kind::Word if findings.quote != Some(at) => {
                let Some(phrase) = self.phrase_at(tokens, at, text) else {
                    self.read_glued_pair(token, at, findings);
                    return at + 1;
                };
                let end = at + phrase.words.len();
                let in_pair = phrase.words.len() == 1 && quoted.is_some();
                if in_pair || !phrase.is_english_word {
                    findings.mentions.push((at, phrase.asset));
                } else {
                    findings.candidates.push(Candidate {
                        first: at,
                        end,
                        asset: phrase.asset,
                        written_as_name: written_as_name(phrase, token),
                    });
                }
                if phrase.words.len() == 1 {
                    findings.quote = quoted.filter(|&quote| MONEY.contains(&&*tokens[quote].lower));
                }
                return end;
            }
            Kind::Word | Kind::Other => {}
        }
        at + 1
    }

    /// The token after `at`, when it quotes a pair: joined by `/` or `-`.
    fn quoted_in(&self, tokens: &[Token], at: usize, text: &[char]) -> Option<usize> {
        let (token, next) = (&tokens[at], tokens.get(at + 1)?);
        let joined = next.kind == Kind::Word && next.start == token.end + 1;
        let quote = next.lower.as_str();
        (joined && matches!(text[token.end], '/' | '-') && is_quote(quote)).then_some(at + 1)
    }

    fn phrase_at(&self, tokens: &[Token], at: usize, text: &[char]) -> Option<&Phrase> {
        self.phrases.get(&tokens[at].lower)?.iter().find(|phrase| {
            phrase.words.iter().enumerate().skip(1).all(|(offset, word)| {
                let Some(token) = tokens.get(at + offset) else {
                    return false;
                };
                let gap = &text[tokens[at + offset - 1].end..token.start];
                token.kind == Kind::Word && token.lower == *word && joins(gap)
            })
        })
    }

    /// Reads BTCUSDT or BTC_USDT.
    fn read_glued_pair(&self, token: &Token, at: usize, findings: &mut Findings) -> bool {
        if is_quote(&token.lower) {
            return false;
        }
        let parted = token.lower.split_once('_').filter(|(_, quote)| is_quote(quote));
        let glued = || {
            SUFFIXES.iter().find_map(|suffix| {
                let base = token.lower.strip_suffix(suffix)?;
                self.tickers.contains_key(base).then_some((base, *suffix))
            })
        };
        let Some((base, quote)) = parted.or_else(glued) else {
            return false;
        };
        let Some(&asset) = self.tickers.get(base) else {
            return false;
        };
        findings.mentions.push((at, asset));
        if QUOTE_ASSETS.contains(&quote) {
            findings
                .mentions
                .extend(self.tickers.get(quote).map(|&asset| (at, asset)));
        }
        true
    }

    fn is_supported(&self, candidate: &Candidate, tokens: &[Token], text: &[char], findings: &Findings) -> bool {
        let before = candidate.first.checked_sub(1);
        let after = (candidate.end < tokens.len()).then_some(candidate.end);
        let beside = |at: usize| {
            let (left, right) = if at < candidate.first {
                (at, candidate.first)
            } else {
                (at - 1, at)
            };
            joins(&text[tokens[left].end..tokens[right].start])
        };
        let neighbours = || before.into_iter().chain(after).filter(|&at| beside(at));
        if after.is_some_and(|at| beside(at) && self.is_context(&tokens[at])) {
            return true;
        }
        let first = candidate.first.saturating_sub(REACH);
        let end = (candidate.end + REACH).min(tokens.len());
        let around = || (first..candidate.first).chain(candidate.end..end);
        let is_named =
            |at: usize| findings.mentions.iter().any(|&(mention, _)| mention == at) || findings.amounts.contains(&at);
        let is_plain_capitals = |at: usize| {
            tokens[at].kind == Kind::Word && is_capitals(&tokens[at].text) && !self.means_something(&tokens[at])
        };
        let lower_case =
            around().any(|at| tokens[at].kind == Kind::Word && tokens[at].text.contains(char::is_lowercase));
        let shouted = neighbours().any(is_plain_capitals)
            || !lower_case && around().any(|at| is_plain_capitals(at) || findings.amounts.contains(&at));
        candidate.written_as_name && !shouted && around().any(|at| is_named(at) || self.is_context(&tokens[at]))
    }

    fn is_context(&self, token: &Token) -> bool {
        matches!(token.kind, Kind::Word | Kind::Hash) && self.context_words.contains(&token.lower)
    }

    /// Whether a word is part of the subject, so that its capitals are no shouting.
    fn means_something(&self, token: &Token) -> bool {
        self.phrases.contains_key(&token.lower) || self.context_words.contains(&token.lower) || is_quote(&token.lower)
    }
}

fn is_capitals(text: &str) -> bool {
    text.chars().filter(|c| c.is_uppercase()).count() > 1 && !text.contains(char::is_lowercase)
}

/// A ticker is written in capitals, a name with a capital first.
fn written_as_name(phrase: &Phrase, first: &Token) -> bool {
    if phrase.is_symbol {
        !first.text.contains(char::is_lowercase)
    } else {
        first.text.starts_with(char::is_uppercase)
    }
}

fn is_quote(word: &str) -> bool {
    MONEY.contains(&word) || QUOTE_ASSETS.contains(&word)
}

/// What parts the words of a name in a list of assets.
fn is_joint(character: char) -> bool {
    matches!(character, ' ' | '-' | '.')
}

/// Whether what stands between two words lets them be one name: white space, or a single `-` or `.`.
fn joins(gap: &[char]) -> bool {
    matches!(gap, ['-' | '.']) || (!gap.is_empty() && gap.iter().all(|c| c.is_whitespace()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extractor() -> Extractor {
        let asset = |symbol: &str, names: &[(&str, bool)], is_english_word| Asset {
            symbol: symbol.to_owned(),
            names: names
                .iter()
                .map(|&(text, is_english_word)| Name {
                    text: text.to_owned(),
                    is_english_word,
                })
                .collect(),
            is_english_word,
        };
        let assets = [
            asset("BTC", &[("bitcoin", false)], false),
            asset("BCH", &[("bitcoin cash", false)], false),
            asset("ETH", &[("ethereum", false)], false),
            asset("LINK", &[("chainlink", false)], true),
            asset("NEAR", &[("near protocol", false)], true),
            asset("XRP", &[("ripple", true)], false),
            asset("USDT", &[], false),
            asset("1INCH", &[], false),
        ];
        let context = ["token".to_owned(), "airdrop".to_owned()];
        Extractor::new(&assets, &context).unwrap()
    }

    #[test]
    fn tags_words_names_and_pairs() {
        let extractor = extractor();
        for (text, symbols) in [
            ("$BTC's up, #Bitcoin's up", "BTC"),
            ("(eth) and BTC🚀", "ETH BTC"),
            ("LINK/USDT NEAR-USD", "LINK NEAR"),
            ("linkusdt BTC_USDT", "LINK BTC"),
            ("ETH/BTC ETHBTC", "ETH BTC"),
            ("#BitcoinCash bitcoin  cash", "BCH"),
            ("bitcoin, cash", "BTC"),
            ("$100 $1INCH", "1INCH"),
            ("$LINK$NEAR #near", "LINK NEAR"),
            ("a bitcoiner, wbtc, éth", ""),
            ("@btc https://x.com/btc eth@btc.com btc.com", ""),
        ] {
            assert_eq!(extractor.extract(text).join(" "), symbols, "{text}");
        }
    }

    #[test]
    fn english_words_need_support() {
        let extractor = extractor();
        for (text, symbols) in [
            ("near protocol", "NEAR"),
            ("the link token", "LINK"),
            ("airdrop link, token", ""),
            ("LINK at $7.42", "LINK"),
            ("LINK at 7.42", ""),
            ("link at $7.42", ""),
            ("Bitcoin is near $8,000", "BTC"),
            ("BITCOIN NEAR $8,000", "BTC"),
            ("ETH and LINK are up", "ETH LINK"),
            ("LINK TO BUY ETH here", "ETH"),
            ("Ripple and ETH", "XRP ETH"),
            ("a ripple in ETH", "ETH"),
        ] {
            assert_eq!(extractor.extract(text).join(" "), symbols, "{text}");
        }
    }

    #[test]
    fn bad_assets_are_refused_by_index() {
        let asset = |symbol: &str| Asset {
            symbol: symbol.to_owned(),
            names: Vec::new(),
            is_english_word: false,
        };
        let refusal = |assets: &[Asset], words: &[String]| Extractor::new(assets, words).err().unwrap();
        assert!(refusal(&[asset("BTC"), asset("b/c")], &[]).starts_with("assets[1]"));
        assert!(refusal(&[asset("BTC"), asset("BTC")], &[]).starts_with("assets[1]"));
        assert!(refusal(&[], &["a b".to_owned()]).starts_with("context_words[0]"));
    }
}
