//! Processes in a compute system.

use std::collections::BTreeMap;

use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};

use super::documents;

documents! {
    /// What is passed to `HcsCreateProcess`.
    pub struct ProcessParameters {
        /// The program, if it isn't the command line's first word.
        pub application_name: String,
        /// The command line, for Windows.
        pub command_line: String,
        /// The arguments, for Linux.
        pub command_args: Vec<String>,
        /// The user's name; the image's default if empty.
        pub user: String,
        /// The directory it starts in; the image's default if empty.
        pub working_directory: String,
        /// Its environment.
        pub environment: BTreeMap<String, String>,
        /// Whether its stdio is a console.
        pub emulate_console: bool,
        /// Whether there is a pipe to its standard input.
        pub create_std_in_pipe: bool,
        /// Whether there is a pipe from its standard output.
        pub create_std_out_pipe: bool,
        /// Whether there is a pipe from its standard error.
        pub create_std_err_pipe: bool,
        /// The console's height and width in characters, in this order.
        pub console_size: Option<(u16, u16)>,
        /// The whole process document for a Linux guest. Not there: the process of the
        /// container's own configuration.
        #[serde(rename = "OciProcess")]
        pub oci_process: Option<Process>,
    }

    /// What `HcsGetProcessProperties` says.
    pub struct ProcessStatus {
        /// Its id in the guest.
        pub process_id: u32,
        /// Whether it has ended.
        pub exited: bool,
        /// How, if it has.
        pub exit_code: u32,
        /// What the last wait for it returned, an `HRESULT`.
        pub last_wait_result: i32,
    }

    /// What is passed to `HcsModifyProcess`.
    pub struct ProcessModifyRequest {
        /// What to do.
        pub operation: Option<ProcessModifyOperation>,
        /// The new size.
        pub console_size: Option<ConsoleSize>,
        /// What to close.
        pub close_handle: Option<CloseHandle>,
    }

    /// A console's size in characters.
    pub struct ConsoleSize {
        /// Lines.
        pub height: u16,
        /// Columns.
        pub width: u16,
    }

    /// Which of a process's pipes to close.
    pub struct CloseHandle {
        /// The pipe.
        pub handle: Option<StdioHandle>,
    }
}

/// What to change about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessModifyOperation {
    /// The console's size.
    ConsoleSize,
    /// Close one of its pipes.
    CloseHandle,
}

/// One of a process's pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StdioHandle {
    /// Standard input.
    StdIn,
    /// Standard output.
    StdOut,
    /// Standard error.
    StdErr,
    /// All three.
    All,
}

/// What is passed to `HcsSignalProcess`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SignalOptions {
    /// The signal.
    pub signal: GuestSignal,
}

/// A signal as the guest knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GuestSignal {
    /// A Linux signal's number.
    Linux(u8),
    /// A Windows console's control event.
    Windows(ControlEvent),
}

/// A control event of a Windows console (HandlerRoutine callback function).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlEvent {
    /// As if Ctrl-C had been typed.
    CtrlC,
    /// As if Ctrl-Break had been typed.
    CtrlBreak,
    /// The console is closed.
    CtrlClose,
    /// The user logs off.
    CtrlLogOff,
    /// The system shuts down.
    CtrlShutdown,
}
