//! How long anything that involves the guest may take.
//!
//! The VM shim gives the guest agent these times. A client of the shim waits a little longer, so
//! that it hears the shim's explanation if the agent doesn't answer.

use std::time::Duration;

use runhcs_protocol::guest::Request;
use runhcs_protocol::shim;

/// What a client gives the shim on top.
pub const MARGIN: Duration = Duration::from_secs(5);
/// How long a client waits for the shim to attach it: three streams and an answer.
const ATTACH: Duration = Duration::from_secs(30);
/// How long the shim may take to shut its VM down before it is killed.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// For what the shim does by itself.
const LOCAL: Duration = Duration::from_secs(5);

/// How long the agent may take for what it can answer at once.
const ANSWER: Duration = Duration::from_secs(30);

/// How long the agent may take to answer. A guest may run on a translator, on a busy host.
pub fn of(request: &Request) -> Duration {
    Duration::from_secs(match request {
        // Both run what the bundle says: mounts, hooks.
        Request::CreateContainer(_) | Request::StartContainer(_) => 120,
        // It waits for processes to die and for memory to be given back.
        Request::DeleteContainer(_) => 60,
        Request::Sync => 5,
        // On top of the time that it may wait for something to happen.
        Request::WaitOom(wait) => return ANSWER + Duration::from_millis(wait.limit),
        _ => return ANSWER,
    })
}

/// How long the shim may take to answer.
pub fn of_shim(request: &shim::Request) -> Duration {
    MARGIN
        + match request {
            shim::Request::Info | shim::Request::StandIns(_) => LOCAL,
            // Creating can fail late, and is undone then.
            shim::Request::CreateContainer(_) => Duration::from_secs(120 + 60),
            shim::Request::DeleteContainer(id) => of(&Request::DeleteContainer(id.clone())),
            shim::Request::Attach(_) => ATTACH,
            // Before that, QEMU may be asked to enlarge the VM, and the guest to use it.
            shim::Request::Guest(update @ Request::UpdateContainer(_)) => ANSWER * 2 + of(update),
            shim::Request::Guest(request) => of(request),
            shim::Request::SyncNetwork => ANSWER,
            shim::Request::Shutdown => SHUTDOWN,
        }
}
