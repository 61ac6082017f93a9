//! Reading a JSON document: of bounded size, and with errors that name the field.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use oci_spec::runtime::Capability;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Deserializer, Map, Value};

use crate::strict::Strict;
use crate::{Error, Result};

/// The largest document that is read, in bytes.
const MAX_SIZE: u64 = 16 << 20;

/// The bytes of a file, or of standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let outcome = if path == Path::new("-") {
        io::stdin().lock().take(MAX_SIZE + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut bytes))
    };
    match outcome {
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        Ok(size) if size as u64 > MAX_SIZE => Err(Error::Malformed {
            path: path.to_owned(),
            field: ".".into(),
            message: format!("it is larger than the {} MiB that are read", MAX_SIZE >> 20),
        }),
        Ok(_) => Ok(bytes),
    }
}

/// Reads a document of the file at `path`.
///
/// `user` is where the document has its user object, as a JSON pointer. The specification lets it
/// be absent, and so do other runtimes, but the type doesn't.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8], user: &str) -> Result<T> {
    // The quick way first: tracking the path costs time that only an error is worth.
    let mut deserializer = Deserializer::from_slice(bytes);
    let document = T::deserialize(Strict(&mut deserializer));
    if let Ok(document) = document.and_then(|document| deserializer.end().map(|()| document)) {
        return Ok(document);
    }
    let mut deserializer = Deserializer::from_slice(bytes);
    let error = match tracked(Strict(&mut deserializer)) {
        Ok(document) => match deserializer.end() {
            Ok(()) => return Ok(document),
            Err(error) => return Err(malformed(path, ".".into(), &error)),
        },
        Err(error) => error,
    };
    match repaired(bytes, user) {
        Some(document) => tracked(Strict(document))
            .map_err(|error| malformed(path, error.path().to_string(), error.inner())),
        None => Err(malformed(path, error.path().to_string(), error.inner())),
    }
}

type Tracked = serde_path_to_error::Error<serde_json::Error>;

fn tracked<'de, T, D>(deserializer: D) -> std::result::Result<T, Tracked>
where
    T: DeserializeOwned,
    D: serde::Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(deserializer)
}

/// The document without what the type is stricter about than the specification; `None` if there is
/// nothing of that.
fn repaired(bytes: &[u8], user: &str) -> Option<Value> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    let (process, name) = user.rsplit_once('/')?;
    let process = document.pointer_mut(process)?.as_object_mut()?;
    let repairs = [
        add_user(process, name),
        name_scheduler_flags(process),
        drop_unknown_capabilities(process),
    ];
    repairs.contains(&true).then_some(document)
}

/// Adds an empty user object, if there is none.
fn add_user(process: &mut Map<String, Value>, name: &str) -> bool {
    if process.contains_key(name) {
        return false;
    }
    process.insert(name.to_owned(), Value::Object(Map::new()));
    true
}

/// Gives two flags of `scheduler` the names that the type has for them, which are not the
/// specification's (config.md, "Scheduler").
fn name_scheduler_flags(process: &mut Map<String, Value>) -> bool {
    let flags = process.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags"));
    let mut changed = false;
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let known = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = known.into();
        changed = true;
    }
    changed
}

/// Drops, with a warning, the names of capabilities that nobody here knows: a newer kernel's can't
/// be given, which takes a warning and no more (config.md, "Linux Process", `capabilities`).
fn drop_unknown_capabilities(process: &mut Map<String, Value>) -> bool {
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    let mut unknown = BTreeSet::new();
    for set in sets.into_iter().flat_map(Map::values_mut).filter_map(Value::as_array_mut) {
        set.retain(|name: &Value| {
            let known = !name.is_string() || Capability::deserialize(name).is_ok();
            if !known {
                unknown.extend(name.as_str().map(str::to_owned));
            }
            known
        });
    }
    if unknown.is_empty() {
        return false;
    }
    let names: Vec<String> = unknown.into_iter().collect();
    tracing::warn!("ignoring unknown or unavailable capabilities: {}", names.join(", "));
    true
}

fn malformed(path: &Path, field: String, error: &serde_json::Error) -> Error {
    Error::Malformed { path: path.to_owned(), field, message: error.to_string() }
}
