//! The build: inputs in, `vmlinux`, `initramfs.img` and `manifest.json` out.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use runhcs_cpio::{Archive, Entry};
use serde_json::json;

use crate::modules::{Available, DISK, NETWORK, TUN, WANTED};
use crate::progress::Progress;
use crate::{deb, kernel, output};

/// What to build from and where to.
#[derive(Args, Debug)]
pub struct BuildArgs {
    /// The distribution's kernel package, to be downloaded with apt-get.
    #[arg(long, default_value = "linux-image-cloud-amd64", conflicts_with_all = ["deb", "kernel"])]
    package: String,
    /// A kernel package's file.
    #[arg(long, value_name = "FILE", conflicts_with = "kernel")]
    deb: Option<PathBuf>,
    /// A kernel: vmlinux or vmlinuz.
    #[arg(long, value_name = "FILE", requires = "modules")]
    kernel: Option<PathBuf>,
    /// The kernel's modules: its directory below /lib/modules.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// The guest agent, a static program; by default beside this one, or where `make install` puts it.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Where the image goes.
    #[arg(long, value_name = "DIR", default_value = "/usr/local/share/runhcs")]
    output: PathBuf,
}

/// The guest agent's file.
const AGENT: &str = "runhcs-guest-agent";

/// A kernel and its modules, whatever they came in.
struct Inputs {
    source: String,
    kernel: Vec<u8>,
    modules: Available,
}

/// Makes the image. On failure the files that were there stay as they were.
pub fn build(args: &BuildArgs) -> Result<()> {
    let progress = Progress::new(5);
    progress.step("reading the agent");
    let agent = read_agent(args.agent.as_deref())?;
    let inputs = read_inputs(args, &progress)?;
    progress.step("unpacking the kernel");
    let vmlinux = kernel::extract(&inputs.kernel).context("unpack the kernel")?;
    progress.step("packing the initramfs");
    let modules = inputs.modules.select(&WANTED, &[])?;
    let network = inputs.modules.select(&NETWORK, &modules)?;
    let disk = inputs.modules.select(&DISK, &modules)?;
    let tun = inputs.modules.select(&TUN, &modules)?;
    let lists = [
        ("modules.load", modules.as_slice()),
        ("modules.network", &network),
        ("modules.disk", &disk),
        ("modules.tun", &tun),
    ];
    let initramfs = pack(&agent, &lists);
    progress.step("writing");
    let manifest = json!({
        "source": inputs.source,
        "kernel": output::digest(&vmlinux),
        "agent": output::digest(&agent),
        "initramfs": output::digest(&initramfs),
        "modules": modules.iter().chain(&network).chain(&disk).chain(&tun)
            .map(|(name, _)| name).collect::<Vec<_>>(),
    });
    let manifest = serde_json::to_vec_pretty(&manifest)?;
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("make {}", args.output.display()))?;
    let files =
        [("vmlinux", &vmlinux), ("initramfs.img", &initramfs), ("manifest.json", &manifest)];
    let written = files.map(|(name, content)| output::write(&args.output, name, content));
    let written: Vec<_> = written.into_iter().collect::<Result<_>>()?;
    written.into_iter().try_for_each(output::Pending::publish)
}

/// Where the agent is that was built, or installed, with this program.
fn own_agent(own: &Path) -> PathBuf {
    let beside = own.with_file_name(AGENT);
    let prefix = own.parent().and_then(Path::parent);
    let installed = prefix.map(|prefix| prefix.join("share/runhcs").join(AGENT));
    installed.filter(|path| path.exists() && !beside.exists()).unwrap_or(beside)
}

fn read_agent(path: Option<&Path>) -> Result<Vec<u8>> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => own_agent(&std::env::current_exe().context("find this program's own path")?),
    };
    let agent = std::fs::read(&path).with_context(|| {
        format!("read the guest agent {}; `make build` makes it", path.display())
    })?;
    let file = object::File::parse(agent.as_slice())
        .with_context(|| format!("the guest agent {} is not a program", path.display()))?;
    if object::Object::section_by_name(&file, ".interp").is_some() {
        bail!("the guest agent {} is not a static program; `make build` makes one", path.display());
    }
    Ok(agent)
}

