//! What verbs say and refuse that isn't part of a container's usual life.

use runhcs_tests::wine::{Wine, arguments, in_pod, windows_path};
use serde_json::{Value, json};

use crate::kinds::{Kind, in_all};

/// The document of the last process that was started since the last time.
#[track_caller]
fn process(wine: &Wine) -> Value {
    let mut calls = wine.calls().into_iter();
    let started = calls.rfind(|call| call.function == "HcsCreateProcess").unwrap();
    serde_json::from_str(started.about.split_once(' ').unwrap().1).unwrap()
}

in_all!(state_says_what_is_known, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting_with(wine, "one", |spec| {
        in_pod(spec, "sandbox", "one");
        spec["annotations"]["some.body/key"] = "value".into();
    });
    wine.new_container(&["--owner", "me", "create"], &bundle, "one").ok();
    let state = wine.state("one");
    let created = state["created"].as_str().unwrap();
    assert!(created.starts_with("20") && created.ends_with('Z'), "{created}");
    let pid = state["pid"].as_u64().unwrap();
    assert_ne!(pid, 0);
    let mut expected = json!({
        "ociVersion": bundle.spec["ociVersion"],
        "id": "one",
        "pid": pid,
        "status": "created",
        "bundle": windows_path(bundle.path()),
        "rootfs": "",
        "created": created,
        "annotations": bundle.spec["annotations"],
        "owner": "me",
        "isolation": if kind == Kind::Argon { "process" } else { "vm" },
        "sandboxId": "one",
    });
    if kind != Kind::Argon {
        expected["hostId"] = "one".into();
    }
    assert_eq!(state, expected);
    wine.runhcs(&["start", "one"]).ok();
    expected["status"] = "running".into();
    assert_eq!(wine.state("one"), expected);
    wine.runhcs(&["kill", "one", "KILL"]).ok();
    wine.wait_status("one", "stopped");
    assert_eq!(wine.state("one")["pid"], 0);
    wine.runhcs(&["delete", "one"]).ok();
});

#[test]
fn list_leaves_out_what_it_cannot_read() {
    Wine::run("list", |wine| {
        assert_eq!(wine.runhcs(&["list", "--quiet"]).ok().stdout, "");
        for id in ["one", "two"] {
            let bundle = Kind::Argon.lasting(wine, id);
            wine.new_container(&["--owner", "me", "create"], &bundle, id).ok();
        }
        let table = wine.runhcs(&["list"]).ok().stdout;
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
        assert_eq!(lines.len(), 3);
        let state = wine.state("two");
        let fields = ["id", "pid", "status", "bundle", "created", "owner"].map(|field| {
            let value = &state[field];
            value.as_str().map_or_else(|| value.to_string(), str::to_owned)
        });
        assert_eq!(lines[2], fields);
        let record = wine.stored("one", "record");
        wine.overwrite("one", "record", &json!({"version": 1}));
        let outcome = wine.runhcs(&["list", "--quiet"]).ok();
        assert_eq!(outcome.stdout, "two\n");
        assert!(outcome.stderr.starts_with("runhcs: one: "), "{outcome:?}");
        wine.runhcs(&["state", "one"]).refused("one");
        wine.runhcs(&["delete", "one"]).refused("one");
        // What is left of it is found without its record, but for its shim, which ends with it.
        wine.runhcs(&["delete", "--force", "one"]).ok();
        assert!(record["unique_id"].is_string());
        wine.runhcs(&["delete", "--force", "two"]).ok();
    });
}

