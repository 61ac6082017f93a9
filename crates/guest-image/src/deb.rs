//! Debian packages: where they come from and what is in them (deb(5)).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::decompress::decompress;

/// The files of a package, by their paths without a leading slash.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Reads the regular files of a package for which `wanted` says so.
pub fn read(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Files> {
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut archive = ar::Archive::new(file);
    while let Some(entry) = archive.next_entry() {
        let mut entry = entry.with_context(|| format!("read package {}", path.display()))?;
        if !entry.header().identifier().starts_with(b"data.tar") {
            continue;
        }
        let mut compressed = Vec::new();
        entry.read_to_end(&mut compressed).context("read the package's data")?;
        return untar(&decompress(&compressed)?, wanted);
    }
    bail!("{} is not a Debian package", path.display())
}

fn untar(data: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Files> {
    let mut files = Files::new();
    for entry in tar::Archive::new(data).entries().context("read the package's data")? {
        let mut entry = entry.context("read the package's data")?;
        let path = entry.path().context("read the package's data")?;
        let path = path.to_string_lossy().trim_start_matches("./").to_owned();
        if entry.header().entry_type().is_file() && wanted(&path) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).with_context(|| format!("read {path}"))?;
            files.insert(path, content);
        }
    }
    Ok(files)
}

/// Downloads the image package that `package` is or depends on into `directory`, without
/// installing it.
pub fn download(package: &str, directory: &Path) -> Result<PathBuf> {
    let image = image_package(package)?;
    // apt-get drops its privileges for the download, and can't write to a private directory.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory, open).context("open the download directory")?;
    let output = Command::new("apt-get")
        .args(["download", "--quiet", "-o", "APT::Sandbox::User=root", &image])
        .current_dir(directory)
        .output()
        .context("run apt-get; on a system without it give --deb or --kernel and --modules")?;
    if !output.status.success() {
        bail!(
            "download {image}: {}; is the network there, and has `apt-get update` been run?",
            String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")
        );
    }
    let mut found = std::fs::read_dir(directory).context("look for the download")?.flatten();
    found
        .find(|entry| entry.file_name().to_string_lossy().ends_with(".deb"))
        .map(|entry| entry.path())
        .with_context(|| format!("apt-get downloaded no file for {image}"))
}

/// `linux-image-cloud-amd64` is empty and depends on the image of the present version.
fn image_package(package: &str) -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["depends", "--no-recommends", "--no-suggests", package])
        .output()
        .context("run apt-cache; on a system without it give --deb or --kernel and --modules")?;
    if !output.status.success() {
        bail!(
            "package {package} is unknown; run `apt-get update` first, or choose another with --package"
        );
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut depends = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let image = depends.find(|name| name.starts_with("linux-image-"));
    Ok(image.unwrap_or(package).to_owned())
}
