//! A container's id: parsed once, safe to use as a file name component ever after.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest id accepted, in bytes; the limit runc has.
const MAX_LEN: usize = 1024;

/// A container id. Holds 1 to 1,024 of the characters `A-Z a-z 0-9 _ + - .` and is neither `.`
/// nor `..`, as in runc. It can be longer than a file name may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// Why a string is not a container id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The id is the empty string.
    #[error("a container id can't be empty")]
    Empty,
    /// The id is too long.
    #[error("a container id has at most {MAX_LEN} characters, this one has {0}")]
    TooLong(usize),
    /// The id names a directory.
    #[error("a container id can't be `.` or `..`")]
    Dots,
    /// The id holds a character that isn't allowed.
    #[error("container id {id:?} holds {character:?}; allowed are letters, digits and _ + - .")]
    Character {
        /// The whole id.
        id: String,
        /// The first character that isn't allowed.
        character: char,
    },
}

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(id: &str) -> Result<Self, InvalidId> {
        if id.is_empty() {
            return Err(InvalidId::Empty);
        }
        if id.len() > MAX_LEN {
            return Err(InvalidId::TooLong(id.chars().count()));
        }
        if id == "." || id == ".." {
            return Err(InvalidId::Dots);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        match id.chars().find(|c| !allowed(*c)) {
            Some(character) => Err(InvalidId::Character { id: id.to_owned(), character }),
            None => Ok(Self(id.to_owned())),
        }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidId;

    fn try_from(id: String) -> Result<Self, InvalidId> {
        id.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_runc_accepts() {
        for id in ["a", "A_b+c-d.e", "..a", "...", &"x".repeat(1024)] {
            assert_eq!(id.parse::<ContainerId>().unwrap().as_str(), id);
        }
    }

    #[test]
    fn refuses_what_could_leave_the_state_directory() {
        assert_eq!("".parse::<ContainerId>(), Err(InvalidId::Empty));
        assert_eq!(".".parse::<ContainerId>(), Err(InvalidId::Dots));
        assert_eq!("..".parse::<ContainerId>(), Err(InvalidId::Dots));
        assert_eq!("x".repeat(1025).parse::<ContainerId>(), Err(InvalidId::TooLong(1025)));
        for id in ["a/b", "a b", "a\0", "ä", "a\n"] {
            assert!(
                matches!(id.parse::<ContainerId>(), Err(InvalidId::Character { .. })),
                "{id:?}"
            );
        }
    }
}
