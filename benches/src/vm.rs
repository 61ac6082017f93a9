//! VM isolation against a bare QEMU, and what a pod that runs already costs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::bundle;
use crate::devices;
use crate::measure::{self, Sample};
use crate::table::{Candidate, Table};

/// What VMs are made of.
#[derive(Debug)]
pub struct Vm {
    /// The VM shim.
    pub shim: PathBuf,
    /// The directory of the kernel and the initramfs.
    pub image: PathBuf,
}

/// Compares, and prints tables.
pub fn compare(runhcs: &Path, vm: &Vm, work: &Path, rounds: usize) -> Result<()> {
    let (kernel, initramfs) = (vm.image.join("vmlinux"), vm.image.join("initramfs.img"));
    let write_config = |name: &str, template: &str| -> Result<PathBuf> {
        let config = work.join(name);
        let text = format!(
            "vm-shim = {:?}\n[vm]\nkernel = {kernel:?}\ninitramfs = {initramfs:?}\n\
             template = {template:?}\ntemplate-dir = {:?}\n",
            vm.shim,
            work.join("templates")
        );
        std::fs::write(&config, text)?;
        Ok(config)
    };
    let (config, warm) = (write_config("cold.toml", "never")?, write_config("warm.toml", "auto")?);
    let configured = |config: &Path, arguments: &[&str]| {
        let mut command = Command::new(runhcs);
        command.arg("--root").arg(work.join("state/vm")).arg("--config").arg(config);
        command.args(arguments);
        command
    };
    let command = |arguments: &[&str]| configured(&config, arguments);
    measure::run(&mut configured(&warm, &["vm-template", "create"]))?;
    let short = bundle::write(runhcs, &work.join("vm-true"), &["/bin/true"])?;
    let long = bundle::write(runhcs, &work.join("vm-sleep"), &["/bin/sleep", "1000"])?;
    make_writable(&long)?;
    let (short, long) = (short.display().to_string(), long.display().to_string());

    let bare = || measure::run(&mut bare_qemu(&kernel, &initramfs, &Extras::default())?);
    let run = ["run", "--isolation", "vm", "--bundle", &short, "bench"];
    let isolated = || measure::run(&mut command(&run));
    let resumed = || measure::run(&mut configured(&warm, &run));
    Table::measure(
        rounds,
        &mut [
            Candidate::new("bare QEMU, same image", bare),
            Candidate::new("runhcs run true, boots", isolated),
            Candidate::new("runhcs run true, resumes", resumed),
        ],
    )?
    .print("A VM that comes up, runs one program and ends");

    let create = ["create", "--isolation", "vm", "--bundle", &long, "bench"];
    let pod = |config: &Path| -> Result<Sample> {
        let sample = measure::run(&mut configured(config, &create))?;
        measure::run(&mut configured(config, &["delete", "--force", "bench"]))?;
        Ok(sample)
    };
    Table::measure(
        rounds,
        &mut [Candidate::new("boots", || pod(&config)), Candidate::new("resumes", || pod(&warm))],
    )?
    .print("create of a pod's sandbox");

    Table::measure(
        rounds,
        &mut [Candidate::new("container of a VM", || death(&command, &create))],
    )?
    .print("QEMU is killed, until state says stopped");

    let detached = |more: &[&str], id: &str| {
        let mut all = vec!["run", "--detach"];
        all.extend_from_slice(more);
        all.extend(["--bundle", &long, id]);
        measure::run(&mut command(&all))
    };
    detached(&[], "on-host")?;
    detached(&["--isolation", "vm"], "pod")?;
    let measured = in_a_pod(&command, &short, rounds);
    for id in ["on-host", "pod"] {
        measure::run(&mut command(&["delete", "--force", id]))?;
    }
    measured?;
    devices::compare(&command, runhcs, vm, work, rounds)
}

/// From the death of a VM until a container in it is seen as stopped.
fn death(command: &dyn Fn(&[&str]) -> Command, create: &[&str]) -> Result<Sample> {
    measure::run(&mut command(create))?;
    let qemu = processes_with("guest=bench@vm")?;
    let begin = Instant::now();
    let killed = qemu.into_iter().try_for_each(|pid| {
        let pid = Pid::from_raw(pid).context("QEMU has no pid")?;
        kill_process(pid, Signal::KILL).context("kill QEMU")
    });
    let stopped = killed.and_then(|()| until_stopped(command));
    let sample = Sample { time: begin.elapsed(), peak_kib: 0 };
    measure::run(&mut command(&["delete", "--force", "bench"]))?;
    stopped.map(|()| sample)
}

