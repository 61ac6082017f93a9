//! A container in a VM against a bare QEMU with the same devices: a shared file system by the same
//! daemon, and a network card on a tap, once the server's own and once wired as the pod's. All guests
//! run the same program, which measures itself.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runhcs_cpio::{Archive, Entry};
use rustix::io::FdFlags;
use rustix::mount::UnmountFlags;
use serde_json::{Value, json};

use crate::measure::Sample;
use crate::network::{FOR_POD, Network, Tap};
use crate::table::Table;
use crate::vm::{Extras, Vm, bare_qemu};
use crate::{bundle, measure};

/// What the bare guest runs first. The kernel makes variables of words that it doesn't know. It
/// measures twice, the first time to warm up, as the pod has.
const INIT: &str = "#!/bench/busybox sh
b=/bench/busybox
$b mount -t devtmpfs dev /dev; $b mount -t proc proc /proc
$b cat /modules.load /modules.network | while read -r module; do $b insmod $module; done
$b mount -t virtiofs runhcs /bench/share
$b ip link set lo up; $b ip address add $bench_subnet.2/24 dev eth0; $b ip link set eth0 up
for round in 1 2; do
    $b echo round; /bench/probe files /bench/share/1; /bench/probe net $bench_subnet.1:7000
done
$b reboot -f
";

/// What is measured, by `probe`'s names.
const ROWS: [(&str, &str); 6] = [
    ("write", "32 MiB of a file written and synchronised"),
    ("read", "32 MiB of a file read"),
    ("small", "200 files of 1 KiB made, read and removed"),
    ("receive", "32 MiB received by TCP"),
    ("send", "32 MiB sent by TCP"),
    ("trips", "200 round trips of a byte by TCP"),
];

/// The files that the bare QEMU is started with.
struct Bare<'a> {
    vm: &'a Vm,
    network: &'a Network,
    initramfs: PathBuf,
    share: ShareTree,
    output: PathBuf,
}

/// Compares, and prints a table for each row. `command` is the command with what all have.
pub fn compare(
    command: &dyn Fn(&[&str]) -> Command,
    runhcs: &Path,
    vm: &Vm,
    work: &Path,
    rounds: usize,
) -> Result<()> {
    let probe = std::env::current_exe()?.with_file_name("probe");
    let network = Network::new()?;
    let volume = work.join("volume");
    std::fs::create_dir(&volume)?;
    let share = ShareTree::new(work)?;
    let initramfs = work.join("bare-initramfs");
    std::fs::write(&initramfs, make_initramfs(vm, &probe)?)?;
    let bare = Bare { vm, network: &network, initramfs, share, output: work.join("bare-output") };

    let pod = bundle::write(runhcs, &work.join("devices"), &["/bin/sleep", "1000"])?;
    std::fs::copy(&probe, pod.join("rootfs/bin/probe")).context("copy the program `probe`")?;
    let path = pod.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let mounts = config["mounts"].as_array_mut().context("the bundle has no mounts")?;
    mounts.push(json!({
        "source": volume, "destination": "/volume", "type": "bind", "options": ["rbind"]
    }));
    let namespaces = config["linux"]["namespaces"].as_array_mut().context("no namespaces")?;
    for namespace in namespaces.iter_mut().filter(|namespace| namespace["type"] == "network") {
        namespace["path"] = json!(network.pod());
    }
    std::fs::write(&path, serde_json::to_vec(&config)?)?;
    let pod = pod.display().to_string();
    let create = ["run", "--detach", "--isolation", "vm", "--bundle", &pod, "devices"];
    measure::run(&mut command(&create))?;
    let measured = measure_all(command, &bare, rounds);
    measure::run(&mut command(&["delete", "--force", "devices"]))?;
    measured
}

fn measure_all(command: &dyn Fn(&[&str]) -> Command, bare: &Bare<'_>, rounds: usize) -> Result<()> {
    let mut tables: BTreeMap<&str, Table> = BTreeMap::new();
    for round in 0..=rounds {
        let candidates = [
            ("bare QEMU, same devices", bare.measure(Tap::Direct)?),
            ("the same, redirected", bare.measure(Tap::Redirected)?),
            ("container in a VM", in_pod(command)?),
        ];
        // As everywhere, the first round is not counted.
        for (place, (name, times)) in candidates.iter().enumerate().filter(|_| round > 0) {
            for (row, _) in ROWS {
                let time = *times.get(row).with_context(|| format!("{name}: no row {row}"))?;
                tables.entry(row).or_default().add(place, name, Sample { time, peak_kib: 0 });
            }
        }
    }
    for (row, title) in ROWS {
        if let Some(table) = tables.get(row) {
            table.print(title);
        }
    }
    Ok(())
}

fn in_pod(command: &dyn Fn(&[&str]) -> Command) -> Result<BTreeMap<String, Duration>> {
    let mut said = String::new();
    for probe in [["files", "/volume"], ["net", FOR_POD]] {
        let exec = ["exec", "devices", "/bin/probe", probe[0], probe[1]];
        let output = command(&exec).stdin(Stdio::null()).output().context("run `exec`")?;
        ensure!(output.status.success(), "{exec:?}: {}", String::from_utf8_lossy(&output.stderr));
        said += &String::from_utf8_lossy(&output.stdout);
    }
    Ok(parse(&said))
}

