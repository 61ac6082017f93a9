//! What systems may do in which state, and what becomes of what is in them.

use serde_json::{Value, json};

use super::{ExitType, Failure, Model, Program};
use crate::hresult::{self, Hresult};
use crate::wire::{AccessOperation, LayerOperation, NetworkOperation, SystemOperation};

const LINUX: &str = "/run/c/rootfs";

fn machine(model: &mut Model) -> u64 {
    let document = json!({
        "SchemaVersion": {"Major": 2, "Minor": 1},
        "VirtualMachine": {
            "Chipset": {"Uefi": {}},
            "ComputeTopology": {"Memory": {"SizeInMB": 512}, "Processor": {"Count": 1}},
            "Devices": {
                "Scsi": {"0": {}},
                "VirtualPMem": {"MaximumCount": 2},
                "Plan9": {},
            },
            "GuestConnection": {"UseVsock": true},
        },
    });
    model.systems.create("vm", &document.to_string()).unwrap()
}

fn container(args: &Value) -> String {
    json!({
        "SchemaVersion": {"Major": 2, "Minor": 1},
        "HostingSystemId": "vm",
        "HostedSystem": {
            "SchemaVersion": {"Major": 2, "Minor": 1},
            "OciBundlePath": "/run/c",
            "OciSpecification": {
                "ociVersion": "1.0.2",
                "root": {"path": LINUX},
                "process": {"args": args, "env": ["A=b"]},
            },
        },
    })
    .to_string()
}

fn running_machine(model: &mut Model) -> u64 {
    let vm = machine(model);
    model.systems.transition(vm, SystemOperation::Start).unwrap();
    vm
}

fn guest(kind: &str, change: &str, settings: &Value) -> String {
    let request = json!({"ResourceType": kind, "RequestType": change, "Settings": settings});
    json!({"RequestType": change, "GuestRequest": request}).to_string()
}

fn layers(change: &str) -> String {
    let settings = json!({"ContainerRootPath": LINUX, "Layers": [{"Path": "/run/l"}]});
    guest("CombinedLayers", change, &settings)
}

fn modify(model: &mut Model, number: u64, request: &str) -> Result<(), Failure> {
    model.systems.modify(number, Some(request), &model.storage)
}

#[track_caller]
fn fails<T: std::fmt::Debug>(outcome: Result<T, Failure>, result: Hresult) {
    assert_eq!(outcome.unwrap_err().result, result);
}

#[test]
fn operations_are_allowed_in_their_states_only() {
    use SystemOperation::{Pause, Resume, ShutDown, Start, Terminate};
    // What leads to a state, and what is allowed there.
    let states: [(&[SystemOperation], &[SystemOperation]); 3] = [
        (&[], &[Start, Terminate]),
        (&[Start], &[Pause, ShutDown, Terminate]),
        (&[Start, Pause], &[Resume, Terminate]),
    ];
    for (way, allowed) in states {
        for operation in [Start, Pause, Resume, ShutDown, Terminate] {
            let mut model = Model::default();
            let vm = machine(&mut model);
            for step in way {
                model.systems.transition(vm, *step).unwrap();
            }
            let outcome = model.systems.transition(vm, operation);
            if allowed.contains(&operation) {
                outcome.unwrap();
            } else {
                fails(outcome, hresult::INVALID_STATE);
            }
        }
    }
}

#[test]
fn a_system_that_has_ended_allows_nothing_and_frees_its_id() {
    let mut model = Model::default();
    let vm = running_machine(&mut model);
    assert_eq!(model.systems.stop(vm, ExitType::Forced).len(), 1);
    fails(model.systems.properties(vm, None), hresult::SYSTEM_ALREADY_STOPPED);
    let again = model.systems.transition(vm, SystemOperation::Terminate);
    fails(again, hresult::SYSTEM_ALREADY_STOPPED);
    fails(model.systems.open("vm"), hresult::SYSTEM_NOT_FOUND);
    assert_ne!(machine(&mut model), vm);
}

#[test]
fn an_id_is_used_once() {
    let mut model = Model::default();
    let vm = running_machine(&mut model);
    modify(&mut model, vm, &layers("Add")).unwrap();
    model.systems.create("c", &container(&json!(["true"]))).unwrap();
    let again = model.systems.create("c", &container(&json!(["true"])));
    fails(again, hresult::SYSTEM_ALREADY_EXISTS);
}

