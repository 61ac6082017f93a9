//! Compute networks: namespaces and the endpoints in them, by their GUIDs.

use std::ffi::c_void;

use serde_json::Value;
use uuid::Uuid;
use windows_sys::Win32::System::HostComputeNetwork::{
    HcnCloseEndpoint, HcnCloseNamespace, HcnOpenEndpoint, HcnOpenNamespace,
    HcnQueryEndpointProperties, HcnQueryNamespaceProperties,
};
use windows_sys::core::{GUID, HRESULT, PCWSTR, PWSTR};

use super::Result;
use super::deadline::{ANSWER, within};
use super::system::understand;
use super::text::{Returned, Wide};
use crate::Failure;

/// What an error record begins with says no more than the code; this asks for everything.
const QUERY: &str = r#"{"SchemaVersion":{"Major":2,"Minor":0}}"#;

/// What the service says of a namespace.
///
/// # Errors
/// [`crate::Kind::NotFound`]
pub fn namespace_properties(id: Uuid) -> Result<Value> {
    let attempt = format!("find compute network namespace {id}");
    query(attempt, id, HcnOpenNamespace, HcnQueryNamespaceProperties, HcnCloseNamespace)
}

/// What the service says of an endpoint.
///
/// # Errors
/// [`crate::Kind::NotFound`]
pub fn endpoint_properties(id: Uuid) -> Result<Value> {
    let attempt = format!("find compute network endpoint {id}");
    query(attempt, id, HcnOpenEndpoint, HcnQueryEndpointProperties, HcnCloseEndpoint)
}

type Open = unsafe extern "system" fn(*const GUID, *mut *mut c_void, *mut PWSTR) -> HRESULT;
type Query = unsafe extern "system" fn(*const c_void, PCWSTR, *mut PWSTR, *mut PWSTR) -> HRESULT;
type Close = unsafe extern "system" fn(*const c_void) -> HRESULT;

fn query(attempt: String, id: Uuid, open: Open, query: Query, close: Close) -> Result<Value> {
    let guid = GUID::from_u128(id.as_u128());
    within(attempt.clone(), ANSWER, move || {
        let (mut handle, mut record) = (std::ptr::null_mut(), Returned::none());
        // SAFETY: the id and both places outlive the call.
        let code = unsafe { open(&guid, &mut handle, record.out()) };
        if code < 0 {
            return Err(failure(attempt, code, &record));
        }
        let object = Object { handle, close };
        let (text, mut properties) = (Wide::new(QUERY), Returned::none());
        let mut record = Returned::none();
        // SAFETY: the object is open; the text and both places outlive the call.
        let code = unsafe { query(object.handle, text.as_ptr(), properties.out(), record.out()) };
        if code < 0 {
            return Err(failure(attempt, code, &record));
        }
        understand(attempt, &properties.text())
    })
}

/// A failure with the network's error record, whose fields are named otherwise than the compute
/// service's.
fn failure(attempt: String, code: HRESULT, record: &Returned) -> Failure {
    let record: Value = serde_json::from_str(&record.text()).unwrap_or_default();
    let message = record["Error"].as_str().or(record["ErrorMessage"].as_str()).unwrap_or_default();
    Failure { message: message.to_owned(), ..Failure::new(attempt, code) }
}

/// A namespace or an endpoint, open.
struct Object {
    handle: *mut c_void,
    close: Close,
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the object is open, and this is the handle's only owner.
        let _ = unsafe { (self.close)(self.handle) };
    }
}
