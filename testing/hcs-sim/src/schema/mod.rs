//! Whether a document is one that the service takes: no field that it doesn't know, none of another
//! type, and none missing that it needs.
//!
//! The types are lists of their own, made from Microsoft's publications and read from `*.txt` beside
//! this file, so that they can't share an error with the program that is tested.

mod rules;
mod table;
#[cfg(test)]
mod tests;

use serde_json::Value;

use table::{Kind, Type, tables};

pub use rules::{is_guid, is_unit, system};

/// Why a document isn't one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct Violation {
    /// Where, with dots between names.
    pub path: String,
    /// What is wrong there.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into() }
    }
}

/// How much of a document there has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All that the service needs.
    Whole,
    /// Only what is to be changed, or what names the thing to remove.
    Part,
}

/// Checks a document's text against a type and returns it.
///
/// # Errors
/// If it isn't JSON, or not of this type.
pub fn parse(name: &str, text: &str) -> Result<Value, Violation> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Violation::new(name, format!("it isn't JSON: {error}")))?;
    check(name, &value, Extent::Whole)?;
    Ok(value)
}

/// Checks a document against a type.
///
/// # Errors
/// If it isn't of this type.
pub fn check(name: &str, value: &Value, extent: Extent) -> Result<(), Violation> {
    walk(&Kind::Named(name.to_owned()), value, name, extent)
}

fn walk(kind: &Kind, value: &Value, path: &str, extent: Extent) -> Result<(), Violation> {
    let wrong = |wanted: &str| Err(Violation::new(path, format!("{value} is not {wanted}")));
    match kind {
        Kind::Any => Ok(()),
        Kind::Text if value.is_string() => Ok(()),
        Kind::Text => wrong("a text"),
        Kind::Flag if value.is_boolean() => Ok(()),
        Kind::Flag => wrong("true or false"),
        Kind::Number { least, most } => match value.as_i64().map(i128::from) {
            Some(number) if (*least..=*most).contains(&number) => Ok(()),
            None if value.as_u64().is_some_and(|number| i128::from(number) <= *most) => Ok(()),
            _ => wrong(&format!("a number from {least} to {most}")),
        },
        Kind::List(element) => {
            let Some(list) = value.as_array() else { return wrong("a list") };
            let mut elements = list.iter().enumerate();
            elements
                .try_for_each(|(i, value)| walk(element, value, &format!("{path}[{i}]"), extent))
        }
        Kind::Map(element) => {
            let Some(map) = value.as_object() else { return wrong("an object") };
            let mut entries = map.iter();
            entries
                .try_for_each(|(key, value)| walk(element, value, &format!("{path}.{key}"), extent))
        }
        Kind::Named(name) => match tables().get(name) {
            Some(Type::Enumeration(texts)) => match value.as_str() {
                Some(text) if texts.iter().any(|known| known == text) => Ok(()),
                _ => wrong(&format!("one of {}", texts.join(", "))),
            },
            Some(Type::Object(fields)) => {
                let Some(map) = value.as_object() else { return wrong("an object") };
                for (key, value) in map {
                    let Some(field) = fields.iter().find(|field| field.name == *key) else {
                        return Err(Violation::new(path, format!("{name} has no field {key}")));
                    };
                    walk(&field.kind, value, &format!("{path}.{key}"), extent)?;
                }
                let missing = fields.iter().find(|f| f.required && !map.contains_key(&f.name));
                match missing {
                    Some(field) if extent == Extent::Whole => {
                        Err(Violation::new(path, format!("the field {} is missing", field.name)))
                    }
                    _ => Ok(()),
                }
            }
            None => unreachable!("the tables name {name} without saying what it is"),
        },
    }
}