#[test]
fn a_container_needs_a_running_machine_and_a_root() {
    let mut model = Model::default();
    let document = container(&json!(["true"]));
    fails(model.systems.create("c", &document), hresult::SYSTEM_NOT_FOUND);
    let vm = machine(&mut model);
    fails(model.systems.create("c", &document), hresult::INVALID_STATE);
    model.systems.transition(vm, SystemOperation::Start).unwrap();
    fails(model.systems.create("c", &document), hresult::PATH_NOT_FOUND);
    modify(&mut model, vm, &layers("Add")).unwrap();
    model.systems.create("c", &document).unwrap();
    fails(modify(&mut model, vm, &layers("Remove")), hresult::BUSY);
}

#[test]
fn a_machine_ends_with_all_that_is_in_it() {
    let mut model = Model::default();
    let vm = running_machine(&mut model);
    modify(&mut model, vm, &layers("Add")).unwrap();
    let c = model.systems.create("c", &container(&json!(["true"]))).unwrap();
    let stopped = model.systems.stop(vm, ExitType::Forced);
    let order: Vec<u64> = stopped.iter().map(|stopped| stopped.system).collect();
    assert_eq!(order, [c, vm]);
    assert!(stopped[0].document.contains("UnexpectedExit"), "{stopped:?}");
    assert!(model.snapshot().systems.is_empty());
}

#[test]
fn a_linux_container_ends_with_its_first_process() {
    let mut model = Model::default();
    let vm = running_machine(&mut model);
    modify(&mut model, vm, &layers("Add")).unwrap();
    let c = model.systems.create("c", &container(&json!(["true"]))).unwrap();
    fails(model.systems.launch(c, "{}"), hresult::INVALID_STATE);
    model.systems.transition(c, SystemOperation::Start).unwrap();
    let launch = model.systems.launch(c, "{}").unwrap();
    assert_eq!(launch.program, Program::Linux(vec!["true".to_owned()]));
    assert_eq!(launch.environment, [("A".to_owned(), "b".to_owned())]);
    model.systems.get_mut(c).unwrap().processes.insert(7, launch.process());
    fails(model.systems.launch(c, "{}"), hresult::INVALID_STATE);
    let exec = r#"{"OciProcess": {"args": ["exit", "3"], "cwd": "/"}}"#;
    assert!(!model.systems.launch(c, exec).unwrap().is_init);
    let stopped = model.systems.process_ended(c, 7, 3);
    assert_eq!(stopped.len(), 1);
    assert!(stopped[0].document.contains("GracefulExit"), "{stopped:?}");
}

#[test]
fn resources_are_added_once_and_removed_once() {
    let mut model = Model::default();
    let vm = running_machine(&mut model);
    let directory = std::env::temp_dir();
    let share = |change: &str| {
        json!({
            "ResourcePath": "VirtualMachine/Devices/Plan9/Shares",
            "RequestType": change,
            "Settings": {"Name": "1", "AccessName": "1", "Path": directory, "Port": 564},
        })
        .to_string()
    };
    fails(modify(&mut model, vm, &share("Remove")), hresult::NOT_FOUND);
    modify(&mut model, vm, &share("Add")).unwrap();
    fails(modify(&mut model, vm, &share("Add")), hresult::ALREADY_EXISTS);
    assert_eq!(model.snapshot().systems[0].resources.len(), 1);
    modify(&mut model, vm, &share("Remove")).unwrap();
    assert!(model.snapshot().systems[0].resources.is_empty());
}

#[test]
fn a_device_goes_where_there_is_a_place_for_it() {
    let mut model = Model::default();
    let vm = running_machine(&mut model);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let mut add = |place: &str, settings: Value| {
        let place = format!("VirtualMachine/Devices/{place}");
        let request = json!({"ResourcePath": place, "RequestType": "Add", "Settings": settings});
        modify(&mut model, vm, &request.to_string())
    };
    let device = json!({"HostPath": path, "ReadOnly": true});
    fails(add("VirtualPMem/Devices/2", device.clone()), hresult::INVALID_ARGUMENT);
    add("VirtualPMem/Devices/1", device).unwrap();
    let missing = json!({"HostPath": "/nowhere/at/all"});
    fails(add("VirtualPMem/Devices/0", missing), hresult::FILE_NOT_FOUND);
    let disk = json!({"Type": "VirtualDisk", "Path": path});
    fails(add("Scsi/1/Attachments/0", disk.clone()), hresult::INVALID_ARGUMENT);
    fails(add("Scsi/0/Attachments/0", disk.clone()), hresult::ACCESS_DENIED);
    fails(
        add("VirtualSmb/Shares", json!({"Name": "1", "Path": "/tmp"})),
        hresult::INVALID_ARGUMENT,
    );
    model.storage.access(AccessOperation::Grant, Some("vm"), path).unwrap();
    let request = json!({
        "ResourcePath": "VirtualMachine/Devices/Scsi/0/Attachments/0",
        "RequestType": "Add",
        "Settings": disk,
    });
    modify(&mut model, vm, &request.to_string()).unwrap();
}

