//! Operations: what the service works on while its caller waits for the outcome.

use std::time::Duration;

use windows_sys::Win32::System::HostComputeSystem::{
    HCS_OPERATION, HCS_PROCESS_INFORMATION, HcsCloseOperation, HcsCreateOperation,
    HcsWaitForOperationResult, HcsWaitForOperationResultAndProcessInfo,
};
use windows_sys::core::HRESULT;

use super::Result;
use super::deadline::bound;
use super::text::Returned;
use crate::Failure;

/// `E_OUTOFMEMORY`: what it means if no operation can be made.
const OUT_OF_MEMORY: HRESULT = 0x8007_000e_u32 as i32;

/// One operation. Its end gives it up, whatever became of it.
pub(super) struct Operation {
    handle: HCS_OPERATION,
    /// What it is for, for messages.
    attempt: String,
}

impl Operation {
    pub(super) fn new(attempt: impl Into<String>) -> Result<Self> {
        let attempt = attempt.into();
        // SAFETY: neither context nor callback is given.
        let handle = unsafe { HcsCreateOperation(std::ptr::null(), None) };
        if handle.is_null() {
            return Err(Failure::new(attempt, OUT_OF_MEMORY));
        }
        Ok(Self { handle, attempt })
    }

    /// For the call that begins it.
    pub(super) fn handle(&self) -> HCS_OPERATION {
        self.handle
    }

    /// Waits for the outcome of a call that has begun it, and returns the result document.
    pub(super) fn wait(&self, begun: HRESULT, deadline: Duration) -> Result<String> {
        self.check(begun)?;
        let mut document = Returned::none();
        // SAFETY: the operation is open, and the document's place outlives the call.
        let code = unsafe {
            HcsWaitForOperationResult(self.handle, milliseconds(deadline), document.out())
        };
        self.outcome(code, &document)
    }

    /// The same for the creation of a process.
    pub(super) fn wait_for_process(
        &self,
        begun: HRESULT,
        deadline: Duration,
    ) -> Result<HCS_PROCESS_INFORMATION> {
        self.check(begun)?;
        let mut document = Returned::none();
        let mut information = HCS_PROCESS_INFORMATION::default();
        // SAFETY: the operation is open, and both places outlive the call.
        let code = unsafe {
            HcsWaitForOperationResultAndProcessInfo(
                self.handle,
                milliseconds(deadline),
                &mut information,
                document.out(),
            )
        };
        self.outcome(code, &document).map(|_| information)
    }

    fn check(&self, begun: HRESULT) -> Result<()> {
        if begun < 0 { Err(Failure::new(&self.attempt, begun)) } else { Ok(()) }
    }

    fn outcome(&self, code: HRESULT, document: &Returned) -> Result<String> {
        let document = document.text();
        if code < 0 {
            return Err(Failure::with_document(&self.attempt, code, &document));
        }
        Ok(document)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: the operation is open, and this is its only owner.
        unsafe { HcsCloseOperation(self.handle) };
    }
}

/// A deadline as the service takes it.
fn milliseconds(deadline: Duration) -> u32 {
    u32::try_from(bound(deadline).as_millis()).unwrap_or(u32::MAX)
}
