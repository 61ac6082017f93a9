//! Properties of the unit that annotations ask for: `org.systemd.property.NAME`, a value in
//! GVariant's text format (runc's docs/systemd.md, "Setting unit properties").

use std::collections::HashMap;

use runhcs_compute::Result;
use runhcs_systemd::{Property, Value};

use crate::error::invalid;

const PREFIX: &str = "org.systemd.property.";

/// The properties, by their names.
pub(super) fn properties(annotations: Option<&HashMap<String, String>>) -> Result<Vec<Property>> {
    let mut found = Vec::new();
    for (key, text) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let field = || format!("annotations.{key}");
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(invalid(
                field(),
                "is no property's name: it has letters only, three at least",
            ));
        }
        let value = Value::parse(text).map_err(|why| invalid(field(), why))?;
        found.push(
            in_microseconds(name, value)
                .ok_or_else(|| invalid(field(), format!("{text:?} is no time in seconds")))?,
        );
    }
    found.sort_by(|(one, _), (two, _)| one.cmp(two));
    Ok(found)
}

/// systemd's files have `TimeoutStopSec`, its bus has `TimeoutStopUSec`.
fn in_microseconds(name: &str, value: Value) -> Option<Property> {
    let Some(stem) = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) else {
        return Some((name.to_owned().into(), value));
    };
    let seconds = match value {
        Value::I32(number) => u64::try_from(number).ok()?,
        Value::I64(number) => u64::try_from(number).ok()?,
        Value::U32(number) => number.into(),
        Value::U64(number) => number,
        _ => return None,
    };
    Some((format!("{stem}USec").into(), Value::U64(seconds.checked_mul(1_000_000)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(key: &str, text: &str) -> Result<Vec<Property>> {
        properties(Some(&HashMap::from([(key.to_owned(), text.to_owned())])))
    }

    #[test]
    fn annotations_become_properties() {
        for (name, text, expected, value) in [
            ("CollectMode", "'inactive'", "CollectMode", Value::Text("inactive".into())),
            ("TimeoutStopUSec", "uint64 5", "TimeoutStopUSec", Value::U64(5)),
            ("TimeoutStopSec", "3", "TimeoutStopUSec", Value::U64(3_000_000)),
        ] {
            let found = convert(&format!("{PREFIX}{name}"), text).unwrap();
            assert_eq!(found, [(expected.into(), value)]);
        }
        assert_eq!(convert("org.example", "x").unwrap(), []);
    }

    #[test]
    fn nonsense_is_refused_by_the_annotations_name() {
        for (name, text) in [("A", "1"), ("A b", "1"), ("CollectMode", "x"), ("WaitSec", "'x'")] {
            let key = format!("{PREFIX}{name}");
            let error = convert(&key, text).unwrap_err().to_string();
            assert_eq!(error, format!("annotations.{key}"));
        }
    }
}
