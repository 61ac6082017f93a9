//! From a configuration and its options to the service's documents. Pure functions: what has to be
//! known of the host is passed in, and the same input always gives the same document, which the
//! tests compare with the JSON in `tests/golden`.

mod changes;
mod formatting;
pub mod guest_paths;
mod kernel_command_line;
mod layers;
mod lcow_container;
mod lcow_vm;
mod mounts;
mod network;
mod process;
mod vm;
mod wcow_vm;
mod windows_container;

pub use changes::*;
pub use formatting::{
    bare_disk, block_directory, device_path, formatting_vm, guest_process, is_physical, make_ext4,
};
pub use kernel_command_line::{GuestPorts, kernel_command_line};
pub use layers::{LayerFolders, layer_id, layers};
pub use lcow_container::{lcow_container, lcow_hosted};
pub use lcow_vm::lcow_vm;
pub use mounts::{MountSource, WindowsMount, windows_mounts};
pub use network::{AdapterChange, endpoints, network_adapter};
pub use process::{linux_process, windows_process};
pub use vm::SCSI_CONTROLLERS;
pub use wcow_vm::{WcowBootFiles, read_only_share, wcow_vm};
pub use windows_container::{WindowsContainer, argon, windows_container, xenon};
