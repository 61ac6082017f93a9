//! The command as clients call it: by a path, with no options of theirs.

use std::path::PathBuf;
use std::process::Command;

use crate::{Harness, Isolation, binary};

impl Harness {
    /// A program that is the command with the test's own options built in; its name asks for the
    /// test's isolation, for clients can't. (Podman's `--runtime-flag` doesn't reach the clean-up
    /// after a container, which is a Podman of its own.)
    pub fn runtime(&self) -> PathBuf {
        let path = self.path("runtime");
        if !path.exists() {
            let name = if self.isolation == Isolation::Vm { "runhcs-vm" } else { "runhcs" };
            let script = format!(
                "#!/bin/bash\nexec -a {name} {} --root {} --config {} \"$@\"\n",
                binary("runhcs").display(),
                self.root().display(),
                self.path("config.toml").display()
            );
            let text = self.path("runtime-script");
            std::fs::write(&text, script).unwrap();
            // Written by a child, so that no descriptor of ours keeps it from being executed.
            let installed = Command::new("install").arg("-m755").args([&text, &path]).status();
            assert!(installed.unwrap().success());
        }
        path
    }
}
