//! Root file systems: layers that containers share, writable disks, and the order in which all is
//! given back.

use runhcs_tests::wine::{Wine, in_pod, windows_path};
use serde_json::{Value, json};

use crate::kinds::{Kind, in_all};

/// How many devices and shares of VMs have this file or folder.
fn uses(wine: &Wine, path: &str) -> usize {
    let systems = wine.sim.snapshot().unwrap().systems;
    let resources = systems.iter().flat_map(|system| system.resources.iter());
    let named = |value: &Value| value["Path"] == path || value["HostPath"] == path;
    resources.filter(|(_, value)| named(value)).count()
}

/// Members of a pod bring a layer that their sandbox hasn't.
fn shared(wine: &Wine, kind: Kind) {
    let sandbox = kind.lasting_with(wine, "pod", |spec| in_pod(spec, "sandbox", "pod"));
    wine.new_container(&["create"], &sandbox, "pod").ok();
    let layer = wine.path("another");
    std::fs::create_dir(&layer).unwrap();
    std::fs::write(layer.join("layer.vhd"), "a disk").unwrap();
    let folder = windows_path(&layer);
    let of_vm = match kind {
        Kind::Lcow => windows_path(&layer.join("layer.vhd")),
        _ => folder.clone(),
    };
    for id in ["one", "two"] {
        let bundle = kind.lasting_with(wine, id, |spec| {
            in_pod(spec, "container", "pod");
            let folders = spec["windows"]["layerFolders"].as_array_mut().unwrap();
            folders.insert(0, folder.clone().into());
        });
        wine.new_container(&["create"], &bundle, id).ok();
        assert_eq!(uses(wine, &of_vm), 1);
    }
    wine.runhcs(&["delete", "one"]).ok();
    assert_eq!(uses(wine, &of_vm), 1);
    wine.runhcs(&["delete", "two"]).ok();
    assert_eq!(uses(wine, &of_vm), 0);
    wine.runhcs(&["delete", "pod"]).ok();
}

#[test]
fn a_layer_is_in_a_linux_vm_once() {
    Wine::run("shared layers lcow", |wine| shared(wine, Kind::Lcow));
}

#[test]
fn a_layer_is_in_a_windows_vm_once() {
    Wine::run("shared layers xenon", |wine| shared(wine, Kind::Xenon));
}

#[test]
fn layers_that_have_no_persistent_memory_are_disks() {
    Wine::run("layers as disks", |wine| {
        let bundle = Kind::Lcow.lasting_with(wine, "one", |spec| {
            let name = "io.microsoft.virtualmachine.devices.virtualpmem.maximumcount";
            spec["annotations"] = json!({name: "0"});
        });
        wine.new_container(&["create"], &bundle, "one").ok();
        let systems = wine.sim.snapshot().unwrap().systems;
        let layer = windows_path(&wine.path("layer").join("layer.vhd"));
        let resources: Vec<_> = systems.iter().flat_map(|system| system.resources.iter()).collect();
        let of_layer: Vec<_> = resources.iter().filter(|(_, disk)| disk["Path"] == layer).collect();
        assert_eq!(of_layer.len(), 1, "{resources:?}");
        assert!(of_layer[0].0.contains("/Scsi/"), "{of_layer:?}");
        assert_eq!(of_layer[0].1["ReadOnly"], true);
        wine.runhcs(&["start", "one"]).ok();
        wine.runhcs(&["delete", "--force", "one"]).ok();
    });
}

#[test]
fn a_root_on_the_host_is_made_and_given_back_in_order() {
    Wine::run("root argon", |wine| {
        let calls = |wine: &Wine, names: &[&str]| -> Vec<String> {
            let calls = wine.calls().into_iter().map(|call| call.function);
            calls.filter(|function| names.contains(&function.as_str())).collect()
        };
        wine.new_container(&["create"], &Kind::Argon.bundle(wine, "one"), "one").ok();
        let made = [
            "AttachVirtualDisk",
            "HcsGetLayerVhdMountPath",
            "HcsAttachLayerStorageFilter",
            "HcsCreateComputeSystem",
        ];
        assert_eq!(calls(wine, &made), made);
        wine.runhcs(&["delete", "one"]).ok();
        let given_back =
            ["HcsTerminateComputeSystem", "HcsDetachLayerStorageFilter", "DetachVirtualDisk"];
        assert_eq!(calls(wine, &given_back), given_back);
    });
}

#[test]
fn a_windows_vm_has_a_disk_of_its_own() {
    Wine::run("own disk", |wine| {
        let bundle = Kind::Xenon.lasting(wine, "one");
        let disk = bundle.path().join("scratch/vm/sandbox.vhdx");
        wine.new_container(&["create"], &bundle, "one").ok();
        assert!(disk.exists());
        let calls = wine.calls().into_iter();
        let mut made = calls.filter(|call| call.function == "HcsCreateComputeSystem");
        let machine = made.find(|call| call.about.starts_with("one@vm ")).unwrap().about;
        let path = windows_path(&disk).replace('\\', "\\\\");
        assert!(machine.contains(&path), "{machine}");
        // A member of its pod has a disk in the VM, and not a VM's.
        let member = Kind::Xenon.lasting(wine, "two");
        wine.new_container(&["create", "--host", "one"], &member, "two").ok();
        assert!(!member.path().join("scratch/vm").exists());
        assert_eq!(uses(wine, &windows_path(&member.path().join("scratch/sandbox.vhdx"))), 1);
        for id in ["two", "one"] {
            wine.runhcs(&["delete", "--force", id]).ok();
        }
        assert!(!disk.exists());
    });
}

in_all!(what_is_missing_of_a_root_is_named, |wine: &Wine, kind: Kind| {
    let create = |change: &dyn Fn(&mut Value)| {
        let bundle = kind.changed(wine, "one", |spec| change(spec));
        wine.new_container(&["create"], &bundle, "one")
    };
    let none = windows_path(&wine.path("none"));
    for folder in [0, 1] {
        let outcome = create(&|spec| spec["windows"]["layerFolders"][folder] = none.clone().into());
        outcome.refused(&none);
    }
    create(&|spec| drop(spec["windows"].as_object_mut().unwrap().remove("layerFolders")))
        .refused("layerFolders");
});
