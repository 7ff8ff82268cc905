//! The fields of `ScoredPost` (proto/social_sentiment.proto) that windows need, and what makes a message usable.

use super::wire::{Fault, Fields, bytes, float, int64};

/// Largest usable time, the last millisecond of the year 9999: above it arithmetic on windows could overflow.
pub const LAST_MS: i64 = 253_402_300_799_999;

/// The nested `SocialPost`, keys as in the contract; other fields are skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct SocialPost<'a> {
    post_id: &'a [u8],
    platform: &'a [u8],
    symbol: &'a [u8],
    author_id: &'a [u8],
    timestamp_ms: i64,
}

impl<'a> SocialPost<'a> {
    const POST_ID: u32 = bytes(1);
    const PLATFORM: u32 = bytes(2);
    const SYMBOL: u32 = bytes(3);
    const AUTHOR_ID: u32 = bytes(5);
    const TIMESTAMP_MS: u32 = int64(6);

    /// A message that comes in parts is the parts' fields, the last of each.
    fn merge(&mut self, mut fields: Fields<'a>) -> Result<(), Fault> {
        while let Some(key) = fields.key()? {
            match key {
                Self::POST_ID => self.post_id = fields.text()?,
                Self::PLATFORM => self.platform = fields.text()?,
                Self::SYMBOL => self.symbol = fields.text()?,
                Self::AUTHOR_ID => self.author_id = fields.text()?,
                Self::TIMESTAMP_MS => self.timestamp_ms = fields.int64()?,
                other => fields.skip(other, 0b110_1110)?,
            }
        }
        Ok(())
    }
}

/// `ScoredPost`, keys as in the contract; other fields are skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct ScoredPost<'a> {
    post: Option<SocialPost<'a>>,
    polarity: f32,
    confidence: f32,
    credibility_score: f32,
    engagement_weight: f32,
}

impl<'a> ScoredPost<'a> {
    const POST: u32 = bytes(1);
    const POLARITY: u32 = float(2);
    const CONFIDENCE: u32 = float(3);
    const CREDIBILITY_SCORE: u32 = float(4);
    const ENGAGEMENT_WEIGHT: u32 = float(5);

    fn decode(message: &'a [u8]) -> Result<Self, Fault> {
        let mut scored = Self::default();
        let mut fields = Fields::new(message);
        while let Some(key) = fields.key()? {
            match key {
                Self::POST => scored.post.get_or_insert_default().merge(fields.message()?)?,
                Self::POLARITY => scored.polarity = fields.float()?,
                Self::CONFIDENCE => scored.confidence = fields.float()?,
                Self::CREDIBILITY_SCORE => scored.credibility_score = fields.float()?,
                Self::ENGAGEMENT_WEIGHT => scored.engagement_weight = fields.float()?,
                other => fields.skip(other, 0b11_1110)?,
            }
        }
        Ok(scored)
    }
}

/// A post that passed the checks of [`parse`], its texts (UTF-8) where they lie in the message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Post<'a> {
    pub post_id: &'a [u8],
    pub platform: &'a [u8],
    pub symbol: &'a [u8],
    pub author_id: &'a [u8],
    pub timestamp_ms: i64,
    pub polarity: f64,
    pub credibility: f64,
    pub engagement_weight: f64,
}

/// Reads one serialized `ScoredPost`; the error says what is wrong with it.
pub fn parse(message: &[u8]) -> Result<Post<'_>, String> {
    let scored = ScoredPost::decode(message).map_err(|fault| format!("not a ScoredPost: {fault}"))?;
    let post = scored.post.ok_or("the post is missing")?;
    for (name, text) in [
        ("post_id", post.post_id),
        ("platform", post.platform),
        ("symbol", post.symbol),
    ] {
        if text.is_empty() {
            return Err(format!("{name} is empty"));
        }
    }
    if !(1..=LAST_MS).contains(&post.timestamp_ms) {
        return Err(format!(
            "timestamp_ms is {}, not from 1 to {LAST_MS}",
            post.timestamp_ms
        ));
    }
    Ok(Post {
        polarity: within("polarity", scored.polarity, -1.0, 1.0)?,
        credibility: within("credibility_score", scored.credibility_score, 0.0, 1.0)?,
        engagement_weight: within("engagement_weight", scored.engagement_weight, 0.1, 10.0)?,
        post_id: post.post_id,
        platform: post.platform,
        symbol: post.symbol,
        author_id: post.author_id,
        timestamp_ms: post.timestamp_ms,
    })
}

