//! The lists hold together, what they refuse is refused, and the documents that runhcs makes pass.

use std::path::Path;

use serde_json::{Value, json};

use super::table::{Field, Kind, Type, tables};
use super::{Extent, check, parse, system};

fn machine() -> Value {
    json!({
        "SchemaVersion": {"Major": 2, "Minor": 1},
        "VirtualMachine": {
            "Chipset": {"LinuxKernelDirect": {"KernelFilePath": "C:\\kernel"}},
            "ComputeTopology": {"Memory": {"SizeInMB": 1024}, "Processor": {"Count": 2}},
        },
    })
}

/// A change to a document and what is said about it.
#[track_caller]
fn refused(change: impl FnOnce(&mut Value), message: &str) {
    let mut document = machine();
    change(&mut document);
    let violation = system(&document.to_string()).unwrap_err().to_string();
    assert!(violation.contains(message), "{violation}");
}

#[test]
fn every_type_that_is_named_is_there() {
    fn named(kind: &Kind) -> Option<&str> {
        match kind {
            Kind::Named(name) => Some(name),
            Kind::List(kind) | Kind::Map(kind) => named(kind),
            _ => None,
        }
    }
    for (name, kind) in tables() {
        let Type::Object(fields) = kind else { continue };
        for Field { name: field, kind, .. } in fields {
            if let Some(other) = named(kind) {
                assert!(tables().contains_key(other), "{name}.{field} is a {other}");
            }
            let same = fields.iter().filter(|other| other.name == *field).count();
            assert_eq!(same, 1, "{name}.{field} is there twice");
        }
    }
}

#[test]
fn a_machine_is_taken() {
    system(&machine().to_string()).unwrap();
}

#[test]
fn what_is_not_of_the_schema_is_refused() {
    refused(|d| d["Ovner"] = "me".into(), "ComputeSystem has no field Ovner");
    refused(|d| d["Owner"] = 1.into(), "1 is not a text");
    refused(
        |d| {
            d["VirtualMachine"]["ComputeTopology"]["Processor"] = json!({});
        },
        "the field Count is missing",
    );
    refused(
        |d| d["VirtualMachine"]["ComputeTopology"]["Processor"]["Count"] = (-1).into(),
        "is not a number from 0 to 4294967295",
    );
    refused(
        |d| {
            d["VirtualMachine"]["Devices"] = json!({"Scsi": {"0": {"Attachments": {"0": {
            "Type": "Disk", "Path": "C:\\x"}}}}})
        },
        "is not one of VirtualDisk, Iso, PassThru",
    );
    assert!(parse("ComputeSystem", "{").unwrap_err().what.contains("isn't JSON"));
}

#[test]
fn what_contradicts_itself_is_refused() {
    refused(|d| d["Container"] = json!({}), "more than one kind");
    refused(|d| d["SchemaVersion"]["Major"] = 1.into(), "not of the schema 2");
    refused(|d| d["HostingSystemId"] = "vm".into(), "a hosted system has one");
    refused(|d| d["VirtualMachine"]["Chipset"]["Uefi"] = json!({}), "either by firmware");
    refused(
        |d| d["VirtualMachine"]["ComputeTopology"]["Memory"]["SizeInMB"] = 3.into(),
        "not an even number",
    );
    refused(
        |d| {
            d["VirtualMachine"]["Devices"] = json!({"Scsi": {"0": {"Attachments": {"64": {
            "Type": "Iso", "Path": "C:\\x"}}}}})
        },
        "64 is not a logical unit number",
    );
}

#[test]
fn a_part_of_a_document_may_lack_what_the_whole_has() {
    let share = json!({"Name": "1"});
    check("VirtualSmbShare", &share, Extent::Whole).unwrap_err();
    check("VirtualSmbShare", &share, Extent::Part).unwrap();
    check("VirtualSmbShare", &json!({"Nome": "1"}), Extent::Part).unwrap_err();
}

/// The documents with which runhcs's own tests compare what it makes.
fn golden(directory: &str) -> Vec<(String, Value)> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/hcs/tests/golden");
    let files = std::fs::read_dir(base.join(directory)).unwrap();
    let found: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            let document = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            (path.display().to_string(), document)
        })
        .collect();
    assert!(!found.is_empty());
    found
}

#[test]
fn the_systems_that_runhcs_makes_are_of_the_schema() {
    for directory in ["lcow_vm", "wcow_vm", "lcow_container", "windows_container"] {
        for (path, document) in golden(directory) {
            if let Err(violation) = system(&document.to_string()) {
                panic!("{path}: {violation}");
            }
        }
    }
}

#[test]
fn the_processes_that_runhcs_starts_are_of_the_schema() {
    for (path, document) in golden("process") {
        let name =
            if path.contains("linux") { "LinuxProcessParameters" } else { "ProcessParameters" };
        check(name, &document, Extent::Whole).unwrap_or_else(|v| panic!("{path}: {v}"));
    }
}

#[test]
fn the_changes_that_runhcs_makes_are_of_the_schema() {
    for (path, change) in golden("changes") {
        for request in [&change["add"], &change["remove"]] {
            check("ModifySettingRequest", request, Extent::Whole)
                .unwrap_or_else(|v| panic!("{path}: {v}"));
        }
    }
}
