//! Pods, VMs that are shared, and creations at the same time.

use runhcs_tests::eventually;
use runhcs_tests::wine::{Wine, in_pod, windows_path};

use crate::kinds::{Kind, in_all};

/// A pod: a sandbox with a VM, and two containers in it that were created at the same time.
fn pod(wine: &Wine, kind: Kind) {
    let sandbox = kind.lasting_with(wine, "pod", |spec| in_pod(spec, "sandbox", "pod"));
    wine.new_container(&["run", "--detach"], &sandbox, "pod").ok();
    let alone = wine.sim.snapshot().unwrap();
    let children: Vec<_> = ["one", "two"]
        .map(|id| {
            let bundle = kind.changed(wine, id, |spec| in_pod(spec, "container", "pod"));
            let path = windows_path(bundle.path());
            wine.spawn(wine.runhcs_command(&["create", "--bundle", &path, id]))
        })
        .into_iter()
        .collect();
    for (child, files) in children {
        wine.wait(child, files).ok();
    }
    assert_eq!(machines(wine), usize::from(kind != Kind::Argon));
    for id in ["one", "two"] {
        wine.runhcs(&["start", id]).ok();
        wine.wait_status(id, "stopped");
        wine.runhcs(&["delete", id]).ok();
    }
    // The VM has again what it had before, and nothing else.
    let resources = |snapshot: &hcs_sim::wire::Snapshot| -> Vec<_> {
        snapshot.systems.iter().map(|s| (s.id.clone(), s.resources.clone())).collect()
    };
    assert_eq!(resources(&wine.sim.snapshot().unwrap()), resources(&alone));
    wine.runhcs(&["delete", "--force", "pod"]).ok();
}

in_all!(a_pod_shares_what_its_sandbox_has, pod);

/// The number of VMs that there are.
fn machines(wine: &Wine) -> usize {
    let systems = wine.sim.snapshot().unwrap().systems;
    systems.iter().filter(|system| system.id.ends_with("@vm")).count()
}

/// A container joins another one's VM without being in a pod with it.
fn joins(wine: &Wine, kind: Kind) {
    wine.new_container(&["run", "--detach"], &kind.lasting(wine, "host"), "host").ok();
    let guest = kind.lasting(wine, "guest");
    let outcome = wine.new_container(&["run", "--detach", "--host", "host"], &guest, "guest");
    if kind == Kind::Argon {
        outcome.refused("not the host of a VM");
        wine.runhcs(&["delete", "--force", "host"]).ok();
        return;
    }
    outcome.ok();
    assert_eq!(machines(wine), 1);
    assert_eq!(wine.state("guest")["hostId"], "host");
    assert_eq!(wine.state("guest")["sandboxId"], serde_json::Value::Null);
    // The VM lives until its host is deleted, which takes no guest with it by the way.
    wine.runhcs(&["kill", "host", "KILL"]).ok();
    wine.wait_status("host", "stopped");
    assert_eq!(wine.state("guest")["status"], "running");
    wine.runhcs(&["delete", "host"]).refused("guest");
    let third = kind.bundle(wine, "third");
    wine.new_container(&["create", "--host", "guest"], &third, "third").refused("guest");
    wine.runhcs(&["delete", "--force", "host"]).ok();
    wine.wait_status("guest", "stopped");
    let stopped = wine.runhcs(&["kill", "guest", "KILL"]);
    stopped.refused("its virtual machine is gone");
    wine.runhcs(&["delete", "guest"]).ok();
    wine.runhcs(&["state", "host"]).refused("host");
}

in_all!(a_host_can_be_joined, joins);

in_all!(one_of_several_creations_of_an_id_wins, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting(wine, "one");
    let path = windows_path(bundle.path());
    let children: Vec<_> = (0..4)
        .map(|_| wine.spawn(wine.runhcs_command(&["create", "--bundle", &path, "one"])))
        .collect();
    let outcomes: Vec<_> =
        children.into_iter().map(|(child, files)| wine.wait(child, files)).collect();
    let won = outcomes.iter().filter(|outcome| outcome.code == 0).count();
    assert_eq!(won, 1, "{outcomes:?}");
    for outcome in outcomes.into_iter().filter(|outcome| outcome.code != 0) {
        outcome.refused("one");
    }
    assert_eq!(wine.state("one")["status"], "created");
    // Nothing of the others is in the way.
    wine.runhcs(&["start", "one"]).ok();
    assert_eq!(wine.state("one")["status"], "running");
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

/// While one request waits for the service, the VM's shim serves others.
fn side_by_side(wine: &Wine, kind: Kind) {
    let sandbox = kind.lasting_with(wine, "pod", |spec| in_pod(spec, "sandbox", "pod"));
    let path = windows_path(sandbox.path());
    let mut run = wine.runhcs_command(&["run", "--detach", "--bundle", &path, "pod"]);
    // The shim has it from the command.
    run.env("RUNHCS_DEADLINE", "20000");
    wine.finish(run).ok();
    wine.sim.faults(&["HcsCreateComputeSystem(slow ):hang"]).unwrap();
    let member = |spec: &mut serde_json::Value| in_pod(spec, "container", "pod");
    let slow = kind.changed(wine, "slow", member);
    let path = windows_path(slow.path());
    let (child, files) = wine.spawn(wine.runhcs_command(&["create", "--bundle", &path, "slow"]));
    let mut hangs = false;
    let hanging = || {
        hangs |= wine.calls().iter().any(|call| call.result.is_none());
        hangs
    };
    eventually(hanging, || "the creation doesn't come to the call that hangs".to_owned());
    let begin = std::time::Instant::now();
    let quick = kind.changed(wine, "quick", member);
    assert_eq!(wine.new_container(&["run"], &quick, "quick").code, 7);
    assert!(begin.elapsed().as_secs() < 15, "it waited {:?}", begin.elapsed());
    wine.wait(child, files).refused("not finished in time");
    wine.sim.faults(&[]).unwrap();
    wine.runhcs(&["delete", "--force", "pod"]).ok();
}

#[test]
fn a_linux_vm_serves_requests_side_by_side() {
    Wine::run("side by side lcow", |wine| side_by_side(wine, Kind::Lcow));
}

#[test]
fn a_windows_vm_serves_requests_side_by_side() {
    Wine::run("side by side xenon", |wine| side_by_side(wine, Kind::Xenon));
}