#[test]
fn signals_are_those_of_the_guest() {
    let mut model = Model::default();
    let vm = running_machine(&mut model);
    modify(&mut model, vm, &layers("Add")).unwrap();
    let c = model.systems.create("c", &container(&json!(["true"]))).unwrap();
    model.systems.transition(c, SystemOperation::Start).unwrap();
    let launch = model.systems.launch(c, "{}").unwrap();
    model.systems.get_mut(c).unwrap().processes.insert(7, launch.process());
    let signal = |model: &Model, text: &str| model.systems.signal(c, 7, Some(text));
    assert_eq!(signal(&model, r#"{"Signal": 15}"#).unwrap().exit_code, 143);
    fails(signal(&model, r#"{"Signal": "CtrlC"}"#), hresult::INVALID_JSON);
    fails(signal(&model, r#"{"Signal": 65}"#), hresult::INVALID_JSON);
    assert_eq!(model.systems.signal(c, 7, None).unwrap().exit_code, 137);
    fails(model.systems.signal(c, 8, None), hresult::NOT_FOUND);
    let process = model.systems.get_mut(c).unwrap().processes.get_mut(&7).unwrap();
    process.exit_code = Some(0);
    fails(model.systems.signal(c, 7, None), hresult::PROCESS_ALREADY_STOPPED);
}

#[test]
fn a_layers_filter_is_attached_to_a_disk_that_is_attached() {
    let mut model = Model::default();
    let storage = &mut model.storage;
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("sandbox.vhdx");
    std::fs::write(&disk, "").unwrap();
    let disk = disk.to_str().unwrap();
    let below = json!({
        "SchemaVersion": {"Major": 2, "Minor": 1},
        "Layers": [{"Id": "00000000-0000-0000-0000-000000000001", "Path": directory.path()}],
    });
    let layer = |operation, path: &str, storage: &mut super::Storage| {
        storage.layer(operation, path, None, Some(&below.to_string()), None)
    };
    fails(layer(LayerOperation::GetVhdMountPath, disk, storage), hresult::NOT_FOUND);
    storage.attach_disk(disk, None).unwrap();
    fails(storage.attach_disk(disk, None), Hresult(0x8007_0020));
    let volume = layer(LayerOperation::GetVhdMountPath, disk, storage).unwrap().unwrap();
    fails(storage.expect_attached(&volume), hresult::INVALID_LAYER);
    layer(LayerOperation::AttachFilter, &volume, storage).unwrap();
    fails(layer(LayerOperation::AttachFilter, &volume, storage), hresult::ALREADY_EXISTS);
    storage.expect_attached(&format!("{volume}\\")).unwrap();
    layer(LayerOperation::DetachFilter, &volume, storage).unwrap();
    fails(layer(LayerOperation::DetachFilter, &volume, storage), hresult::NOT_FOUND);
    storage.detach_disk(disk).unwrap();
    assert_eq!((storage.layers(), storage.disks()), (vec![], vec![]));
}

#[test]
fn namespaces_hold_endpoints_and_containers() {
    let mut model = Model::default();
    let networks = &mut model.networks;
    let id = "4C9AD5A1-7E0F-4B0F-8A3E-0123456789AB";
    let perform = |networks: &mut super::Networks, operation, document: Option<&Value>| {
        let document = document.map(Value::to_string);
        networks.perform(operation, Some(id), document.as_deref())
    };
    let open = perform(networks, NetworkOperation::OpenNamespace, None);
    fails(open, hresult::NAMESPACE_NOT_FOUND);
    perform(networks, NetworkOperation::CreateNamespace, None).unwrap();
    let add = json!({
        "ResourceType": "Endpoint",
        "RequestType": "Add",
        "Settings": {"EndpointId": "e1"},
    });
    let modify = NetworkOperation::ModifyNamespace;
    fails(perform(networks, modify, Some(&add)), hresult::ENDPOINT_NOT_FOUND);
    networks.add_endpoint("E1", json!({"ID": "e1"}));
    perform(networks, modify, Some(&add)).unwrap();
    fails(perform(networks, modify, Some(&add)), hresult::ALREADY_EXISTS);
    let text = perform(networks, NetworkOperation::QueryNamespace, None).unwrap().unwrap();
    let namespace: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(namespace["Resources"][0]["Data"]["Id"], "e1");
}