/// Ranges are compared as `f32`, the contract's type, so that the `f32` nearest to a limit is within it.
fn within(name: &str, value: f32, low: f32, high: f32) -> Result<f64, String> {
    if (low..=high).contains(&value) {
        Ok(f64::from(value))
    } else {
        Err(format!("{name} is {value}, not from {low} to {high}"))
    }
}

/// The messages as prost reads and writes them: the tests' second opinion.
#[cfg(test)]
pub mod peer {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SocialPost {
        #[prost(string, tag = "1")]
        pub post_id: String,
        #[prost(string, tag = "2")]
        pub platform: String,
        #[prost(string, tag = "3")]
        pub symbol: String,
        #[prost(string, tag = "5")]
        pub author_id: String,
        #[prost(int64, tag = "6")]
        pub timestamp_ms: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ScoredPost {
        #[prost(message, optional, tag = "1")]
        pub post: Option<SocialPost>,
        #[prost(float, tag = "2")]
        pub polarity: f32,
        #[prost(float, tag = "3")]
        pub confidence: f32,
        #[prost(float, tag = "4")]
        pub credibility_score: f32,
        #[prost(float, tag = "5")]
        pub engagement_weight: f32,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn scored() -> peer::ScoredPost {
        peer::ScoredPost {
            post: Some(peer::SocialPost {
                post_id: "twitter:1".into(),
                platform: "twitter".into(),
                symbol: "BTC".into(),
                author_id: "a".into(),
                timestamp_ms: 1_000,
            }),
            polarity: -1.0,
            confidence: 0.5,
            credibility_score: 1.0,
            engagement_weight: 0.1,
        }
    }

    #[test]
    fn a_good_message_is_read() {
        let bytes = scored().encode_to_vec();
        let post = parse(&bytes).unwrap();
        assert_eq!((post.symbol, post.timestamp_ms), (b"BTC".as_slice(), 1_000));
        assert_eq!(post.engagement_weight, f64::from(0.1_f32));
    }

    #[test]
    fn a_bad_message_says_why() {
        let reason = |change: &dyn Fn(&mut peer::ScoredPost)| {
            let mut message = scored();
            change(&mut message);
            parse(&message.encode_to_vec()).unwrap_err()
        };
        let in_post = |change: &dyn Fn(&mut peer::SocialPost)| reason(&|m| change(m.post.as_mut().unwrap()));
        assert_eq!(reason(&|m| m.post = None), "the post is missing");
        assert_eq!(in_post(&|post| post.symbol.clear()), "symbol is empty");
        assert_eq!(in_post(&|post| post.platform.clear()), "platform is empty");
        assert_eq!(in_post(&|post| post.post_id.clear()), "post_id is empty");
        assert!(in_post(&|post| post.timestamp_ms = 0).starts_with("timestamp_ms"));
        assert_eq!(reason(&|m| m.polarity = f32::NAN), "polarity is NaN, not from -1 to 1");
        assert_eq!(
            reason(&|m| m.engagement_weight = f32::INFINITY),
            "engagement_weight is inf, not from 0.1 to 10"
        );
        assert_eq!(
            reason(&|m| m.credibility_score = -0.5),
            "credibility_score is -0.5, not from 0 to 1"
        );
        assert!(parse(b"\xff\xff").unwrap_err().starts_with("not a ScoredPost: "));
    }

    /// Both read the bytes alike, or neither does.
    fn same_as_prost(bytes: &[u8]) -> Result<(), TestCaseError> {
        let ours = ScoredPost::decode(bytes).ok().map(|scored| {
            let post = scored.post.map(|post| {
                let texts = [post.post_id, post.platform, post.symbol, post.author_id].map(<[u8]>::to_vec);
                (texts, post.timestamp_ms)
            });
            let floats = [
                scored.polarity,
                scored.confidence,
                scored.credibility_score,
                scored.engagement_weight,
            ];
            (post, floats.map(f32::to_bits))
        });
        let theirs = peer::ScoredPost::decode(bytes).ok().map(|scored| {
            let post = scored.post.map(|post| {
                let texts = [post.post_id, post.platform, post.symbol, post.author_id].map(String::into_bytes);
                (texts, post.timestamp_ms)
            });
            let floats = [
                scored.polarity,
                scored.confidence,
                scored.credibility_score,
                scored.engagement_weight,
            ];
            (post, floats.map(f32::to_bits))
        });
        prop_assert_eq!(ours, theirs);
        Ok(())
    }

    /// Fields as anybody may have written them: any number and kind, groups and nested messages, long varints.
    fn fields() -> impl Strategy<Value = Vec<u8>> {
        let number = prop_oneof![8 => 1_u32..8, 1 => Just(0_u32), 1 => any::<u32>().prop_map(|number| number >> 3)];
        let varint = prop_oneof![
            any::<u64>().prop_map(|value| varint_of(value, 0)),
            (0_u64..200, 0_usize..11).prop_map(|(value, more)| varint_of(value, more)),
        ];
        let text = prop_oneof![
            4 => "\\PC{0,12}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..6),
        ];
        let scalar = prop_oneof![
            4 => varint.prop_map(|value| (0_u64, value)),
            2 => any::<[u8; 8]>().prop_map(|value| (1, value.to_vec())),
            8 => text.prop_map(|text| (2, with_length(&text))),
            4 => any::<[u8; 4]>().prop_map(|value| (5, value.to_vec())),
            1 => (0_u64..8).prop_map(|kind| (kind, Vec::new())),
        ];
        let leaf = (number.clone(), scalar).prop_map(|(number, (kind, value))| field(number, kind, &value));
        leaf.prop_recursive(4, 40, 8, move |inner| {
            let inside = prop::collection::vec(inner, 0..8).prop_map(|fields| fields.concat());
            prop_oneof![
                2 => (number.clone(), inside.clone())
                    .prop_map(|(number, inside)| field(number, 2, &with_length(&inside))),
                2 => inside.clone().prop_map(|inside| field(1, 2, &with_length(&inside))),
                1 => (number.clone(), inside.clone(), number.clone(), 0..10).prop_map(|(number, inside, other, odd)| {
                    let end = if odd == 0 { other } else { number };
                    [field(number, 3, &inside), field(end, 4, b"")].concat()
                }),
                1 => inside,
            ]
        })
    }

    fn varint_of(mut value: u64, more: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        for _ in 0..more {
            *bytes.last_mut().unwrap() |= 0x80;
            bytes.push(0);
        }
        bytes
    }

    fn with_length(bytes: &[u8]) -> Vec<u8> {
        [&varint_of(bytes.len() as u64, 0), bytes].concat()
    }

    fn field(number: u32, kind: u64, value: &[u8]) -> Vec<u8> {
        [&varint_of(u64::from(number) << 3 | kind, 0), value].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_fields_are_read_as_prost_reads_them(bytes in fields()) {
            same_as_prost(&bytes)?;
        }

        #[test]
        fn any_bytes_are_read_as_prost_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            same_as_prost(&bytes)?;
        }

        #[test]
        fn a_damaged_message_is_read_as_prost_reads_it(
            texts in prop::array::uniform4("\\PC{0,20}"), timestamp_ms in any::<i64>(), floats in any::<[f32; 4]>(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), end in 0_usize..6,
        ) {
            let [post_id, platform, symbol, author_id] = texts;
            let post = peer::SocialPost { post_id, platform, symbol, author_id, timestamp_ms };
            let [polarity, confidence, credibility_score, engagement_weight] = floats;
            let whole = peer::ScoredPost { post: Some(post), polarity, confidence, credibility_score, engagement_weight };
            let mut bytes = whole.encode_to_vec();
            same_as_prost(&bytes)?;
            for (index, byte) in damage {
                *index.get_mut(&mut bytes) = byte;
            }
            bytes.truncate(bytes.len() - end.min(bytes.len()));
            same_as_prost(&bytes)?;
        }
    }

    #[test]
    fn groups_nest_as_deep_as_prost_lets_them() {
        for depth in 95..105 {
            for inside in [b"".as_slice(), b"\x40\x01"] {
                let group = [&b"\x3b".repeat(depth), inside, &b"\x3c".repeat(depth)].concat();
                same_as_prost(&group).unwrap();
                same_as_prost(&field(1, 2, &with_length(&group))).unwrap();
            }
        }
    }
}
