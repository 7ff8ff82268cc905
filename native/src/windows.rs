//! Windows of scored posts by event time, all read from one ring of slices a symbol.

pub mod config;
pub mod message;
pub mod py;
pub mod slices;
pub mod store;
pub mod wire;