/// Lines of a name and milliseconds; others may be between them.
fn parse(text: &str) -> BTreeMap<String, Duration> {
    let lines = text.lines().filter_map(|line| line.trim().split_once(' '));
    lines
        .filter_map(|(name, number)| {
            let milliseconds: f64 = number.parse().ok()?;
            Some((name.to_owned(), Duration::try_from_secs_f64(milliseconds / 1e3).ok()?))
        })
        .collect()
}

/// The image's initramfs with more in it: the kernel unpacks one archive after the other.
fn make_initramfs(vm: &Vm, probe: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let (busybox, probe) = (std::fs::read("/bin/busybox")?, std::fs::read(probe)?);
    archive.add("bench", &Entry::Directory);
    archive.add("bench/share", &Entry::Directory);
    archive.add("bench/busybox", &Entry::File(&busybox, true));
    archive.add("bench/probe", &Entry::File(&probe, true));
    archive.add("bench/init", &Entry::File(INIT.as_bytes(), true));
    let mut all = std::fs::read(vm.image.join("initramfs.img"))?;
    all.resize(all.len().next_multiple_of(4), 0);
    all.extend(archive.finish());
    Ok(all)
}

/// The share tree of the bare QEMU: a mount, in which the tree that is shared is mounted, as in the
/// VM shim's. It ends when this is dropped.
struct ShareTree(PathBuf);

impl ShareTree {
    fn new(work: &Path) -> Result<Self> {
        let (share, files) = (work.join("bare-share"), work.join("bare-files"));
        let tree = share.join("1");
        for path in [&share, &files] {
            std::fs::create_dir(path)?;
        }
        rustix::mount::mount_bind(&share, &share).context("mount the bare share")?;
        let made = Self(share);
        std::fs::create_dir(&tree)?;
        rustix::mount::mount_bind(&files, &tree).context("mount the bare share's files")?;
        Ok(made)
    }
}

impl Drop for ShareTree {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

impl Bare<'_> {
    /// Boots the bare guest, which measures and ends.
    fn measure(&self, tap: Tap) -> Result<BTreeMap<String, Duration>> {
        let (mut daemon, qemu) = self.start_daemon()?;
        let extras = Extras {
            words: format!("rdinit=/bench/init bench_subnet={}", tap.subnet()),
            machine: ",memory-backend=memory",
            console: Some(self.output.clone()),
        };
        let kernel = self.vm.image.join("vmlinux");
        let plain = bare_qemu(&kernel, &self.initramfs, &extras)?;
        let mut command = self.network.beside(tap, "qemu-system-x86_64");
        command.args(plain.get_args());
        command.args(["-object", "memory-backend-memfd,id=memory,size=256M,share=on"]);
        let socket = format!("socket,id=virtiofs,fd={}", qemu.as_raw_fd());
        command.args(["-chardev", &socket, "-device"]);
        command.arg("vhost-user-fs-device,chardev=virtiofs,tag=runhcs,queue-size=1024");
        command.args(["-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no"]);
        command.args(["-device", "virtio-net-device,netdev=net0,mac=02:00:00:00:00:92"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().context("start QEMU");
        // The daemon ends with the last end of its socket.
        drop(qemu);
        daemon.wait().context("wait for the virtiofs daemon")?;
        ensure!(status?.success(), "the bare QEMU failed");
        let said = String::from_utf8_lossy(&std::fs::read(&self.output)?).into_owned();
        let (_, counted) = said
            .rsplit_once("round")
            .with_context(|| format!("the bare guest has measured nothing: {said}"))?;
        Ok(parse(counted))
    }

    /// Starts the virtiofs daemon as the VM shim does, and returns QEMU's end of its socket.
    fn start_daemon(&self) -> Result<(Child, UnixStream)> {
        let path = self.output.with_file_name("virtiofs");
        let listener = UnixListener::bind(&path).context("listen for QEMU")?;
        let qemu = UnixStream::connect(&path).context("connect for QEMU")?;
        std::fs::remove_file(&path)?;
        rustix::io::fcntl_setfd(&listener, FdFlags::empty())?;
        let mut command = Command::new(&self.vm.shim);
        command.arg("virtiofs").arg(format!("--listener={}", listener.as_raw_fd()));
        command.arg("--share").arg(&self.share.0).args(["--vm=bare", "--log-level=warn"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let daemon = command.spawn().context("start the virtiofs daemon")?;
        // Only now, so that the daemon doesn't have it.
        rustix::io::fcntl_setfd(&qemu, FdFlags::empty())?;
        Ok((daemon, qemu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_understood() {
        let said = parse("[    1.0] kernel\r\nwrite 12.500\r\nread 3\nsmall -1\nround\n");
        let expected = [("read", 3_000), ("write", 12_500)];
        let expected = expected.map(|(name, us)| (name.to_owned(), Duration::from_micros(us)));
        assert_eq!(said, expected.into());
    }
}
