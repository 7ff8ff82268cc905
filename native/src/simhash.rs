//! 64-bit SimHash fingerprints of texts (Charikar, "Similarity estimation techniques from rounding algorithms", 2002).

pub mod core;
pub mod py;
