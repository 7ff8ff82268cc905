//! The fields of `ScoredPost` (proto/social_sentiment.proto) that windows need, and what makes a message usable.

use prost::Message;

/// The nested `SocialPost`, tags as in the contract; other fields are skipped.
#[derive(Clone, PartialEq, Message)]
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

/// `ScoredPost`, tags as in the contract; other fields are skipped.
#[derive(Clone, PartialEq, Message)]
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

/// Largest usable time, the last millisecond of the year 9999: above it arithmetic on windows could overflow.
pub const LAST_MS: i64 = 253_402_300_799_999;

/// A post that passed the checks of [`parse`].
#[derive(Clone, Debug, PartialEq)]
pub struct Post {
    pub post_id: String,
    pub platform: String,
    pub symbol: String,
    pub author_id: String,
    pub timestamp_ms: i64,
    pub polarity: f64,
    pub credibility: f64,
    pub engagement_weight: f64,
}

/// Reads one serialized `ScoredPost`; the error says what is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Post, String> {
    let scored = ScoredPost::decode(bytes).map_err(|error| format!("not a ScoredPost: {error}"))?;
    let post = scored.post.ok_or("the post is missing")?;
    if post.post_id.is_empty() {
        return Err("post_id is empty".into());
    }
    if post.symbol.is_empty() {
        return Err("symbol is empty".into());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn scored() -> ScoredPost {
        ScoredPost {
            post: Some(SocialPost {
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
        let post = parse(&scored().encode_to_vec()).unwrap();
        assert_eq!((post.symbol.as_str(), post.timestamp_ms), ("BTC", 1_000));
        assert_eq!(post.engagement_weight, f64::from(0.1_f32));
    }

    #[test]
    fn a_bad_message_says_why() {
        let reason = |change: &dyn Fn(&mut ScoredPost)| {
            let mut message = scored();
            change(&mut message);
            parse(&message.encode_to_vec()).unwrap_err()
        };
        assert_eq!(reason(&|m| m.post = None), "the post is missing");
        assert_eq!(reason(&|m| m.post.as_mut().unwrap().symbol.clear()), "symbol is empty");
        assert_eq!(
            reason(&|m| m.post.as_mut().unwrap().post_id.clear()),
            "post_id is empty"
        );
        assert_eq!(reason(&|m| m.polarity = f32::NAN), "polarity is NaN, not from -1 to 1");
        assert_eq!(
            reason(&|m| m.engagement_weight = f32::INFINITY),
            "engagement_weight is inf, not from 0.1 to 10"
        );
        assert_eq!(
            reason(&|m| m.credibility_score = -0.5),
            "credibility_score is -0.5, not from 0 to 1"
        );
        assert!(reason(&|m| m.post.as_mut().unwrap().timestamp_ms = 0).starts_with("timestamp_ms"));
        assert!(parse(b"\xff\xff").unwrap_err().starts_with("not a ScoredPost"));
    }
}
