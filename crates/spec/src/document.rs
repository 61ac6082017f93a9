//! Reading a JSON document: of bounded size, and with errors that name the field.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use oci_spec::runtime::Capability;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::typed::{self, ContentError};
use crate::vm_hardware::VmHardware;
use crate::{Error, Result, tree};

/// The largest document that is read, in bytes.
const MAX_SIZE: u64 = 16 << 20;

/// The bytes of a file, or of standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    // What most configurations need: a limited reader tells no size.
    let mut bytes = Vec::with_capacity(16 << 10);
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

/// A document's tree, and its text for the places of errors.
pub(crate) struct Document<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    /// What is read from it. What the types are stricter about than the specification may be put
    /// right in it.
    pub tree: Value,
}

impl<'a> Document<'a> {
    /// Takes the text apart.
    pub(crate) fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let tree = tree::read(bytes).map_err(|error| Error::Malformed {
            path: path.to_owned(),
            field: error.field,
            message: error.message,
        })?;
        Ok(Self { path, bytes, tree })
    }

    /// Reads the document as this type.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        typed::read(&self.tree).map_err(|error| self.malformed(error))
    }

    /// Takes `vm.hwConfig` out of a configuration: the type has no room for it.
    pub(crate) fn take_vm_hardware(&mut self) -> Result<Option<VmHardware>> {
        VmHardware::take(&mut self.tree).map_err(|error| self.malformed(error))
    }

    fn malformed(&self, error: ContentError) -> Error {
        Error::Malformed {
            path: self.path.to_owned(),
            message: tree::locate(self.bytes, &error.field, &error.message),
            field: error.field,
        }
    }

    /// Puts right what the types of a configuration are stricter about than the specification.
    pub(crate) fn repair_configuration(&mut self) {
        self.repair_process("/process");
        self.repair_resources("/linux/resources");
        self.repair_utility_vm_path();
    }

    /// Gives a configuration's field `windows.hyperv.utilityVMPath` the name that the type has for
    /// it, which is not the specification's.
    fn repair_utility_vm_path(&mut self) {
        let hyperv = self.tree.pointer_mut("/windows/hyperv").and_then(Value::as_object_mut);
        let Some(hyperv) = hyperv else { return };
        if let Some(path) = hyperv.remove("utilityVMPath") {
            hyperv.insert("utilityVmPath".into(), path);
        }
    }

    /// Puts right what the type of resources is stricter about than the specification; `resources`
    /// is where they are, as a JSON pointer.
    pub(crate) fn repair_resources(&mut self, resources: &str) {
        if let Some(resources) = self.tree.pointer_mut(resources).and_then(Value::as_object_mut) {
            drop_absent_limit(resources);
        }
    }

    /// Puts right what the type of a process is stricter about than the specification; `process`
    /// is where it is, as a JSON pointer.
    pub(crate) fn repair_process(&mut self, process: &str) {
        let Some(process) = self.tree.pointer_mut(process).and_then(Value::as_object_mut) else {
            return;
        };
        add_user(process);
        name_scheduler_flags(process);
        drop_unknown_capabilities(process);
    }
}

/// Drops `pids` without a limit: the type would take 0 for it, which is a limit.
fn drop_absent_limit(resources: &mut Map<String, Value>) {
    let pids = resources.get("pids").and_then(Value::as_object);
    if pids.is_some_and(|pids| pids.get("limit").is_none_or(Value::is_null)) {
        resources.remove("pids");
    }
}

/// Adds an empty user object, if there is none: the specification lets it be absent, and so do
/// other runtimes.
fn add_user(process: &mut Map<String, Value>) {
    process.entry("user").or_insert_with(|| Value::Object(Map::new()));
}

/// Gives two flags of `scheduler` the names that the type has for them, which are not the
/// specification's (config.md, "Scheduler").
fn name_scheduler_flags(process: &mut Map<String, Value>) {
    let flags = process.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            _ => {}
        }
    }
}

/// Drops, with a warning, the names of capabilities that nobody here knows: a newer kernel's can't
/// be given, which takes a warning and no more (config.md, "Linux Process", `capabilities`).
fn drop_unknown_capabilities(process: &mut Map<String, Value>) {
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    let mut unknown = BTreeSet::new();
    for set in sets.into_iter().flat_map(Map::values_mut).filter_map(Value::as_array_mut) {
        set.retain(|name: &Value| {
            let known = !name.is_string() || typed::read::<Capability>(name).is_ok();
            if !known {
                unknown.extend(name.as_str().map(str::to_owned));
            }
            known
        });
    }
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.into_iter().collect();
        tracing::warn!("ignoring unknown or unavailable capabilities: {}", names.join(", "));
    }
}
