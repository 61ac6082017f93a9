//! QEMU's command line and the guest kernel's. Figures are in `docs/decisions/0004-microvm.md`.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use runhcs_protocol::SHARE_TAG;
use runhcs_protocol::agent_log::LEVEL_WORD;
use runhcs_protocol::template::TEMPLATE_WORD;
use runhcs_spec::{Console, Entropy, Machine, VmOptions};
use runhcs_uvm::Launch;

use super::accelerator::Usable;
use super::drives::{CONTROLLER, THROTTLE};
use super::hotplug::MEMORY_SLOTS;
use super::{root, timestamp};
use crate::agent_log;
use crate::network::Device;

/// Requests that the share's queue holds. It is a deep one: each open file of a busy pod may have a
/// request under way.
pub const SHARE_QUEUE: u16 = 1024;

/// What QEMU is started with: its ends of sockets, and network devices.
#[derive(Debug)]
pub struct Sockets<'a> {
    /// The serial console.
    pub console: UnixStream,
    /// The monitor (QMP).
    pub monitor: UnixStream,
    /// The vsock device (vhost-user).
    pub vsock: UnixStream,
    /// The virtiofs daemon (vhost-user).
    pub virtiofs: UnixStream,
    /// Network devices with their taps.
    pub network: Vec<(&'a Device, &'a OwnedFd)>,
}

impl Sockets<'_> {
    /// The descriptors that QEMU inherits.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let Self { console, monitor, vsock, virtiofs, network } = self;
        let sockets = [console, monitor, vsock, virtiofs].map(AsFd::as_fd);
        sockets.into_iter().chain(network.iter().map(|(_, tap)| tap.as_fd())).collect()
    }
}

/// How a VM comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Its kernel boots.
    Boot,
    /// It goes on where a template was saved. Its memory is given as a file, the machine's state
    /// through the monitor, and so are the devices that QEMU wouldn't have there before
    /// ([`super::Late`]).
    Resume,
}

/// QEMU's arguments for a VM.
pub fn for_vm(
    launch: &Launch,
    accelerator: Usable,
    sockets: &Sockets<'_>,
    start: Start,
) -> Vec<OsString> {
    let options = &launch.options;
    let mut arguments = for_machine(options, accelerator, start == Start::Resume);
    let mut push = |arguments_of: &[&str]| arguments.extend(arguments_of.iter().map(Into::into));

    push(&["-name", &format!("guest={}@vm", launch.host_id)]);
    for (name, socket) in [
        ("console", &sockets.console),
        ("monitor", &sockets.monitor),
        ("vsock", &sockets.vsock),
        ("virtiofs", &sockets.virtiofs),
    ] {
        push(&["-chardev", &format!("socket,id={name},fd={}", socket.as_raw_fd())]);
    }
    let bus = match options.machine {
        Machine::Microvm => "device",
        Machine::Q35 => "pci",
    };
    if start == Start::Boot {
        push(&["-device", &format!("vhost-user-vsock-{bus},chardev=vsock")]);
        push(&[
            "-device",
            &format!(
                "vhost-user-fs-{bus},chardev=virtiofs,tag={SHARE_TAG},queue-size={SHARE_QUEUE}"
            ),
        ]);
    }
    if options.entropy == Entropy::Host {
        // The host's kernel is asked (getrandom(2)); no file is opened.
        push(&["-object", "rng-builtin,id=entropy"]);
        push(&["-device", &format!("virtio-rng-{bus},rng=entropy")]);
    }
    if let Some(limits) = disk_limits(options) {
        push(&["-object", &limits]);
    }
    // Nothing is behind it yet. The guest agent, not the controller, tells the guest of disks.
    push(&["-device", &format!("virtio-scsi-{bus},id={CONTROLLER},num_queues=1,hotplug=off")]);

    for (number, (device, tap)) in sockets.network.iter().enumerate() {
        push(&["-netdev", &format!("tap,id=net{number},fd={}", tap.as_raw_fd())]);
        let mtu = device.mtu.map_or_else(String::new, |mtu| format!(",host_mtu={mtu}"));
        let mac = device.mac;
        // No boot from the network.
        let rom = if bus == "pci" { ",romfile=" } else { "" };
        let device = format!("virtio-net-{bus},netdev=net{number},mac={mac}{mtu}{rom}");
        push(&["-device", &device]);
    }

    match start {
        Start::Boot => {
            let level = agent_log::level(&launch.log_level).name();
            let words = kernel_command_line(options, accelerator, clock(accelerator));
            push(&["-append", &format!("{words} {LEVEL_WORD}={level}")]);
            push(&["-kernel", root::KERNEL, "-initrd", root::INITRAMFS]);
        }
        Start::Resume => push(&["-incoming", "defer"]),
    }
    arguments
}

