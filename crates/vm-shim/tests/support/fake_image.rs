//! A guest image whose agent misbehaves. The tests of the command use it too.

use std::ffi::OsString;
use std::path::Path;

/// The given image with the agent of `tests/fake_agent` on top. `source` is that agent's file.
pub fn fake_image(image: &Path, source: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let compiled = std::process::Command::new(rustc)
        .args(["--edition=2024", "-O", "-C", "target-feature=+crt-static", "-o"])
        .arg(root.join("init"))
        .arg(source)
        .env("PROTOCOL_VERSION", runhcs_protocol::VERSION.to_string())
        .status()
        .unwrap();
    assert!(compiled.success());
    let packed = std::process::Command::new("sh")
        .args(["-c", "echo init | cpio -o -H newc --quiet > ../init.cpio"])
        .current_dir(&root)
        .status()
        .unwrap();
    assert!(packed.success(), "cannot pack the initramfs; install cpio");
    let mut initramfs = std::fs::read(image.join("initramfs.img")).unwrap();
    // Archives follow one another; each begins at a multiple of four bytes.
    initramfs.resize(initramfs.len().next_multiple_of(4), 0);
    initramfs.extend(std::fs::read(dir.path().join("init.cpio")).unwrap());
    std::fs::write(dir.path().join("initramfs.img"), initramfs).unwrap();
    std::os::unix::fs::symlink(
        std::fs::canonicalize(image.join("vmlinux")).unwrap(),
        dir.path().join("vmlinux"),
    )
    .unwrap();
    dir
}
