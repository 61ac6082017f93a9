//! Process isolation against the peers and against the floor.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::bundle;
use crate::measure::{self, Sample};
use crate::table::{Candidate, Table};

/// How many containers are started in a row.
const MANY: usize = 100;
/// How many of them at the same time.
const AT_ONCE: usize = 8;

/// An OCI runtime.
#[derive(Clone, Debug)]
struct Runtime {
    name: String,
    program: PathBuf,
    root: PathBuf,
}

impl Runtime {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(arguments);
        command
    }
}

/// Compares, and prints tables.
pub fn compare(runhcs: &Path, floor: &Path, work: &Path, rounds: usize) -> Result<()> {
    let mut runtimes = vec![("runhcs".to_owned(), runhcs.to_owned())];
    for name in ["crun", "runc", "youki"] {
        match find(name) {
            Some(program) => runtimes.push((name.to_owned(), program)),
            None => println!("{name} is not installed"),
        }
    }
    let runtimes: Vec<Runtime> = runtimes
        .into_iter()
        .map(|(name, program)| Runtime { root: work.join("state").join(&name), name, program })
        .collect();
    let short = bundle::write(runhcs, &work.join("true"), &["/bin/true"])?;
    let long = bundle::write(runhcs, &work.join("sleep"), &["/bin/sleep", "1000"])?;
    let (short, long) = (short.display().to_string(), long.display().to_string());

    let root = work.join("true/rootfs");
    let bare = || {
        let mut command = Command::new(floor);
        command.arg(&root).arg("/bin/busybox").arg("true");
        command
    };

    let mut candidates = each(&runtimes, |runtime| {
        measure::run(&mut runtime.command(&["run", "--bundle", &short, "bench"]))
    });
    candidates.push(("floor".to_owned(), Box::new(|| measure::run(&mut bare()))));
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

    for runtime in &runtimes {
        measure::run(&mut runtime.command(&["run", "--detach", "--bundle", &long, "long"]))?;
    }
    let executed = Table::measure(
        rounds,
        &mut each(&runtimes, |runtime| {
            measure::run(&mut runtime.command(&["exec", "long", "/bin/true"]))
        }),
    );
    for runtime in &runtimes {
        measure::run(&mut runtime.command(&["delete", "--force", "long"]))?;
    }
    executed?.print("exec true");

    // The floor, too: what one container leaves for the kernel to take apart keeps the next waiting.
    let few = rounds.div_ceil(10);
    let bare_ones = || (0..MANY).map(|_| bare());
    let mut candidates = each(&runtimes, |runtime| {
        measure::run_all(&mut numbered(runtime, &short).collect::<Vec<_>>())
    });
    let in_turn = || measure::run_all(&mut bare_ones().collect::<Vec<_>>());
    candidates.push(("floor".to_owned(), Box::new(in_turn)));
    Table::measure(few, &mut candidates)?
        .print(&format!("{MANY} times run true, one after another"));

    let mut candidates = each(&runtimes, |runtime| {
        measure::run_parallel(numbered(runtime, &short).collect(), AT_ONCE)
    });
    let at_once = || measure::run_parallel(bare_ones().collect(), AT_ONCE);
    candidates.push(("floor".to_owned(), Box::new(at_once)));
    Table::measure(few, &mut candidates)?
        .print(&format!("{MANY} times run true, {AT_ONCE} at once"));
    Ok(())
}

fn numbered(runtime: &Runtime, bundle: &str) -> impl Iterator<Item = Command> {
    (0..MANY)
        .map(move |number| runtime.command(&["run", "--bundle", bundle, &format!("b{number}")]))
}

fn each<'a>(
    runtimes: &'a [Runtime],
    sample: impl Fn(&Runtime) -> Result<Sample> + Clone + 'a,
) -> Vec<Candidate<'a>> {
    let candidate = |runtime: &'a Runtime| -> Candidate<'a> {
        let sample = sample.clone();
        (runtime.name.clone(), Box::new(move || sample(runtime)))
    };
    runtimes.iter().map(candidate).collect()
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}
