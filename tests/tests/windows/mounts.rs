//! Folders, files and named pipes of the host in containers.

use runhcs_tests::wine::{Wine, in_pod, windows_path};
use serde_json::{Value, json};

use crate::kinds::Kind;

/// A folder with a file in it, as Windows names both.
fn data(wine: &Wine) -> (String, String) {
    let folder = wine.path("data");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("file.txt"), "data").unwrap();
    (windows_path(&folder), windows_path(&folder.join("file.txt")))
}

/// What a VM has at places that begin so.
fn resources(wine: &Wine, prefix: &str) -> Vec<Value> {
    let systems = wine.sim.snapshot().unwrap().systems;
    let all = systems.into_iter().flat_map(|system| system.resources);
    all.filter(|(place, _)| place.starts_with(prefix)).map(|(_, value)| value).collect()
}

fn made(wine: &Wine, id: &str) -> Value {
    let prefix = format!("{id} ");
    let calls = wine.calls();
    let call = calls
        .iter()
        .find(|call| call.function == "HcsCreateComputeSystem" && call.about.starts_with(&prefix));
    serde_json::from_str(&call.unwrap().about[prefix.len()..]).unwrap()
}

#[test]
fn a_container_on_the_host_has_folders_and_pipes() {
    Wine::run("mounts argon", |wine| {
        let (folder, file) = data(wine);
        let bundle = Kind::Argon.lasting_with(wine, "one", |spec| {
            spec["mounts"] = json!([
                {"destination": "C:\\in", "source": folder, "options": ["ro"]},
                {"destination": "C:\\file.txt", "source": file},
                {"destination": r"\\.\pipe\inside", "source": r"\\.\pipe\engine"},
            ]);
        });
        wine.new_container(&["create"], &bundle, "one").ok();
        let container = &made(wine, "one")["Container"];
        let directories = container["MappedDirectories"].as_array().unwrap();
        assert_eq!(directories.len(), 2);
        assert_eq!(directories[0]["HostPath"], folder);
        assert_eq!(directories[0]["ContainerPath"], "C:\\in");
        assert_eq!(directories[0]["ReadOnly"], true);
        assert_ne!(directories[1]["ReadOnly"], true);
        let pipe = json!({"ContainerPipeName": "inside", "HostPath": r"\\.\pipe\engine"});
        assert_eq!(container["MappedPipes"], json!([pipe]));
        wine.runhcs(&["delete", "--force", "one"]).ok();
        let bundle = Kind::Argon.changed(wine, "two", |spec| {
            spec["mounts"] = json!([{"destination": "C:\\in", "source": "Z:\\none"}]);
        });
        wine.new_container(&["create"], &bundle, "two").refused("none");
    });
}

/// A pod whose members bring mounts, which go with them.
fn in_a_vm(wine: &Wine, kind: Kind, mounts: Value, shares: &str, check: impl FnOnce(&Wine)) {
    let sandbox = kind.lasting_with(wine, "pod", |spec| in_pod(spec, "sandbox", "pod"));
    wine.new_container(&["run", "--detach"], &sandbox, "pod").ok();
    let before = resources(wine, shares);
    wine.calls();
    let member = kind.changed(wine, "one", |spec| {
        in_pod(spec, "container", "pod");
        spec["mounts"] = mounts;
    });
    wine.new_container(&["create"], &member, "one").ok();
    check(wine);
    wine.runhcs(&["delete", "--force", "one"]).ok();
    assert_eq!(resources(wine, shares), before);
    assert_eq!(resources(wine, "VirtualMachine/Devices/MappedPipes/"), [] as [Value; 0]);
    wine.runhcs(&["delete", "--force", "pod"]).ok();
}

#[test]
fn a_windows_vm_shares_folders_and_pipes() {
    Wine::run("mounts xenon", |wine| {
        let (folder, file) = data(wine);
        let mounts = json!([
            {"destination": "C:\\in", "source": folder, "options": ["ro"]},
            {"destination": "C:\\file.txt", "source": file},
            {"destination": r"\\.\pipe\inside", "source": r"\\.\pipe\engine"},
        ]);
        let shares = "VirtualMachine/Devices/VirtualSmb/Shares/";
        in_a_vm(wine, Kind::Xenon, mounts, shares, |wine| {
            let shared = resources(wine, shares);
            let folder = folder.as_str();
            let of = |read_only: bool| {
                shared.iter().filter(move |share| {
                    share["Path"] == folder && (share["Options"]["ReadOnly"] == true) == read_only
                })
            };
            assert_eq!((of(true).count(), of(false).count()), (1, 1), "{shared:?}");
            assert_eq!(of(false).next().unwrap()["AllowedFiles"], json!(["file.txt"]));
            assert_eq!(resources(wine, "VirtualMachine/Devices/MappedPipes/engine").len(), 1);
            let container = &made(wine, "one")["HostedSystem"]["Container"];
            assert_eq!(container["MappedPipes"][0]["ContainerPipeName"], "inside");
            let directories = container["MappedDirectories"].as_array().unwrap();
            let places: Vec<_> = directories.iter().map(|d| &d["ContainerPath"]).collect();
            assert_eq!(places, ["C:\\in", "C:\\file.txt"]);
            // The guest sees the share, not the host's folder.
            assert!(directories.iter().all(|d| d["HostPath"] != folder), "{directories:?}");
        });
    });
}

