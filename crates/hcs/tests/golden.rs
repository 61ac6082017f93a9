//! Documents against the JSON in `tests/golden`, one file a case. Set `UPDATE_GOLDEN` to write the
//! files anew, and read the difference before committing it.

mod support;

use runhcs_hcs::documents::{
    Guest, GuestPorts, ScsiSlot, WcowBootFiles, WindowsContainer, argon, bare_disk,
    block_directory, combined_layers, formatting_vm, guest_paths, guest_process, lcow_container,
    lcow_hosted, lcow_vm, linux_process, make_ext4, mapped_pipe, network_namespace, plan9_share,
    pmem_layer, scsi_disk, smb_share, wcow_vm, windows_process, xenon,
};
use runhcs_hcs::options::{BootFolder, HostFacts, LcowOptions, VmOptions, WcowOptions};
use runhcs_hcs::schema::{MappedDirectory, MappedPipe, VirtualSmbShareOptions};
use serde_json::{Value, json};
use support::{Golden, spec};

const HOST: HostFacts = HostFacts { processors: 8, build: 26100 };
const OLD_HOST: HostFacts = HostFacts { processors: 1, build: 17763 };
const VM: &str = "pod@vm";

fn linux_vm(host: HostFacts, annotations: Value, has_rootfs_vhd: bool) -> Value {
    let spec = spec(json!({"annotations": annotations, "linux": {}}));
    let console = annotations.get("console").map(|_| r"\\.\pipe\console");
    let options = VmOptions::from_spec(&spec, host, console).unwrap();
    let look = |path: &str| BootFolder { path: path.into(), has_vmlinux: true, has_rootfs_vhd };
    let guest =
        LcowOptions::from_spec(&spec, host, r"C:\Program Files\Linux Containers", look).unwrap();
    let ports = match console {
        Some(_) => GuestPorts::default(),
        None => GuestPorts { entropy: Some(1), messages: Some(109) },
    };
    serde_json::to_value(lcow_vm(VM, "me", &options, &guest, ports)).unwrap()
}

fn windows_vm(annotations: Value) -> Value {
    let spec = spec(json!({"annotations": annotations, "windows": {"hyperv": {}}}));
    let options = VmOptions::from_spec(&spec, HOST, None).unwrap();
    let guest = WcowOptions::from_spec(&spec).unwrap();
    let boot = WcowBootFiles {
        os_files: r"C:\layers\base\UtilityVM\Files".into(),
        scratch: r"C:\layers\scratch\vm\sandbox.vhdx".into(),
    };
    serde_json::to_value(wcow_vm(VM, "me", &options, guest, &boot)).unwrap()
}

#[test]
fn linux_virtual_machines() {
    let golden = Golden::new("lcow_vm");
    golden.check("initrd", &linux_vm(HOST, json!({}), false));
    golden.check("vhd", &linux_vm(HOST, json!({}), true));
    golden.check("firmware", &linux_vm(OLD_HOST, json!({}), false));
    let pmem = "io.microsoft.virtualmachine.devices.virtualpmem.maximumcount";
    golden.check("scsi", &linux_vm(HOST, json!({pmem: "0"}), true));
    let all = json!({
        "console": "",
        "io.microsoft.virtualmachine.computetopology.memory.sizeinmb": "2048",
        "io.microsoft.virtualmachine.computetopology.memory.allowovercommit": "false",
        "io.microsoft.virtualmachine.computetopology.memory.enablecolddiscardhint": "true",
        "io.microsoft.virtualmachine.computetopology.memory.lowmmiogapinmb": "256",
        "io.microsoft.virtualmachine.computetopology.memory.highmmiobaseinmb": "4096",
        "io.microsoft.virtualmachine.computetopology.memory.highmmiogapinmb": "8192",
        "io.microsoft.virtualmachine.computetopology.processor.count": "4",
        "io.microsoft.virtualmachine.computetopology.processor.limit": "5000",
        "io.microsoft.virtualmachine.computetopology.processor.weight": "200",
        "io.microsoft.virtualmachine.computetopology.numa.mapped-physical-nodes": "0,1",
        "io.microsoft.virtualmachine.computetopology.numa.count-of-processors": "2,2",
        "io.microsoft.virtualmachine.computetopology.numa.count-of-memory-blocks": "1024,1024",
        "io.microsoft.virtualmachine.storageqos.bandwidthmaximum": "1000000",
        "io.microsoft.virtualmachine.storageqos.iopsmaximum": "500",
        "io.microsoft.virtualmachine.cpugroup.id": "8f6a2b2c-1f0e-4b6a-9d3b-0123456789ab",
        "io.microsoft.virtualmachine.resource-partition-id": "8f6a2b2c-1f0e-4b6a-9d3b-0123456789ac",
        "io.microsoft.virtualmachine.dump-directory-path": r"C:\dumps",
        "io.microsoft.virtualmachine.lcow.kernelbootoptions": "loglevel=7",
        "io.microsoft.virtualmachine.lcow.vpcienabled": "true",
        "io.microsoft.virtualmachine.lcow.timesync.disable": "true",
        "io.microsoft.container.processdumplocation": "/dumps/%e",
    });
    golden.check("all", &linux_vm(HOST, all, false));
    golden.finish();
}

