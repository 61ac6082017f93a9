//! `runhcs`: an OCI runtime whose containers are isolated by the kernel or by a virtual machine.
//!
//! Each verb has its file in `commands/`, or, where its work differs by operating system, in
//! `sys/<system>/commands/`; the creation flow is `create/flow.rs`. On Linux this process starts no
//! thread and has no async runtime: `container` clones from it.

mod cli;
mod commands;
mod config;
mod create;
mod deferred;
mod existing;
mod faults;
mod further_process;
mod globals;
mod logging;
mod pid_file;
mod sys;

use std::mem::ManuallyDrop;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use cli::{Cli, Verb};
use globals::Globals;

/// The exit code of an `exec` that has failed itself, as with runc: programs seldom use it.
const EXEC_FAILED: u8 = 255;

fn main() -> ExitCode {
    if let Err(error) = sys::prepare() {
        return report(&error);
    }
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    if let Err(error) = logging::init(&cli.global) {
        return report(&error);
    }
    if let Some(id) = cli.verb.container() {
        logging::about_container(&id);
    }
    let is_exec = matches!(cli.verb, Verb::Exec(_));
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = report(&error);
            if is_exec { ExitCode::from(EXEC_FAILED) } else { code }
        }
    }
}

/// Parses the command line.
fn parse() -> Result<Cli, clap::Error> {
    // Freeing hundreds of descriptions takes a fifth of what parsing takes, and the process is short.
    let mut command = ManuallyDrop::new(Cli::command());
    let mut matches = ManuallyDrop::new(command.try_get_matches_from_mut(std::env::args_os())?);
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    // `spec` and `features` need none, and work where there is no place for state.
    let globals = || Globals::new(cli.global.clone());
    match cli.verb {
        Verb::Create(args) => commands::create::run(&globals()?, &args),
        Verb::Start(args) => sys::commands::start::run(&globals()?, &args),
        Verb::Run(args) => sys::commands::run::run(&globals()?, &args),
        Verb::State(args) => commands::state::run(&globals()?, &args),
        Verb::List(args) => {
            sys::check_store_exists(cli.global.root.as_deref())?;
            commands::list::run(&globals()?, &args)
        }
        Verb::Kill(args) => commands::kill::run(&globals()?, &args),
        Verb::Delete(args) => commands::delete::run(&globals()?, &args),
        Verb::Exec(args) => sys::commands::exec::run(&globals()?, &args),
        Verb::Ps(args) => sys::commands::ps::run(&globals()?, &args),
        Verb::ResizeTty(args) => sys::commands::resize_tty::run(&globals()?, &args),
        Verb::Pause(args) => commands::pause::run(&globals()?, &args),
        Verb::Resume(args) => commands::resume::run(&globals()?, &args),
        Verb::Spec(args) => sys::commands::spec::run(&args),
        Verb::Features => sys::commands::features::run(),
        Verb::System(verb) => verb.run(globals),
    }
}

/// One line for people on stderr, and the same for the caller in the log.
fn report(error: &anyhow::Error) -> ExitCode {
    tracing::error!("{error:#}");
    eprintln!("runhcs: {error:#}");
    ExitCode::FAILURE
}

/// Help and version are no errors; anything else is bad input, whose exit code is 1.
fn usage_error(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
