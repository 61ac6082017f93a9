//! Calls of the service that fail, hang, or are the last that somebody makes.

use hcs_sim::wire::CallRecord;
use runhcs_tests::eventually;
use runhcs_tests::wine::{Service, WindowsBundle, Wine, in_pod, namespace, windows_path};

use crate::kinds::{Kind, in_all};

/// A network namespace.
const NAMESPACE: &str = "4c9ad5a1-7e0f-4b0f-8a3e-0123456789ab";
/// An error that functions of disks can return too, which know the system's errors only
/// (`ERROR_IO_DEVICE`).
const FAILURE: &str = "0x8007045D";

/// A bundle, and the calls that its container takes until it runs.
fn calls_of_a_run(wine: &Wine, kind: Kind) -> (WindowsBundle, Vec<CallRecord>) {
    let bundle = kind.lasting(wine, "one");
    wine.new_container(&["run", "--detach"], &bundle, "one").ok();
    let calls = wine.calls();
    wine.runhcs(&["delete", "--force", "one"]).ok();
    (bundle, calls)
}

in_all!(every_call_may_fail, |wine: &Wine, kind: Kind| {
    let (bundle, calls) = calls_of_a_run(wine, kind);
    let mut failed = 0;
    for (number, call) in calls.iter().enumerate() {
        // Closing says nothing to the caller.
        if call.function == "HcsClose" {
            continue;
        }
        // The failure of this call and of no other, by the count of its function's calls.
        let same = calls[..number].iter().filter(|other| other.function == call.function).count();
        let fault = format!("{}#{}:fail:{FAILURE}", call.function, same + 1);
        wine.sim.faults(&[&fault]).unwrap();
        let outcome = wine.new_container(&["run", "--detach"], &bundle, "one");
        wine.sim.faults(&[]).unwrap();
        if outcome.code == 0 {
            // The process runs by then, and goes on with a standard input that is still open.
            // Whether it has ended already is asked besides: the service tells of its end.
            let tolerated =
                ["HcsModifyProcess", "HcsGetProcessProperties", "HcsGetComputeSystemProperties"];
            assert!(tolerated.contains(&call.function.as_str()), "{fault}: {outcome:?}");
            wine.runhcs(&["delete", "--force", "one"]).ok();
        } else {
            failed += 1;
            assert_eq!(outcome.code, 1, "{fault}: {outcome:?}");
            assert!(outcome.stderr.contains(FAILURE), "{fault}: {outcome:?}");
        }
        let left = wine.left();
        assert!(left.is_empty(), "{fault} left:\n{}", left.join("\n"));
    }
    assert!(failed >= 3, "{calls:?}");
});

in_all!(every_call_may_be_the_last, |wine: &Wine, kind: Kind| {
    let (bundle, calls) = calls_of_a_run(wine, kind);
    for (number, call) in calls.iter().enumerate() {
        let same = calls[..number].iter().filter(|other| other.function == call.function).count();
        // Whoever makes this call is killed: the command, or one of its shims.
        let fault = format!("{}#{}:kill", call.function, same + 1);
        wine.sim.faults(&[&fault]).unwrap();
        let outcome = wine.new_container(&["run", "--detach"], &bundle, "one");
        wine.sim.faults(&[]).unwrap();
        wine.runhcs(&["delete", "--force", "one"]).ok();
        let left = wine.left();
        assert!(left.is_empty(), "{fault} left, after {outcome:?}:\n{}", left.join("\n"));
    }
});

