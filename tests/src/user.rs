//! An ordinary user with a range of subordinate ids, for as long as a test takes.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Harness, binary};

const NAME: &str = "runhcs-test";

/// There is one such user, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// The user; gone when this is dropped.
#[derive(Debug)]
pub struct User<'h> {
    harness: &'h Harness,
    /// The user's id, and that of the user's only group.
    pub id: u32,
    /// The first of 65,536 subordinate ids, of users and of groups.
    pub subordinate: u32,
    /// The directory that is the user's, with `home`, `run` and `bin` in it.
    directory: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

impl<'h> User<'h> {
    /// Makes the user, with copies of the program and a directory in the test's own.
    pub fn new(harness: &'h Harness) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // A test run that was killed leaves one.
        let _ = Command::new("userdel").args(["--force", NAME]).output();
        let (id, subordinate) = (59_876, 700_000_000);
        let number = id.to_string();
        run("useradd", &["--no-create-home", "--uid", &number, "--user-group", NAME]);
        let range = format!("{subordinate}-{}", subordinate + 65_535);
        // Beside the range that useradd may have given.
        run("usermod", &["--add-subuids", &range, "--add-subgids", &range, NAME]);
        let directory = harness.path("user");
        let user = Self { harness, id, subordinate, directory, _turn: turn };
        for name in ["home", "run", "bin"] {
            std::fs::create_dir_all(user.path(name)).unwrap();
        }
        // A copy made by a child: see `Bundle::new`.
        let program = binary("runhcs");
        run("cp", &[program.to_str().unwrap(), user.path("bin").to_str().unwrap()]);
        user.own(&user.directory);
        let listed = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(harness.path(""), listed).unwrap();
        user
    }

    /// A path in the user's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The runtime's program, where the user can execute it.
    pub fn program(&self) -> PathBuf {
        self.path("bin/runhcs")
    }

    /// Makes a tree of files the user's.
    pub fn own(&self, path: &Path) {
        let owner = format!("{0}:{0}", self.id);
        run("chown", &["-R", &owner, path.to_str().unwrap()]);
    }

    /// A program run by the user, not yet run.
    pub fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).uid(self.id).gid(self.id).current_dir(self.path("home"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.path("home")).env("USER", NAME);
        command.env("XDG_RUNTIME_DIR", self.path("run")).env("RUNHCS_E2E", &self.harness.token);
        command.stdin(Stdio::null());
        command
    }

    /// The runtime's command run by the user, not yet run.
    pub fn runhcs(&self, arguments: &[&str]) -> Command {
        self.command(&self.program(), arguments)
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        let _ = Command::new("userdel").args(["--force", NAME]).output();
    }
}
