//! Processes of this host: starting shims, waiting for them, ending them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use runhcs_hcs::command_line::quote;
use runhcs_state::ProcessHandle;
use windows_sys::Win32::Foundation::{HANDLE, WAIT_OBJECT_0, WAIT_TIMEOUT};
use windows_sys::Win32::System::Threading::{
    CREATE_NEW_PROCESS_GROUP, CreateProcessW, DETACHED_PROCESS, DeleteProcThreadAttributeList,
    EXTENDED_STARTUPINFO_PRESENT, GetExitCodeProcess, INFINITE, InitializeProcThreadAttributeList,
    LPPROC_THREAD_ATTRIBUTE_LIST, OpenProcess, PROC_THREAD_ATTRIBUTE_HANDLE_LIST,
    PROCESS_INFORMATION, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE,
    STARTF_USESTDHANDLES, STARTUPINFOEXW, STARTUPINFOW, TerminateProcess,
    UpdateProcThreadAttribute, WaitForSingleObject,
};

use super::stdio::inheritable;

/// The exit code of a process that was ended by force.
const KILLED: u32 = 137;

/// A process of this program that is to be started.
pub struct Launch<'a> {
    /// Its arguments, after the program.
    pub arguments: Vec<String>,
    pub stdin: Option<BorrowedHandle<'a>>,
    /// Its standard output, and its standard error, too.
    pub output: Option<BorrowedHandle<'a>>,
    /// Further handles, inheritable already. It inherits these and its stdio and no others.
    pub passed: Vec<BorrowedHandle<'a>>,
    /// Whether it shares this process's console.
    pub keeps_console: bool,
}

/// A process that was started.
#[derive(Debug)]
pub struct Child {
    handle: OwnedHandle,
    pid: u32,
}

impl Launch<'_> {
    /// Starts it.
    pub fn spawn(self) -> Result<Child> {
        let program = std::env::current_exe().context("find this program's own path")?;
        let name = program.to_str().context("this program's path is not Unicode")?.to_owned();
        let words: Vec<String> = std::iter::once(name).chain(self.arguments.clone()).collect();
        self.spawn_program(program.as_os_str(), &quote(&words)).context("start a shim")
    }

    fn spawn_program(self, program: &OsStr, line: &str) -> io::Result<Child> {
        let null = File::options().read(true).write(true).open("NUL")?;
        let stdio = |handle: Option<BorrowedHandle<'_>>| {
            inheritable(handle.unwrap_or_else(|| null.as_handle()))
        };
        let (stdin, stdout) = (stdio(self.stdin)?, stdio(self.output)?);
        let stderr = stdio(self.output)?;
        let mut inherited: Vec<HANDLE> =
            [&stdin, &stdout, &stderr].map(|handle| handle.as_raw_handle()).to_vec();
        inherited.extend(self.passed.iter().map(|handle| handle.as_raw_handle()));
        inherited.sort();
        inherited.dedup();
        let mut attributes = Attributes::new(&inherited)?;
        let startup = STARTUPINFOEXW {
            StartupInfo: STARTUPINFOW {
                cb: size_of::<STARTUPINFOEXW>() as u32,
                dwFlags: STARTF_USESTDHANDLES,
                hStdInput: stdin.as_raw_handle(),
                hStdOutput: stdout.as_raw_handle(),
                hStdError: stderr.as_raw_handle(),
                ..STARTUPINFOW::default()
            },
            lpAttributeList: attributes.list(),
        };
        let console = if self.keeps_console { 0 } else { DETACHED_PROCESS };
        let program: Vec<u16> = program.encode_wide().chain([0]).collect();
        let mut line: Vec<u16> = OsStr::new(line).encode_wide().chain([0]).collect();
        let mut made = PROCESS_INFORMATION::default();
        // SAFETY: both texts have a 0 at their end; they, the start-up information with its
        // attributes, the handles named in it and the result's place outlive the call. The call
        // may write to the command line, which is this one's own.
        let done = unsafe {
            CreateProcessW(
                program.as_ptr(),
                line.as_mut_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                1,
                console | CREATE_NEW_PROCESS_GROUP | EXTENDED_STARTUPINFO_PRESENT,
                std::ptr::null(),
                std::ptr::null(),
                &raw const startup.StartupInfo,
                &mut made,
            )
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just made both handles, and nobody else has them.
        let (handle, _thread) = unsafe {
            (
                OwnedHandle::from_raw_handle(made.hProcess),
                OwnedHandle::from_raw_handle(made.hThread),
            )
        };
        Ok(Child { handle, pid: made.dwProcessId })
    }
}

