//! Catching signals to pass them on.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use runhcs_compute::Signal;

/// Signals that are about this process itself and are left alone: its children, its pipes and
/// sockets, and its stopping when it uses a terminal that isn't its own. (A fault of its own ends
/// it although the signal is held back; sigprocmask(2).)
const OWN: [NixSignal; 5] = [
    NixSignal::SIGCHLD,
    NixSignal::SIGPIPE,
    NixSignal::SIGURG,
    NixSignal::SIGTTIN,
    NixSignal::SIGTTOU,
];

/// All other signals, held back and readable from a descriptor. The thread's signal mask is
/// restored when this is dropped.
#[derive(Debug)]
pub struct Caught {
    descriptor: SignalFd,
    before: SigSet,
}

impl Caught {
    /// Begins to hold signals back.
    pub fn new() -> std::io::Result<Self> {
        let mut set = SigSet::all();
        for own in OWN {
            set.remove(own);
        }
        let descriptor =
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { descriptor, before })
    }

    /// Readable when a signal has come.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// The next signal that has come.
    pub fn next(&self) -> Option<Signal> {
        let info = self.descriptor.read_signal().ok().flatten()?;
        u8::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        // The mask was valid before, and nothing else can fail (pthread_sigmask(3)).
        let _ = self.before.thread_set_mask();
    }
}
