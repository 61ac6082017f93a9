//! A process of the engine's that must not outlive what it is for.

/// A child that is killed and reaped unless it is kept.
pub(crate) struct Child {
    pid: u32,
    kept: bool,
}

impl Child {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid, kept: false }
    }

    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid as i32).filter(|_| !self.kept)
        else {
            return;
        };
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}