#[test]
fn windows_virtual_machines() {
    let golden = Golden::new("wcow_vm");
    golden.check("plain", &windows_vm(json!({})));
    let all = json!({
        "io.microsoft.virtualmachine.fullyphysicallybacked": "true",
        "io.microsoft.virtualmachine.disablecompartmentnamespace": "true",
        "io.microsoft.virtualmachine.dump-directory-path": r"C:\dumps\",
        "io.microsoft.container.processdumplocation": r"C:\processes",
        "io.microsoft.virtualmachine.computetopology.processor.numa.max-processors-per-node": "2",
        "io.microsoft.virtualmachine.computetopology.processor.numa.max-size-per-node": "1024",
    });
    golden.check("all", &windows_vm(all));
    golden.finish();
}

#[test]
fn formatting_disks() {
    let golden = Golden::new("formatting");
    let spec = spec(json!({"linux": {}}));
    let options = VmOptions::from_spec(&spec, HOST, None).unwrap();
    let look =
        |path: &str| BootFolder { path: path.into(), has_vmlinux: true, has_rootfs_vhd: true };
    let mut guest = LcowOptions::from_spec(&spec, HOST, r"C:\lcow", look).unwrap();
    guest.pmem_count = 0;
    golden.check("vm", &formatting_vm("format@vm", "me", &options, &guest));
    let slot = ScsiSlot { controller: 0, lun: 1 };
    let both = |path: &str| {
        let change = bare_disk(slot, path);
        json!({"add": change.add, "remove": change.remove})
    };
    golden.check("file", &both(r"C:\new\scratch.vhdx"));
    golden.check("physical", &both(r"\\.\PHYSICALDRIVE3"));
    let process = |arguments: Vec<String>| guest_process(arguments);
    golden.check("list", &process(vec!["ls".into(), block_directory(slot)]));
    golden.check("make", &process(make_ext4("/dev/sdb")));
    golden.finish();
}

fn prepared(root: &str) -> WindowsContainer {
    WindowsContainer {
        layers: runhcs_hcs::documents::layers([
            (r"C:\layers\top", r"C:\layers\top"),
            (r"C:\layers\base", r"C:\layers\base"),
        ]),
        root: root.to_owned(),
        processors: 8,
        ..WindowsContainer::default()
    }
}

#[test]
fn windows_containers() {
    let golden = Golden::new("windows_container");
    let volume = r"\\?\Volume{8f6a2b2c-1f0e-4b6a-9d3b-0123456789ab}";
    let plain = spec(json!({"windows": {}}));
    golden.check("argon", &argon(&plain, "me", prepared(volume)).unwrap());
    let all = spec(json!({
        "hostname": "box",
        "annotations": {"io.microsoft.container.processdumplocation": r"C:\dumps"},
        "windows": {
            "resources": {
                "memory": {"limit": 512 << 20}, "cpu": {"count": 99},
                "storage": {"iops": 100, "bps": 200},
            },
            "network": {
                "allowUnqualifiedDNSQuery": true, "DNSSearchList": ["a.test", "b.test"],
                "networkSharedContainerName": "other",
            },
            "devices": [
                {"id": "5B45201D-F2F2-4F3B-85BB-30FF1F953599", "idType": "class"},
                {"id": "PCIROOT(0)#PCI(0100)", "idType": "vpci-location-path"},
            ],
        },
    }));
    let everything = |root: &str| WindowsContainer {
        directories: vec![MappedDirectory {
            host_path: r"C:\data".into(),
            container_path: r"C:\in".into(),
            read_only: true,
            ..MappedDirectory::default()
        }],
        pipes: vec![MappedPipe {
            container_pipe_name: "engine".into(),
            host_path: r"\\.\pipe\engine".into(),
            ..MappedPipe::default()
        }],
        namespace: Some("4c9ad5a1-7e0f-4b0f-8a3e-0123456789ab".into()),
        ..prepared(root)
    };
    golden.check("argon_all", &argon(&all, "me", everything(volume)).unwrap());
    golden.check("xenon", &xenon(&plain, "me", VM, prepared(r"C:\c\1")).unwrap());
    golden.check("xenon_all", &xenon(&all, "me", VM, everything(r"C:\c\1")).unwrap());
    golden.finish();
}

