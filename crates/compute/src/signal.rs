//! Signals by their Linux names and numbers, which every OCI client uses whatever the host is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names of the signals 1 to 31 on Linux (signal(7), the x86/ARM column), without `SIG`.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// First and last real-time signal that programs may use with glibc (signal(7)).
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// A signal's number on Linux, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

/// Which of a container's processes a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// The container's init process only.
    Init,
    /// Every process in the container.
    All,
}

/// The text or number doesn't name a signal.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown signal {0:?}; give a name such as TERM, SIGKILL or RTMIN+1, or a number from 1 to 64"
)]
pub struct InvalidSignal(String);

impl Signal {
    /// Hang-up.
    pub const HUP: Self = Self(1);
    /// Interrupt.
    pub const INT: Self = Self(2);
    /// Ends a process unconditionally.
    pub const KILL: Self = Self(9);
    /// The polite request to end; the default of `kill`.
    pub const TERM: Self = Self(15);
    /// The terminal's size changed.
    pub const WINCH: Self = Self(28);

    /// The signal's number on Linux.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Signal {
    type Error = InvalidSignal;

    fn try_from(number: u8) -> Result<Self, InvalidSignal> {
        match number {
            1..=RTMAX => Ok(Self(number)),
            _ => Err(InvalidSignal(number.to_string())),
        }
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

impl FromStr for Signal {
    type Err = InvalidSignal;

    /// Accepts a number, a name with or without `SIG` in any case, and `RTMIN+n` / `RTMAX-n`.
    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        let invalid = || InvalidSignal(text.to_owned());
        if let Ok(number) = text.parse::<u8>() {
            return Self::try_from(number).map_err(|_| invalid());
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = match name {
            "IOT" => Some("ABRT"),
            "POLL" => Some("IO"),
            "CLD" => Some("CHLD"),
            "UNUSED" => Some("SYS"),
            _ => None,
        }
        .unwrap_or(name);
        if let Some(index) = NAMES.iter().position(|known| *known == named) {
            return Ok(Self(index as u8 + 1));
        }
        let offset = |digits: &str| match digits {
            "" => Some(0),
            _ => digits.get(1..).and_then(|n| n.parse::<u8>().ok()),
        };
        let number = if let Some(rest) = name.strip_prefix("RTMIN") {
            (rest.is_empty() || rest.starts_with('+'))
                .then(|| offset(rest))
                .flatten()
                .and_then(|n| RTMIN.checked_add(n))
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            (rest.is_empty() || rest.starts_with('-'))
                .then(|| offset(rest))
                .flatten()
                .and_then(|n| RTMAX.checked_sub(n))
        } else {
            None
        };
        number.filter(|n| (RTMIN..=RTMAX).contains(n)).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("kill", 9),
            ("9", 9),
            ("64", 64),
            ("IOT", 6),
            ("SIGPOLL", 29),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("rtmax", 64),
            ("SYS", 31),
        ] {
            assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(number), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "0", "65", "-9", "SIG", "FOO", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMINé", "999"]
        {
            assert!(text.parse::<Signal>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn shows_its_name() {
        assert_eq!(Signal::KILL.to_string(), "SIGKILL");
        assert_eq!(Signal::try_from(40).unwrap().to_string(), "40");
    }
}
