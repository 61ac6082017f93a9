//! What is done before the C library begins: see `entry.rs`.

mod entry;
mod program;
mod raw;
mod replace;

pub use replace::path;
