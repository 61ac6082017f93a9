//! What a test under Wine can only see, or have, as a Windows program. The tests run on Linux and
//! start it:
//!
//! - `windows-probe inherit FILE COMMAND…` has handles that a command may inherit, and says who
//!   still has them when it is done;
//! - `windows-probe descriptor key|pipe|mutex NAME` says who may use an object;
//! - `windows-probe hand-down KEY SDDL` makes a registry key whose rights new keys in it have;
//! - `windows-probe permanence KEY` says whether a registry key is forgotten when Windows ends;
//! - `windows-probe console RECORD ORDER COMMAND…` runs a command, records what becomes of the
//!   console, and does at the console what the file `ORDER` says; `console-aside` gives the command
//!   other standard handles;
//! - `windows-probe ask PIPE MESSAGE` sends a message to a named pipe and says the answer;
//! - `windows-probe arguments…` and `windows-probe copy` say what they are given.

#[cfg(windows)]
mod console;
#[cfg(windows)]
mod descriptor;
#[cfg(windows)]
mod inherit;
#[cfg(windows)]
mod registry;
#[cfg(windows)]
mod talk;

#[cfg(windows)]
use std::process::Stdio;

#[cfg(windows)]
fn main() {
    if let Err(error) = run() {
        eprintln!("windows-probe: {error:#}");
        std::process::exit(1);
    }
}

#[cfg(windows)]
fn run() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["inherit", file, command @ ..] => inherit::run(file.as_ref(), command),
        ["descriptor", kind, name] => descriptor::say(kind, name),
        ["hand-down", key, sddl] => descriptor::hand_down(key, sddl),
        ["ask", pipe, message] => talk::ask(pipe, message),
        ["arguments", arguments @ ..] => talk::arguments(arguments),
        ["copy"] => talk::copy(),
        ["permanence", key] => registry::say_permanence(key),
        ["console", record, order, command @ ..] => {
            console::watch(record.as_ref(), order.as_ref(), command, Stdio::inherit)
        }
        ["console-aside", record, order, command @ ..] => {
            console::watch(record.as_ref(), order.as_ref(), command, Stdio::null)
        }
        _ => anyhow::bail!("an unknown request: {words:?}"),
    }
}

#[cfg(not(windows))]
fn main() {
    eprintln!("windows-probe: this program is for Windows");
    std::process::exit(1);
}
