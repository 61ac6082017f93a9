//! The steps of the check.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use windows_sys::Win32::System::HostComputeSystem::{
    HcsGetComputeSystemProperties, HcsModifyComputeSystem, HcsPauseComputeSystem,
    HcsResumeComputeSystem, HcsShutDownComputeSystem, HcsSignalProcess, HcsStartComputeSystem,
    HcsTerminateComputeSystem, HcsTerminateProcess,
};

use super::calls::{Outcome, Process, System};

/// Runs all steps.
pub fn run() {
    let mut arguments = std::env::args().skip(1);
    if let Some(id) = arguments.next() {
        if let ("--listen", Some(name)) = (id.as_str(), arguments.next()) {
            if let Err(error) = super::pipe::listen(&name) {
                say("listening", error);
            }
            return;
        }
        // Another process sees the same systems.
        return say(
            "seen by another",
            System::open(&id).map_or_else(failure, |_| "yes".to_owned()),
        );
    }
    documents();
    states();
    processes();
    faults();
}

fn say(name: &str, result: impl std::fmt::Display) {
    println!("{name}: {result}");
}

fn failure((code, _): Outcome) -> String {
    format!("0x{code:08X}")
}

fn version() -> serde_json::Value {
    json!({"Major": 2, "Minor": 1})
}

fn machine() -> String {
    json!({
        "Owner": "check",
        "SchemaVersion": version(),
        "ShouldTerminateOnLastHandleClosed": true,
        "VirtualMachine": {
            "Chipset": {"Uefi": {}},
            "ComputeTopology": {"Memory": {"SizeInMB": 512}, "Processor": {"Count": 1}},
            "Devices": {"Scsi": {"0": {}}},
            "GuestConnection": {"UseVsock": true},
        },
    })
    .to_string()
}

fn documents() {
    let create =
        |document: &str| System::create("bad", document).map_or_else(failure, |_| "made".into());
    say("not JSON", create("{"));
    let unknown = machine().replace("\"Owner\"", "\"Ovner\"");
    say("an unknown field", create(&unknown));
    let missing = machine().replace("\"SizeInMB\":512", "");
    say("a missing field", create(&missing));
    let Err((_, document)) = System::create("bad", &unknown) else { return };
    let error: serde_json::Value = serde_json::from_str(&document).unwrap_or_default();
    say("why", &error["ErrorMessage"]);
}

fn states() {
    say("opening nothing", System::open("vm").map_or_else(failure, |_| "opened".into()));
    let vm = System::create("vm", &machine()).unwrap_or_else(|f| panic!("{f:?}"));
    let again = System::create("vm", &machine());
    say("making it again", again.map_or_else(failure, |_| "made".into()));
    say("pausing what is created", failure(vm.call(HcsPauseComputeSystem, None)));
    say("starting", failure(vm.call(HcsStartComputeSystem, None)));
    say("starting again", failure(vm.call(HcsStartComputeSystem, None)));
    let (_, properties) = vm.call(HcsGetComputeSystemProperties, Some("{}"));
    let properties: serde_json::Value = serde_json::from_str(&properties).unwrap_or_default();
    say("state", &properties["State"]);
    say("pausing", failure(vm.call(HcsPauseComputeSystem, None)));
    say("shutting down what is paused", failure(vm.call(HcsShutDownComputeSystem, None)));
    say("resuming", failure(vm.call(HcsResumeComputeSystem, None)));
    let own = std::env::current_exe().unwrap_or_default();
    let other = std::process::Command::new(own).arg("vm").output();
    print!(
        "{}",
        other.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
    );
    let events = vm.events();
    say("terminating", failure(vm.call(HcsTerminateComputeSystem, None)));
    say("event", events.recv_timeout(Duration::from_secs(60)).unwrap_or(-1));
    say("terminating again", failure(vm.call(HcsTerminateComputeSystem, None)));
    drop(System::create("vm", &machine()));
    say("after the last handle", System::open("vm").map_or_else(failure, |_| "opened".into()));
}

