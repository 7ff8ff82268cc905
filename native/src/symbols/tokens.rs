//! Cuts a text into words, `$` and `#` tags and dollar amounts; links, domain names, e-mail addresses and @mentions
//! leave nothing.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Word,
    /// `$` and a word.
    Cash,
    /// `#` and a word.
    Hash,
    /// `$` and a fraction without a leading zero.
    Amount,
    /// A word that cannot name anything: what follows the apostrophe of "don't" or the `$` of "US$".
    Other,
}

/// One token. `start` and `end` are positions in characters, the mark included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    /// As written, without the mark.
    pub text: String,
    /// Lower case.
    pub lower: String,
    pub start: usize,
    pub end: usize,
}

/// Endings that make words joined by dots a domain name; as words of a sentence they do not occur.
const DOMAINS: [&str; 17] = [
    "ai", "app", "biz", "co", "com", "de", "dev", "edu", "eth", "gg", "gov", "info", "io", "net", "org", "tv", "xyz",
];
/// Endings that are words as well: domain names only when a path follows.
const DOMAINS_WITH_PATH: [&str; 6] = ["be", "is", "it", "ly", "me", "to"];

/// Letters, digits, `_` and accents. Ideographs, kana and hangul separate: their scripts put no space around a ticker.
pub fn is_word(character: char) -> bool {
    let separates = matches!(character,
        '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}');
    let accent = matches!(character, '\u{300}'..='\u{36f}');
    (character.is_alphanumeric() && !separates) || character == '_' || accent
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Lower case, character by character.
pub fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

struct Scanner<'a> {
    text: &'a [char],
    tokens: Vec<Token>,
}

/// The tokens of a text, in order.
pub fn tokenize(text: &[char]) -> Vec<Token> {
    let mut scanner = Scanner {
        text,
        tokens: Vec::with_capacity(text.len() / 5),
    };
    let mut at = 0;
    while at < text.len() {
        at = scanner.step(at);
    }
    scanner.tokens
}

