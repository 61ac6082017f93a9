//! Who may use an object of this program that has a name.

use std::io;

use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::Security::Authorization::{
    ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::{PSECURITY_DESCRIPTOR, SECURITY_ATTRIBUTES};

/// Everything for the system and for administrators, nothing for others, as SDDL.
const ADMINISTRATORS: &str = "D:P(A;;GA;;;SY)(A;;GA;;;BA)";

/// The rights of a new object that the system and administrators may use, whichever of them made it,
/// and nobody else.
///
/// Without them an object has what its maker's account gives: what the system has made
/// administrators can't use whole then, and what an administrator has made others of the session
/// can wait for.
#[derive(Debug)]
pub struct AdministratorsOnly(PSECURITY_DESCRIPTOR);

impl AdministratorsOnly {
    /// Has the system make them.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn new() -> io::Result<Self> {
        let text: Vec<u16> = ADMINISTRATORS.encode_utf16().chain([0]).collect();
        let mut descriptor: PSECURITY_DESCRIPTOR = std::ptr::null_mut();
        // SAFETY: the text has a 0 at its end, and it and the descriptor's place outlive the call;
        // the size isn't asked for.
        let done = unsafe {
            let (place, no_size) = (&mut descriptor, std::ptr::null_mut());
            let text = text.as_ptr();
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text,
                SDDL_REVISION_1,
                place,
                no_size,
            )
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(descriptor))
    }

    /// What the calls that make objects take. Nobody inherits the handle. They are good as long as
    /// this exists.
    pub fn attributes(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: self.0,
            bInheritHandle: 0,
        }
    }
}

impl Drop for AdministratorsOnly {
    fn drop(&mut self) {
        // SAFETY: the descriptor was made by the call that says to free it so, and nobody uses it
        // any more.
        unsafe { LocalFree(self.0) };
    }
}
