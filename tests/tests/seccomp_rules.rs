//! What `linux.seccomp` can say: each comparison, each action that the tests of the agent don't
//! need, each flag.

use runhcs_tests::config::run_script;
use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::{Value, json};

/// Runs a script under a filter that lets all through but what `rules` say.
fn run(h: &Harness, script: &str, more: &Value) -> String {
    run_script(h, script, |config| {
        let mut seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        seccomp.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config["linux"]["seccomp"] = seccomp;
    })
}

/// A rule for kill(2) by the signal's number.
fn rule(action: &str, comparison: &Value) -> Value {
    let mut argument = json!({ "index": 1 });
    argument.as_object_mut().unwrap().extend(comparison.as_object().unwrap().clone());
    json!({ "syscalls": [{ "names": ["kill"], "action": action, "args": [argument] }] })
}

#[test]
fn each_comparison_is_made() {
    Harness::run(Isolation::Process, "comparisons", |h| {
        // Signals that the kernel doesn't give an init process which has no use for them.
        let script = "for s in 10 12 14; do kill -s $s 1 2>/dev/null || echo -n $s,; done";
        for (operator, refused) in [
            ("SCMP_CMP_NE", "10,14,"),
            ("SCMP_CMP_LT", "10,"),
            ("SCMP_CMP_LE", "10,12,"),
            ("SCMP_CMP_EQ", "12,"),
            ("SCMP_CMP_GE", "12,14,"),
            ("SCMP_CMP_GT", "14,"),
        ] {
            let comparison = json!({ "value": 12, "op": operator });
            let printed = run(h, script, &rule("SCMP_ACT_ERRNO", &comparison));
            assert_eq!(printed, refused, "{operator}");
        }
        // Those that have the bit 4, of which the first value is the mask.
        let comparison = json!({ "value": 4, "valueTwo": 4, "op": "SCMP_CMP_MASKED_EQ" });
        assert_eq!(run(h, script, &rule("SCMP_ACT_ERRNO", &comparison)), "12,14,");
        let comparison = json!({ "value": 6, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ" });
        assert_eq!(run(h, script, &rule("SCMP_ACT_ERRNO", &comparison)), "10,");
        // Comparisons of two arguments have both to hold, those of one argument either.
        let comparison =
            |index: u32, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
        for (first, refused) in
            [(comparison(0, 1), "12,"), (comparison(0, 2), ""), (comparison(1, 14), "12,14,")]
        {
            let arguments = json!([first, comparison(1, 12)]);
            let rules = json!({ "syscalls": [
                { "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": arguments }
            ] });
            assert_eq!(run(h, script, &rules), refused, "{arguments}");
        }
    });
}

in_both!(calls_end_threads_and_processes_or_ask_a_tracer, |h: &Harness| {
    let script = "sh -c 'kill -s 12 1' 2>&1; echo $?";
    let comparison = json!({ "value": 12, "op": "SCMP_CMP_EQ" });
    for (action, printed) in [
        ("SCMP_ACT_KILL", "Bad system call\n159\n"),
        ("SCMP_ACT_KILL_THREAD", "Bad system call\n159\n"),
        // Nobody traces it, so there is no such call (seccomp(2)).
        ("SCMP_ACT_TRACE", "sh: can't kill pid 1: Function not implemented\n1\n"),
        ("SCMP_ACT_ALLOW", "0\n"),
    ] {
        assert_eq!(run(h, script, &rule(action, &comparison)), printed, "{action}");
    }
    // A filter that knows what is allowed has an error for the rest.
    let names: Vec<String> = (0..=450)
        .filter_map(|number| libseccomp::ScmpSyscall::from(number).get_name().ok())
        .filter(|name| name != "kill")
        .collect();
    let rules = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 71,
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
    });
    assert_eq!(run(h, script, &rules), "sh: can't kill pid 1: Protocol error\n1\n");
});

/// What the kernel is told, by strace(1): most flags have no effect to see.
#[test]
fn each_flag_is_told_to_the_kernel() {
    Harness::run(Isolation::Process, "flags", |h| {
        for flag in ["LOG", "SPEC_ALLOW", "TSYNC"] {
            let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
                config["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "flags": [format!("SECCOMP_FILTER_FLAG_{flag}")],
                    "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }],
                });
            });
            let path = bundle.path().to_str().unwrap();
            let command = h.command(&["run", "--bundle", path, "box"]);
            let trace = h.path("trace");
            let mut strace = std::process::Command::new("strace");
            strace.args(["--follow-forks", "--trace=seccomp", "--output"]).arg(&trace);
            strace.arg(command.get_program()).args(command.get_args());
            strace.env("RUNHCS_E2E", &h.token);
            h.finish(strace).ok();
            let told = std::fs::read_to_string(&trace).unwrap();
            let call = format!("SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_{flag}, ");
            assert!(told.contains(&call), "{call}: {told}");
            std::fs::remove_dir_all(bundle.path()).unwrap();
        }
    });
}