/// QEMU's arguments for a VM without devices that becomes a template.
pub fn for_template(
    options: &VmOptions,
    accelerator: Usable,
    console: &UnixStream,
    monitor: &UnixStream,
) -> Vec<OsString> {
    let mut arguments = for_machine(options, accelerator, true);
    let mut push = |arguments_of: &[&str]| arguments.extend(arguments_of.iter().map(Into::into));
    for (name, socket) in [("console", console), ("monitor", monitor)] {
        push(&["-chardev", &format!("socket,id={name},fd={}", socket.as_raw_fd())]);
    }
    let words = template_command_line(options, accelerator, clock(accelerator));
    push(&["-append", &words, "-kernel", root::KERNEL, "-initrd", root::INITRAMFS]);
    arguments
}

/// The arguments that a template and the VMs that are resumed from it have in common. They name
/// nothing of a single VM. `given` says whether the memory is [`root::MEMORY`] or QEMU's own.
pub fn for_machine(options: &VmOptions, accelerator: Usable, given: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut push = |arguments_of: &[&str]| arguments.extend(arguments_of.iter().map(Into::into));
    // Nothing but what is asked for here.
    push(&["-nodefaults", "-no-user-config", "-display", "none"]);
    // A guest that panics or restarts ends its VM.
    push(&["-no-reboot"]);
    push(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    push(&["-machine", machine(options)]);
    push(&["-accel", accelerator.argument()]);
    push(&["-cpu", &cpu(options, accelerator), "-smp", &vcpus(options)]);
    push(&["-m", &size(options), "-object", &memory(options, given)]);
    push(&["-serial", if options.console == Console::Off { "none" } else { "chardev:console" }]);
    push(&["-mon", "chardev=monitor,mode=control"]);
    arguments
}

/// The command line of a template's kernel; `clock` is as for [`kernel_command_line`].
pub fn template_command_line(
    options: &VmOptions,
    accelerator: Usable,
    clock: Option<u64>,
) -> String {
    format!("{} {TEMPLATE_WORD}", kernel_command_line(options, accelerator, clock))
}

/// The frequency of the host's time stamp counter in kHz, where the guest has to be told.
fn clock(accelerator: Usable) -> Option<u64> {
    match accelerator {
        Usable::Tcg => timestamp::frequency_khz(),
        Usable::Kvm => None,
    }
}

fn cpu(options: &VmOptions, accelerator: Usable) -> String {
    if options.cpu_features.is_empty() {
        return accelerator.cpu().to_owned();
    }
    // A feature that can't be had is an error, rather than a guest without it.
    format!("{},enforce,{}", accelerator.cpu(), options.cpu_features)
}

fn vcpus(options: &VmOptions) -> String {
    match options.max_vcpus {
        Some(most) => format!("{},maxcpus={most}", options.vcpus),
        None => options.vcpus.to_string(),
    }
}

fn size(options: &VmOptions) -> String {
    match options.max_memory_mib {
        Some(most) => format!("{}M,slots={MEMORY_SLOTS},maxmem={most}M", options.memory_mib),
        None => format!("{}M", options.memory_mib),
    }
}

/// The guest's memory. `given` says whether it is [`root::MEMORY`].
fn memory(options: &VmOptions, given: bool) -> String {
    // Shared, because the vsock device and the virtiofs daemon read and write the guest's memory.
    let common = format!("id=memory,size={}M,share=on", options.memory_mib);
    if given {
        return format!("memory-backend-file,{common},mem-path={}", root::MEMORY);
    }
    let mut memory = format!("memory-backend-memfd,{common}");
    if options.huge_pages {
        memory += ",hugetlb=on,hugetlbsize=2M";
    }
    if options.preallocate_memory {
        memory += ",prealloc=on";
    }
    memory
}

/// What all disks share in throughput.
fn disk_limits(options: &VmOptions) -> Option<String> {
    let mut limits = serde_json::Map::new();
    for (name, limit) in [("bps-total", options.disk_bandwidth), ("iops-total", options.disk_iops)]
    {
        if let Some(limit) = limit {
            limits.insert(name.to_owned(), limit.get().into());
        }
    }
    if limits.is_empty() {
        return None;
    }
    let group =
        serde_json::json!({ "qom-type": "throttle-group", "id": THROTTLE, "limits": limits });
    Some(group.to_string())
}

fn machine(options: &VmOptions) -> &'static str {
    match options.machine {
        // Without the timer and the interrupt controller of the first PC: Linux uses its APIC, and
        // gets the time stamp counter's frequency from its command line or from KVM.
        Machine::Microvm => "microvm,pit=off,pic=off,rtc=on,isa-serial=on,memory-backend=memory",
        Machine::Q35 => "q35,memory-backend=memory",
    }
}

