//! The VM shim and its client with real VMs.

mod support;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use oci_spec::runtime::{Mount, MountBuilder};
use runhcs_compute::{ComputeSystem, Error, ExitStatus, Scope, Signal, Status};
use support::{Pod, carry, chain, image, init, process, rootfs, spec, start};

fn bind(source: &Path, destination: &str, options: &[&str]) -> Mount {
    MountBuilder::default()
        .source(source)
        .destination(destination)
        .typ("bind")
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
        .unwrap()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn stdio_exit_codes_and_signals() {
    let Some(image) = image() else { return };
    let (pod, root) = (Pod::new(&image), rootfs());
    let vm = pod.launch();
    let info = vm.info().unwrap();
    assert_eq!(Some(info.pid as i32), pod.shim_pid());
    assert!(["kvm", "tcg"].contains(&info.accelerator.as_str()), "{info:?}");

    // Ten mebibytes there and back.
    let data: Vec<u8> = (0..10u32 << 20).map(|n| (n ^ (n >> 9)) as u8).collect();
    let (cat, attachment) = start(&vm, "cat", &spec(root.path(), &["cat"], vec![]));
    let again = chain(&vm.attach(&init(&cat.id)).unwrap_err());
    assert!(again.contains("attached"), "{again}");
    assert_eq!(cat.status().unwrap(), Status::Running);
    let outcome = carry(attachment, data.clone());
    assert_eq!(outcome.status.unwrap(), ExitStatus::Exited(0));
    assert!(outcome.stdout == data, "{} bytes came back", outcome.stdout.len());
    assert_eq!(cat.status().unwrap(), Status::Stopped);
    cat.delete().unwrap();
    assert!(matches!(cat.status(), Err(Error::NotFound(_))), "{:?}", cat.status());
    cat.delete().unwrap();

    // Exit codes, and both outputs.
    let script = "echo out; echo err >&2; exit 3";
    let (shell, attachment) = start(&vm, "sh", &spec(root.path(), &["sh", "-c", script], vec![]));
    let outcome = carry(attachment, vec![]);
    assert_eq!(outcome.text(), (Some(3), "out\n".into(), "err\n".into()));
    shell.delete().unwrap();

    // Signals: one that is caught, one that can't be.
    let script = "trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let (trap, attachment) = start(&vm, "trap", &spec(root.path(), &["sh", "-c", script], vec![]));
    let killing = {
        let trap = trap.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(2));
            trap.signal(Signal::TERM, Scope::Init).unwrap();
        })
    };
    let outcome = carry(attachment, vec![]);
    killing.join().unwrap();
    assert_eq!(outcome.text(), (Some(7), "ready\nterm\n".into(), String::new()));
    let error = trap.signal(Signal::TERM, Scope::Init).unwrap_err();
    assert!(matches!(error, Error::InvalidStatus { status: Status::Stopped, .. }), "{error:?}");
    trap.delete().unwrap();

    // An exec in a container that is killed afterwards.
    let (sleep, attachment) = start(&vm, "sleep", &spec(root.path(), &["sleep", "1000"], vec![]));
    let script = process(&["sh", "-c", "cat; exit 5"]);
    let exec = vm.create_process(&sleep.id, &script).unwrap();
    let outcome = carry(vm.attach(&exec).unwrap(), b"hello".to_vec());
    assert_eq!(outcome.text(), (Some(5), "hello".into(), String::new()));
    let error = vm.attach(&exec).unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error:?}");
    sleep.signal(Signal::KILL, Scope::Init).unwrap();
    let outcome = carry(attachment, vec![]);
    assert_eq!(outcome.status.unwrap(), ExitStatus::Signaled(9));
    sleep.delete().unwrap();

    // Output that nobody reads ends its writer, and a client that goes away takes its process.
    let (yes, attachment) = start(&vm, "yes", &spec(root.path(), &["yes"], vec![]));
    let (stdin, _feed) = std::io::pipe().unwrap();
    let (reader, stdout) = std::io::pipe().unwrap();
    drop(reader);
    use std::os::fd::AsFd;
    let stdio = runhcs_uvm::LocalStdio::Pipes {
        stdin: stdin.as_fd(),
        stdout: stdout.as_fd(),
        stderr: stdout.as_fd(),
    };
    let status = attachment.run(stdio).unwrap().status;
    assert_ne!(status, ExitStatus::Exited(0));
    yes.delete().unwrap();
    let (left, attachment) = start(&vm, "left", &spec(root.path(), &["sleep", "1000"], vec![]));
    drop(attachment);
    let until = Instant::now() + Duration::from_secs(20);
    while left.status().unwrap() != Status::Stopped {
        assert!(Instant::now() < until, "it still runs");
        thread::sleep(Duration::from_millis(50));
    }
    left.delete().unwrap();

    vm.shutdown().unwrap();
    assert!(!vm.is_alive().unwrap());
    assert!(!pod.dir.path().join("vm.sock").exists());
    assert_eq!(left.status().unwrap(), Status::Stopped, "with its VM it has stopped");
    left.delete().unwrap();
    vm.shutdown().unwrap();
}