#[test]
fn a_linux_vm_shares_folders() {
    Wine::run("mounts lcow", |wine| {
        let (folder, file) = data(wine);
        let mounts = json!([
            {"destination": "/in", "type": "bind", "source": folder, "options": ["rbind", "ro"]},
            {"destination": "/file.txt", "type": "bind", "source": file, "options": ["bind"]},
            {"destination": "/proc", "type": "proc", "source": "proc"},
        ]);
        let shares = "VirtualMachine/Devices/Plan9/Shares/";
        in_a_vm(wine, Kind::Lcow, mounts, shares, |wine| {
            let shared = resources(wine, shares);
            assert_eq!(shared.len(), 2, "{shared:?}");
            assert!(shared.iter().all(|share| share["Path"] == folder.as_str()), "{shared:?}");
            let mounted = resources(wine, "Guest/MappedDirectory/");
            assert_eq!(mounted.iter().filter(|mount| mount["ReadOnly"] == true).count(), 1);
            let container = &made(wine, "one")["HostedSystem"]["OciSpecification"];
            let sources: Vec<_> = container["mounts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|mount| mount["source"].as_str().unwrap())
                .collect();
            assert_eq!(sources[2], "proc");
            let places: Vec<_> =
                mounted.iter().map(|mount| mount["MountPath"].as_str().unwrap()).collect();
            assert!(places.contains(&sources[0]), "{sources:?} {places:?}");
            let parent = sources[1].strip_suffix("/file.txt").unwrap();
            assert!(places.contains(&parent), "{sources:?} {places:?}");
        });
    });
}

#[test]
fn a_vm_without_writable_shares_has_none() {
    Wine::run("no writable shares", |wine| {
        let (folder, _) = data(wine);
        let name = "io.microsoft.virtualmachine.fileshares.disablewritable";
        for (kind, id, place) in [(Kind::Lcow, "l", "/in"), (Kind::Xenon, "x", "C:\\in")] {
            let bundle = |options: Value| {
                kind.changed(wine, id, |spec| {
                    spec["annotations"] = json!({name: "true"});
                    spec["mounts"] = json!([{"destination": place, "type": "bind",
                        "source": folder, "options": options}]);
                })
            };
            wine.new_container(&["create"], &bundle(json!([])), id).refused("writable");
            assert_eq!(wine.new_container(&["run"], &bundle(json!(["ro"])), id).code, 7);
        }
    });
}

/// The resources that VMs were told to add or to remove since the last time, in order.
fn changes(wine: &Wine, request: &str) -> Vec<String> {
    let calls = wine.calls().into_iter();
    let calls = calls.filter(|call| call.function == "HcsModifyComputeSystem");
    let documents =
        calls.filter_map(|call| serde_json::from_str::<Value>(call.about.split_once(' ')?.1).ok());
    let asked = documents.filter(|document| document["RequestType"] == request);
    asked
        .map(|document| {
            let guest = &document["GuestRequest"]["ResourceType"];
            format!("{} {guest}", document["ResourcePath"])
        })
        .collect()
}

/// A member takes all that it has with it, in reverse. The owner of a VM takes only what is on its
/// disk and the disk: all else goes with the VM.
fn released(wine: &Wine, kind: Kind, place: &str, shares: &str) {
    let (folder, _) = data(wine);
    let mounts = json!([{"destination": place, "type": "bind", "source": folder}]);
    let sandbox = kind.lasting_with(wine, "pod", |spec| {
        in_pod(spec, "sandbox", "pod");
        spec["mounts"] = mounts.clone();
    });
    wine.new_container(&["run", "--detach"], &sandbox, "pod").ok();
    let of_owner = changes(wine, "Add");
    assert!(of_owner.iter().any(|change| change.contains(shares)), "{of_owner:?}");
    let member = kind.changed(wine, "one", |spec| {
        in_pod(spec, "container", "pod");
        spec["mounts"] = mounts;
    });
    wine.new_container(&["create"], &member, "one").ok();
    let mut added = changes(wine, "Add");
    assert!(added.iter().any(|change| change.contains(shares)), "{added:?}");
    assert!(added.iter().any(|change| change.contains("Scsi")), "{added:?}");
    wine.runhcs(&["delete", "--force", "one"]).ok();
    let removed = changes(wine, "Remove");
    added.reverse();
    assert_eq!(removed, added);
    wine.runhcs(&["delete", "--force", "pod"]).ok();
    let removed = changes(wine, "Remove");
    assert!(removed.iter().any(|change| change.contains("Scsi")), "{removed:?}");
    assert!(!removed.iter().any(|change| change.contains(shares)), "{removed:?}");
}

#[test]
fn a_linux_vm_gets_back_what_was_in_it() {
    Wine::run("released lcow", |wine| released(wine, Kind::Lcow, "/in", "Plan9"));
}

#[test]
fn a_windows_vm_gets_back_what_was_in_it() {
    Wine::run("released xenon", |wine| released(wine, Kind::Xenon, "C:\\in", "VirtualSmb"));
}
