//! Annotations read as the type they are meant as. A value that isn't of that type, or isn't in
//! its range, is an error that names the annotation.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use oci_spec::runtime::Spec;
use uuid::Uuid;

use crate::{Invalid, Result};

/// A configuration's annotations.
#[derive(Clone, Copy, Debug)]
pub struct Annotations<'a>(Option<&'a HashMap<String, String>>);

impl<'a> Annotations<'a> {
    /// Those of a configuration.
    pub fn of(spec: &'a Spec) -> Self {
        Self(spec.annotations().as_ref())
    }

    /// The text as it is; `None` if it is absent or empty.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.0?.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// A truth value, in the spellings that Go programs write: `1`, `t`, `T`, `true`, `True`,
    /// `TRUE` and their opposites.
    pub fn flag(self, name: &str) -> Result<Option<bool>> {
        self.text(name)
            .map(|text| match text {
                "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
                "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
                _ => Err(Invalid::new(name, format!("{text:?} is neither `true` nor `false`"))),
            })
            .transpose()
    }

    /// A number in a range.
    pub fn number<T>(self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>>
    where
        T: FromStr + PartialOrd + Display,
    {
        self.text(name).map(|text| number(name, text, &range)).transpose()
    }

    /// Numbers with commas between; empty if absent.
    pub fn numbers<T>(self, name: &str, range: RangeInclusive<T>) -> Result<Vec<T>>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name) else { return Ok(Vec::new()) };
        text.split(',').map(|part| number(name, part.trim(), &range)).collect()
    }

    /// A GUID, with or without braces.
    pub fn guid(self, name: &str) -> Result<Option<Uuid>> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| Invalid::new(name, format!("{text:?} is not a GUID")))
            })
            .transpose()
    }
}

fn number<T>(name: &str, text: &str, range: &RangeInclusive<T>) -> Result<T>
where
    T: FromStr + PartialOrd + Display,
{
    match text.parse() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => {
            let (least, most) = (range.start(), range.end());
            Err(Invalid::new(name, format!("{text:?} is not a number from {least} to {most}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<R>(value: &str, read: impl FnOnce(Annotations<'_>) -> R) -> R {
        let map = HashMap::from([("a".to_owned(), value.to_owned())]);
        read(Annotations(Some(&map)))
    }

    #[test]
    fn values_are_read_as_what_they_are_meant() {
        assert_eq!(with("true", |a| a.flag("a")), Ok(Some(true)));
        assert_eq!(with("0", |a| a.flag("a")), Ok(Some(false)));
        assert_eq!(with("7", |a| a.number("a", 1..=7)), Ok(Some(7)));
        assert_eq!(with("1, 2,3", |a| a.numbers("a", 0..=9)), Ok(vec![1, 2, 3]));
        let guid = "{8f6a2b2c-1f0e-4b6a-9d3b-0123456789ab}";
        assert!(with(guid, |a| a.guid("a")).unwrap().is_some());
        assert_eq!(with("", |a| a.flag("a")), Ok(None));
        assert_eq!(with("x", |a| a.flag("b")), Ok(None));
    }

    #[test]
    fn a_bad_value_is_named() {
        let errors = [
            with("yes", |a| a.flag("a")).unwrap_err(),
            with("8", |a| a.number("a", 1..=7)).unwrap_err(),
            with("-1", |a| a.number("a", 1u32..=7)).unwrap_err(),
            with("1,,2", |a| a.numbers("a", 1u32..=7)).unwrap_err(),
            with("no", |a| a.guid("a")).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.field, "a");
            assert!(error.message.starts_with('"'), "{error}");
        }
    }
}