#[test]
fn a_host_mount_is_not_kept_busy() {
    let Some(image) = image() else { return };
    let (pod, root) = (Pod::new(&image), rootfs());
    let disk = tempfile::tempdir().unwrap();
    rustix::mount::mount("t", disk.path(), "tmpfs", rustix::mount::MountFlags::empty(), None)
        .unwrap();
    let vm = pod.launch();
    let volume = bind(disk.path(), "/vol", &["rbind"]);
    let (shell, attachment) =
        start(&vm, "sh", &spec(root.path(), &["sh", "-c", "echo x > /vol/x"], vec![volume]));
    assert_eq!(carry(attachment, vec![]).status.unwrap(), ExitStatus::Exited(0));
    assert_eq!(std::fs::read_to_string(disk.path().join("x")).unwrap(), "x\n");
    shell.delete().unwrap();
    rustix::mount::unmount(disk.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    let pids = pod.processes();
    for (pid, name) in pids {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        let allowed = |line: &str| {
            ["runhcs-vm", "runhcs-share", "runhcs-qemu"].iter().any(|n| line.contains(n))
        };
        let others: Vec<&str> = mounts.lines().filter(|line| !allowed(line)).collect();
        assert!(others.is_empty(), "{name} sees {others:?}");
    }
}

#[test]
fn a_vm_enters_control_groups_of_both_versions() {
    let Some(image) = image() else { return };
    let mut pod = Pod::new(&image);
    let name = pod.launch.host_id.to_string();
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let unified = unified.into_iter().find(|root| root.join("cgroup.procs").exists());
    let v1 = Some(Path::new("/sys/fs/cgroup/freezer")).filter(|root| root.join("tasks").exists());
    let groups: Vec<_> = [unified, v1].into_iter().flatten().map(|root| root.join(&name)).collect();
    assert!(!groups.is_empty(), "there are no control groups here");
    for group in &groups {
        std::fs::create_dir(group).unwrap();
    }
    pod.launch.cgroups = groups.clone();
    let vm = pod.launch();
    for (pid, what) in pod.processes() {
        let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let entered = own.lines().filter(|line| line.ends_with(&format!(":/{name}"))).count();
        assert_eq!(entered, groups.len(), "{what}: {own}");
    }
    vm.shutdown().unwrap();
    for group in &groups {
        std::fs::remove_dir(group).unwrap();
    }
}

#[test]
fn a_killed_shim_leaves_nothing() {
    let Some(image) = image() else { return };
    let (pod, root) = (Pod::new(&image), rootfs());
    let vm = pod.launch();
    let (container, attachment) = start(&vm, "c", &spec(root.path(), &["sleep", "1000"], vec![]));
    assert!(pod.processes().len() >= 3, "{:?}", pod.processes());
    kill(pod.shim_pid().unwrap());
    let outcome = carry(attachment, vec![]);
    assert!(outcome.status.is_err(), "{outcome:?}");
    pod.assert_gone(Duration::from_secs(1));
    assert_eq!(container.status().unwrap(), Status::Stopped);
    container.delete().unwrap();
    vm.shutdown().unwrap();
}

#[test]
fn a_killed_qemu_is_told_to_everybody() {
    let Some(image) = image() else { return };
    let (pod, root) = (Pod::new(&image), rootfs());
    let vm = pod.launch();
    let (container, attachment) = start(&vm, "c", &spec(root.path(), &["sleep", "1000"], vec![]));
    let qemu = pod.pid_of("qemu");
    let killing = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        kill(qemu);
        Instant::now()
    });
    let outcome = carry(attachment, vec![]);
    let took = killing.join().unwrap().elapsed();
    let error = chain(&outcome.status.unwrap_err());
    assert!(error.contains("QEMU was killed by signal 9"), "{error}");
    assert!(took < Duration::from_secs(1), "after {took:?}");
    pod.assert_gone(Duration::from_secs(1));
    assert_eq!(container.status().unwrap(), Status::Stopped);
    let error = container.signal(Signal::TERM, Scope::Init).unwrap_err();
    assert!(matches!(error, Error::InvalidStatus { status: Status::Stopped, .. }), "{error:?}");
    container.delete().unwrap();
    assert!(pod.log().contains("QEMU was killed by signal 9"), "{}", pod.log());
}

