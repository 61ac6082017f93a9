//! VMs that don't come up, and guests that misbehave.

mod support;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use runhcs_compute::{ComputeSystem, Scope, Signal, Status};
use runhcs_protocol::shim::VmEnd;
use runhcs_spec::Accelerator;
use runhcs_uvm::{Vm, VmContainer};
use support::{Pod, SHIM, chain, fake_image, image, process, rootfs, spec};

/// The error of a launch that must fail; nothing is left of it.
fn launch_error(pod: &Pod) -> String {
    let error = pod.try_launch().map(drop).unwrap_err();
    pod.assert_gone(Duration::from_secs(1));
    assert!(!pod.dir.path().join("vm.sock").exists());
    chain(&error)
}

fn fake(image: &Path, behaviour: &str) -> Pod {
    let mut pod = Pod::new(image);
    pod.launch.options.kernel_args = format!("fake={behaviour}");
    pod
}

#[test]
fn what_is_missing_is_named_with_a_remedy() {
    let Some(image) = image() else { return };
    let mut pod = Pod::new(&image);
    pod.launch.options.qemu = "qemu-of-nowhere".into();
    let error = launch_error(&pod);
    assert!(error.contains("qemu-of-nowhere") && error.contains("qemu-system-x86"), "{error}");

    let mut pod = Pod::new(&image);
    pod.launch.options.qemu = "/nonexistent/qemu".into();
    let error = launch_error(&pod);
    assert!(error.contains("/nonexistent/qemu") && error.contains("install"), "{error}");

    for what in ["kernel", "initramfs"] {
        let mut pod = Pod::new(&image);
        let options = &mut pod.launch.options;
        let path = if what == "kernel" { &mut options.kernel } else { &mut options.initramfs };
        *path = "/nonexistent/file".into();
        let error = launch_error(&pod);
        assert!(error.contains(what) && error.contains("/nonexistent/file"), "{error}");
        assert!(error.contains("runhcs-guest-image build"), "{error}");
    }

    let mut pod = Pod::new(&image);
    pod.launch.dir = "/nonexistent/dir".into();
    let error = chain(&pod.try_launch().unwrap_err());
    assert!(error.contains("/nonexistent/dir"), "{error}");

    let mut pod = Pod::new(&image);
    pod.launch.console = Some("/nonexistent/console".into());
    let error = launch_error(&pod);
    assert!(error.contains("/nonexistent/console"), "{error}");

    let mut pod = Pod::new(&image);
    pod.launch.options.kernel = "/etc/passwd".into();
    let error = launch_error(&pod);
    assert!(error.contains("QEMU exited with code 1"), "{error}");
}

#[test]
fn kvm_is_probed_for_real() {
    let Some(image) = image() else { return };
    let works = Command::new(SHIM).arg("kvm-probe").output().unwrap().status.success();
    let mut pod = Pod::new(&image);
    pod.launch.options.accelerator = Accelerator::Kvm;
    if works {
        assert_eq!(pod.launch().info().unwrap().accelerator, "kvm");
        return;
    }
    let error = launch_error(&pod);
    assert!(error.contains("KVM"), "{error}");
    pod.launch.options.accelerator = Accelerator::Auto;
    assert_eq!(pod.launch().info().unwrap().accelerator, "tcg");
    let log = pod.log();
    assert_eq!(
        log.matches(" WARN ").filter(|_| true).count() - log.matches("virtiofsd").count(),
        1
    );
}

#[test]
fn the_log_names_the_vm_on_every_line() {
    let Some(image) = image() else { return };
    for json in [false, true] {
        let mut pod = Pod::new(&image);
        pod.launch.log_json = json;
        pod.launch.log_level = "debug".to_owned();
        pod.launch().shutdown().unwrap();
        let (log, id) = (pod.log(), format!("{}@vm", pod.launch.host_id));
        assert!(log.lines().count() > 5, "{log}");
        for line in log.lines() {
            if json {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(value["vm"], id.as_str(), "{line}");
            } else {
                assert!(line.ends_with(&format!("vm={id}")), "{line}");
            }
        }
    }
}