fn until_stopped(command: &dyn Fn(&[&str]) -> Command) -> Result<()> {
    loop {
        let output = command(&["state", "bench"]).output().context("ask for the state")?;
        let state: Value = serde_json::from_slice(&output.stdout).context("read the state")?;
        if state["status"] == "stopped" {
            return Ok(());
        }
    }
}

/// The processes whose command line holds a text.
fn processes_with(text: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(text) {
            found.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        }
    }
    ensure!(!found.is_empty(), "there is no process with {text:?}");
    Ok(found)
}

fn in_a_pod(command: &dyn Fn(&[&str]) -> Command, short: &str, rounds: usize) -> Result<()> {
    let run = |arguments: &[&str]| measure::run(&mut command(arguments));
    Table::measure(
        rounds,
        &mut [
            Candidate::new("process", || run(&["exec", "on-host", "/bin/true"])),
            Candidate::new("VM", || run(&["exec", "pod", "/bin/true"])),
        ],
    )?
    .print("exec true");
    Table::measure(
        rounds,
        &mut [
            Candidate::new("process", || run(&["run", "--bundle", short, "member"])),
            Candidate::new("VM", || run(&["run", "--host", "pod", "--bundle", short, "member"])),
        ],
    )?
    .print("a further container that runs true");
    files(&run, rounds)?;
    memory()
}

/// Files of the root: written through to the disk, and read.
fn files(run: &dyn Fn(&[&str]) -> Result<Sample>, rounds: usize) -> Result<()> {
    let write = ["/bin/busybox", "dd", "if=/dev/zero", "of=/f", "bs=1M", "count=64", "conv=fsync"];
    let read = ["/bin/busybox", "dd", "if=/f", "of=/dev/null", "bs=1M"];
    for (what, program) in [("written", &write[..]), ("read", &read[..])] {
        let exec = |id: &str| {
            let mut arguments = vec!["exec", id];
            arguments.extend(program);
            run(&arguments)
        };
        Table::measure(
            rounds,
            &mut [
                Candidate::new("process", || exec("on-host")),
                Candidate::new("VM", || exec("pod")),
            ],
        )?
        .print(&format!("64 MiB of a file {what}, by an exec"));
    }
    Ok(())
}

/// The processes that stand for the pod: what each has for itself, without what is shared.
fn memory() -> Result<()> {
    println!("\nMemory of the pod's processes on the host");
    for entry in std::fs::read_dir("/proc")? {
        let dir = entry?.path();
        let Ok(line) = std::fs::read(dir.join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let name = if line.contains("guest=pod@vm") {
            "QEMU"
        } else if line.contains("runhcs-vm-shim serve") {
            "VM shim"
        } else if line.contains("runhcs-vm-shim virtiofs") {
            "virtiofs daemon"
        } else if line.contains(" shim --vm ") {
            "container shim"
        } else {
            continue;
        };
        let Ok(usage) = std::fs::read_to_string(dir.join("smaps_rollup")) else { continue };
        let of = |field: &str| -> u64 {
            let lines = usage.lines().filter(|line| line.starts_with(field));
            lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
        };
        println!("{name:<24} resident {:>8} KiB, private {:>8} KiB", of("Rss:"), of("Private_"));
    }
    Ok(())
}

/// What a bare QEMU has more than nothing.
#[derive(Debug, Default)]
pub struct Extras {
    /// Words on the kernel's command line.
    pub words: String,
    /// Properties of the machine, beginning with a comma.
    pub machine: &'static str,
    /// The file that the console is written to.
    pub console: Option<PathBuf>,
}

/// QEMU with the same kernel, initramfs and memory, and nothing else. The image's init finds no
/// devices and ends, and so does the VM.
pub fn bare_qemu(kernel: &Path, initramfs: &Path, extras: &Extras) -> Result<Command> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let mhz = cpus.lines().find(|line| line.starts_with("cpu MHz"));
    let mhz: f64 = mhz.and_then(|line| line.rsplit(' ').next()?.parse().ok()).context("no MHz")?;
    let words = format!(
        "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on no_timer_check \
         cryptomgr.notests pci=off mitigations=off noreplace-smp tsc_early_khz={} {}",
        (mhz * 1000.0) as u64,
        extras.words
    );
    let machine = format!("microvm,pit=off,pic=off,rtc=on,isa-serial=on{}", extras.machine);
    let console = extras.console.as_ref().map(|path| format!("file:{}", path.display()));
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-machine", &machine]);
    command.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "256M"]);
    command.args(["-serial", console.as_deref().unwrap_or("null"), "-append", &words]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    Ok(command)
}

/// Lets the program write to its root.
fn make_writable(bundle: &Path) -> Result<()> {
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["root"]["readonly"] = json!(false);
    Ok(std::fs::write(&path, serde_json::to_vec(&config)?)?)
}
