//! Resources on their own, without a configuration around them.

use std::path::Path;

use oci_spec::runtime::LinuxResources;
use serde_json::Value;

use crate::document::{Document, read};
use crate::{Result, typed};

/// Reads the object `linux.resources` from a file of its own, as `update --resources` takes it; `-`
/// is standard input.
///
/// # Errors
/// The file can't be read, or doesn't hold resources. The error names the field.
pub fn load_resources(path: &Path) -> Result<LinuxResources> {
    let bytes = read(path)?;
    let mut document = Document::new(path, &bytes)?;
    document.repair_resources("");
    document.read()
}

/// The resources that a value of the same shape stands for.
///
/// # Errors
/// It isn't of that shape. The error names the field.
pub fn resources_from(value: &Value) -> Result<LinuxResources> {
    Ok(typed::read(value)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_read_or_its_field_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let load = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            load_resources(file.path()).map_err(|error| error.to_string())
        };
        let resources = load(r#"{"memory": {"limit": 7}}"#).unwrap();
        assert_eq!(resources.memory().as_ref().unwrap().limit(), Some(7));
        for text in [r#"{"pids": {}}"#, r#"{"pids": {"limit": null}}"#] {
            assert_eq!(load(text).unwrap(), LinuxResources::default(), "no limit is not one of 0");
        }
        let resources = load(r#"{"pids": {"limit": 0}}"#).unwrap();
        assert_eq!(resources.pids().map(|pids| pids.limit()), Some(0));
        for (text, message) in [
            (r#"{"memory": {"limit": "7"}}"#, ": memory.limit: invalid type: string"),
            (r#"{"memory": [7]}"#, ": memory: invalid type: sequence"),
            (r#"[]"#, ": .: invalid type: sequence"),
            (r#"{"pids"}"#, ": .: expected `:` at line 1"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_value_is_read_or_its_field_named() {
        assert_eq!(resources_from(&json!({})).unwrap(), LinuxResources::default());
        let error = resources_from(&json!({"cpu": {"shares": -1}})).unwrap_err().to_string();
        assert!(error.starts_with("cpu.shares: invalid value"), "{error}");
    }
}