fn read_inputs(args: &BuildArgs, progress: &Progress) -> Result<Inputs> {
    if let (Some(kernel), Some(modules)) = (&args.kernel, &args.modules) {
        progress.step("reading the kernel");
        let source = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kernel = std::fs::read(kernel).with_context(|| format!("read {}", kernel.display()))?;
        let mut available = Available::default();
        add_directory(modules, &mut available)?;
        return Ok(Inputs { source, kernel, modules: available });
    }
    let directory = tempfile::tempdir().context("make a temporary directory")?;
    let package = match &args.deb {
        Some(path) => path.clone(),
        None => {
            progress.step(format!("downloading {}", args.package));
            deb::download(&args.package, directory.path())?
        }
    };
    let is_kernel = |path: &str| path.starts_with("boot/vmlinu");
    let files = deb::read(&package, |path| is_kernel(path) || Available::wants(path))?;
    let source = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (mut kernel, mut modules) = (None, Available::default());
    for (path, content) in files {
        if is_kernel(&path) {
            kernel = Some(content);
        } else {
            modules.add(&path, content);
        }
    }
    let kernel = kernel.with_context(|| format!("package {source} holds no kernel in boot/"))?;
    Ok(Inputs { source, kernel, modules })
}

fn add_directory(directory: &Path, available: &mut Available) -> Result<()> {
    let what = || format!("read {}", directory.display());
    for entry in std::fs::read_dir(directory).with_context(what)? {
        let entry = entry.with_context(what)?;
        let path = entry.path();
        let text = path.to_string_lossy().into_owned();
        // `build` and `source` link to the kernel's sources.
        if entry.file_type().with_context(what)?.is_dir() {
            add_directory(&path, available)?;
        } else if Available::wants(&text) {
            let content = std::fs::read(&path).with_context(|| format!("read {text}"))?;
            available.add(&text, content);
        }
    }
    Ok(())
}

type Modules = [(String, Vec<u8>)];

/// Lists of modules by the names of their files, in which the agent looks for what to load. No
/// module may be in two of them.
fn pack(agent: &[u8], lists: &[(&str, &Modules)]) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["dev", "modules", "proc", "run", "sys", "tmp"] {
        archive.add(directory, &Entry::Directory);
    }
    archive.add("dev/console", &Entry::Device(5, 1));
    archive.add("init", &Entry::File(agent, true));
    for (list_name, modules) in lists {
        let mut list = String::new();
        for (name, module) in *modules {
            let path = format!("modules/{name}.ko");
            archive.add(&path, &Entry::File(module, false));
            list += &format!("/{path}\n");
        }
        archive.add(list_name, &Entry::File(list.as_bytes(), false));
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_inputs_same_bytes() {
        let modules = [("a".to_owned(), vec![1, 2, 3]), ("b".to_owned(), vec![])];
        let lists: [(&str, &Modules); 1] = [("modules.load", &modules)];
        assert_eq!(pack(b"agent", &lists), pack(b"agent", &lists));
    }

    #[test]
    fn the_agent_is_found_beside_the_program_or_where_it_is_installed() {
        let prefix = tempfile::tempdir().unwrap();
        let own = prefix.path().join("bin/runhcs-guest-image");
        let (beside, share) = (own.with_file_name(AGENT), prefix.path().join("share/runhcs"));
        for directory in [&prefix.path().join("bin"), &share] {
            std::fs::create_dir_all(directory).unwrap();
        }
        assert_eq!(own_agent(&own), beside);
        std::fs::write(share.join(AGENT), "").unwrap();
        assert_eq!(own_agent(&own), share.join(AGENT));
        std::fs::write(&beside, "").unwrap();
        assert_eq!(own_agent(&own), beside);
    }

    #[test]
    fn an_agent_that_is_not_static_is_refused() {
        let error = read_agent(Some(Path::new("/bin/sh"))).unwrap_err().to_string();
        assert!(error.contains("not a static program"), "{error}");
        let error = read_agent(Some(Path::new("/no/agent"))).unwrap_err().to_string();
        assert!(error.contains("make build"), "{error}");
    }
}
