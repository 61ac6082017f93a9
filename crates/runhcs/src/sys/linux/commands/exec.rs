//! `exec`: a further process in a container.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{BoxBuilder, Capability, Process, Spec};
use runhcs_compute::Status;
use runhcs_container::{ExecCgroup, ExecOptions};

use crate::cli::{ExecArgs, split_id};
use crate::existing::{Existing, config};
use crate::globals::Globals;
use crate::sys::guest_spec::leave_labels_here;
use crate::sys::pidfd_socket::PidfdSocket;
use crate::sys::terminal::{self, LineEnds, Listener};
use crate::sys::{foreground, inherited_fds, shim};
use crate::{further_process, pid_file};

/// Runs a process in a container and returns its exit code, or 0 at once if detached.
pub fn run(globals: &Globals, args: &ExecArgs) -> Result<u8> {
    let (id, program) = split_id(&args.operands)?;
    let (entry, existing) = Existing::find(&globals.store, &id)?;
    match existing.status()? {
        Status::Running | Status::Created => {}
        Status::Paused if args.ignore_paused => {}
        Status::Stopped => {
            bail!("cannot exec in a stopped container: {id}{}", existing.because(Status::Stopped))
        }
        Status::Paused => {
            bail!("cannot exec in a paused container: {id} (use --ignore-paused to override)")
        }
        Status::Creating => bail!("cannot exec in container {id} that is being created"),
    }
    let spec = config(&entry)?;
    let mut process = process(args, program, &spec)?;
    let has_terminal = process.terminal() == Some(true);
    if args.detach && has_terminal && args.console_socket.is_none() {
        bail!("a detached process with a terminal needs --console-socket to send it to");
    }
    let listener =
        (has_terminal && args.console_socket.is_none()).then(Listener::new).transpose()?;
    // It runs before its terminal is here to be given a size.
    if let (Some(_), Some(size)) = (&listener, terminal::own_size()) {
        let size = BoxBuilder::default().height(size.ws_row).width(size.ws_col).build()?;
        process.set_console_size(Some(size));
    }
    let socket = listener.as_ref().map(Listener::path).or(args.console_socket.clone());
    let pidfd_socket = args.pidfd_socket.as_deref().map(PidfdSocket::connect).transpose()?;
    let pid = match existing.container() {
        Some(container) => {
            let console_socket = socket.as_deref().map(terminal::connect).transpose()?;
            let options = ExecOptions {
                process: &process,
                stdio: None,
                console_socket,
                inherited_fds: inherited_fds::of_further_process(args.preserve_fds)?,
                cgroup: cgroup(&args.cgroup)?,
                ignore_paused: args.ignore_paused,
            };
            container.exec(&spec, options)?.pid
        }
        None => exec_in_vm(globals, args, &existing, &process, socket)?,
    };
    if let Some(path) = &args.pid_file {
        pid_file::write(path, pid)?;
    }
    pidfd_socket.map_or(Ok(()), |socket| socket.send(pid))?;
    if args.detach {
        return Ok(0);
    }
    let master = listener.map(Listener::receive).transpose()?;
    let ends = existing.container().map_or(LineEnds::Guests, |_| LineEnds::Callers);
    Ok(foreground::wait(pid, master.as_ref().map(|master| (master, ends)), None)?.code())
}

fn exec_in_vm(
    globals: &Globals,
    args: &ExecArgs,
    existing: &Existing,
    process: &Process,
    console_socket: Option<PathBuf>,
) -> Result<u32> {
    let container = existing.vm_container().context("the container has no compute service")?;
    for (option, given) in [
        ("--preserve-fds", args.preserve_fds > 0),
        ("--cgroup", !args.cgroup.is_empty()),
        ("--ignore-paused", args.ignore_paused && existing.status()? == Status::Paused),
    ] {
        if given {
            bail!("{option} can't be used with a container in a VM");
        }
    }
    let mut process = process.clone();
    leave_labels_here(&mut process);
    let key = container.vm.create_process(&container.id, &process)?;
    let target = shim::Target {
        vm: container.vm.dir().to_owned(),
        host: existing.record.vm.as_ref().map_or(&container.id, |vm| &vm.host_id).clone(),
        id: container.id.clone(),
        exec: key.exec,
        console_socket,
        network: existing.main.map(|main| format!("/proc/{}/ns/net", main.process.pid).into()),
    };
    shim::launch(globals, &target, args.shim_log.as_ref())
}

