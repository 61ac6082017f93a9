//! `computecore.dll`.

use std::ffi::c_void;
use std::sync::Arc;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::HostComputeSystem::{
    HCS_EVENT_CALLBACK, HCS_EVENT_OPTIONS, HCS_OPERATION, HCS_OPERATION_COMPLETION,
    HCS_OPERATION_TYPE, HCS_PROCESS, HCS_PROCESS_INFORMATION, HCS_SYSTEM, HcsOperationTypeCreate,
    HcsOperationTypeCreateProcess, HcsOperationTypeEnumerate, HcsOperationTypeGetProcessInfo,
    HcsOperationTypeGetProcessProperties, HcsOperationTypeGetProperties, HcsOperationTypeModify,
    HcsOperationTypeModifyProcess, HcsOperationTypePause, HcsOperationTypeResume,
    HcsOperationTypeShutdown, HcsOperationTypeSignalProcess, HcsOperationTypeStart,
    HcsOperationTypeTerminate,
};
use windows_sys::core::{HRESULT, PCWSTR, PWSTR};

use super::operation::Operation;
use super::text::{Freed, give, read};
use super::{code, library};
use crate::hresult::{self, Hresult};
use crate::wire::{AccessOperation, Call, ProcessOperation, SystemOperation};

#[unsafe(no_mangle)]
extern "system" fn HcsCreateOperation(
    context: *const c_void,
    callback: HCS_OPERATION_COMPLETION,
) -> HCS_OPERATION {
    let Ok(library) = library() else { return std::ptr::null_mut() };
    let number = library.next();
    let operation = Operation::new(number, context, callback);
    library.operations().insert(number, Arc::new(operation));
    number as HCS_OPERATION
}

#[unsafe(no_mangle)]
extern "system" fn HcsCloseOperation(operation: HCS_OPERATION) {
    if let Ok(library) = library() {
        library.operations().remove(&(operation as u64));
    }
}

#[unsafe(no_mangle)]
extern "system" fn HcsCancelOperation(_operation: HCS_OPERATION) -> HRESULT {
    // So says its documentation.
    code(Err(hresult::NOT_IMPLEMENTED))
}

#[unsafe(no_mangle)]
extern "system" fn HcsGetOperationContext(operation: HCS_OPERATION) -> *mut c_void {
    let operation = library().and_then(|library| library.operation(operation));
    operation.map_or(std::ptr::null_mut(), |operation| operation.context())
}

#[unsafe(no_mangle)]
extern "system" fn HcsSetOperationContext(
    operation: HCS_OPERATION,
    context: *const c_void,
) -> HRESULT {
    let operation = library().and_then(|library| library.operation(operation));
    code(operation.map(|operation| operation.set_context(context)))
}

#[unsafe(no_mangle)]
extern "system" fn HcsSetOperationCallback(
    operation: HCS_OPERATION,
    context: *const c_void,
    callback: HCS_OPERATION_COMPLETION,
) -> HRESULT {
    let operation = library().and_then(|library| library.operation(operation));
    code(operation.and_then(|operation| operation.set_callback(context, callback)))
}

#[unsafe(no_mangle)]
extern "system" fn HcsGetOperationType(operation: HCS_OPERATION) -> HCS_OPERATION_TYPE {
    let operation = library().and_then(|library| library.operation(operation));
    operation.map_or(-1, |operation| operation.kind())
}

#[unsafe(no_mangle)]
extern "system" fn HcsGetOperationId(operation: HCS_OPERATION) -> u64 {
    operation as u64
}

#[unsafe(no_mangle)]
extern "system" fn HcsGetComputeSystemFromOperation(operation: HCS_OPERATION) -> HCS_SYSTEM {
    let operation = library().and_then(|library| library.operation(operation));
    operation.map_or(0, |operation| operation.about().0) as HCS_SYSTEM
}

