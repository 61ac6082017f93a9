//! The verbs that are particular to Windows, or do their work in ways of their own there.

pub mod create_scratch;
pub mod delete;
pub mod exec;
pub mod features;
pub mod prepare_disk;
pub mod ps;
pub mod resize_tty;
pub mod run;
pub mod spec;
pub mod start;
pub mod sync;
