//! Warm starts: VMs that are resumed from a template, and what makes each of them one of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use runhcs_tests::{Bundle, Harness, Isolation, LoopDevice, Netns, eventually};
use serde_json::{Value, json};

/// Runs a test with a store of templates of its own.
fn vm(name: &str, body: impl FnOnce(&Harness)) {
    Harness::run(Isolation::Vm, name, |h| {
        h.write_config(&format!("template-dir = {:?}", h.path("templates")));
        body(h);
    });
}

fn create(h: &Harness) -> String {
    let log = h.path("template.vm.log");
    let made = h.runhcs(&["vm-template", "create", "--vm-log", log.to_str().unwrap()]).ok();
    made.stdout.trim().to_owned()
}

/// The templates, as `list` describes them.
fn list(h: &Harness) -> Vec<Value> {
    let text = h.runhcs(&["vm-template", "list", "--format", "json"]).ok().stdout;
    serde_json::from_str(&text).unwrap()
}

/// Runs a container in a VM of its own. Returns its output, and the VM's log.
fn run(h: &Harness, bundle: &Bundle, id: &str) -> (String, String) {
    let log = h.path(&format!("{id}.vm.log"));
    let run = h.new_container(&["run", "--vm-log", log.to_str().unwrap()], bundle, id);
    let logged = std::fs::read_to_string(&log).unwrap();
    assert_eq!(run.code, 0, "{run:?}\n{logged}");
    (run.stdout, logged)
}

/// The line of a VM's log that says how it came up.
fn came_up(log: &str) -> &str {
    log.lines().find(|line| line.contains("the virtual machine is up")).expect(log)
}

#[test]
fn vms_of_one_template_are_each_their_own() {
    vm("resumed", |h| {
        assert!(list(h).is_empty());
        let id = create(h);
        let listed = list(h);
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!((&listed[0]["id"], &listed[0]["status"]), (&json!(id), &json!("usable")));
        let table = h.runhcs(&["vm-template", "list"]).ok().stdout;
        assert!(table.starts_with("ID ") && table.contains(&id), "{table}");

        // What a kernel draws at random, with /dev/shm's clock, which is the guest's.
        let script = "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
            dd if=/dev/urandom bs=32 count=1 2>/dev/null | sha256sum
            touch /dev/shm/now; stat -c %Y /dev/shm/now";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]);
        let mut drawn = BTreeSet::new();
        for name in ["one", "two"] {
            let (output, log) = run(h, &bundle, name);
            assert!(came_up(&log).contains(&id), "{log}");
            let mut lines: Vec<&str> = output.lines().collect();
            let clock: u64 = lines.pop().unwrap().parse().unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            // A template's own clock would be later behind with each VM; a minute is for the run.
            assert!(now.abs_diff(clock) < 60, "the guest's clock says {clock}, the host's {now}");
            assert_eq!(lines.len(), 3, "{output}");
            drawn.extend(lines.into_iter().map(str::to_owned));
        }
        assert_eq!(drawn.len(), 6, "two VMs drew the same: {drawn:?}");

        h.runhcs(&["vm-template", "remove", &id]).ok();
        assert!(list(h).is_empty());
        h.runhcs(&["vm-template", "remove", &id]).refused("there is no template");
        h.runhcs(&["vm-template", "remove", "../box"]).refused("not a template's id");
    });
}

#[test]
fn a_resumed_vm_has_its_pods_network_and_volumes() {
    vm("resumed-pod", |h| {
        create(h);
        let (pod, peer) = (Netns::new(h, "netns"), Netns::new(h, "peer"));
        pod.connect("eth0", &peer, "peer0");
        pod.run("ip link set eth0 address 02:00:00:00:00:43 mtu 1400");
        pod.run("ip address add 10.56.0.2/24 dev eth0");
        peer.run("ip address add 10.56.0.1/24 dev peer0");
        let shared = h.path("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::write(shared.join("index.html"), "from outside\n").unwrap();
        let _server = peer.serve(&shared);
        let script = "ip link show eth0; wget -qO- http://10.56.0.1/index.html; cat /vol/index.html
            echo written > /vol/new";
        let path = json!(pod.path());
        let bundle = Bundle::new(h, "pod", &["sh", "-c", script]).bind(&shared, "/vol", &["rbind"]);
        let bundle = bundle.edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            let network = namespaces.iter_mut().find(|ns| ns["type"] == "network").unwrap();
            network["path"] = path;
        });
        let (output, log) = run(h, &bundle, "pod");
        assert!(came_up(&log).contains("template="), "{log}");
        assert!(output.contains("02:00:00:00:00:43") && output.contains("mtu 1400"), "{output}");
        assert!(output.ends_with("from outside\nfrom outside\n"), "{output}");
        assert_eq!(std::fs::read_to_string(shared.join("new")).unwrap(), "written\n");
    });
}

