//! A wrong type in any field of a Linux container's configuration is an error that names the field.

use std::fs;

use serde_json::{Value, json};

use super::*;

/// Every field that the specification has, with a value that is right in itself.
fn config() -> Value {
    serde_json::from_str(include_str!("every_field.json")).unwrap()
}

fn load(config: &Value) -> std::result::Result<Bundle, String> {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("rootfs")).unwrap();
    fs::write(temp.path().join("config.json"), config.to_string()).unwrap();
    Bundle::load(temp.path()).map_err(|error| error.to_string())
}

/// All values beneath one, by their JSON pointers.
fn walk(value: &Value, pointer: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, v)| (name.clone(), v)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    for (name, child) in children {
        let pointer = format!("{pointer}/{name}");
        walk(child, &pointer, found);
        found.push(pointer);
    }
}

/// The way in which errors name a field: `mounts[0].options[1]`.
fn path(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |path, part| match part.parse::<usize>() {
        Ok(index) => format!("{path}[{index}]"),
        Err(_) if path.is_empty() => part.to_owned(),
        Err(_) => format!("{path}.{part}"),
    })
}

#[test]
fn every_field_is_read() {
    let bundle = load(&config()).unwrap();
    let read = serde_json::to_value(&bundle.spec).unwrap();
    let mut pointers = Vec::new();
    walk(&config(), "", &mut pointers);
    for pointer in pointers {
        assert!(read.pointer(&pointer.replace("~", "~0")).is_some(), "{pointer} is lost");
    }
}

#[test]
fn a_wrong_type_is_named_by_its_field() {
    let (config, mut pointers, mut wrong) = (config(), Vec::new(), Vec::new());
    walk(&config, "", &mut pointers);
    for pointer in pointers {
        let right = config.pointer(&pointer).unwrap();
        for value in [json!(true), json!(-1.5), json!("\u{1f}"), json!([[]]), json!({ "x": [] })] {
            if std::mem::discriminant(&value) == std::mem::discriminant(right) && !right.is_number()
            {
                continue;
            }
            let mut config = config.clone();
            *config.pointer_mut(&pointer).unwrap() = value.clone();
            match load(&config) {
                Err(error) if error.contains(&path(&pointer)) => {}
                other => wrong.push(format!("{} = {value}: {:?}", path(&pointer), other.err())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_number_beyond_its_range_is_named_by_its_field() {
    let (config, mut pointers, mut wrong) = (config(), Vec::new(), Vec::new());
    walk(&config, "", &mut pointers);
    for pointer in pointers.iter().filter(|pointer| config.pointer(pointer).unwrap().is_number()) {
        let mut config = config.clone();
        *config.pointer_mut(pointer).unwrap() = json!(u64::MAX as f64 * 4.0);
        match load(&config) {
            Err(error) if error.contains(&path(pointer)) => {}
            other => wrong.push(format!("{}: {:?}", path(pointer), other.err())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
