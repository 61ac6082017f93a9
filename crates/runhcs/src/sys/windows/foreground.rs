//! The foreground: this process waits for the shim of a container's process. Ctrl-C and Ctrl-Break
//! are passed on to the process; one with a console of its own has this process's console raw, and
//! is told of its size.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Result;
use runhcs_compute::Signal;
use runhcs_hcs::schema::ConsoleSize;
use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, CTRL_C_EVENT, SetConsoleCtrlHandler};

use super::console::{self, Raw};
use super::process;

/// Where events of the console go.
static EVENTS: OnceLock<Sender<Signal>> = OnceLock::new();
/// How often to look at the console's size. A console tells of changes among its input only, which
/// the shim reads.
const PAUSE: Duration = Duration::from_millis(200);

/// What a process is to be told.
#[derive(Clone, Debug)]
pub enum Told {
    /// A signal.
    Signal(Signal),
    /// The size of its console.
    Size(ConsoleSize),
}

/// This process in the foreground. Dropping it leaves the console as it was.
#[must_use]
#[derive(Debug)]
pub struct Foreground {
    events: Receiver<Signal>,
    raw: Option<Raw>,
}

impl Foreground {
    /// Gets the console ready for a process before it is started, so that it is for all that the
    /// process writes. What happens until it runs it is told then.
    pub fn begin(has_console: bool) -> Self {
        let (sender, events) = channel();
        // Taken already if this is called again: once is enough, for a command waits for one
        // process.
        let _ = EVENTS.set(sender);
        // SAFETY: the handler is a function, which stays; it may be called in any thread.
        unsafe { SetConsoleCtrlHandler(Some(on_event), 1) };
        Self { events, raw: has_console.then(Raw::enter) }
    }

    /// Waits until a shim that this process started has ended, and returns its exit code.
    /// Meanwhile `tell` tells the process that it stands for.
    pub fn wait(
        self,
        shim: u32,
        tell: impl Fn(Told) -> Result<()> + Send + 'static,
    ) -> Result<u32> {
        let Self { events, raw } = self;
        let has_console = raw.is_some();
        std::thread::spawn(move || {
            pass(&events, has_console, |told| {
                // It may have ended.
                if let Err(error) = tell(told) {
                    tracing::warn!("{error:#}");
                }
            });
        });
        process::wait(shim)
    }
}

/// Passes on what happens at the console, as long as something can.
fn pass(events: &Receiver<Signal>, has_console: bool, tell: impl Fn(Told)) {
    let pause = if has_console { PAUSE } else { Duration::MAX };
    let mut known = None;
    loop {
        if let Some(size) = has_console.then(console::size).flatten()
            && known.as_ref() != Some(&size)
        {
            known = Some(size.clone());
            tell(Told::Size(size));
        }
        match events.recv_timeout(pause) {
            Ok(signal) => tell(Told::Signal(signal)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Leaves Ctrl-C and Ctrl-Break of a console that this process shares with others to them: a shim
/// doesn't end with its caller.
pub fn leave_events() {
    unsafe extern "system" fn leave(event: u32) -> i32 {
        matches!(event, CTRL_C_EVENT | CTRL_BREAK_EVENT).into()
    }
    // SAFETY: the handler is a function, which stays; it may be called in any thread.
    unsafe { SetConsoleCtrlHandler(Some(leave), 1) };
}

/// Takes an event of the console: not zero if it is dealt with. All others end this process as ever.
unsafe extern "system" fn on_event(event: u32) -> i32 {
    /// `SIGQUIT` (signal(7)).
    const QUIT: u8 = 3;
    let signal = match event {
        CTRL_C_EVENT => Signal::INT,
        CTRL_BREAK_EVENT => match Signal::try_from(QUIT) {
            Ok(signal) => signal,
            Err(_) => return 0,
        },
        _ => return 0,
    };
    EVENTS.get().is_some_and(|events| events.send(signal).is_ok()).into()
}