#[test]
fn a_resumed_vm_takes_disks_and_interfaces() {
    vm("resumed-disks", |h| {
        create(h);
        let file = h.path("file");
        std::fs::write(&file, [b"marker".as_slice(), &[0; 4 << 20]].concat()).unwrap();
        let device = LoopDevice::new(&file);
        let (major, minor) = device.number();
        let with_device = |bundle: Bundle| {
            bundle.edit(|config| {
                config["linux"]["devices"] =
                    json!([{ "path": "/dev/data", "type": "b", "major": major, "minor": minor }]);
                config["linux"]["resources"]["devices"] = json!([
                    { "allow": false, "access": "rwm" },
                    { "allow": true, "type": "b", "major": major, "minor": minor, "access": "rw" }
                ]);
            })
        };
        let with_scratch = |bundle: Bundle| {
            bundle.edit(|config| {
                let annotations = config.as_object_mut().unwrap().entry("annotations");
                annotations.or_insert_with(|| json!({}))["io.runhcs.scratch"] = json!("32M");
            })
        };
        let netns = Netns::new(h, "netns");
        let sandbox = Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod");
        let sandbox = with_device(with_scratch(sandbox)).edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            let network = namespaces.iter_mut().find(|ns| ns["type"] == "network").unwrap();
            network["path"] = json!(netns.path());
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_NET_RAW"]);
            }
        });
        h.new_container(&["run", "--detach"], &sandbox, "pod").ok();
        let log = std::fs::read_to_string(h.root().join("pod/vm.log")).unwrap();
        assert!(came_up(&log).contains("template="), "{log}");
        let exec = |script: &str| h.runhcs(&["exec", "pod", "sh", "-c", script]);

        // Disks that the sandbox brings.
        let script = "head -c 6 /dev/data; echo; grep ' / ' /proc/mounts | cut -d' ' -f3
            touch /new && echo back | dd of=/dev/data bs=512 seek=1 conv=fsync,notrunc 2>/dev/null";
        assert_eq!(exec(script).ok().stdout, "marker\noverlay\n");
        assert_eq!(&std::fs::read(&file).unwrap()[512..517], b"back\n");
        assert!(!sandbox.path().join("rootfs/new").exists());

        // Disks of a container that joins; one is the pod's already.
        let member = Bundle::new(h, "member", &["sh", "-c", "head -c 6 /dev/data; touch /mine"]);
        let member = with_device(with_scratch(member.in_pod("container", "pod")));
        let path = member.path().to_str().unwrap();
        assert_eq!(h.runhcs(&["run", "--bundle", path, "member"]).ok().stdout, "marker");
        assert!(!member.path().join("rootfs/mine").exists());

        // An interface that comes later, for which the template has no device.
        let peer = Netns::new(h, "peer");
        netns.connect("eth0", &peer, "peer0");
        netns.run("ip address add 10.57.0.2/24 dev eth0");
        peer.run("ip address add 10.57.0.1/24 dev peer0");
        let pings = || exec("ping -c 1 -W 5 10.57.0.1").code == 0;
        eventually(pings, || format!("{:?}", exec("ip -o address")));
        netns.run("ip link delete eth0");
        let gone = || !exec("ip -o link").stdout.contains("eth0");
        eventually(gone, || format!("{:?}", exec("ip -o link")));

        // It can't grow, and says so; a limit that fits is set.
        h.runhcs(&["update", "--memory", "1G", "pod"]).refused("may grow to");
        h.runhcs(&["update", "--memory", "64M", "pod"]).ok();
        h.runhcs(&["delete", "--force", "pod"]).ok();
    });
}

#[test]
fn what_does_not_fit_boots() {
    vm("unfit", |h| {
        let id = create(h);
        let bundle = |name: &str, annotation: &str, value: &str| {
            let annotations = json!({ annotation: value });
            Bundle::new(h, name, &["echo", "hello"])
                .edit(|config| config["annotations"] = annotations)
        };
        // Without a word: nothing is wrong.
        let never = bundle("never", "io.runhcs.vm.template", "never");
        let (output, log) = run(h, &never, "never");
        assert_eq!(output, "hello\n");
        assert!(!came_up(&log).contains("template="), "{log}");
        let larger = bundle("larger", "io.runhcs.vm.memory-mib", "300");
        let (_, log) = run(h, &larger, "larger");
        assert!(!came_up(&log).contains("template="), "{log}");
        assert!(!log.contains("template can't be used"), "{log}");

        // With a warning: the template is damaged.
        let memory: PathBuf = h.path("templates").join(&id).join("memory");
        let mut content = std::fs::read(&memory).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        std::fs::write(&memory, content).unwrap();
        let (output, log) = run(h, &Bundle::new(h, "box", &["echo", "hello"]), "box");
        assert_eq!(output, "hello\n");
        assert!(log.contains("the template can't be used; the VM boots"), "{log}");
        assert!(log.contains("its checksum is wrong"), "{log}");
        assert!(!came_up(&log).contains("template="), "{log}");
        std::fs::write(memory.with_file_name("manifest.json"), "{}").unwrap();
        let listed = list(h);
        assert_eq!(listed[0]["status"], "damaged", "{listed:?}");
        h.runhcs(&["vm-template", "remove", "--outdated"]).ok();
        assert!(list(h).is_empty());
    });
}

#[test]
fn templates_that_cannot_be_are_refused() {
    vm("refused", |h| {
        let bundle = Bundle::new(h, "q35", &["true"])
            .edit(|config| config["annotations"] = json!({ "io.runhcs.vm.machine": "q35" }));
        let path = bundle.path().to_str().unwrap();
        h.runhcs(&["vm-template", "create", "--bundle", path]).refused("microvm only");
        h.runhcs(&["vm-template", "create", "--memory-mib", "1"]).refused("memory-mib");
        h.write_config("template = \"never\"");
        h.runhcs(&["vm-template", "create"]).refused("`template`");
        assert!(!h.path("templates").exists() || list(h).is_empty());
    });
}
