//! Reads a stream back as fast as the broker pushes it.

pub mod core;
pub mod protocol;
pub mod py;
#[cfg(test)]
mod tests;
