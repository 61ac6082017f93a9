//! Compute systems: containers and virtual machines.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use windows_sys::Win32::System::HostComputeSystem::{
    HCS_OPERATION, HCS_SYSTEM, HcsCloseComputeSystem, HcsCreateComputeSystem,
    HcsEnumerateComputeSystems, HcsEventOptionNone, HcsGetComputeSystemProperties,
    HcsModifyComputeSystem, HcsOpenComputeSystem, HcsPauseComputeSystem, HcsResumeComputeSystem,
    HcsSetComputeSystemCallback, HcsShutDownComputeSystem, HcsStartComputeSystem,
    HcsTerminateComputeSystem,
};
use windows_sys::core::{HRESULT, PCWSTR};

use super::Result;
use super::deadline::{ANSWER, TIMED_OUT, WORK, bound, within};
use super::events::{DISCONNECTED, Told, Watch};
use super::operation::Operation;
use super::text::Wide;
use crate::schema::{
    ComputeSystem, ModifySettingRequest, Properties, PropertyQuery, PropertyType, SystemExitStatus,
    SystemState,
};
use crate::{Failure, Kind};

/// All rights (`GENERIC_ALL`).
const ALL_RIGHTS: u32 = 0x1000_0000;

/// A compute system, open. If its document says so, it ends when the last handle is closed.
#[derive(Debug)]
pub struct System {
    pub(super) handle: Arc<Handle>,
    id: String,
    /// There once somebody has waited for the end.
    watch: Mutex<Option<Arc<Watch>>>,
}

/// A system's handle, which closes itself.
#[derive(Debug)]
pub(super) struct Handle(pub(super) HCS_SYSTEM);

// SAFETY: the service's handles belong to the process and can be used by any of its threads at the
// same time (Microsoft Learn, "HCS agent application").
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the system is open, and this is the handle's only owner.
        unsafe { HcsCloseComputeSystem(self.0) };
    }
}

type Call = unsafe extern "system" fn(HCS_SYSTEM, HCS_OPERATION, PCWSTR) -> HRESULT;

impl System {
    fn new(handle: HCS_SYSTEM, id: &str) -> Self {
        Self { handle: Arc::new(Handle(handle)), id: id.to_owned(), watch: Mutex::default() }
    }

    /// Makes a system that is to be started later.
    ///
    /// # Errors
    /// [`Kind::AlreadyExists`] if the id is taken. A system that was made but not in time is ended.
    pub fn create(id: &str, document: &ComputeSystem) -> Result<Self> {
        let operation = Operation::new(format!("create compute system {id}"))?;
        let (name, configuration) = (Wide::new(id), Wide::json(document));
        let mut handle: HCS_SYSTEM = std::ptr::null_mut();
        // SAFETY: both texts and the handle's place outlive the call; no security descriptor is
        // given.
        let begun = unsafe {
            HcsCreateComputeSystem(
                name.as_ptr(),
                configuration.as_ptr(),
                operation.handle(),
                std::ptr::null(),
                &mut handle,
            )
        };
        // From here on the handle, if there is one, closes itself.
        let system = (!handle.is_null()).then(|| Self::new(handle, id));
        let made = operation.wait(begun, WORK);
        match (made, system) {
            (Ok(_), Some(system)) => Ok(system),
            (Ok(_), None) => Err(Failure::new(format!("create compute system {id}"), begun)),
            (Err(failure), system) => {
                if let (Kind::TimedOut | Kind::Pending, Some(system)) = (failure.kind, system) {
                    let _ = system.terminate();
                }
                Err(failure)
            }
        }
    }

    /// Opens a system.
    ///
    /// # Errors
    /// [`Kind::NotFound`]
    pub fn open(id: &str) -> Result<Self> {
        let (attempt, id) = (format!("open compute system {id}"), id.to_owned());
        within(attempt.clone(), ANSWER, move || {
            let name = Wide::new(&id);
            let mut handle: HCS_SYSTEM = std::ptr::null_mut();
            // SAFETY: the text and the handle's place outlive the call.
            let code = unsafe { HcsOpenComputeSystem(name.as_ptr(), ALL_RIGHTS, &mut handle) };
            if code < 0 || handle.is_null() {
                return Err(Failure::new(attempt, code));
            }
            Ok(Self::new(handle, &id))
        })
    }

