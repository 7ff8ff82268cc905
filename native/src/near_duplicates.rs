//! An index of fingerprints that finds every near-duplicate of the last hour.

pub mod core;
pub mod py;