#[unsafe(no_mangle)]
extern "system" fn HcsGetProcessFromOperation(operation: HCS_OPERATION) -> HCS_PROCESS {
    let operation = library().and_then(|library| library.operation(operation));
    operation.map_or(0, |operation| operation.about().1) as HCS_PROCESS
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsGetOperationResult(
    operation: HCS_OPERATION,
    document: *mut PWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { HcsWaitForOperationResult(operation, 0, document) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsWaitForOperationResult(
    operation: HCS_OPERATION,
    milliseconds: u32,
    document: *mut PWSTR,
) -> HRESULT {
    let operation = match library().and_then(|library| library.operation(operation)) {
        Ok(operation) => operation,
        Err(failure) => return code(Err(failure)),
    };
    let (result, text) = operation.wait(milliseconds);
    // SAFETY: as the caller promises.
    unsafe { give(document, text.as_deref(), Freed::Local) };
    code(result.map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsGetOperationResultAndProcessInfo(
    operation: HCS_OPERATION,
    information: *mut HCS_PROCESS_INFORMATION,
    document: *mut PWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { HcsWaitForOperationResultAndProcessInfo(operation, 0, information, document) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsWaitForOperationResultAndProcessInfo(
    operation: HCS_OPERATION,
    milliseconds: u32,
    information: *mut HCS_PROCESS_INFORMATION,
    document: *mut PWSTR,
) -> HRESULT {
    let operation = match library().and_then(|library| library.operation(operation)) {
        Ok(operation) => operation,
        Err(failure) => return code(Err(failure)),
    };
    let (result, text) = operation.wait(milliseconds);
    // SAFETY: as the caller promises.
    unsafe { give(document, text.as_deref(), Freed::Local) };
    let kinds = [HcsOperationTypeCreateProcess, HcsOperationTypeGetProcessInfo];
    let process = match result {
        Err(failure) => return code(Err(failure)),
        Ok(_) if !kinds.contains(&operation.kind()) => {
            return code(Err(hresult::INVALID_ARGUMENT));
        }
        Ok(None) => return code(Err(hresult::PROCESS_INFO_NOT_AVAILABLE)),
        Ok(Some(process)) => process,
    };
    if !information.is_null() {
        let process = HCS_PROCESS_INFORMATION {
            ProcessId: process.process,
            Reserved: 0,
            StdInput: process.input as HANDLE,
            StdOutput: process.output as HANDLE,
            StdError: process.error as HANDLE,
        };
        // SAFETY: as the caller promises.
        unsafe { *information = process };
    }
    code(Ok(()))
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsCreateComputeSystem(
    id: PCWSTR,
    configuration: PCWSTR,
    operation: HCS_OPERATION,
    security: *const c_void,
    system: *mut HCS_SYSTEM,
) -> HRESULT {
    // SAFETY: as the caller promises.
    let (id, document) = unsafe { (read(id), read(configuration)) };
    let (Some(id), Some(document), true, false) =
        (id, document, security.is_null(), system.is_null())
    else {
        return code(Err(hresult::INVALID_ARGUMENT));
    };
    let started = library().and_then(|library| {
        let operation = library.operation(operation)?;
        let handle = library.next();
        let call = Call::Create { handle, id, document };
        operation.start(library, HcsOperationTypeCreate, (handle, 0), call)?;
        Ok(library.new_object(handle))
    });
    // SAFETY: as the caller promises.
    code(started.map(|handle| unsafe { *system = handle }))
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsOpenComputeSystem(
    id: PCWSTR,
    _access: u32,
    system: *mut HCS_SYSTEM,
) -> HRESULT {
    // SAFETY: as the caller promises.
    let (Some(id), false) = (unsafe { read(id) }, system.is_null()) else {
        return code(Err(hresult::INVALID_ARGUMENT));
    };
    let opened = library().and_then(|library| {
        let handle = library.next();
        // An event may come with the answer.
        let object = library.new_object(handle);
        match library.call(Call::Open { handle, id }) {
            Ok(_) => Ok(object),
            Err(reply) => {
                library.objects().remove(&handle);
                Err(reply.result)
            }
        }
    });
    // SAFETY: as the caller promises.
    code(opened.map(|handle| unsafe { *system = handle }))
}

fn close(handle: *mut c_void) {
    let Ok(library) = library() else { return };
    let object = library.objects().remove(&(handle as u64));
    if let Some(object) = object {
        object.close();
        let call = Call::Close { handle: object.number };
        library.client.send(crate::wire::What::Call(call), drop);
    }
}

#[unsafe(no_mangle)]
extern "system" fn HcsCloseComputeSystem(system: HCS_SYSTEM) {
    close(system);
}

#[unsafe(no_mangle)]
extern "system" fn HcsCloseProcess(process: HCS_PROCESS) {
    close(process);
}

/// A function of a system.
///
/// # Safety
/// The options are null or text.
unsafe fn system_call(
    system: HCS_SYSTEM,
    operation: HCS_OPERATION,
    options: PCWSTR,
    (kind, function): (HCS_OPERATION_TYPE, SystemOperation),
) -> HRESULT {
    // SAFETY: as the caller promises.
    let document = unsafe { read(options) };
    code(library().and_then(|library| {
        let handle = library.object(system)?.number;
        let call = Call::System { handle, operation: function, document };
        library.operation(operation)?.start(library, kind, (handle, 0), call)
    }))
}

/// Functions of a system, or of a process, that take options, all alike.
macro_rules! functions {
    ($call:ident($object:ty, $operations:ident): $($name:ident: $kind:expr, $operation:ident;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "system" fn $name(
            object: $object,
            operation: HCS_OPERATION,
            options: PCWSTR,
        ) -> HRESULT {
            let what = ($kind, $operations::$operation);
            // SAFETY: as the caller promises.
            unsafe { $call(object, operation, options, what) }
        }
    )*};
}

functions! {
    system_call(HCS_SYSTEM, SystemOperation):
    HcsStartComputeSystem: HcsOperationTypeStart, Start;
    HcsShutDownComputeSystem: HcsOperationTypeShutdown, ShutDown;
    HcsTerminateComputeSystem: HcsOperationTypeTerminate, Terminate;
    HcsPauseComputeSystem: HcsOperationTypePause, Pause;
    HcsResumeComputeSystem: HcsOperationTypeResume, Resume;
    HcsGetComputeSystemProperties: HcsOperationTypeGetProperties, GetProperties;
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsModifyComputeSystem(
    system: HCS_SYSTEM,
    operation: HCS_OPERATION,
    configuration: PCWSTR,
    _identity: HANDLE,
) -> HRESULT {
    let what = (HcsOperationTypeModify, SystemOperation::Modify);
    // SAFETY: as the caller promises.
    unsafe { system_call(system, operation, configuration, what) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsEnumerateComputeSystems(
    query: PCWSTR,
    operation: HCS_OPERATION,
) -> HRESULT {
    // SAFETY: as the caller promises.
    let query = unsafe { read(query) };
    code(library().and_then(|library| {
        let call = Call::Enumerate { query };
        library.operation(operation)?.start(library, HcsOperationTypeEnumerate, (0, 0), call)
    }))
}

#[unsafe(no_mangle)]
extern "system" fn HcsSetComputeSystemCallback(
    system: HCS_SYSTEM,
    _options: HCS_EVENT_OPTIONS,
    context: *const c_void,
    callback: HCS_EVENT_CALLBACK,
) -> HRESULT {
    let object = library().and_then(|library| library.object(system));
    code(object.and_then(|object| object.set_callback(callback, context)))
}

#[unsafe(no_mangle)]
extern "system" fn HcsSetProcessCallback(
    process: HCS_PROCESS,
    options: HCS_EVENT_OPTIONS,
    context: *const c_void,
    callback: HCS_EVENT_CALLBACK,
) -> HRESULT {
    HcsSetComputeSystemCallback(process, options, context, callback)
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsWaitForComputeSystemExit(
    system: HCS_SYSTEM,
    milliseconds: u32,
    result: *mut PWSTR,
) -> HRESULT {
    let object = library().and_then(|library| library.object(system));
    let ended = object.and_then(|object| object.wait(milliseconds));
    // SAFETY: as the caller promises.
    unsafe { give(result, ended.as_deref().ok(), Freed::Local) };
    code(ended.map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsWaitForProcessExit(
    process: HCS_PROCESS,
    milliseconds: u32,
    result: *mut PWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { HcsWaitForComputeSystemExit(process, milliseconds, result) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsCreateProcess(
    system: HCS_SYSTEM,
    parameters: PCWSTR,
    operation: HCS_OPERATION,
    security: *const c_void,
    process: *mut HCS_PROCESS,
) -> HRESULT {
    // SAFETY: as the caller promises.
    let document = unsafe { read(parameters) };
    let (Some(document), true, false) = (document, security.is_null(), process.is_null()) else {
        return code(Err(hresult::INVALID_ARGUMENT));
    };
    let started = library().and_then(|library| {
        let system = library.object(system)?.number;
        let operation = library.operation(operation)?;
        let handle = library.next();
        // The process may end before the call does.
        let object = library.new_object(handle);
        let call = Call::CreateProcess { system, handle, document };
        operation.start(library, HcsOperationTypeCreateProcess, (system, handle), call)?;
        Ok(object)
    });
    // SAFETY: as the caller promises.
    code(started.map(|handle| unsafe { *process = handle }))
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsOpenProcess(
    system: HCS_SYSTEM,
    id: u32,
    _access: u32,
    process: *mut HCS_PROCESS,
) -> HRESULT {
    if process.is_null() {
        return code(Err(hresult::INVALID_ARGUMENT));
    }
    let opened = library().and_then(|library| {
        let system = library.object(system)?.number;
        let handle = library.next();
        let object = library.new_object(handle);
        match library.call(Call::OpenProcess { system, handle, process: id }) {
            Ok(_) => Ok(object),
            Err(reply) => {
                library.objects().remove(&handle);
                Err(reply.result)
            }
        }
    });
    // SAFETY: as the caller promises.
    code(opened.map(|handle| unsafe { *process = handle }))
}

/// A function of a process.
///
/// # Safety
/// The options are null or text.
unsafe fn process_call(
    process: HCS_PROCESS,
    operation: HCS_OPERATION,
    options: PCWSTR,
    (kind, function): (HCS_OPERATION_TYPE, ProcessOperation),
) -> HRESULT {
    // SAFETY: as the caller promises.
    let document = unsafe { read(options) };
    code(library().and_then(|library| {
        let handle = library.object(process)?.number;
        let call = Call::Process { handle, operation: function, document };
        library.operation(operation)?.start(library, kind, (0, handle), call)
    }))
}

functions! {
    process_call(HCS_PROCESS, ProcessOperation):
    HcsGetProcessProperties: HcsOperationTypeGetProcessProperties, GetProperties;
    HcsModifyProcess: HcsOperationTypeModifyProcess, Modify;
    HcsSignalProcess: HcsOperationTypeSignalProcess, Signal;
    // Terminating is a signal for the service's own names of operations.
    HcsTerminateProcess: HcsOperationTypeSignalProcess, Terminate;
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsGetProcessInfo(
    process: HCS_PROCESS,
    operation: HCS_OPERATION,
) -> HRESULT {
    let what = (HcsOperationTypeGetProcessInfo, ProcessOperation::GetInfo);
    // SAFETY: null is allowed.
    unsafe { process_call(process, operation, std::ptr::null(), what) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsGetServiceProperties(query: PCWSTR, result: *mut PWSTR) -> HRESULT {
    // SAFETY: as the caller promises.
    let query = unsafe { read(query) };
    let answer = library().map(|library| library.call(Call::ServiceProperties { query }));
    let (outcome, document) = match answer {
        Ok(Ok(reply)) => (Ok(()), reply.document),
        Ok(Err(reply)) => (Err(reply.result), reply.document),
        Err(failure) => (Err(failure), None),
    };
    // SAFETY: as the caller promises.
    unsafe { give(result, document.as_deref(), Freed::Local) };
    code(outcome)
}

/// A function that says who may read a file.
///
/// # Safety
/// The texts are null or texts.
unsafe fn access(operation: AccessOperation, machine: PCWSTR, all: bool, path: PCWSTR) -> HRESULT {
    // SAFETY: as the caller promises.
    let (machine, path) = unsafe { (read(machine), read(path)) };
    let (Some(path), true) = (path, all != machine.is_some()) else {
        return code(Err(hresult::INVALID_ARGUMENT));
    };
    code(library().and_then(|library| {
        let call = Call::Access { operation, machine, path };
        library.call(call).map(drop).map_err(|reply| reply.result)
    }))
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsGrantVmAccess(machine: PCWSTR, path: PCWSTR) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { access(AccessOperation::Grant, machine, false, path) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsRevokeVmAccess(machine: PCWSTR, path: PCWSTR) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { access(AccessOperation::Revoke, machine, false, path) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsGrantVmGroupAccess(path: PCWSTR) -> HRESULT {
    // SAFETY: as the caller promises, and null is allowed.
    unsafe { access(AccessOperation::Grant, std::ptr::null(), true, path) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsRevokeVmGroupAccess(path: PCWSTR) -> HRESULT {
    // SAFETY: as the caller promises, and null is allowed.
    unsafe { access(AccessOperation::Revoke, std::ptr::null(), true, path) }
}

/// Makes a file for a virtual machine's state. It must not be there yet.
///
/// # Safety
/// The path is null or text.
unsafe fn new_file(path: PCWSTR) -> HRESULT {
    // SAFETY: as the caller promises.
    let Some(path) = (unsafe { read(path) }) else { return code(Err(hresult::INVALID_ARGUMENT)) };
    let made = std::fs::File::create_new(path);
    code(made.map(drop).map_err(|error| Hresult::from_system(&error)))
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsCreateEmptyGuestStateFile(path: PCWSTR) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { new_file(path) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsCreateEmptyRuntimeStateFile(path: PCWSTR) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { new_file(path) }
}
