//! The command line of a Linux guest's kernel.

use std::fmt::Write;

use crate::options::{LcowOptions, RootFs};

/// The Hyper-V socket ports on which the host listens while the guest comes up. A port without a
/// listener must be `None`: the guest's init fails if it can't connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestPorts {
    /// Where the guest's init reads random numbers for its kernel.
    pub entropy: Option<u32>,
    /// Where the guest's compute service writes its messages.
    pub messages: Option<u32>,
}

/// The command line: where the root file system is, what to switch off, and behind `--` what the
/// guest's init is to run.
pub fn kernel_command_line(
    options: &LcowOptions,
    processors: u32,
    has_console: bool,
    ports: GuestPorts,
) -> String {
    let mut words: Vec<String> = Vec::new();
    match options.root_fs {
        RootFs::Initrd if options.kernel_direct => {}
        // The firmware's loader looks for it in the boot folder.
        RootFs::Initrd => words.push(format!("initrd=/{}", options.root_fs.file())),
        RootFs::Vhd => {
            let device = if options.pmem_count > 0 { "pmem0" } else { "sda" };
            words.push(format!("root=/dev/{device} ro rootwait init=/init"));
        }
    }
    // Hyper-V's own sockets are to be used; the other kind would be tried first.
    words.push("initcall_blacklist=virtio_vsock_init".to_owned());
    if has_console {
        words.push(
            "8250_core.nr_uarts=1 8250_core.skip_txen_test=1 console=ttyS0,115200".to_owned(),
        );
    } else {
        words.push("8250_core.nr_uarts=0".to_owned());
        // A panic ends the machine.
        words.push("panic=-1 quiet".to_owned());
    }
    if !options.kernel_options.is_empty() {
        words.push(options.kernel_options.clone());
    }
    if !options.pci {
        words.push("pci=off".to_owned());
    }
    words.push(format!("nr_cpus={processors} brd.rd_nr=0 pmtmr=0 --"));
    if let Some(port) = ports.entropy {
        words.push(format!("-e {port}"));
    }
    let service = guest_service(options, ports.messages);
    // With a console a shell is there, too.
    words.push(if has_console { format!("sh -c \"{service} & exec sh\"") } else { service });
    words.join(" ")
}

/// What runs the guest's compute service.
fn guest_service(options: &LcowOptions, messages: Option<u32>) -> String {
    let mut command = String::new();
    if let Some(port) = messages {
        // Writing to a string succeeds.
        let _ = write!(command, "/bin/vsockexec -e {port} ");
    }
    command.push_str("/bin/gcs -v4 -log-format json -loglevel info");
    if options.no_time_sync {
        command.push_str(" -disable-time-sync");
    }
    if let Some(path) = &options.process_dumps {
        command.push_str(" -core-dump-location ");
        command.push_str(path);
    }
    command
}
