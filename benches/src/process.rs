//! Process isolation against the peers and against the floor.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::bundle;
use crate::measure::{self, Sample};
use crate::table::{Candidate, Table};

/// How many of many containers run at the same time.
const AT_ONCE: usize = 8;

/// An OCI runtime.
#[derive(Clone, Debug)]
struct Runtime {
    kind: Kind,
    name: String,
    program: PathBuf,
    root: PathBuf,
}

/// Whose a runtime is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Ours,
    Peer,
}

impl Runtime {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(arguments);
        command
    }

    /// The container that `exec` enters. All runtimes have theirs at the same time.
    fn long_id(&self) -> String {
        format!("long-{}", self.name)
    }

    /// Who takes part in a comparison with what `sample` does.
    fn candidate<'a>(&'a self, sample: impl Fn(&Self) -> Result<Sample> + 'a) -> Candidate<'a> {
        let sample = move || sample(self);
        match self.kind {
            Kind::Ours => Candidate::new(&self.name, sample),
            Kind::Peer => {
                Candidate::peer(&self.name, sample, || delete_all(&self.program, &self.root))
            }
        }
    }
}

/// The least that a container costs.
struct Floor<'a> {
    name: &'static str,
    program: &'a Path,
    options: &'static [&'static str],
    root: &'a Path,
}

impl<'a> Floor<'a> {
    /// Without what the configuration asks for, and with it, which the program does for version 1
    /// of control groups only.
    fn all(program: &'a Path, root: &'a Path) -> Vec<Self> {
        let mut floors = vec![Self { name: "floor", program, options: &[], root }];
        let configured =
            Self { name: "floor, configured", program, options: &["--configured"], root };
        if Path::new("/sys/fs/cgroup/devices").exists() {
            floors.push(configured);
        } else {
            println!("{} is left out: it takes control groups of version 1", configured.name);
        }
        floors
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.args(self.options).arg(self.root).args(["/bin/busybox", "true"]);
        command
    }

    /// What takes part in a comparison, with what `sample` does with it.
    fn candidate<'b>(&'b self, sample: impl Fn(&Self) -> Result<Sample> + 'b) -> Candidate<'b> {
        Candidate::new(self.name, move || sample(self))
    }
}

/// Deletes the containers that are left in a runtime's state.
pub fn delete_all(program: &Path, root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let mut command = Command::new(program);
        command.arg("--root").arg(root).args(["delete", "--force"]).arg(entry.file_name());
        // What isn't a container's is refused.
        let _ = command.output();
    }
}

/// Compares, and prints tables: `rounds` samples each, with `many` containers in a row.
pub fn compare(runhcs: &Path, floor: &Path, work: &Path, rounds: usize, many: usize) -> Result<()> {
    let runtime = |kind, name: &str, program| {
        let root = work.join("state").join(name);
        Runtime { kind, name: name.to_owned(), program, root }
    };
    let mut runtimes = vec![runtime(Kind::Ours, "runhcs", runhcs.to_owned())];
    for name in ["crun", "runc", "youki"] {
        match find(name) {
            Some(program) => runtimes.push(runtime(Kind::Peer, name, program)),
            None => println!("{name} is not installed"),
        }
    }
    let short = bundle::write(runhcs, &work.join("true"), &["/bin/true"])?;
    let long = bundle::write(runhcs, &work.join("sleep"), &["/bin/sleep", "1000"])?;
    let (short, long) = (short.display().to_string(), long.display().to_string());

    let root = work.join("true/rootfs");
    let floors = Floor::all(floor, &root);

    let mut candidates = each(&runtimes, |runtime| {
        measure::run(&mut runtime.command(&["run", "--bundle", &short, "bench"]))
    });
    let once = |floor: &Floor<'_>| measure::run(&mut floor.command());
    candidates.extend(floors.iter().map(|floor| floor.candidate(once)));
    Table::measure(rounds, &mut candidates)?.print("run true");

    Table::measure(
        rounds,
        &mut each(&runtimes, |runtime| {
            measure::run_all(&mut [
                runtime.command(&["create", "--bundle", &long, "bench"]),
                runtime.command(&["start", "bench"]),
                runtime.command(&["delete", "--force", "bench"]),
            ])
        }),
    )?
    .print("create, start, delete --force");

    let running = RefCell::new(BTreeSet::new());
    Table::measure(
        rounds,
        &mut each(&runtimes, |runtime| {
            let id = runtime.long_id();
            // In the round that isn't counted.
            if running.borrow_mut().insert(id.clone()) {
                let run = ["run", "--detach", "--bundle", &long, &id];
                measure::run(&mut runtime.command(&run))?;
            }
            measure::run(&mut runtime.command(&["exec", &id, "/bin/true"]))
        }),
    )?
    .print("exec true");
    for runtime in &runtimes {
        match runtime.kind {
            Kind::Ours => {
                measure::run(&mut runtime.command(&["delete", "--force", &runtime.long_id()]))?;
            }
            // It may have none, and has its row.
            Kind::Peer => delete_all(&runtime.program, &runtime.root),
        }
    }

    // The floor, too: what one container leaves for the kernel to take apart keeps the next waiting.
    let few = rounds.div_ceil(10);
    let bare_ones = |floor: &Floor<'_>| (0..many).map(|_| floor.command()).collect::<Vec<_>>();
    let mut candidates = each(&runtimes, |runtime| {
        measure::run_all(&mut numbered(runtime, &short, many).collect::<Vec<_>>())
    });
    let in_turn = |floor: &Floor<'_>| measure::run_all(&mut bare_ones(floor));
    candidates.extend(floors.iter().map(|floor| floor.candidate(in_turn)));
    Table::measure(few, &mut candidates)?
        .print(&format!("{many} times run true, one after another"));

    let mut candidates = each(&runtimes, |runtime| {
        measure::run_parallel(&mut numbered(runtime, &short, many).collect::<Vec<_>>(), AT_ONCE)
    });
    let at_once = |floor: &Floor<'_>| measure::run_parallel(&mut bare_ones(floor), AT_ONCE);
    candidates.extend(floors.iter().map(|floor| floor.candidate(at_once)));
    Table::measure(few, &mut candidates)?
        .print(&format!("{many} times run true, {AT_ONCE} at once"));
    Ok(())
}

fn numbered(runtime: &Runtime, bundle: &str, many: usize) -> impl Iterator<Item = Command> {
    (0..many)
        .map(move |number| runtime.command(&["run", "--bundle", bundle, &format!("b{number}")]))
}

fn each<'a>(
    runtimes: &'a [Runtime],
    sample: impl Fn(&Runtime) -> Result<Sample> + Clone + 'a,
) -> Vec<Candidate<'a>> {
    runtimes.iter().map(|runtime| runtime.candidate(sample.clone())).collect()
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}
