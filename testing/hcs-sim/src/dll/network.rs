//! `computenetwork.dll`. A handle stands for an id, which the service is asked about each time.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use windows_sys::core::{GUID, HRESULT, PCWSTR, PWSTR};

use super::text::{Freed, give, read};
use super::{code, library};
use crate::hresult::{self, Hresult};
use crate::wire::{Call, NetworkOperation};

/// The handles that are open.
static HANDLES: Mutex<Option<HashMap<u64, String>>> = Mutex::new(None);

fn handles() -> MutexGuard<'static, Option<HashMap<u64, String>>> {
    HANDLES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn guid(id: &GUID) -> String {
    let [a, b, c, d, e, f, g, h] = id.data4;
    let (one, two, three) = (id.data1, id.data2, id.data3);
    format!(
        "{one:08x}-{two:04x}-{three:04x}-{a:02x}{b:02x}-{c:02x}{d:02x}{e:02x}{f:02x}{g:02x}{h:02x}"
    )
}

/// Makes a call. What comes back goes to the caller, and of a failure the record.
///
/// # Safety
/// The pointers are null or may be written to.
unsafe fn call(
    operation: NetworkOperation,
    id: Option<String>,
    document: Option<String>,
    answer: *mut PWSTR,
    record: *mut PWSTR,
) -> Result<(), Hresult> {
    let reply = library()?.call(Call::Network { operation, id, document });
    let (outcome, document, failure) = match reply {
        Ok(reply) => (Ok(()), reply.document, None),
        Err(reply) => (Err(reply.result), None, reply.document),
    };
    // SAFETY: as the caller promises.
    unsafe {
        give(answer, document.as_deref(), Freed::Task);
        give(record, failure.as_deref(), Freed::Task);
    }
    outcome
}

/// # Safety
/// The pointers are good to read and to write.
unsafe fn open(
    operation: NetworkOperation,
    id: *const GUID,
    document: PCWSTR,
    handle: *mut *mut c_void,
    record: *mut PWSTR,
) -> HRESULT {
    if id.is_null() || handle.is_null() {
        return code(Err(hresult::INVALID_ARGUMENT));
    }
    // SAFETY: as the caller promises.
    let (id, document) = unsafe { (guid(&*id), read(document)) };
    // SAFETY: as the caller promises, and null is allowed.
    let done = unsafe { call(operation, Some(id.clone()), document, std::ptr::null_mut(), record) };
    code(done.and_then(|()| {
        let number = library()?.next();
        handles().get_or_insert_default().insert(number, id);
        // SAFETY: as the caller promises.
        unsafe { *handle = number as *mut c_void };
        Ok(())
    }))
}

/// # Safety
/// The pointers are good to read and to write.
unsafe fn of_handle(
    operation: NetworkOperation,
    handle: *const c_void,
    document: PCWSTR,
    answer: *mut PWSTR,
    record: *mut PWSTR,
) -> HRESULT {
    let id = handles().as_ref().and_then(|open| open.get(&(handle as u64)).cloned());
    let Some(id) = id else { return code(Err(hresult::HANDLE)) };
    // SAFETY: as the caller promises.
    let document = unsafe { read(document) };
    // SAFETY: as the caller promises.
    code(unsafe { call(operation, Some(id), document, answer, record) })
}

fn close(handle: *const c_void) -> HRESULT {
    let closed = handles().as_mut().and_then(|open| open.remove(&(handle as u64)));
    code(closed.map(drop).ok_or(hresult::HANDLE))
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcnCreateNamespace(
    id: *const GUID,
    settings: PCWSTR,
    namespace: *mut *mut c_void,
    record: *mut PWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { open(NetworkOperation::CreateNamespace, id, settings, namespace, record) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcnOpenNamespace(
    id: *const GUID,
    namespace: *mut *mut c_void,
    record: *mut PWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises, and null is allowed.
    unsafe { open(NetworkOperation::OpenNamespace, id, std::ptr::null(), namespace, record) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcnQueryNamespaceProperties(
    namespace: *const c_void,
    query: PCWSTR,
    properties: *mut PWSTR,
    record: *mut PWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { of_handle(NetworkOperation::QueryNamespace, namespace, query, properties, record) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcnModifyNamespace(
    namespace: *const c_void,
    settings: PCWSTR,
    record: *mut PWSTR,
) -> HRESULT {
    let none = std::ptr::null_mut();
    // SAFETY: as the caller promises, and null is allowed.
    unsafe { of_handle(NetworkOperation::ModifyNamespace, namespace, settings, none, record) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcnDeleteNamespace(id: *const GUID, record: *mut PWSTR) -> HRESULT {
    if id.is_null() {
        return code(Err(hresult::INVALID_ARGUMENT));
    }
    let operation = NetworkOperation::DeleteNamespace;
    // SAFETY: as the caller promises, and null is allowed.
    code(unsafe { call(operation, Some(guid(&*id)), None, std::ptr::null_mut(), record) })
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcnEnumerateNamespaces(
    query: PCWSTR,
    namespaces: *mut PWSTR,
    record: *mut PWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises.
    code(unsafe {
        call(NetworkOperation::EnumerateNamespaces, None, read(query), namespaces, record)
    })
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcnCloseNamespace(namespace: *const c_void) -> HRESULT {
    close(namespace)
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcnOpenEndpoint(
    id: *const GUID,
    endpoint: *mut *mut c_void,
    record: *mut PWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises, and null is allowed.
    unsafe { open(NetworkOperation::OpenEndpoint, id, std::ptr::null(), endpoint, record) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcnQueryEndpointProperties(
    endpoint: *const c_void,
    query: PCWSTR,
    properties: *mut PWSTR,
    record: *mut PWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { of_handle(NetworkOperation::QueryEndpoint, endpoint, query, properties, record) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcnEnumerateEndpoints(
    query: PCWSTR,
    endpoints: *mut PWSTR,
    record: *mut PWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises.
    code(unsafe {
        call(NetworkOperation::EnumerateEndpoints, None, read(query), endpoints, record)
    })
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcnCloseEndpoint(endpoint: *const c_void) -> HRESULT {
    close(endpoint)
}
