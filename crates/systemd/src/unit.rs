//! Names of units (systemd.unit(5)), and where a slice's control group is (systemd.slice(5)).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The most that a unit's name may hold, in bytes (UNIT_NAME_MAX of systemd).
const MAX: usize = 255;

/// A unit's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(String);

impl UnitName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::Name`] if it is empty, too long, without a type's suffix, or has characters that
    /// units' names haven't.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let invalid = |why: &str| Err(Error::Name(format!("{name:?} is no unit's name: {why}")));
        match name.rsplit_once('.') {
            None | Some(("", _) | (_, "")) => return invalid("it has no suffix for its type"),
            Some(_) => {}
        }
        if name.len() > MAX {
            return invalid("it is longer than 255 characters");
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if !name.chars().all(allowed) {
            return invalid("it may hold letters, digits and :-_.\\@ only");
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UnitName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> Self {
        name.0
    }
}

/// A slice's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceName(UnitName);

impl SliceName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::Name`] if it isn't a slice's.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = UnitName::new(name)?;
        let stem = name.as_str().strip_suffix(".slice");
        let valid = stem.is_some_and(|s| s == "-" || s.split('-').all(|part| !part.is_empty()));
        if valid {
            return Ok(Self(name));
        }
        Err(Error::Name(format!(
            "{:?} is no slice's name: it ends in .slice, and dashes part the names of the slices \
             that it is in",
            name.as_str()
        )))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Its control group below the manager's: `a-b.slice` is in `a.slice`.
    pub fn path(&self) -> PathBuf {
        let stem = self.as_str().trim_end_matches(".slice");
        let mut path = PathBuf::new();
        if stem == "-" {
            return path;
        }
        for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
            path.push(format!("{}.slice", &stem[..at]));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn slices_are_in_the_slices_that_their_names_name() {
        let path = |name: &str| SliceName::new(name).unwrap().path();
        assert_eq!(path("system.slice"), Path::new("system.slice"));
        assert_eq!(path("a-b-c.slice"), Path::new("a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(path("-.slice"), Path::new(""));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in
            ["", "x", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "a.scope"]
        {
            assert!(SliceName::new(name).is_err(), "{name:?}");
        }
        for name in ["", "x", "a b.scope", "a/b.scope", ".scope"] {
            assert!(UnitName::new(name).is_err(), "{name:?}");
        }
        assert!(UnitName::new(format!("{}.scope", "x".repeat(250))).is_err());
        assert!(UnitName::new("runhcs-box_1.2.scope").is_ok());
    }
}
