//! Creating a container: the flow, its decisions, its undoing, and what it asks of a compute
//! service.

mod flow;
mod place;
mod service;
mod transaction;

pub use flow::create;
pub use service::{Claimed, Service};
pub use transaction::Transaction;
