//! One file a verb. Those whose work differs by operating system are in `sys`.

pub mod create;
pub mod delete;
pub mod kill;
pub mod list;
pub mod pause;
pub mod resume;
pub mod state;
