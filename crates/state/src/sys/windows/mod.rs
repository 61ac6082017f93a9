//! The store as volatile registry keys, which are gone after the next boot.
//!
//! ```text
//! HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\runhcs\<root>\<name>    an entry; its values are JSON texts
//! HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\runhcs\<root>\~<other>  what the store keeps besides entries
//! ```
//!
//! The keys have the access rights that `SOFTWARE\Microsoft` hands on: administrators and the
//! system may write, others read.
//!
//! An entry's lock is a named mutex, which the system frees if its owner dies. A key is an entry
//! as long as it has the record: it is the last value written by a claim and the first removed by a
//! removal, both under the lock. A key without it is a leftover of a crash, which the next claim of
//! the name clears.

mod dir;
mod mutex;
mod process;
mod rights;
mod root;

pub(crate) use dir::Dir;
pub(crate) use process::process_times;
pub use rights::AdministratorsOnly;
pub(crate) use root::Root;

use std::io;

/// Names of registry keys don't differ by case (Microsoft Learn, "Registry element size limits"
/// and "Structure of the registry").
pub(crate) const NAMES_DIFFER_BY_CASE: bool = false;

/// `ERROR_FILE_NOT_FOUND`, as an `HRESULT`: there is no such key or value.
const NOT_FOUND: i32 = 0x8007_0002_u32 as i32;
/// `ERROR_KEY_DELETED`, as an `HRESULT`: the key was deleted since it was opened.
const KEY_DELETED: i32 = 0x8007_03FA_u32 as i32;

/// The registry's error as one of the standard library's.
fn io_error(error: windows_result::Error) -> io::Error {
    /// What an `HRESULT` of a Win32 error begins with.
    const WIN32: u32 = 0x8007_0000;
    let code = error.code().0 as u32;
    if code & 0xffff_0000 == WIN32 {
        io::Error::from_raw_os_error((code & 0xffff) as i32)
    } else {
        io::Error::other(error.to_string())
    }
}