    /// Opens a system, if there is one.
    pub fn find(id: &str) -> Result<Option<Self>> {
        match Self::open(id) {
            Ok(system) => Ok(Some(system)),
            Err(failure) if failure.kind == Kind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Starts it.
    pub fn start(&self) -> Result<()> {
        self.call("start", HcsStartComputeSystem, WORK)
    }

    /// Has the guest shut down, and returns when that has been taken up.
    pub fn shut_down(&self) -> Result<()> {
        self.call("shut down", HcsShutDownComputeSystem, ANSWER)
    }

    /// Ends it. Succeeds if it has ended already.
    pub fn terminate(&self) -> Result<()> {
        match self.call("terminate", HcsTerminateComputeSystem, WORK) {
            Err(failure) if matches!(failure.kind, Kind::AlreadyStopped | Kind::NotFound) => Ok(()),
            outcome => outcome,
        }
    }

    /// Freezes it.
    pub fn pause(&self) -> Result<()> {
        self.call("pause", HcsPauseComputeSystem, WORK)
    }

    /// Thaws it.
    pub fn resume(&self) -> Result<()> {
        self.call("resume", HcsResumeComputeSystem, WORK)
    }

    /// What it says about itself: always the basic properties, and those asked for.
    pub fn properties(&self, types: &[PropertyType]) -> Result<Properties> {
        let attempt = format!("ask compute system {} for its properties", self.id);
        let operation = Operation::new(&attempt)?;
        let query = Wide::json(&PropertyQuery { property_types: types.to_vec() });
        // SAFETY: the system is open, and the text outlives the call.
        let begun = unsafe {
            HcsGetComputeSystemProperties(self.handle.0, operation.handle(), query.as_ptr())
        };
        understand(attempt, &operation.wait(begun, ANSWER)?)
    }

    /// Changes it while it runs.
    pub fn modify(&self, request: &ModifySettingRequest) -> Result<()> {
        let what = match (&request.resource_path, &request.guest_request) {
            (path, Some(guest)) if path.is_empty() => format!("{:?}", guest.resource_type),
            (path, _) => path.clone(),
        };
        let attempt = format!("{:?} {what} of compute system {}", request.request_type, self.id);
        let operation = Operation::new(attempt)?;
        let document = Wide::json(request);
        // SAFETY: the system is open, the text outlives the call, and no identity is given.
        let begun = unsafe {
            HcsModifyComputeSystem(
                self.handle.0,
                operation.handle(),
                document.as_ptr(),
                std::ptr::null_mut(),
            )
        };
        operation.wait(begun, WORK).map(drop)
    }

    /// Waits for its end; `None` if it hasn't come in time.
    pub fn wait(&self, limit: Duration) -> Result<Option<SystemExitStatus>> {
        let attempt = format!("wait for the end of compute system {}", self.id);
        match self.watch(&attempt)?.wait(limit) {
            None => Ok(None),
            Some(Told::Ended(document)) => {
                Ok(Some(serde_json::from_str(&document).unwrap_or_default()))
            }
            Some(Told::Disconnected) => Err(Failure::new(attempt, DISCONNECTED)),
        }
    }

    /// Listens to it from now on.
    fn watch(&self, attempt: &str) -> Result<Arc<Watch>> {
        let mut slot = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = &*slot {
            return Ok(Arc::clone(watch));
        }
        let watch = Watch::new(|context, callback| {
            // SAFETY: the system is open. The context is a number to the callback.
            unsafe {
                HcsSetComputeSystemCallback(self.handle.0, HcsEventOptionNone, context, callback)
            }
        });
        let watch = Arc::new(watch.map_err(|code| Failure::new(attempt, code))?);
        *slot = Some(Arc::clone(&watch));
        drop(slot);
        // It may have ended before anybody listened.
        match self.properties(&[]) {
            Ok(now) if now.stopped || now.state == Some(SystemState::Stopped) => {
                watch.tell(Told::Ended(String::new()));
            }
            Err(failure) if matches!(failure.kind, Kind::AlreadyStopped | Kind::NotFound) => {
                watch.tell(Told::Ended(String::new()));
            }
            // If it can't be asked, it tells by itself all the same.
            _ => {}
        }
        Ok(watch)
    }

    /// Ends it, and returns when it has ended.
    pub fn end(&self, limit: Duration) -> Result<()> {
        self.terminate()?;
        match self.wait(bound(limit))? {
            Some(_) => Ok(()),
            None => Err(Failure::new(format!("terminate compute system {}", self.id), TIMED_OUT)),
        }
    }

    fn call(&self, verb: &str, function: Call, deadline: Duration) -> Result<()> {
        let operation = Operation::new(format!("{verb} compute system {}", self.id))?;
        // SAFETY: the system and the operation are open; no options are given.
        let begun = unsafe { function(self.handle.0, operation.handle(), std::ptr::null()) };
        operation.wait(begun, deadline).map(drop)
    }
}

/// Every system of an owner.
pub fn enumerate(owner: &str) -> Result<Vec<Properties>> {
    let attempt = format!("list the compute systems of {owner}");
    let operation = Operation::new(&attempt)?;
    let query = Wide::json(&serde_json::json!({ "Owners": [owner] }));
    // SAFETY: the text outlives the call.
    let begun = unsafe { HcsEnumerateComputeSystems(query.as_ptr(), operation.handle()) };
    understand(attempt, &operation.wait(begun, ANSWER)?)
}

/// Reads an answer.
pub(super) fn understand<T: serde::de::DeserializeOwned>(
    attempt: String,
    document: &str,
) -> Result<T> {
    /// `HCS_E_PROTOCOL_ERROR`
    const PROTOCOL_ERROR: i32 = 0x8037_0111_u32 as i32;
    serde_json::from_str(document).map_err(|error| Failure {
        message: format!("the answer can't be understood: {error}"),
        ..Failure::new(attempt, PROTOCOL_ERROR)
    })
}