#[test]
fn agents_that_do_not_come_up() {
    let Some(image) = image() else { return };
    let image = fake_image(&image);

    let mut pod = fake(image.path(), "silent");
    pod.launch.options.boot_timeout_seconds = 15;
    let elsewhere = tempfile::tempdir().unwrap();
    let viewer = elsewhere.path().join("viewer");
    let listener = std::os::unix::net::UnixListener::bind(&viewer).unwrap();
    pod.launch.console = Some(viewer);
    let error = launch_error(&pod);
    assert!(error.contains("didn't come up within 15 s"), "{error}");
    assert!(error.contains("console.log"), "{error}");
    assert!(error.contains("the fake agent is going to be: silent"), "{error}");
    let mut seen = String::new();
    listener.accept().unwrap().0.read_to_string(&mut seen).unwrap();
    let logged = std::fs::read_to_string(pod.dir.path().join("console.log")).unwrap();
    assert!(seen == logged && seen.contains("going to be: silent"), "{seen:?} {logged:?}");

    let error = launch_error(&fake(image.path(), "panic"));
    assert!(error.contains("Kernel panic"), "{error}");

    let error = launch_error(&fake(image.path(), "wrong-version"));
    assert!(error.contains("version 99") && error.contains("runhcs-guest-image build"), "{error}");

    let error = launch_error(&fake(image.path(), "half-hello"));
    assert!(error.contains("hello") && error.contains("ended within a message"), "{error}");

    let error = launch_error(&fake(image.path(), "huge-hello"));
    assert!(error.contains("4294967295 bytes"), "{error}");
}

#[test]
fn agents_that_misbehave_later() {
    let Some(image) = image() else { return };
    let image = fake_image(&image);
    let root = rootfs();
    let id = "c".parse().unwrap();

    // The link is closed when something is asked.
    let pod = fake(image.path(), "close");
    let vm = pod.launch();
    let error = chain(
        &vm.create_container(&id, &spec(root.path(), &["true"], vec![]), &[], &|_, _| Ok(false))
            .unwrap_err(),
    );
    assert!(error.contains("connection to the guest agent was lost"), "{error}");
    // Who is told of the end finds that it is written down, with what the console said.
    let said = "the fake agent is going to be: close";
    let (log, obituary) = (pod.log(), vm.ended());
    assert!(log.contains("the virtual machine is lost") && log.contains(said), "{log}");
    assert!(matches!(&obituary, Some(VmEnd::Lost(text)) if text.contains(said)), "{obituary:?}");
    pod.assert_gone(Duration::from_secs(5));

    // The host listens for the agent once.
    let pod = fake(image.path(), "second-link");
    let _vm = pod.launch();
    let console = pod.dir.path().join("console.log");
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let text = std::fs::read_to_string(&console).unwrap();
        if let Some((_, answer)) = text.split_once("a second link: ") {
            assert!(answer.contains("reset by peer"), "{text}");
            break;
        }
        assert!(Instant::now() < until, "{text}");
        thread::sleep(Duration::from_millis(50));
    }

    // Nonsense is refused.
    let pod = fake(image.path(), "nonsense");
    let vm = pod.launch();
    let error = chain(
        &vm.create_container(&id, &spec(root.path(), &["true"], vec![]), &[], &|_, _| Ok(false))
            .unwrap_err(),
    );
    assert!(error.contains("makes no sense"), "{error}");
    let container = VmContainer { vm, id: id.clone() };
    assert!(chain(&container.status().unwrap_err()).contains("makes no sense"));

    // A slow request holds nobody up, and a guest that hangs can't stop a shutdown.
    let pod = fake(image.path(), "slow");
    let vm = pod.launch();
    let container = VmContainer { vm: vm.clone(), id: id.clone() };
    let slow = container.clone();
    let waiting = thread::spawn(move || slow.signal(Signal::TERM, Scope::Init));
    thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(container.status().unwrap(), Status::Running);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(!waiting.is_finished());
    let started = Instant::now();
    vm.shutdown().unwrap();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    let error = chain(&waiting.join().unwrap().unwrap_err());
    assert!(error.contains("stopped"), "{error}");
}