#[test]
fn a_killed_virtiofs_daemon_ends_the_vm() {
    let Some(image) = image() else { return };
    let pod = Pod::new(&image);
    pod.launch();
    kill(pod.pid_of("virtiofs"));
    pod.assert_gone(Duration::from_secs(2));
    assert!(pod.log().contains("virtiofs daemon was killed"), "{}", pod.log());
}

#[test]
fn a_removed_directory_ends_the_vm() {
    let Some(image) = image() else { return };
    let pod = Pod::new(&image);
    pod.launch();
    let pids = pod.processes();
    std::fs::remove_dir_all(pod.dir.path()).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    for (pid, name) in pids {
        while Path::new(&format!("/proc/{pid}/fd")).read_dir().is_ok_and(|mut d| d.next().is_some())
        {
            assert!(Instant::now() < until, "{name} is left");
            thread::sleep(Duration::from_millis(20));
        }
    }
    std::fs::create_dir(pod.dir.path()).unwrap();
}

#[test]
fn a_pc_boots_too() {
    let Some(image) = image() else { return };
    let (mut pod, root) = (Pod::new(&image), rootfs());
    pod.launch.options.machine = runhcs_spec::Machine::Q35;
    pod.launch.options.vcpus = 2;
    let vm = pod.launch();
    let (container, attachment) =
        start(&vm, "c", &spec(root.path(), &["sh", "-c", "echo hello"], vec![]));
    assert_eq!(carry(attachment, vec![]).text(), (Some(0), "hello\n".into(), String::new()));
    container.delete().unwrap();
}

#[test]
fn many_at_once() {
    let Some(image) = image() else { return };
    let (pod, root) = (Pod::new(&image), rootfs());
    let vm = pod.launch();
    thread::scope(|scope| {
        for number in 0..8u8 {
            let (vm, root) = (&vm, root.path());
            scope.spawn(move || {
                let spec = spec(root, &["cat"], vec![]);
                let (container, attachment) = start(vm, &format!("c{number}"), &spec);
                let exec = vm.create_process(&container.id, &process(&["cat"])).unwrap();
                let exec = vm.attach(&exec).unwrap();
                let data: Vec<u8> = (0..1u32 << 20).map(|n| (n >> 8) as u8 ^ number).collect();
                // The exec first: it ends with its container.
                for attachment in [exec, attachment] {
                    let outcome = carry(attachment, data.clone());
                    assert_eq!(outcome.status.unwrap(), ExitStatus::Exited(0));
                    assert!(outcome.stdout == data, "{number}: {} bytes", outcome.stdout.len());
                }
                container.delete().unwrap();
            });
        }
    });
}
