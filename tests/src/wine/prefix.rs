//! The Windows that Wine shows: one prefix for all tests, made once and kept in the build's
//! directory, and a Wine server that ends with the tests.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};

use crate::target;

/// Wine, as Debian has it.
pub const WINE: &str = "/usr/lib/wine/wine64";

/// A Windows program under Wine, not yet run.
pub fn wine(program: &Path) -> Command {
    let mut command = Command::new(WINE);
    command.arg(program);
    // Wine 8 needs the address 0x7ffe0000 for itself, which its own loader's heap has now and then
    // unless addresses are the same each time (personality(2)); then the program ends with code 1.
    // SAFETY: the call takes a number.
    let same_addresses = || match unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as _) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: the child makes one system call, and allocates nothing.
    unsafe { command.pre_exec(same_addresses) };
    // Wine's own errors are shown if they keep a program from starting, which then says nothing.
    let shown = "-all,err+module,err+process,err+server,err+virtual";
    command.env("WINEPREFIX", directory()).env("WINEDEBUG", shown);
    // No questions about add-ons, no menus, and the stand-in instead of Wine's own library.
    command.env("WINEDLLOVERRIDES", "mscoree,mshtml,winemenubuilder.exe=;virtdisk=n");
    command.env_remove("DISPLAY");
    command
}

fn directory() -> PathBuf {
    target().join("wine")
}

/// Makes the prefix if it isn't there, and has Wine's own processes run until this process ends, so
/// that none of them is taken for a test's.
pub fn ready() {
    static KEEPER: OnceLock<Child> = OnceLock::new();
    KEEPER.get_or_init(|| {
        let lock = std::fs::File::create(target().join("wine.lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let made = directory().join("runhcs-ready");
        if !made.exists() {
            let _ = std::fs::remove_dir_all(directory());
            let mut boot = wine(Path::new("wineboot"));
            let status = boot.arg("--init").stderr(Stdio::null()).status().unwrap();
            assert!(status.success(), "wineboot: {status}");
            std::fs::write(made, "").unwrap();
        }
        // It reads until its standard input ends, which it does when this process has ended.
        let keeper = wine(Path::new("cmd"))
            .args(["/c", "set /p line="])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The first that comes in waits until all of Wine's processes run.
        wine(Path::new("cmd")).args(["/c", "exit"]).status().unwrap();
        keeper
    });
}
