//! Descriptors of the caller's that a container's process inherits.

use anyhow::{Context, Result, bail};
use runhcs_container::InheritedFds;

/// The first descriptor after stdio.
const FIRST: u32 = 3;

/// Those of a container's init process: the sockets that systemd has passed to this command by its
/// socket activation, if it has, and `preserved` ones after them.
///
/// # Errors
/// One of them isn't there, or `LISTEN_FDS` is no number.
pub fn of_init(preserved: u32) -> Result<InheritedFds> {
    checked(InheritedFds { listen: activated()?, others: preserved })
}

/// Those of a further process. Sockets of systemd's aren't among them, as with runc: whom they are
/// for is said by the pid, and that is init's.
///
/// # Errors
/// One of them isn't there.
pub fn of_further_process(preserved: u32) -> Result<InheritedFds> {
    checked(InheritedFds { listen: 0, others: preserved })
}

/// How many sockets are for this process (sd_listen_fds(3)). The variables may well be inherited
/// from a service whose the sockets are.
fn activated() -> Result<u32> {
    let is_own = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    match std::env::var("LISTEN_FDS") {
        Ok(number) if is_own && !number.is_empty() => number.parse().with_context(|| {
            format!("LISTEN_FDS={number:?} in the environment is no number of descriptors")
        }),
        _ => Ok(0),
    }
}

fn checked(inherited: InheritedFds) -> Result<InheritedFds> {
    let InheritedFds { listen, others } = inherited;
    let (listened, end) = (FIRST.saturating_add(listen), listen.saturating_add(others));
    let Some(missing) = (FIRST..FIRST.saturating_add(end)).find(|number| !is_callers(*number))
    else {
        return Ok(inherited);
    };
    let asked = match missing < listened {
        true => format!("LISTEN_FDS={listen}"),
        false => format!("--preserve-fds {others}"),
    };
    bail!("{asked}: descriptor {missing} is not open; pass it to runhcs, or ask for fewer")
}

/// Whether a descriptor was open when this program was executed. All that it has opened since is
/// closed on execution, and might lead the container's process to the host.
fn is_callers(number: u32) -> bool {
    let Ok(number) = i32::try_from(number) else { return false };
    // SAFETY: only numbers are passed, and nothing is changed.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}