/// The steps of a creation, as the log has them.
fn steps(log: &str) -> Vec<String> {
    let done = log.lines().filter(|line| line.contains(r#"msg="done""#));
    let step = |line: &str| Some(line.split_once("step=\"")?.1.split_once('"')?.0.to_owned());
    done.filter_map(step).collect()
}

in_all!(every_step_may_fail, |wine: &Wine, kind: Kind| {
    wine.make_namespace(NAMESPACE);
    let bundle = kind.lasting_with(wine, "one", |spec| {
        in_pod(spec, "sandbox", "one");
        namespace(spec, NAMESPACE);
    });
    let pid_file = windows_path(&wine.path("pid"));
    let create = ["--debug", "create", "--pid-file", &pid_file];
    wine.new_container(&create, &bundle, "one").ok();
    wine.runhcs(&["delete", "--force", "one"]).ok();
    let steps = steps(&std::fs::read_to_string(wine.path("log")).unwrap());
    let of_kind = if kind == Kind::Argon { "layers" } else { "namespace" };
    for step in ["load", "claim", of_kind, "container", "shim", "pid-file"] {
        assert!(steps.iter().any(|found| found == step), "{step} is not among {steps:?}");
    }
    std::fs::remove_file(wine.path("pid")).unwrap();
    let path = windows_path(bundle.path());
    for step in &steps {
        let mut command = wine.runhcs_command(&create);
        command.args(["--bundle", &path, "one"]).env("RUNHCS_FAIL_AT", step);
        wine.finish(command).refused(&format!("failure injected after step `{step}`"));
        assert!(!wine.path("pid").exists(), "{step} left the pid file");
        let left = wine.left();
        assert!(left.is_empty(), "{step} left:\n{}", left.join("\n"));
    }
});

/// A deadline for tests, in milliseconds: long enough for what doesn't hang on a busy machine.
const DEADLINE: &str = "3000";
/// What is said of a call that hung.
const TOO_LATE: &str = "it was not finished in time";

in_all!(every_function_may_hang, |wine: &Wine, kind: Kind| {
    let (bundle, calls) = calls_of_a_run(wine, kind);
    let mut hung = std::collections::BTreeSet::new();
    for call in &calls {
        // Nobody waits for the end of closing.
        if call.function == "HcsClose" || !hung.insert(call.function.clone()) {
            continue;
        }
        let fault = format!("{}#1:hang", call.function);
        wine.sim.faults(&[&fault]).unwrap();
        let path = windows_path(bundle.path());
        let mut command = wine.runhcs_command(&["run", "--detach", "--bundle", &path, "one"]);
        command.env("RUNHCS_DEADLINE", DEADLINE);
        let outcome = wine.finish(command);
        wine.sim.faults(&[]).unwrap();
        if outcome.code == 0 {
            let tolerated =
                ["HcsModifyProcess", "HcsGetProcessProperties", "HcsGetComputeSystemProperties"];
            assert!(tolerated.contains(&call.function.as_str()), "{fault}: {outcome:?}");
            wine.runhcs(&["delete", "--force", "one"]).ok();
        } else {
            assert_eq!(outcome.code, 1, "{fault}: {outcome:?}");
            assert!(outcome.stderr.contains(TOO_LATE), "{fault}: {outcome:?}");
        }
        let left = wine.left();
        assert!(left.is_empty(), "{fault} left:\n{}", left.join("\n"));
    }
    assert!(hung.len() >= 5, "{calls:?}");
});

in_all!(a_service_that_hangs_holds_no_command_up, |wine: &Wine, kind: Kind| {
    wine.new_container(&["run", "--detach"], &kind.lasting(wine, "one"), "one").ok();
    let late = |fault: &str, arguments: &[&str]| {
        wine.sim.faults(&[fault]).unwrap();
        let mut command = wine.runhcs_command(arguments);
        command.env("RUNHCS_DEADLINE", DEADLINE);
        let outcome = wine.finish(command);
        wine.sim.faults(&[]).unwrap();
        assert_ne!(outcome.code, 0, "{fault}: {outcome:?}");
        assert!(outcome.stderr.contains(TOO_LATE), "{fault}: {outcome:?}");
    };
    late("HcsOpenComputeSystem:hang", &["state", "one"]);
    late("HcsGetComputeSystemProperties:hang", &["state", "one"]);
    late("HcsPauseComputeSystem:hang", &["pause", "one"]);
    late("HcsGetComputeSystemProperties(ProcessList):hang", &["ps", "one"]);
    late("HcsOpenProcess:hang", &["kill", "one", "KILL"]);
    late("HcsTerminateComputeSystem:hang", &["delete", "--force", "one"]);
    // What took too long once can be done again.
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

in_all!(a_service_that_is_gone_is_noticed, |wine: &Wine, kind: Kind| {
    let service = Service::start();
    let path = windows_path(kind.lasting(wine, "one").path());
    let with_it = |arguments: &[&str]| {
        let mut command = wine.runhcs_command(arguments);
        command.env("HCS_SIM", &service.address);
        command
    };
    let (child, files) = wine.spawn(with_it(&["run", "--bundle", &path, "one"]));
    let state = || wine.finish(with_it(&["state", "one"])).stdout;
    eventually(|| state().contains("running"), state);
    drop(service);
    // Both shims end, and with them the command, which can't clear up.
    let outcome = wine.wait(child, files);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("0x8037011E"), "{outcome:?}");
    // A service that has been started anew knows nothing of what there was.
    assert_eq!(wine.state("one")["status"], "stopped");
    wine.runhcs(&["delete", "--force", "one"]).ok();
});
