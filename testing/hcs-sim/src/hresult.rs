//! The service's error codes (Microsoft Learn, "HCS Error Code" and "HCN Error Code") and the few
//! general ones that it uses.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hresult(pub u32);

/// Success.
pub const OK: Hresult = Hresult(0);
/// The caller may not do this.
pub const ACCESS_DENIED: Hresult = Hresult(0x8007_0005);
/// A handle that isn't one.
pub const HANDLE: Hresult = Hresult(0x8007_0006);
/// An argument that isn't allowed.
pub const INVALID_ARGUMENT: Hresult = Hresult(0x8007_0057);
/// There is no such file.
pub const FILE_NOT_FOUND: Hresult = Hresult(0x8007_0002);
/// There is no such directory.
pub const PATH_NOT_FOUND: Hresult = Hresult(0x8007_0003);
/// Somebody still uses it.
pub const BUSY: Hresult = Hresult(0x8007_00AA);
/// It is there already.
pub const ALREADY_EXISTS: Hresult = Hresult(0x8007_00B7);
/// There is no such thing.
pub const NOT_FOUND: Hresult = Hresult(0x8007_0490);
/// The function does nothing.
pub const NOT_IMPLEMENTED: Hresult = Hresult(0x8000_4001);

/// Not allowed in the system's state.
pub const INVALID_STATE: Hresult = Hresult(0x8037_0105);
/// The system ended by itself.
pub const UNEXPECTED_EXIT: Hresult = Hresult(0x8037_0106);
/// The system was ended by force.
pub const TERMINATED: Hresult = Hresult(0x8037_0107);
/// The document isn't one of the schema.
pub const INVALID_JSON: Hresult = Hresult(0x8037_010D);
/// There is no such system.
pub const SYSTEM_NOT_FOUND: Hresult = Hresult(0x8037_010E);
/// There is such a system already.
pub const SYSTEM_ALREADY_EXISTS: Hresult = Hresult(0x8037_010F);
/// The system has ended.
pub const SYSTEM_ALREADY_STOPPED: Hresult = Hresult(0x8037_0110);
/// A layer that isn't one.
pub const INVALID_LAYER: Hresult = Hresult(0x8037_0112);
/// There is no service.
pub const SERVICE_NOT_AVAILABLE: Hresult = Hresult(0x8037_0114);
/// The operation has not been used yet.
pub const OPERATION_NOT_STARTED: Hresult = Hresult(0x8037_0115);
/// The operation is in use.
pub const OPERATION_ALREADY_STARTED: Hresult = Hresult(0x8037_0116);
/// The operation has not ended.
pub const OPERATION_PENDING: Hresult = Hresult(0x8037_0117);
/// The operation did not end in time.
pub const OPERATION_TIMEOUT: Hresult = Hresult(0x8037_0118);
/// The handle has a callback already.
pub const CALLBACK_ALREADY_SET: Hresult = Hresult(0x8037_0119);
/// The operation's result has no process.
pub const PROCESS_INFO_NOT_AVAILABLE: Hresult = Hresult(0x8037_011D);
/// The service has gone.
pub const SERVICE_DISCONNECT: Hresult = Hresult(0x8037_011E);
/// The process has ended.
pub const PROCESS_ALREADY_STOPPED: Hresult = Hresult(0x8037_011F);
/// The system was made without what this needs.
pub const NOT_CONFIGURED: Hresult = Hresult(0x8037_0120);

/// There is no such endpoint.
pub const ENDPOINT_NOT_FOUND: Hresult = Hresult(0x803B_0002);
/// The network's document isn't one.
pub const NETWORK_INVALID_JSON: Hresult = Hresult(0x803B_001B);
/// There is no such namespace (`HCS_E_NAMESPACE_NOT_FOUND` has no name of its own: the network
/// service says that the element isn't there).
pub const NAMESPACE_NOT_FOUND: Hresult = NOT_FOUND;

impl Hresult {
    /// Whether it says that the call failed.
    pub fn is_failure(self) -> bool {
        self.0 & 0x8000_0000 != 0
    }

    /// The code for an error of the system (`HRESULT_FROM_WIN32`).
    pub fn from_system(error: &std::io::Error) -> Self {
        let code = error.raw_os_error().unwrap_or(0x1F);
        Self(0x8007_0000 | u32::try_from(code & 0xFFFF).unwrap_or(0x1F))
    }
}

impl fmt::Display for Hresult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08X}", self.0)
    }
}
