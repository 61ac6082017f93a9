//! Keys of the registry, in the machine's hive.

use std::io;

use anyhow::{Context, Result};
use windows_sys::Win32::Foundation::ERROR_CHILD_MUST_BE_VOLATILE;
use windows_sys::Win32::Security::{DACL_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR};
use windows_sys::Win32::System::Registry::{
    HKEY, HKEY_LOCAL_MACHINE, KEY_ALL_ACCESS, KEY_CREATE_SUB_KEY, REG_OPEN_CREATE_OPTIONS,
    REG_OPTION_NON_VOLATILE, REG_OPTION_VOLATILE, REG_SAM_FLAGS, RegCloseKey, RegCreateKeyExW,
    RegDeleteKeyW, RegOpenKeyExW, RegSetKeySecurity,
};

/// An open key.
pub struct Key(pub HKEY);

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the key is open, and nobody uses it after this.
        unsafe { RegCloseKey(self.0) };
    }
}

/// Opens a key.
pub fn open(name: &str, rights: REG_SAM_FLAGS) -> io::Result<Key> {
    let (name, mut key) = (wide(name), std::ptr::null_mut());
    // SAFETY: the name ends with a zero, and the key's place outlives the call.
    let code = unsafe { RegOpenKeyExW(HKEY_LOCAL_MACHINE, name.as_ptr(), 0, rights, &mut key) };
    checked(code).map(|()| Key(key))
}

/// Makes a volatile key with these rights.
pub fn create_with(name: &str, descriptor: PSECURITY_DESCRIPTOR) -> io::Result<()> {
    let key = create(HKEY_LOCAL_MACHINE, name, REG_OPTION_VOLATILE)?;
    // Wine doesn't take them when it makes a key.
    // SAFETY: the key is open, and the descriptor outlives the call.
    checked(unsafe { RegSetKeySecurity(key.0, DACL_SECURITY_INFORMATION, descriptor) })
}

/// Says whether a key is forgotten when Windows ends: only one that isn't takes keys that stay.
pub fn say_permanence(name: &str) -> Result<()> {
    /// A key to try it with.
    const CHILD: &str = "windows-probe";
    let parent = open(name, KEY_CREATE_SUB_KEY).with_context(|| format!("open the key {name}"))?;
    match create(parent.0, CHILD, REG_OPTION_NON_VOLATILE) {
        Ok(_) => {
            println!("permanent");
            let child = wide(CHILD);
            // SAFETY: the key is open, and the name ends with a zero.
            let code = unsafe { RegDeleteKeyW(parent.0, child.as_ptr()) };
            checked(code).context("delete the key that was made")
        }
        Err(error) if error.raw_os_error() == Some(ERROR_CHILD_MUST_BE_VOLATILE.cast_signed()) => {
            println!("volatile");
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("make a key in {name}")),
    }
}

fn create(parent: HKEY, name: &str, options: REG_OPEN_CREATE_OPTIONS) -> io::Result<Key> {
    let (name, mut key) = (wide(name), std::ptr::null_mut());
    // SAFETY: the parent is open, the name ends with a zero, and the key's place outlives the call.
    let code = unsafe {
        RegCreateKeyExW(
            parent,
            name.as_ptr(),
            0,
            std::ptr::null(),
            options,
            KEY_ALL_ACCESS,
            std::ptr::null(),
            &mut key,
            std::ptr::null_mut(),
        )
    };
    checked(code).map(|()| Key(key))
}

fn checked(code: u32) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.cast_signed())),
    }
}

/// A text as Windows takes it.
pub fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}
