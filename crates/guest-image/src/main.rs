//! `runhcs-guest-image`: makes the utility VM's kernel and initramfs from a distribution's kernel
//! package, or from a kernel and its modules. Same inputs, same bytes.

mod build;
mod deb;
mod decompress;
mod kernel;
mod modules;
mod output;
mod progress;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "runhcs-guest-image", version, about = "Makes the guest image of utility VMs")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make vmlinux and initramfs.img.
    Build(build::BuildArgs),
}

fn main() -> ExitCode {
    let Verb::Build(args) = Cli::parse().verb;
    match build::build(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("runhcs-guest-image: {error:#}");
            ExitCode::FAILURE
        }
    }
}