in_all!(roots_know_nothing_of_each_other, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting(wine, "one");
    wine.new_container(&["create"], &bundle, "one").ok();
    let root = format!("{}-other", wine.token);
    let path = windows_path(bundle.path());
    let in_other = |arguments: &[&str]| {
        let mut line = vec!["--root", &root];
        line.extend(arguments);
        wine.runhcs(&line)
    };
    in_other(&["state", "one"]).refused("does not exist");
    assert_eq!(in_other(&["list", "--quiet"]).ok().stdout, "");
    // The service has one name for all; its own words are told, with its code.
    let before = wine.sim.snapshot().unwrap();
    let refused = in_other(&["create", "--bundle", &path, "one"]);
    if kind == Kind::Argon {
        // The writable layer is attached before. It stays the first one's.
        refused.refused("another container has its disk");
    } else {
        let refused = refused.refused("the name is taken (0x8037010F)");
        assert!(refused.stderr.contains("there is a system one@vm already"), "{refused:?}");
    }
    let after = wine.sim.snapshot().unwrap();
    assert_eq!((after.layers, after.disks), (before.layers, before.disks));
    in_other(&["delete", "--force", "one"]).ok();
    assert_eq!(wine.state("one")["status"], "created");
    for bad in [r"a\b", "a/b", "ä"] {
        wine.runhcs(&["--root", bad, "list"]).refused("root's name");
    }
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

in_all!(a_created_container_can_be_ended_or_deleted, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting(wine, "one");
    wine.new_container(&["create"], &bundle, "one").ok();
    wine.runhcs(&["exec", "one", "true"]).exec_refused("created");
    wine.runhcs(&["resume", "one"]).refused("created");
    wine.runhcs(&["kill", "one", "INT"]).refused("created");
    assert_eq!(wine.state("one")["status"], "created");
    wine.runhcs(&["delete", "one"]).ok();
    for signal in ["TERM", "KILL"] {
        wine.new_container(&["create"], &bundle, "one").ok();
        wine.runhcs(&["kill", "one", signal]).ok();
        wine.wait_status("one", "stopped");
        wine.runhcs(&["start", "one"]).refused("that has stopped");
        wine.runhcs(&["delete", "one"]).ok();
    }
});

in_all!(what_a_container_is_doing_decides, |wine: &Wine, kind: Kind| {
    wine.new_container(&["run", "--detach"], &kind.lasting(wine, "one"), "one").ok();
    wine.runhcs(&["start", "one"]).refused("it is already running");
    wine.runhcs(&["resume", "one"]).refused("running");
    wine.runhcs(&["pause", "one"]).ok();
    wine.runhcs(&["start", "one"]).refused("that is paused");
    wine.runhcs(&["pause", "one"]).refused("paused");
    wine.runhcs(&["exec", "one", "true"]).exec_refused("that is paused");
    wine.runhcs(&["delete", "one"]).refused("paused");
    wine.runhcs(&["resume", "one"]).ok();
    // Without a signal's name it is TERM.
    wine.calls();
    wine.runhcs(&["kill", "one"]).ok();
    let told = wine.calls().into_iter().find(|call| call.function == "HcsSignalProcess").unwrap();
    let signal = if kind == Kind::Lcow { "15" } else { "\"CtrlShutdown\"" };
    assert!(told.about.contains(signal), "{told:?}");
    wine.wait_status("one", "stopped");
    for verb in ["pause", "resume", "kill", "start"] {
        wine.runhcs(&[verb, "one"]).refused("stopped");
    }
    wine.runhcs(&["exec", "one", "true"]).exec_refused("cannot exec in a stopped container");
    wine.runhcs(&["ps", "one"]).refused("stopped");
    wine.runhcs(&["delete", "one"]).ok();
    for verb in ["start", "state", "kill", "delete", "pause", "resume", "ps", "sync"] {
        wine.runhcs(&[verb, "one"]).refused("one does not exist");
    }
    wine.runhcs(&["exec", "one", "true"]).exec_refused("one does not exist");
});