/// What every guest's kernel is told. `clock` is the frequency of its time stamp counter in kHz, if
/// it is known and needn't be measured.
fn kernel_command_line(options: &VmOptions, accelerator: Usable, clock: Option<u64>) -> String {
    let mut words = vec![
        "quiet".to_owned(),
        // Restart at once, which `-no-reboot` makes QEMU's end.
        "panic=-1".to_owned(),
        "reboot=t".to_owned(),
        // There is nobody to wait for at boot who would bring entropy.
        "random.trust_cpu=on".to_owned(),
        "no_timer_check".to_owned(),
        "cryptomgr.notests".to_owned(),
    ];
    words.push(
        match options.console {
            Console::Log => "console=ttyS0",
            // The driver finds no port.
            Console::Off => "8250.nr_uarts=0",
        }
        .to_owned(),
    );
    if options.machine == Machine::Microvm {
        words.push("pci=off".to_owned());
    }
    if accelerator == Usable::Tcg {
        // The guest's processor is a program; it doesn't speculate.
        words.push("mitigations=off".to_owned());
        if options.vcpus == 1 {
            // A kernel that finds one processor rewrites its locks, and what is rewritten has to
            // be translated again.
            words.push("noreplace-smp".to_owned());
        }
    }
    // TCG's time stamp counter is the host's. Measuring it against an emulated timer takes time,
    // and on a busy host it fails and the guest hangs.
    if let Some(khz) = clock {
        words.push(format!("tsc_early_khz={khz}"));
    }
    words.push(options.kernel_args.clone());
    words.join(" ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use runhcs_spec::Accelerator;

    use super::*;

    fn options(machine: Machine, vcpus: u32) -> VmOptions {
        VmOptions {
            kernel: "/k".into(),
            initramfs: "/i".into(),
            kernel_args: "one two=3".to_owned(),
            memory_mib: 64,
            max_memory_mib: None,
            preallocate_memory: false,
            huge_pages: false,
            vcpus,
            max_vcpus: None,
            cpu_features: String::new(),
            accelerator: Accelerator::Auto,
            machine,
            console: Console::Log,
            entropy: Entropy::Cpu,
            disk_bandwidth: None,
            disk_iops: None,
            qemu: "qemu".into(),
            templates: None,
            boot_timeout_seconds: 1,
            uid_base: 0,
        }
    }

    fn line(machine: Machine, vcpus: u32, accelerator: Usable) -> String {
        let clock = (accelerator == Usable::Tcg).then_some(2_000_000);
        kernel_command_line(&options(machine, vcpus), accelerator, clock)
    }

    #[test]
    fn options_become_arguments() {
        let mut options = options(Machine::Microvm, 1);
        assert_eq!(cpu(&options, Usable::Tcg), "max");
        assert_eq!(memory(&options, false), "memory-backend-memfd,id=memory,size=64M,share=on");
        assert_eq!(disk_limits(&options), None);
        options.cpu_features = "+a,-b".to_owned();
        options.huge_pages = true;
        options.preallocate_memory = true;
        options.disk_iops = NonZeroU64::new(9);
        options.console = Console::Off;
        assert_eq!(cpu(&options, Usable::Kvm), "host,enforce,+a,-b");
        let end = ",share=on,hugetlb=on,hugetlbsize=2M,prealloc=on";
        assert!(memory(&options, false).ends_with(end));
        let limits = disk_limits(&options).unwrap();
        assert!(limits.contains(r#""limits":{"iops-total":9}"#), "{limits}");
        assert!(!kernel_command_line(&options, Usable::Tcg, None).contains("console="));
    }

    #[test]
    fn the_kernel_is_told_what_it_needs() {
        let tcg = line(Machine::Microvm, 1, Usable::Tcg);
        assert!(tcg.ends_with(" one two=3"), "{tcg}");
        assert!(tcg.contains("noreplace-smp") && tcg.contains("mitigations=off"), "{tcg}");
        // What a translated guest can do without is a protection on a real processor.
        let kvm = line(Machine::Q35, 1, Usable::Kvm);
        for word in ["mitigations=off", "noreplace-smp", "tsc_early_khz", "pci=off"] {
            assert!(!kvm.contains(word), "{word} in {kvm}");
        }
        assert!(!line(Machine::Microvm, 2, Usable::Tcg).contains("noreplace-smp"));
    }
}