#[test]
fn agents_that_lie() {
    let Some(image) = image() else { return };
    let image = fake_image(&image);
    let root = rootfs();
    let id = "c".parse().unwrap();
    let create = |vm: &Vm| {
        chain(
            &vm.create_container(&id, &spec(root.path(), &["true"], vec![]), &[], &|_, _| {
                Ok(false)
            })
            .unwrap_err(),
        )
    };

    // An answer to what nobody has asked ends the VM.
    let pod = fake(image.path(), "stray");
    let error = create(&pod.launch());
    assert!(error.contains("question 4096, which nobody has asked"), "{error}");
    pod.assert_gone(Duration::from_secs(5));
    let end = Vm::at(pod.dir.path()).ended();
    assert!(matches!(&end, Some(VmEnd::Lost(text)) if text.contains("question 4096")), "{end:?}");

    // What it says can't fool a terminal.
    let pod = fake(image.path(), "escapes");
    let error = create(&pod.launch());
    assert!(error.contains(r"\u{1b}[2Jcleared\nrunhcs: all is well"), "{error:?}");

    // Nor can it give one process's number to another, or end one by a signal that isn't there.
    let pod = fake(image.path(), "same-process");
    let vm = pod.launch();
    vm.create_process(&id, &process(&["true"])).unwrap();
    let error = chain(&vm.create_process(&id, &process(&["true"])).unwrap_err());
    assert!(error.contains("makes no sense"), "{error}");
    let container = VmContainer { vm, id: id.clone() };
    assert!(chain(&container.processes().unwrap_err()).contains("makes no sense"));

    // A flood neither fills the log nor keeps others from being served.
    let pod = fake(image.path(), "flood");
    let vm = pod.launch();
    let container = VmContainer { vm: vm.clone(), id: id.clone() };
    for _ in 0..50 {
        assert_eq!(container.status().unwrap(), Status::Running);
        vm.info().unwrap();
    }
    let until = Instant::now() + Duration::from_secs(60);
    let log = pod.dir.path().join("shim.log");
    let size = || std::fs::metadata(&log).unwrap().len();
    while size() < 4 << 20 {
        assert!(Instant::now() < until, "{} bytes were logged", size());
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_millis(500));
    assert!(size() < 5 << 20, "{} bytes were logged", size());
    vm.shutdown().unwrap();
}

#[test]
fn a_stopped_shim_cannot_hang_its_clients() {
    let Some(image) = image() else { return };
    let pod = Pod::new(&image);
    let vm = pod.launch();
    let pid = rustix::process::Pid::from_raw(pod.shim_pid().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let started = Instant::now();
    assert!(matches!(vm.info(), Err(runhcs_compute::Error::Timeout { .. })));
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert!(vm.is_alive().unwrap());
    // It is killed, with all of its VM.
    vm.shutdown().unwrap();
    pod.assert_gone(Duration::from_secs(1));
}

#[test]
fn a_launcher_that_goes_away_takes_the_vm_with_it() {
    let Some(image) = image() else { return };
    let pod = Pod::new(&image);
    let mut child = Command::new(SHIM)
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(pod.dir.path().join("shim.log")).unwrap())
        .spawn()
        .unwrap();
    let document = serde_json::to_vec(&pod.launch).unwrap();
    child.stdin.take().unwrap().write_all(&document).unwrap();
    // What is launched ends at once, having become a daemon.
    assert!(child.wait().unwrap().success());
    let until = Instant::now() + Duration::from_secs(5);
    while pod.processes().len() < 3 {
        assert!(Instant::now() < until, "{}", pod.log());
        thread::sleep(Duration::from_millis(5));
    }
    assert!(Vm::at(pod.dir.path()).is_alive().unwrap());
    drop(child.stdout.take());
    pod.assert_gone(Duration::from_secs(1));
    assert!(pod.log().contains("the launching process has gone away"), "{}", pod.log());
}
