//! Which tracked assets a text names.
//!
//! A word or phrase that is a tracked symbol or name counts where it stands (the longest phrase wins). One that is
//! also an English word is held back until the whole text is known and counts only with support: a context word
//! within [`CONTEXT_REACH`] tokens, or, when it is written as a name (a ticker in capitals, a name with a capital,
//! among words that are not all in capitals), a dollar amount or another mention within [`MENTION_REACH`] tokens.

use std::collections::{HashMap, HashSet};

use super::tokens::{Kind, Token, is_word, lower, tokenize};

/// Tokens either side within which a context word supports an English word.
pub const CONTEXT_REACH: usize = 6;
/// Tokens either side within which a dollar amount or another mention supports an English word written as a name.
pub const MENTION_REACH: usize = 6;

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
                return Err(format!("assets[{index}] has the symbol {:?}, not A-Z and 0-9", asset.symbol));
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
            .filter(|candidate| self.is_supported(candidate, &tokens, &findings))
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
                let is_number = token.lower.chars().all(|c| c.is_ascii_digit());
                let known = self.tags.get(&token.lower.replace('_', ""));
                match known.filter(|_| token.kind == Kind::Hash || !is_number) {
                    Some(&asset) => {
                        findings.mentions.push((at, asset));
                        findings.quote = quoted;
                    }
                    None if !self.read_glued_pair(token, at, findings) => {
                        if token.kind == Kind::Cash && token.lower.starts_with(|c: char| c.is_ascii_digit()) {
                            findings.amounts.push(at);
                        }
                    }
                    None => {}
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
                    findings.quote = quoted;
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
            findings.mentions.extend(self.tickers.get(quote).map(|&asset| (at, asset)));
        }
        true
    }

    fn is_supported(&self, candidate: &Candidate, tokens: &[Token], findings: &Findings) -> bool {
        let within = |at: usize, reach: usize| {
            at + reach >= candidate.first && at < candidate.end + reach && !(candidate.first..candidate.end).contains(&at)
        };
        let around = |reach: usize| {
            let first = candidate.first.saturating_sub(reach);
            let end = (candidate.end + reach).min(tokens.len());
            (first..end).filter(move |at| within(*at, reach)).map(|at| &tokens[at])
        };
        let is_context = |token: &Token| {
            matches!(token.kind, Kind::Word | Kind::Hash) && self.context_words.contains(&token.lower)
        };
        if around(CONTEXT_REACH).any(is_context) {
            return true;
        }
        let shouted = !around(MENTION_REACH)
            .any(|token| token.kind == Kind::Word && token.text.contains(char::is_lowercase));
        candidate.written_as_name
            && !shouted
            && (findings.amounts.iter().any(|&at| within(at, MENTION_REACH))
                || findings.mentions.iter().any(|&(at, _)| within(at, MENTION_REACH)))
    }
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
