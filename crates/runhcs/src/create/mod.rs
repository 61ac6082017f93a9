//! Creating a container: the flow, its decisions and its undoing.

mod flow;
mod place;
mod transaction;

pub use flow::create;
