//! `linux.seccomp`, from the command line: what a filter does to the container's programs, and the
//! agent that decides about calls.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags};
use runhcs_tests::{Bundle, Harness, Isolation, eventually, in_both};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

/// What an agent was told of a process.
struct Watched {
    state: Value,
    listener: OwnedFd,
}

/// Receives one process's state (runtime specification, "The Container Process State").
fn watch(mut stream: &UnixStream) -> Watched {
    let mut text = vec![0; 4096];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [std::io::IoSliceMut::new(&mut text)];
    let got = recvmsg(stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let mut descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(descriptors.len(), 1);
    text.truncate(got);
    // To the end: the connection is for this one message.
    stream.read_to_end(&mut text).unwrap();
    let state = serde_json::from_slice(&text).unwrap();
    Watched { state, listener: descriptors.remove(0) }
}

/// Answers calls until the processes are gone: `mkdir` fails with EXDEV, which nothing else would
/// have it fail with.
fn answer(listener: &OwnedFd) {
    let fd = listener.as_raw_fd();
    while let Ok(request) = ScmpNotifReq::receive(fd) {
        let exdev = 18;
        let response = ScmpNotifResp::new_error(request.id, -exdev, ScmpNotifRespFlags::empty());
        // The caller may have been killed meanwhile.
        let _ = response.respond(fd);
    }
}

/// An agent at `path` that decides about `count` processes, one after another; what it was told.
fn agent(path: &Path, count: usize) -> std::thread::JoinHandle<Vec<Value>> {
    let socket = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let mut told = Vec::new();
        for _ in 0..count {
            let watched = watch(&socket.accept().unwrap().0);
            told.push(watched.state);
            std::thread::spawn(move || answer(&watched.listener));
        }
        told
    })
}

fn asking(bundle: Bundle, agent: &Path, no_new_privileges: bool) -> Bundle {
    bundle.edit(|config| {
        config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        config["annotations"] = json!({ "org.example": "x" });
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": agent, "listenerMetadata": "some metadata",
            "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"],
            // The second is what the runtime itself might send a descriptor by.
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" },
                         { "names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY" }],
        });
    })
}

#[test]
fn an_agent_decides() {
    Harness::run(Isolation::Process, "an_agent_decides", |h| {
        for no_new_privileges in [true, false] {
            let path = h.path(&format!("agent-{no_new_privileges}"));
            let agent = agent(&path, 2);
            let script = "mkdir /tmp/x; echo done; exec sleep 1000";
            let name = format!("box-{no_new_privileges}");
            let bundle =
                asking(Bundle::new(h, &name, &["sh", "-c", script]), &path, no_new_privileges);
            let output = h.path(&format!("{name}.out"));
            let errors = std::fs::File::create(&output).unwrap();
            let mut command = h.command(&["run", "--detach", "--bundle"]);
            command.arg(bundle.path()).arg(&name);
            command.stdout(errors.try_clone().unwrap()).stderr(errors);
            assert!(command.status().unwrap().success());
            let printed = || std::fs::read_to_string(&output).unwrap();
            eventually(|| printed().contains("done"), printed);
            assert!(printed().contains("cross-device"), "{}", printed());
            assert!(!bundle.path().join("rootfs/tmp/x").exists());
            // A further process has a filter of its own, and the agent is told of it.
            let further = h.runhcs(&["exec", &name, "mkdir", "/tmp/y"]);
            assert_eq!(further.code, 1, "{further:?}");
            assert!(further.stderr.to_lowercase().contains("cross-device"), "{further:?}");
            let told = agent.join().unwrap();
            let state = h.state(&name);
            for (index, told) in told.iter().enumerate() {
                assert_eq!(told["fds"], json!(["seccompFd"]), "{told}");
                assert_eq!(told["metadata"], "some metadata", "{told}");
                assert_eq!(told["ociVersion"], state["ociVersion"], "{told}");
                assert_eq!(told["state"]["id"], name, "{told}");
                assert_eq!(told["state"]["pid"], state["pid"], "{told}");
                assert_eq!(told["state"]["bundle"], json!(bundle.path()), "{told}");
                assert_eq!(told["state"]["annotations"]["org.example"], "x", "{told}");
                let status = ["creating", "running"][index];
                assert_eq!(told["state"]["status"], status, "{told}");
                assert_eq!(told["pid"] == state["pid"], index == 0, "{told}");
            }
            h.runhcs(&["delete", "--force", &name]).ok();
        }
    });
}

#[test]
fn without_its_agent_a_container_is_not_made() {
    Harness::run(Isolation::Process, "without_its_agent", |h| {
        let bundle = asking(Bundle::new(h, "box", &["true"]), &h.path("nobody"), true);
        let outcome = h.new_container(&["create"], &bundle, "box");
        outcome.refused("linux.seccomp.listenerPath: tell the agent at");
        assert_eq!(h.runhcs(&["list", "--quiet"]).ok().stdout, "");
    });
}

#[test]
fn an_agent_of_this_host_has_no_say_in_a_vm() {
    Harness::run(Isolation::Vm, "an_agent_of_this_host", |h| {
        let bundle = asking(Bundle::new(h, "box", &["true"]), &h.path("nobody"), true);
        h.new_container(&["create"], &bundle, "box").refused("linux.seccomp.listenerPath");
    });
}

in_both!(each_action_has_its_effect, |h: &Harness| {
    // By the name of the program, so that the shell itself lives.
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]).edit(|config| {
        let number = |number: u64, action: &str, errno: Option<u32>| {
            let mut rule = json!({
                "names": ["kill"], "action": action,
                "args": [{ "index": 1, "value": number, "op": "SCMP_CMP_EQ" }],
            });
            if let Some(errno) = errno {
                rule["errnoRet"] = json!(errno);
            }
            rule
        };
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                number(10, "SCMP_ACT_ERRNO", Some(71)),
                number(12, "SCMP_ACT_TRAP", None),
                number(20, "SCMP_ACT_KILL_PROCESS", None),
                number(22, "SCMP_ACT_LOG", None),
                { "names": ["sethostname"], "action": "SCMP_ACT_ERRNO" },
                { "names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0,
                  "args": [{ "index": 0, "value": 0o77, "valueTwo": 0o22, "op": "SCMP_CMP_MASKED_EQ" }] },
            ],
        });
    });
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let kill = |signal: &str| h.runhcs(&["exec", "box", "kill", "-s", signal, "1"]);
    // 10, 12, 20 and 22 are USR1, USR2, TSTP and TTOU.
    let refused = kill("USR1");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("Protocol error"), "{refused:?}");
    let sys = 31;
    assert_eq!(kill("USR2").code, 128 + sys);
    assert_eq!(kill("TSTP").code, 128 + sys);
    assert_eq!(kill("TTOU").code, 0);
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(calls_newer_than_the_profile_are_missing_rather_than_denied, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["file-probe", "refusals", "/tmp/x"]);
    let bundle = bundle.with_program("file-probe").edit(|config| {
        // Everything up to rseq (334) but mkdir (83); openat2 (437) is beyond.
        let listed: Vec<String> = (0..=334)
            .filter(|number| *number != 83)
            .filter_map(|number| libseccomp::ScmpSyscall::from(number).get_name().ok())
            .collect();
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": listed, "action": "SCMP_ACT_ALLOW" }],
        });
    });
    let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
    let (enosys, eperm) = (38, 1);
    assert_eq!(printed, format!("openat2 {enosys}, mkdir {eperm}\n"));
});
