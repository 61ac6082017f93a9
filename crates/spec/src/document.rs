//! Reading a JSON document: of bounded size, and with errors that name the field.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Deserializer, Value};

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
    let message = error.inner().to_string();
    let repaired = if message.starts_with("missing field `user`") {
        with_user(bytes, user)
    } else if message.starts_with("unknown variant `SCHED_FLAG_") {
        with_known_flags(bytes, user)
    } else {
        None
    };
    if let Some(document) = repaired {
        return tracked(Strict(document))
            .map_err(|error| malformed(path, error.path().to_string(), error.inner()));
    }
    Err(malformed(path, error.path().to_string(), error.inner()))
}

type Tracked = serde_path_to_error::Error<serde_json::Error>;

fn tracked<'de, T, D>(deserializer: D) -> std::result::Result<T, Tracked>
where
    T: DeserializeOwned,
    D: serde::Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(deserializer)
}

/// The document with an empty user object, if that is what it lacks.
fn with_user(bytes: &[u8], user: &str) -> Option<Value> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    let (parent, name) = user.rsplit_once('/')?;
    let parent = document.pointer_mut(parent)?.as_object_mut()?;
    if parent.contains_key(name) {
        return None;
    }
    parent.insert(name.to_owned(), Value::Object(serde_json::Map::new()));
    Some(document)
}

/// The document with the names that the type has for two flags of `scheduler`, which are not the
/// specification's (config.md, "Scheduler"). It stands beside the user object.
fn with_known_flags(bytes: &[u8], user: &str) -> Option<Value> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    let (process, _) = user.rsplit_once('/')?;
    let flags = document.pointer_mut(&format!("{process}/scheduler/flags"))?.as_array_mut()?;
    let mut changed = false;
    for flag in flags {
        let known = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = known.into();
        changed = true;
    }
    changed.then_some(document)
}

fn malformed(path: &Path, field: String, error: &serde_json::Error) -> Error {
    Error::Malformed { path: path.to_owned(), field, message: error.to_string() }
}
