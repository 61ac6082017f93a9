//! Which functions of the command run when it handles a container: `link-order RUNHCS` executes the
//! program, whose symbols it needs, with a breakpoint at each (ptrace(2)) and writes a script for the
//! linker that puts those functions next to each other, in the order in which they were first reached.
//! The kernel maps a program by pages and their neighbours, so that what never runs costs memory when
//! it lies between (docs/decisions/0014).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

#[path = "../bundle.rs"]
mod bundle;

fn main() -> Result<()> {
    let runhcs = std::env::args_os().nth(1).context("usage: link-order RUNHCS")?;
    let runhcs = PathBuf::from(runhcs).canonicalize()?;
    let work = tempfile::tempdir()?;
    let mut functions = Functions::read(&runhcs)?;
    let short = bundle::write(&runhcs, &work.path().join("true"), &["/bin/true"])?;
    let long = bundle::write(&runhcs, &work.path().join("sleep"), &["/bin/sleep", "1000"])?;
    let (short, long) = (short.display().to_string(), long.display().to_string());
    for arguments in [
        &["run", "--bundle", &short, "short"][..],
        &["create", "--bundle", &long, "long"],
        &["start", "long"],
        &["exec", "long", "/bin/true"],
        &["state", "long"],
        &["kill", "long", "KILL"],
        &["delete", "--force", "long"],
    ] {
        let mut command = Command::new(&runhcs);
        command.arg("--root").arg(work.path().join("state")).args(arguments);
        trace(&mut command, &runhcs, &mut functions)?;
    }
    print!("{}", functions.script()?);
    Ok(())
}

/// The functions of a program at fixed addresses, and which were reached.
struct Functions {
    /// By address: their symbols, and their first instructions' first bytes.
    all: BTreeMap<u64, (String, u8)>,
    /// Their addresses, in the order in which they were reached.
    reached: Vec<u64>,
}

impl Functions {
    fn read(program: &Path) -> Result<Self> {
        let mut all = BTreeMap::new();
        for line in output(Command::new("nm").arg("--defined-only").arg(program))?.lines() {
            if let [address, "t" | "T" | "w" | "W" | "i", name] =
                line.split(' ').collect::<Vec<_>>()[..]
            {
                all.insert(u64::from_str_radix(address, 16)?, (name.to_owned(), 0));
            }
        }
        ensure!(!all.is_empty(), "{} has no symbols", program.display());
        Ok(Self { all, reached: Vec::new() })
    }

    /// Puts a breakpoint at each function that was not yet reached.
    fn watch(&mut self, process: Pid) -> Result<()> {
        let memory = memory_of(process)?;
        for (address, (name, first)) in &mut self.all {
            let mut byte = [0];
            memory.read_exact_at(&mut byte, *address).with_context(|| {
                format!("read {name} at {address:#x}: is the program linked to fixed addresses?")
            })?;
            *first = byte[0];
        }
        let reached: HashSet<&u64> = self.reached.iter().collect();
        for address in self.all.keys().filter(|address| !reached.contains(address)) {
            memory.write_all_at(&[BREAKPOINT], *address).context("set a breakpoint")?;
        }
        Ok(())
    }

    /// Takes the breakpoint away that the process has run into; `false` if it is none of ours.
    fn reach(&mut self, process: Pid) -> Result<bool> {
        let mut registers = ptrace::getregs(process)?;
        let address = registers.rip - 1;
        let Some((_, first)) = self.all.get(&address) else { return Ok(false) };
        memory_of(process)?.write_all_at(&[*first], address)?;
        registers.rip = address;
        ptrace::setregs(process, registers)?;
        if !self.reached.contains(&address) {
            self.reached.push(address);
        }
        Ok(true)
    }

    /// A function of Rust's has a section of its own, which has its name; the C library's is in the
    /// one of its member of the archive, which has its constants, too.
    fn script(&self) -> Result<String> {
        let members = c_library()?;
        // What comes with no member of an archive: how a program begins and ends, and the ways to
        // functions that there are several of, by processor.
        let mut text = vec!["*crt*.o(.text .text.*)".to_owned(), "*(.iplt)".to_owned()];
        let mut constants = Vec::new();
        for (symbol, _) in self.reached.iter().map(|address| &self.all[address]) {
            if let Some(member) = members.get(symbol) {
                text.push(format!("{member}(.text .text.*)"));
                constants.push(format!("{member}(.rodata .rodata.*)"));
            } else {
                let name = without_hashes(symbol);
                text.push(format!("*(.text.{name} .text.unlikely.{name})"));
            }
        }
        let mut script =
            "/* What runs for a container, in its order: `make link-order` writes this, \
                          and the linker\n   heeds what it finds of it. */\n"
                .to_owned();
        for (section, inputs) in [(".text", text), (".rodata", constants)] {
            writeln!(script, "SECTIONS {{\n  {section}.first : {{")?;
            let mut written = HashSet::new();
            for input in inputs.iter().filter(|input| written.insert(*input)) {
                writeln!(script, "    {input}")?;
            }
            writeln!(script, "  }}\n}} INSERT BEFORE {section};")?;
        }
        Ok(script)
    }
}