impl Scanner<'_> {
    fn at(&self, at: usize) -> char {
        self.text.get(at).copied().unwrap_or('\0')
    }

    fn before(&self, at: usize) -> char {
        if at == 0 { '\0' } else { self.at(at - 1) }
    }

    fn run(&self, at: usize, wanted: impl Fn(char) -> bool) -> usize {
        at + self.text[at.min(self.text.len())..]
            .iter()
            .take_while(|&&c| wanted(c))
            .count()
    }

    fn starts(&self, at: usize, prefix: &str) -> bool {
        prefix
            .chars()
            .enumerate()
            .all(|(i, c)| self.at(at + i).eq_ignore_ascii_case(&c))
    }

    fn starts_web(&self, at: usize) -> bool {
        matches!(self.at(at), 'h' | 'H') && (self.starts(at, "http://") || self.starts(at, "https://"))
    }

    /// End of the word at `at`: a link glued to it is cut off.
    fn word_end(&self, at: usize) -> usize {
        let mut end = at;
        while is_word(self.at(end)) && (end == at || !self.starts_web(end)) {
            end += 1;
        }
        end
    }

    fn push(&mut self, kind: Kind, start: usize, word: usize, end: usize) {
        let text: String = self.text[word..end].iter().collect();
        self.tokens.push(Token {
            kind,
            lower: lower(&text),
            text,
            start,
            end,
        });
    }

    /// Takes what is at `at`; the answer is where to go on.
    fn step(&mut self, at: usize) -> usize {
        match self.at(at) {
            '$' | '＄' | '#' | '＃' => self.tag(at),
            '@' => {
                let glued_price = is_word(self.before(at)) && self.at(at + 1).is_ascii_digit();
                if glued_price { at + 1 } else { self.run(at + 1, is_name) }
            }
            character if is_word(character) => self.word(at),
            _ => at + 1,
        }
    }

    fn tag(&mut self, at: usize) -> usize {
        let cash = matches!(self.at(at), '$' | '＄');
        if !is_word(self.at(at + 1)) {
            if cash && self.at(at + 1) == '.' && self.at(at + 2).is_ascii_digit() {
                let end = self.run(at + 2, is_word);
                self.push(Kind::Amount, at, at + 1, end);
                return end;
            }
            return at + 1;
        }
        let end = self.word_end(at + 1);
        let chained = self
            .tokens
            .last()
            .is_some_and(|last| last.end == at && matches!(last.kind, Kind::Cash | Kind::Hash));
        let kind = match (is_word(self.before(at)) && !chained, cash) {
            (true, _) => Kind::Other,
            (false, true) => Kind::Cash,
            (false, false) => Kind::Hash,
        };
        self.push(kind, at, at + 1, end);
        if cash && self.at(at + 1).is_ascii_digit() {
            return self.number_end(end);
        }
        end
    }

    /// End of the `.42` or `,000.50` that follows the first digits of an amount.
    fn number_end(&self, mut end: usize) -> usize {
        while matches!(self.at(end), '.' | ',') && self.at(end + 1).is_ascii_digit() {
            end = self.run(end + 1, is_word);
        }
        end
    }

    fn word(&mut self, at: usize) -> usize {
        if self.starts_web(at) || self.starts(at, "www.") {
            return self.run(at, |c| !c.is_whitespace());
        }
        let end = self.word_end(at);
        if self.at(end) == ':' && self.starts(end, "://") {
            return self.run(end, |c| !c.is_whitespace());
        }
        if let Some(end) = self.address_end(at) {
            return end;
        }
        let apostrophe = matches!(self.before(at), '\'' | '’') && at > 1 && is_word(self.at(at - 2));
        let kind = if apostrophe { Kind::Other } else { Kind::Word };
        self.push(kind, at, at, end);
        end
    }

    /// End of the domain name (with its path) or e-mail address that starts here, if one does.
    fn address_end(&self, at: usize) -> Option<usize> {
        let mut end = at;
        let mut dot = None;
        loop {
            let word_end = self.word_end(end);
            let mark = self.at(word_end);
            if word_end > end && matches!(mark, '.' | '-') && is_word(self.at(word_end + 1)) {
                dot = if mark == '.' { Some(word_end) } else { dot };
                end = word_end + 1;
            } else {
                end = word_end;
                break;
            }
        }
        if self.at(end) == '@' && self.at(end + 1).is_alphabetic() {
            return Some(self.run(end + 1, |c| is_word(c) || matches!(c, '.' | '-')));
        }
        let ending: String = self.text[dot? + 1..end].iter().collect();
        let path = matches!(self.at(end), '/' | '?' | ':') && is_word(self.at(end + 1));
        if DOMAINS.contains(&&*ending) || (path && DOMAINS_WITH_PATH.contains(&&*ending)) {
            return Some(if path {
                self.run(end, |c| !c.is_whitespace())
            } else {
                end
            });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let characters: Vec<char> = text.chars().collect();
        let mark = |kind| match kind {
            Kind::Word => "",
            Kind::Cash => "$",
            Kind::Hash => "#",
            Kind::Amount => "$",
            Kind::Other => "~",
        };
        let shown = |token: Token| format!("{}{}", mark(token.kind), token.text);
        tokenize(&characters).into_iter().map(shown).collect()
    }

    #[test]
    fn links_and_names_leave_nothing() {
        assert!(words("https://btc.com/eth HTTP://x www.btc.org @btc t.me/btc bitcoin.com btc@gmail.com").is_empty());
        assert_eq!(words("#btchttps://t.co/x"), ["#btc"]);
        assert_eq!(words("vitalik.eth my-btc.io/x?y end.Now"), ["end", "Now"]);
        assert_eq!(words("BTC@9000 @100trillionUSD"), ["BTC", "9000"]);
    }

    #[test]
    fn tags_and_amounts() {
        assert_eq!(
            words("$BTC$ETH #a#b US$5 C#x"),
            ["$BTC", "$ETH", "#a", "#b", "US", "~5", "C", "~x"]
        );
        assert_eq!(words("$1,234.50 $.42 $0.42k $ 5"), ["$1", "$.42", "$0", "5"]);
        assert_eq!(words("$BTC's don't 'BTC'"), ["$BTC", "~s", "don", "~t", "BTC"]);
    }

    #[test]
    fn scripts_without_spaces_separate() {
        assert_eq!(words("比特币BTC大涨 BTCは éBTC"), ["BTC", "BTC", "éBTC"]);
    }
}
