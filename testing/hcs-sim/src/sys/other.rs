//! Systems other than Windows: processes without pipes.

use std::io;
use std::process::{Child, Command};
use std::sync::Mutex;

use crate::model::{Launch, Program, Signal};
use crate::wire::ProcessInfo;

/// A process that was started.
#[derive(Debug)]
pub struct Running {
    id: u32,
    child: Mutex<Child>,
}

impl Running {
    /// Starts a process.
    ///
    /// # Errors
    /// If it can't be started, or is to have pipes.
    pub fn start(launch: &Launch, _caller: u32) -> io::Result<(Self, ProcessInfo)> {
        if launch.pipes.contains(&true) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut command = match &launch.program {
            Program::Windows(line) => {
                let mut command = Command::new("sh");
                command.args(["-c", line]);
                command
            }
            Program::Linux(arguments) => {
                let mut command = Command::new(&arguments[0]);
                command.args(&arguments[1..]);
                command
            }
        };
        let child = command.envs(launch.environment.iter().cloned()).spawn()?;
        let id = child.id();
        let info = ProcessInfo { process: id, ..ProcessInfo::default() };
        Ok((Self { id, child: Mutex::new(child) }, info))
    }

    /// Waits for its end and returns its exit code.
    pub fn wait(&self) -> u32 {
        loop {
            let ended =
                self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner).try_wait();
            match ended {
                Ok(None) => std::thread::sleep(std::time::Duration::from_millis(5)),
                Ok(Some(status)) => return status.code().map_or(137, |code| code.unsigned_abs()),
                Err(_) => return 1,
            }
        }
    }

    /// Ends it, and all that it started.
    pub fn kill(&self, _code: u32) {
        let _ = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner).kill();
    }

    /// Passes a signal on if its program has asked for it; else ends it.
    pub fn signal(&self, signal: Signal) {
        self.kill(signal.exit_code);
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.id
    }
}

/// A caller's process.
#[derive(Debug)]
pub struct Caller(u32);

impl Caller {
    /// The process with this id.
    pub fn find(process: u32) -> Self {
        Self(process)
    }

    /// Kills it.
    pub fn kill(&self) {
        let _ = Command::new("kill").args(["-9", &self.0.to_string()]).status();
    }
}

/// Ends this process with a code when a signal comes.
///
/// # Errors
/// Always: only Windows has these signals.
pub fn on_signal(_signal: u8, _code: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
