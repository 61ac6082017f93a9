//! `runhcs-vm-shim`: the one process that owns a utility VM and its virtual hardware.
//!
//! `runhcs` launches it (`runhcs_uvm::Vm::launch`) and speaks to it over a socket. It is nothing
//! to be started by hand, and so are its sub-commands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod agent;
mod agent_log;
mod attach;
mod capabilities;
mod child;
mod console;
mod daemon;
mod detached;
mod disks;
mod ending;
mod frames;
mod growth;
mod inherit;
mod limits;
mod log;
mod machine;
mod network;
mod pod;
mod qemu;
mod replies;
mod serve;
mod server;
mod share;
mod sockets;
mod tail;
mod template;
mod verdict;
mod virtiofs;
mod vm_dir;
mod vsock;
mod watch;

#[derive(Parser)]
#[command(name = "runhcs-vm-shim", version, about = "Owns a utility VM of runhcs")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves a VM; its description is read from standard input.
    Serve,
    /// Makes a template; which one is read from standard input. Prints its id.
    Template,
    /// Serves the VM's share tree.
    #[command(hide = true)]
    Virtiofs(virtiofs::Options),
    /// Becomes QEMU, without privileges.
    #[command(hide = true)]
    Qemu(qemu::ConfinedOptions),
    /// Finds out whether KVM works.
    #[command(hide = true)]
    KvmProbe,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        // It has said what there is to say, to its log and to whoever launched it.
        Command::Serve => return serve::run().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Command::Template => return template::run(),
        Command::Virtiofs(options) => virtiofs::run(&options),
        Command::Qemu(options) => qemu::run_confined(&options),
        Command::KvmProbe => qemu::run_kvm_probe(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
