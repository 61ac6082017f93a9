//! One file a verb.

pub mod create;
pub mod create_scratch;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod list;
pub mod pause;
pub mod prepare_disk;
pub mod ps;
pub mod resize_tty;
pub mod resume;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod sync;
pub mod update;
