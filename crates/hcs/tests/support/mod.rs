//! Comparing documents with files.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::Serialize;
use serde_json::{Value, json};

/// A configuration with these fields.
pub fn spec(fields: Value) -> Spec {
    let mut all = json!({"ociVersion": "1.2.0"});
    let map = all.as_object_mut().expect("an object");
    map.extend(fields.as_object().expect("fields").clone());
    serde_json::from_value(all).expect("a configuration")
}

/// One directory of `tests/golden`.
pub struct Golden {
    directory: PathBuf,
    checked: RefCell<BTreeSet<String>>,
    wrong: RefCell<Vec<String>>,
}

impl Golden {
    pub fn new(name: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        Self { directory, checked: RefCell::default(), wrong: RefCell::default() }
    }

    /// Compares a document with its file, or writes the file.
    pub fn check(&self, case: &str, document: &impl Serialize) {
        // By way of a value, so that the file's order of fields is the alphabet's.
        let value = serde_json::to_value(document).expect("JSON");
        let found = serde_json::to_string_pretty(&value).expect("JSON") + "\n";
        let name = format!("{case}.json");
        let path = self.directory.join(&name);
        assert!(self.checked.borrow_mut().insert(name), "{case} is checked twice");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&self.directory).expect("make the directory");
            std::fs::write(&path, &found).expect("write the file");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(difference) = difference(&expected, &found) {
            self.wrong.borrow_mut().push(format!("{}: {difference}", path.display()));
        }
    }

    /// Fails if a document differed, or if a file belongs to no case.
    pub fn finish(self) {
        let files = std::fs::read_dir(&self.directory).expect("the directory");
        let files =
            files.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8"));
        assert_eq!(files.collect::<BTreeSet<_>>(), self.checked.into_inner(), "files and cases");
        let wrong = self.wrong.into_inner();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// The first line in which two texts differ.
fn difference(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let (mut one, mut two) = (expected.lines(), found.lines());
    for number in 1.. {
        let (expected, found) = (one.next(), two.next());
        if expected != found {
            return Some(format!("line {number}: expected {expected:?}, found {found:?}"));
        }
    }
    None
}