/// The list of handles that a process inherits.
struct Attributes<'a> {
    memory: Vec<u64>,
    handles: std::marker::PhantomData<&'a [HANDLE]>,
}

impl<'a> Attributes<'a> {
    fn new(handles: &'a [HANDLE]) -> io::Result<Self> {
        let mut size = 0;
        // SAFETY: asked without memory, the call only says how much it needs.
        unsafe { InitializeProcThreadAttributeList(std::ptr::null_mut(), 1, 0, &mut size) };
        let memory = vec![0_u64; size.div_ceil(size_of::<u64>())];
        let mut attributes = Self { memory, handles: std::marker::PhantomData };
        let list = attributes.memory.as_mut_ptr().cast();
        // SAFETY: the memory is as large as was asked for, and aligned.
        if unsafe { InitializeProcThreadAttributeList(list, 1, 0, &mut size) } == 0 {
            // Nothing to delete then.
            attributes.memory.clear();
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the list is initialized; the handles outlive it.
        let set = unsafe {
            UpdateProcThreadAttribute(
                list,
                0,
                PROC_THREAD_ATTRIBUTE_HANDLE_LIST as usize,
                handles.as_ptr().cast(),
                size_of_val(handles),
                std::ptr::null_mut(),
                std::ptr::null(),
            )
        };
        if set == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(attributes)
    }

    fn list(&mut self) -> LPPROC_THREAD_ATTRIBUTE_LIST {
        self.memory.as_mut_ptr().cast()
    }
}

impl Drop for Attributes<'_> {
    fn drop(&mut self) {
        if !self.memory.is_empty() {
            // SAFETY: the list is initialized and is not used any more.
            unsafe { DeleteProcThreadAttributeList(self.list()) };
        }
    }
}

impl Child {
    /// Waits up to a limit until it has ended, then ends it by force. Returns its exit code.
    pub fn end(self, patience: Duration) -> Result<u32> {
        let patience = u32::try_from(patience.as_millis()).unwrap_or(INFINITE);
        if wait_for(&self.handle, patience).is_err() {
            kill_and_wait(&self.handle, self.pid)?;
        }
        exit_code(&self.handle).with_context(|| format!("ask how process {} ended", self.pid))
    }

    /// Its pid. Its handle stays open as long as this process lives, so that the pid stays its own
    /// and its exit code can be asked for.
    pub fn leave(self) -> u32 {
        std::mem::forget(self.handle);
        self.pid
    }
}

/// Waits for the end of a process that this one started, and returns its exit code.
pub fn wait(pid: u32) -> Result<u32> {
    let what = || format!("wait for process {pid}");
    let process =
        open(pid, PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE).with_context(what)?;
    wait_for(&process, INFINITE).with_context(what)?;
    exit_code(&process).with_context(what)
}

/// Waits up to a limit until a process is gone, then ends it by force.
pub fn end(process: ProcessHandle, patience: Duration) -> Result<()> {
    let Ok(handle) = open(process.pid, PROCESS_TERMINATE | PROCESS_SYNCHRONIZE) else {
        return Ok(());
    };
    // Asked after opening it, so that the pid can't become another's in between.
    if !process.is_alive()? {
        return Ok(());
    }
    let patience = u32::try_from(patience.as_millis()).unwrap_or(INFINITE);
    if wait_for(&handle, patience).is_ok() {
        return Ok(());
    }
    kill_and_wait(&handle, process.pid)
}

fn exit_code(process: &OwnedHandle) -> io::Result<u32> {
    let mut code = 0;
    // SAFETY: the process is open, and the code's place outlives the call.
    match unsafe { GetExitCodeProcess(process.as_raw_handle(), &mut code) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(code),
    }
}

fn kill_and_wait(handle: &OwnedHandle, pid: u32) -> Result<()> {
    /// How long the system may take to end a process, in milliseconds.
    const PATIENCE: u32 = 30_000;
    // SAFETY: the process is open.
    unsafe { TerminateProcess(handle.as_raw_handle(), KILLED) };
    if let Err(error) = wait_for(handle, PATIENCE) {
        bail!("end process {pid}: {error}");
    }
    Ok(())
}

fn open(pid: u32, rights: u32) -> io::Result<OwnedHandle> {
    // SAFETY: the call takes numbers only.
    let handle = unsafe { OpenProcess(rights, 0, pid) };
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made the handle, and nobody else has it.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

fn wait_for(handle: &OwnedHandle, milliseconds: u32) -> io::Result<()> {
    // SAFETY: the handle is open.
    match unsafe { WaitForSingleObject(handle.as_raw_handle(), milliseconds) } {
        WAIT_OBJECT_0 => Ok(()),
        WAIT_TIMEOUT => Err(io::ErrorKind::TimedOut.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
