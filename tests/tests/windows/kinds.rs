//! The kinds of containers, and tests that are to hold for all of them.

use runhcs_tests::wine::{LINUX, WINDOWS, WindowsBundle, Wine, arguments, hyperv};
use serde_json::Value;

/// The kinds of containers that there are on Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Windows container on the host.
    Argon,
    /// A Windows container in a VM.
    Xenon,
    /// A Linux container, in a VM.
    Lcow,
}

impl Kind {
    /// A bundle whose process says something and ends with a code.
    pub fn bundle(self, wine: &Wine, name: &str) -> WindowsBundle {
        self.changed(wine, name, |_| {})
    }

    /// A bundle whose process stays.
    pub fn lasting(self, wine: &Wine, name: &str) -> WindowsBundle {
        self.lasting_with(wine, name, |_| {})
    }

    /// The same with a configuration that is changed.
    pub fn lasting_with(
        self,
        wine: &Wine,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> WindowsBundle {
        self.changed(wine, name, |spec| {
            match self {
                Self::Lcow => arguments(spec, &["sleep", "1000"]),
                _ => arguments(spec, &["ping", "-n", "1000", "127.0.0.1"]),
            }
            change(spec);
        })
    }

    /// A bundle whose configuration is changed.
    pub fn changed(
        self,
        wine: &Wine,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> WindowsBundle {
        let kind = if self == Self::Lcow { LINUX } else { WINDOWS };
        WindowsBundle::new(wine, name, kind, |spec| {
            match self {
                Self::Lcow => arguments(spec, &["sh", "-c", "echo hello; exit 7"]),
                _ => arguments(spec, &["cmd", "/c", "echo hello&exit 7"]),
            }
            if self == Self::Xenon {
                hyperv(spec);
            }
            change(spec);
        })
    }

    /// A program of a container of this kind that ends with a code.
    pub fn exit(self, code: &str) -> Vec<String> {
        match self {
            Self::Lcow => vec!["exit".into(), code.into()],
            _ => vec!["cmd".into(), "/c".into(), format!("exit {code}")],
        }
    }
}

/// Runs a test body for all kinds of containers, as three tests.
macro_rules! in_all {
    ($name:ident, $body:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn argon() {
                Wine::run(concat!(stringify!($name), " argon"), |wine| $body(wine, Kind::Argon));
            }

            #[test]
            fn xenon() {
                Wine::run(concat!(stringify!($name), " xenon"), |wine| $body(wine, Kind::Xenon));
            }

            #[test]
            fn lcow() {
                Wine::run(concat!(stringify!($name), " lcow"), |wine| $body(wine, Kind::Lcow));
            }
        }
    };
}
pub(crate) use in_all;
