//! Finds the tracked assets that a text names.

pub mod core;
pub mod py;
pub mod tokens;
