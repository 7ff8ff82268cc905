//! Fingerprints of the last hour among which every near-duplicate is found, by one process or by several through Redis.

pub mod blocks;
pub mod post;
pub mod py;
pub mod table;
pub mod wire;