in_all!(a_killed_shim_is_noticed, |wine: &Wine, kind: Kind| {
    wine.new_container(&["run", "--detach"], &kind.lasting(wine, "one"), "one").ok();
    let mut shims = wine.shims();
    shims.retain(|(_, line)| line.contains(" shim "));
    assert_eq!(shims.len(), 1, "{shims:?}");
    let pid = shims[0].0.to_string();
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    wine.wait_status("one", "stopped");
    wine.runhcs(&["kill", "one"]).refused("stopped");
    wine.runhcs(&["delete", "one"]).ok();
});

in_all!(exec_says_what_to_run, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting_with(wine, "one", |spec| {
        spec["process"]["env"] = json!(["FIRST=1", "SECOND=2"]);
    });
    wine.new_container(&["run", "--detach"], &bundle, "one").ok();
    let run = |options: &[&str], code: &str| {
        let program = kind.exit(code);
        let mut line = [&["exec"], options, &["one"]].concat();
        line.extend(program.iter().map(String::as_str));
        wine.calls();
        wine.runhcs(&line)
    };
    let (cwd, relative) =
        if kind == Kind::Lcow { ("/tmp", "tmp") } else { ("C:\\windows", "windows") };
    let options = ["--cwd", cwd, "--env", "SECOND=two", "-e", "THIRD=3 and more"];
    assert_eq!(run(&options, "3").code, 3);
    let asked = process(wine);
    if kind == Kind::Lcow {
        let process = &asked["OciProcess"];
        assert_eq!(process["cwd"], cwd);
        assert_eq!(process["args"], json!(["exit", "3"]));
        let env = ["FIRST=1", "SECOND=2", "SECOND=two", "THIRD=3 and more"];
        assert_eq!(process["env"], json!(env));
        assert_eq!(run(&["--user", "7:8"], "0").code, 0);
        let user = process_user(wine);
        assert_eq!((&user["uid"], &user["gid"]), (&json!(7), &json!(8)));
        run(&["--user", "root"], "0").exec_refused("UID[:GID]");
    } else {
        assert_eq!(asked["WorkingDirectory"], cwd);
        assert_eq!(asked["CommandLine"], "cmd /c \"exit 3\"");
        let env = json!({"FIRST": "1", "SECOND": "two", "THIRD": "3 and more"});
        assert_eq!(asked["Environment"], env);
        assert_eq!(asked["User"], "ContainerUser");
        assert_eq!(run(&["--user", "ContainerAdministrator"], "0").code, 0);
        assert_eq!(process(wine)["User"], "ContainerAdministrator");
    }
    run(&["--cwd", relative], "0").exec_refused("is not an absolute path");
    wine.runhcs(&["exec", "one"]).exec_refused("a program to run, or --process");

    let file = wine.path("process.json");
    let path = windows_path(&file);
    let document = json!({"cwd": cwd, "args": kind.exit("5"), "user": {"uid": 0, "gid": 0}});
    std::fs::write(&file, document.to_string()).unwrap();
    assert_eq!(wine.runhcs(&["exec", "--process", &path, "one"]).code, 5);
    std::fs::write(&file, "{").unwrap();
    wine.runhcs(&["exec", "--process", &path, "one"]).exec_refused("process.json");

    let pid_file = windows_path(&wine.path("pid"));
    run(&["--detach", "--pid-file", &pid_file], "0").ok();
    let pid: u32 = std::fs::read_to_string(wine.path("pid")).unwrap().parse().unwrap();
    assert_ne!(json!(pid), wine.state("one")["pid"]);
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

fn process_user(wine: &Wine) -> Value {
    process(wine)["OciProcess"]["user"].clone()
}

// It is started all the same, for others to be entered into it.
in_all!(a_container_needs_no_process, |wine: &Wine, kind: Kind| {
    let bundle = kind.changed(wine, "one", |spec| {
        in_pod(spec, "sandbox", "one");
        spec.as_object_mut().unwrap().remove("process");
    });
    wine.new_container(&["create"], &bundle, "one").ok();
    assert_eq!(wine.state("one")["status"], "created");
    wine.runhcs(&["start", "one"]).ok();
    assert_eq!(wine.state("one")["status"], "running");
    let calls = wine.calls();
    assert!(calls.iter().all(|call| call.function != "HcsCreateProcess"), "{calls:?}");
    let member = kind.changed(wine, "two", |spec| in_pod(spec, "container", "one"));
    assert_eq!(wine.new_container(&["run"], &member, "two").code, 7);
    let (cwd, program) = (if kind == Kind::Lcow { "/" } else { "C:\\" }, kind.exit("4"));
    let mut line = vec!["exec", "--cwd", cwd, "one"];
    line.extend(program.iter().map(String::as_str));
    assert_eq!(wine.runhcs(&line).code, 4);
    wine.runhcs(&["kill", "one"]).ok();
    wine.wait_status("one", "stopped");
    wine.runhcs(&["delete", "one"]).ok();
});

#[test]
fn what_makes_no_container_is_refused_by_its_field() {
    Wine::run("refused configurations", |wine| {
        let refused = |kind: Kind, change: fn(&mut Value), field: &str| {
            let bundle = kind.changed(wine, "one", change);
            let outcome = wine.new_container(&["create"], &bundle, "one");
            assert_eq!(outcome.code, 1, "{kind:?} {field}: {outcome:?}");
            outcome.refused(field);
            wine.runhcs(&["state", "one"]).refused("does not exist");
        };
        let memory = "io.microsoft.virtualmachine.computetopology.memory.sizeinmb";
        refused(
            Kind::Argon,
            |spec| drop(spec.as_object_mut().unwrap().remove("windows")),
            "windows",
        );
        for kind in [Kind::Argon, Kind::Xenon, Kind::Lcow] {
            refused(kind, |spec| arguments(spec, &[]), "process.args");
            refused(kind, |spec| spec["process"]["cwd"] = "relative".into(), "process.cwd");
            refused(kind, |spec| spec["windows"]["layerFolders"] = json!([]), "layerFolders");
            refused(kind, |spec| spec["hooks"] = json!({"poststop": [{"path": "C:\\a"}]}), "hooks");
            if kind != Kind::Argon {
                let change: fn(&mut Value) = |spec| {
                    let name = "io.microsoft.virtualmachine.computetopology.memory.sizeinmb";
                    spec["annotations"] = json!({name: "much"});
                };
                refused(kind, change, memory);
            }
        }
        let bundle = windows_path(&wine.path("none"));
        wine.runhcs(&["create", "--bundle", &bundle, "one"]).refused("config.json");
        for id in ["", "a b", "a/b", "../a", "a\\b"] {
            let outcome = wine.runhcs(&["create", "--bundle", &bundle, id]);
            assert_ne!(outcome.code, 0, "{id:?}");
        }
    });
}

#[test]
fn a_vms_options_are_annotations() {
    Wine::run("vm options", |wine| {
        let prefix = "io.microsoft.virtualmachine.computetopology";
        for kind in [Kind::Xenon, Kind::Lcow] {
            let bundle = kind.lasting_with(wine, "one", |spec| {
                spec["annotations"] = json!({
                    format!("{prefix}.memory.sizeinmb"): "2048",
                    format!("{prefix}.processor.count"): "1",
                });
            });
            wine.new_container(&["create"], &bundle, "one").ok();
            let calls = wine.calls().into_iter();
            let mut made = calls.filter(|call| call.function == "HcsCreateComputeSystem");
            let call = made.find(|call| call.about.starts_with("one@vm ")).unwrap();
            let document: Value =
                serde_json::from_str(call.about.split_once(' ').unwrap().1).unwrap();
            let topology = &document["VirtualMachine"]["ComputeTopology"];
            assert_eq!(topology["Memory"]["SizeInMB"], 2048, "{topology}");
            assert_eq!(topology["Processor"]["Count"], 1, "{topology}");
            wine.runhcs(&["delete", "--force", "one"]).ok();
        }
    });
}