#[test]
fn what_no_windows_container_can_be_is_refused() {
    let volume = r"\\?\Volume{8f6a2b2c-1f0e-4b6a-9d3b-0123456789ab}";
    for (fields, field) in [
        (json!({}), "windows"),
        (json!({"windows": {}, "root": {"path": "x", "readonly": true}}), "root.readonly"),
        (json!({"windows": {"credentialSpec": {"a": 1}}}), "windows.credentialSpec"),
        (
            json!({"windows": {"devices": [{"id": "x", "idType": "y"}]}}),
            "windows.devices[0].idType",
        ),
    ] {
        let error = argon(&spec(fields), "me", prepared(volume)).unwrap_err();
        assert_eq!(error.field, field);
    }
    let error = argon(&spec(json!({"windows": {}})), "me", prepared(r"C:\c")).unwrap_err();
    assert_eq!(error.field, "root.path");
    let error = lcow_hosted(&spec(json!({"windows": {}})), "one", "/s").unwrap_err();
    assert_eq!(error.field, "linux");
}

#[test]
fn linux_containers() {
    let golden = Golden::new("lcow_container");
    let spec = spec(json!({
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["sh"]},
        "root": {"path": r"C:\bundle\rootfs"},
        "hooks": {"prestart": [{"path": "/bin/true"}]},
        "annotations": {"io.microsoft.virtualmachine.lcow.privileged": "true"},
        "linux": {
            "cgroupsPath": "/on/the/host",
            "resources": {"memory": {"limit": 1000}, "pids": {"limit": 5}, "devices": []},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        },
        "windows": {
            "layerFolders": ["a", "b"],
            "network": {"networkNamespace": "4c9ad5a1-7e0f-4b0f-8a3e-0123456789ab"},
        },
    }));
    let hosted = lcow_hosted(&spec, "one", "/run/mounts/scsi/m1").unwrap();
    golden.check("container", &lcow_container("me", VM, hosted));
    golden.finish();
}

#[test]
fn processes() {
    let golden = Golden::new("process");
    let process = serde_json::from_value(json!({
        "user": {"uid": 0, "gid": 0, "username": "ContainerUser"},
        "cwd": r"C:\work", "args": ["cmd.exe", "/c", "echo a b"], "env": ["PATH=C:\\bin"],
        "terminal": true, "consoleSize": {"height": 25, "width": 80},
    }))
    .unwrap();
    golden.check("windows", &windows_process(&process, "process").unwrap());
    golden.check("linux_init", &linux_process(&process, None).unwrap());
    golden.check("linux_exec", &linux_process(&process, Some(&process)).unwrap());
    golden.finish();
}

#[test]
fn changes() {
    let golden = Golden::new("changes");
    let both =
        |change: runhcs_hcs::documents::Change| json!({"add": change.add, "remove": change.remove});
    let file = r"C:\layers\1\layer.vhd";
    golden.check("pmem", &both(pmem_layer(3, file, &guest_paths::linux_pmem_layer(3))));
    let slot = ScsiSlot { controller: 1, lun: 7 };
    let scratch = r"C:\scratch\sandbox.vhdx";
    let mount = guest_paths::linux_scsi_mount(4);
    golden.check("scsi_linux", &both(scsi_disk(slot, scratch, false, &mount, Guest::Linux)));
    let mount = guest_paths::windows_scsi_mount(4);
    golden.check("scsi_windows", &both(scsi_disk(slot, scratch, false, &mount, Guest::Windows)));
    let mount = guest_paths::linux_share("one", 2);
    golden.check("plan9", &both(plan9_share("2", r"C:\data", None, false, &mount)));
    golden.check("plan9_file", &both(plan9_share("2", r"C:\data", Some("f.txt"), true, &mount)));
    let options = VirtualSmbShareOptions { read_only: true, ..VirtualSmbShareOptions::default() };
    golden.check("smb_file", &both(smb_share("s2", r"C:\data", Some("f.txt"), options)));
    golden.check("pipe", &both(mapped_pipe("engine")));
    let layers = runhcs_hcs::documents::layers([(r"C:\layers\1", "/run/layers/p3")]);
    let root = guest_paths::linux_rootfs("one");
    golden.check("layers", &both(combined_layers(&root, layers, "/run/mounts/scsi/m4")));
    golden.check("namespace", &both(network_namespace(&json!({"ID": "4c9ad5a1"}))));
    golden.finish();
}