/// A pattern for a function of Rust's, whichever the compiler's version: mangled in the old way, it
/// ends in a hash; in the new way (v0), each crate's name follows one.
fn without_hashes(symbol: &str) -> String {
    match symbol.rsplit_once("17h") {
        Some((path, _)) if symbol.starts_with("_ZN") => return format!("{path}17h*"),
        _ if !symbol.starts_with("_R") => return symbol.to_owned(),
        _ => {}
    }
    let mut parts = symbol.split("Cs");
    let first = parts.next().unwrap_or_default().to_owned();
    let others = parts.map(|part| part.split_once('_').map_or("*", |(_, path)| path));
    others.fold(first, |name, path| format!("{name}Cs*_{path}"))
}

/// In which member of which archive of the static C library each function is.
fn c_library() -> Result<HashMap<String, String>> {
    let libc = output(Command::new("gcc").arg("-print-file-name=libc.a"))?;
    let beside = Path::new(libc.trim_end()).parent().context("gcc knows no libc.a")?;
    let mut members = HashMap::new();
    for entry in std::fs::read_dir(beside)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // `libm.a` is a script that names the other.
        let pattern = match name {
            "libc.a" => "*libc.a",
            _ if name.starts_with("libm-") && name.ends_with(".a") => "*libm-*.a",
            _ => continue,
        };
        let symbols = output(Command::new("nm").args(["-A", "--defined-only"]).arg(&path))?;
        for line in symbols.lines() {
            if let Some((place, symbol)) = line.rsplit_once(' ')
                && let Some((_, place)) = place.rsplit_once(".a:")
                && let Some((member, _)) = place.split_once(':')
            {
                members.insert(symbol.to_owned(), format!("{pattern}:{member}"));
            }
        }
    }
    Ok(members)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("execute {command:?}"))?;
    Ok(String::from_utf8(output.stdout)?)
}

/// `int3`, after which a process stands at the next byte.
const BREAKPOINT: u8 = 0xcc;

/// Writes go to text, too: the process has a page of its own then.
fn memory_of(process: Pid) -> Result<File> {
    let path = format!("/proc/{process}/mem");
    let file = OpenOptions::new().read(true).write(true).open(&path);
    file.with_context(|| format!("open {path}"))
}

/// Executes a command to its end, and the processes that it or an earlier one has made, as long as
/// they execute `program`.
fn trace(command: &mut Command, program: &Path, functions: &mut Functions) -> Result<()> {
    // So it takes itself for protected already: mapped anew, it would lose the breakpoints.
    command.env("RUNHCS_OWN_PROGRAM", program);
    // SAFETY: ptrace(2) is a mere system call.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let child = child.with_context(|| format!("execute {command:?}"))?;
    let main = Pid::from_raw(child.id() as i32);
    waitpid(main, None).context("wait for the command to begin")?;
    let options = Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(main, options).context("trace the command")?;
    let file = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
    let this = file(program)?;
    functions.watch(main)?;
    resume(main, None)?;
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Err(error) => return Err(error).context("wait for a process"),
            Ok(WaitStatus::Exited(pid, code)) if pid == main => {
                ensure!(code == 0, "{command:?} exited with {code}");
                return Ok(());
            }
            Ok(WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC)) => {
                // A shim, or the container's program.
                if file(&PathBuf::from(format!("/proc/{pid}/exe")))? == this {
                    functions.watch(pid)?;
                    resume(pid, None)?;
                } else {
                    ptrace::detach(pid, None)?;
                }
            }
            // A process begins.
            Ok(WaitStatus::PtraceEvent(pid, ..) | WaitStatus::Stopped(pid, Signal::SIGSTOP)) => {
                resume(pid, None)?;
            }
            Ok(WaitStatus::Stopped(pid, signal)) => {
                let ours = signal == Signal::SIGTRAP && functions.reach(pid)?;
                resume(pid, Some(signal).filter(|_| !ours))?;
            }
            Ok(_) => {}
        }
    }
}

fn resume(pid: Pid, signal: Option<Signal>) -> Result<()> {
    match ptrace::cont(pid, signal) {
        // It was killed meanwhile.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("let process {pid} go on")),
    }
}
