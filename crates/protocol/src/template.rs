//! A VM that was saved before it had devices (a *template*), and what a VM that is resumed from it
//! has to be told, so that it is one of its own.
//!
//! ```text
//! saving     kernel ─▶ agent ─▶ READY on the serial console ─▶ the host saves the VM and ends it
//! resuming   WAKE on the console ─▶ devices ─▶ Hello ─▶ Wake ─▶ the agent starts anew ─▶ Hello
//! ```

use serde::{Deserialize, Serialize};

use crate::agent_log::LogLevel;

/// On the kernel's command line: the VM is going to be saved.
pub const TEMPLATE_WORD: &str = "runhcs.template";

/// What the agent writes to the serial console, on a line of its own, when it can be saved.
pub const READY: &str = "runhcs-guest-agent: ready to be saved";

/// What the host writes to the serial console when the VM was resumed and has its devices.
pub const WAKE: u8 = b'\n';

/// Bytes of a [`Wake`]'s seed.
pub const SEED: usize = 32;

/// What makes a resumed VM differ from all others of its template: the host's answer to the
/// agent's first greeting.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wake {
    /// From the host's random number generator. Without it, VMs of one template would draw the
    /// same numbers.
    pub seed: [u8; SEED],
    /// The time, in nanoseconds since 1970.
    pub time: u64,
    /// What the agent is to log.
    pub log_level: LogLevel,
}

impl std::fmt::Debug for Wake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The seed is a secret.
        f.debug_struct("Wake").field("time", &self.time).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_never_shown() {
        let wake = Wake { seed: [0xab; SEED], time: 1, log_level: LogLevel::Info };
        let shown = format!("{wake:?}");
        assert!(!shown.contains("171") && !shown.contains("ab"), "{shown}");
        let wire = serde_json::to_vec(&wake).unwrap();
        assert_eq!(serde_json::from_slice::<Wake>(&wire).unwrap(), wake);
    }
}