/// The process to run: a document, or the container's own process with other arguments.
fn process(args: &ExecArgs, program: &[String], spec: &Spec) -> Result<Process> {
    let mut process = further_process::describe(args, program, spec, runhcs_spec::load_process)?;
    if let Some(user) = &args.user {
        further_process::set_ids(&mut process, user)?;
    }
    if !args.additional_gids.is_empty() {
        let mut user = process.user().clone();
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.extend(&args.additional_gids);
        user.set_additional_gids(Some(gids));
        process.set_user(user);
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    add_capabilities(&mut process, &args.cap)?;
    runhcs_spec::validate_process(&process, "process")?;
    Ok(process)
}

/// What the options `--cgroup` say together: a path, or paths for version 1's controllers.
fn cgroup(options: &[String]) -> Result<ExecCgroup> {
    if options.is_empty() {
        return Ok(ExecCgroup::Container);
    }
    let mut places: Vec<(String, PathBuf)> = Vec::new();
    for option in options {
        let Some((controllers, path)) = option.split_once(':') else {
            if options.len() > 1 {
                bail!("--cgroup {option:?}: of several, each names its controllers, as cpu:path");
            }
            return Ok(ExecCgroup::Below(option.into()));
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                bail!("--cgroup {option:?}: a controller's name is missing before the colon");
            }
            if places.iter().any(|(other, _)| other == controller) {
                bail!("--cgroup: controller {controller} is given more than once");
            }
            places.push((controller.to_owned(), path.into()));
        }
    }
    Ok(ExecCgroup::ByController(places))
}

/// As runc: into every set but the inheritable one, and into the ambient one only if the
/// inheritable set has it.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    for name in names {
        let upper = name.to_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        let capability: Capability = serde_json::from_value(full.into())
            .with_context(|| format!("--cap {name:?} is no capability"))?;
        let with = |set: &Option<std::collections::HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) =
            (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        if sets.inheritable().as_ref().is_some_and(|set| set.contains(&capability)) {
            let ambient = with(sets.ambient());
            sets.set_ambient(ambient);
        }
    }
    process.set_capabilities(Some(sets));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &[&str]) -> ExecArgs {
        use clap::Parser;
        let cli = crate::cli::Cli::parse_from(["runhcs", "exec"].iter().chain(line));
        match cli.verb {
            crate::cli::Verb::Exec(args) => args.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_change_the_containers_process() {
        let spec = runhcs_spec::default_spec();
        let args = args(&[
            "-t",
            "-u",
            "5:6",
            "-e",
            "A=b",
            "--cwd",
            "/x",
            "-c",
            "sys_ptrace",
            "-g",
            "7",
            "id",
            "-u",
        ]);
        let (id, program) = split_id(&args.operands).unwrap();
        assert_eq!(id.as_str(), "id");
        let process = process(&args, program, &spec).unwrap();
        assert_eq!(process.args().as_deref().unwrap(), ["-u"]);
        assert_eq!((process.user().uid(), process.user().gid()), (5, 6));
        assert_eq!(process.user().additional_gids().as_deref().unwrap(), [7]);
        assert_eq!(process.terminal(), Some(true));
        assert_eq!(process.cwd(), &PathBuf::from("/x"));
        assert!(process.env().as_ref().unwrap().contains(&"A=b".to_owned()));
        let caps = process.capabilities().as_ref().unwrap();
        assert!(caps.effective().as_ref().unwrap().contains(&Capability::SysPtrace));
    }

    #[test]
    fn an_inheritable_capability_becomes_ambient() {
        let mut spec = runhcs_spec::default_spec();
        let mut process = spec.process().clone().unwrap();
        let mut sets = process.capabilities().clone().unwrap();
        sets.set_inheritable(Some([Capability::Syslog].into()));
        process.set_capabilities(Some(sets));
        spec.set_process(Some(process));
        let args = args(&["-c", "syslog", "-c", "chown", "box", "ls"]);
        let process = super::process(&args, &["ls".to_owned()], &spec).unwrap();
        let ambient = process.capabilities().as_ref().unwrap().ambient().clone().unwrap();
        assert!(ambient.contains(&Capability::Syslog) && !ambient.contains(&Capability::Chown));
    }

    #[test]
    fn groups_are_one_path_or_paths_of_controllers() {
        let parse =
            |options: &[&str]| cgroup(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]).unwrap(), ExecCgroup::Container);
        assert_eq!(parse(&["a/b"]).unwrap(), ExecCgroup::Below("a/b".into()));
        let places = [("cpu", "x"), ("cpuacct", "x"), ("memory", "y")];
        let places = places.map(|(name, path)| (name.to_owned(), PathBuf::from(path))).to_vec();
        let several = parse(&["cpu,cpuacct:x", "memory:y"]).unwrap();
        assert_eq!(several, ExecCgroup::ByController(places));
        for options in [&["a", "b"][..], &[":a"], &["cpu,:a"], &["cpu:a", "cpu:b"]] {
            assert!(parse(options).is_err(), "{options:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let spec = runhcs_spec::default_spec();
        for line in [
            &["-u", "root", "c", "ls"][..],
            &["--cwd", "relative", "c", "ls"],
            &["-c", "NOPE", "c", "ls"],
            &["c"],
        ] {
            let args = args(line);
            let (_, program) = split_id(&args.operands).unwrap();
            assert!(process(&args, program, &spec).is_err(), "{line:?}");
        }
    }
}