fn processes() {
    let vm = System::create("vm", &machine()).unwrap_or_else(|f| panic!("{f:?}"));
    vm.call(HcsStartComputeSystem, None);
    let container = |args: serde_json::Value| {
        json!({
            "SchemaVersion": version(),
            "HostingSystemId": "vm",
            "HostedSystem": {
                "SchemaVersion": version(),
                "OciBundlePath": "/run/c",
                "OciSpecification": {
                    "ociVersion": "1.0.2",
                    "root": {"path": "/run/c/rootfs"},
                    "process": {"args": args, "cwd": "/"},
                },
            },
        })
        .to_string()
    };
    let init = container(json!(["sh", "-c", "echo hello; cat; exit 7"]));
    let unmounted = System::create("c", &init);
    say("a container without a root", unmounted.map_or_else(failure, |_| "made".into()));
    let layers = |kind: &str| {
        let settings =
            json!({"ContainerRootPath": "/run/c/rootfs", "Layers": [{"Path": "/run/l"}]});
        let guest =
            json!({"ResourceType": "CombinedLayers", "RequestType": kind, "Settings": settings});
        json!({"RequestType": kind, "GuestRequest": guest}).to_string()
    };
    say("adding the root", failure(vm.call(modify, Some(&layers("Add")))));
    say("adding it again", failure(vm.call(modify, Some(&layers("Add")))));
    let c = System::create("c", &init).unwrap_or_else(|f| panic!("{f:?}"));
    say("removing what is used", failure(vm.call(modify, Some(&layers("Remove")))));
    let pipes = r#"{"CreateStdInPipe": true, "CreateStdOutPipe": true}"#;
    say("a process too early", c.process(pipes).map_or_else(failure, |_| "started".into()));
    c.call(HcsStartComputeSystem, None);
    let exec = |args: serde_json::Value| {
        let process = json!({"args": args, "cwd": "/", "env": ["A=b"]});
        let mut parameters = json!({"OciProcess": process});
        parameters["CreateStdOutPipe"] = true.into();
        c.process(&parameters.to_string()).unwrap_or_else(|f| panic!("{f:?}"))
    };
    let mut process = c.process(pipes).unwrap_or_else(|f| panic!("{f:?}"));
    let ended = |mut process: Process| format!("{} {}", process.read(), process.wait());
    say("exec", ended(exec(json!(["echo", "a", "b"]))));
    let sleeper = exec(json!(["sleep", "100"]));
    sleeper.call(HcsSignalProcess, Some(r#"{"Signal": 15}"#));
    say("a signal", sleeper.wait());
    let (code, _) = sleeper.call(HcsTerminateProcess, None);
    say("terminating what has ended", format!("0x{code:08X}"));
    let trapper = exec(json!(["sh", "-c", "trap 15 5; echo ready; sleep 100"]));
    let mut trapper = trapper;
    let mut ready = [0; 5];
    let _ = trapper.output.as_mut().map(|output| std::io::Read::read_exact(output, &mut ready));
    trapper.call(HcsSignalProcess, Some(r#"{"Signal": 15}"#));
    say("a signal that is handled", trapper.wait());
    let left = exec(json!(["sleep", "100"]));
    let events = c.events();
    if let Some(mut input) = process.input.take() {
        let _ = input.write_all(b"from outside");
    }
    say("init", ended(process));
    say("the container's end", events.recv_timeout(Duration::from_secs(60)).unwrap_or(-1));
    say("what it left", left.wait() != 0);
    say("removing the root", failure(vm.call(modify, Some(&layers("Remove")))));
    vm.call(HcsTerminateComputeSystem, None);
}

fn faults() {
    let vm = System::create("faulty", &machine()).unwrap_or_else(|f| panic!("{f:?}"));
    say("failing on purpose", failure(vm.call(HcsStartComputeSystem, None)));
    say("hanging on purpose", failure(vm.call_within(HcsStartComputeSystem, None, 300)));
    say("starting at last", failure(vm.call(HcsStartComputeSystem, None)));
    say("failing afterwards", failure(vm.call(HcsTerminateComputeSystem, None)));
    say("it was done", failure(vm.call(HcsTerminateComputeSystem, None)));
}

unsafe extern "system" fn modify(
    system: *mut std::ffi::c_void,
    operation: *mut std::ffi::c_void,
    request: *const u16,
) -> i32 {
    // SAFETY: as the caller promises, and no identity is needed.
    unsafe { HcsModifyComputeSystem(system, operation, request, std::ptr::null_mut()) }
}
