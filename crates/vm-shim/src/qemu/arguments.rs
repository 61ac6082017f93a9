//! QEMU's command line and the guest kernel's. Figures are in `docs/decisions/0004-microvm.md`.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use runhcs_protocol::SHARE_TAG;
use runhcs_protocol::agent_log::LEVEL_WORD;
use runhcs_spec::{Machine, VmOptions};
use runhcs_uvm::Launch;

use super::accelerator::Usable;
use super::{root, timestamp};
use crate::agent_log;
use crate::network::Device;

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

/// QEMU's arguments.
pub fn arguments(launch: &Launch, accelerator: Usable, sockets: &Sockets<'_>) -> Vec<OsString> {
    let options = &launch.options;
    let mut arguments: Vec<OsString> = Vec::new();
    let mut push = |arguments_of: &[&str]| arguments.extend(arguments_of.iter().map(Into::into));

    // Nothing but what is asked for here.
    push(&["-nodefaults", "-no-user-config", "-display", "none"]);
    push(&["-name", &format!("guest={}@vm", launch.host_id)]);
    // A guest that panics or restarts ends its VM.
    push(&["-no-reboot"]);
    push(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);

    push(&["-machine", machine(options)]);
    push(&["-accel", accelerator.name()]);
    push(&["-cpu", accelerator.cpu(), "-smp", &options.vcpus.to_string()]);
    let size = format!("{}M", options.memory_mib);
    // Shared, because the vsock device and the virtiofs daemon read and write the guest's memory.
    let memory = format!("memory-backend-memfd,id=memory,size={size},share=on");
    push(&["-m", &size, "-object", &memory]);

    for (name, socket) in [
        ("console", &sockets.console),
        ("monitor", &sockets.monitor),
        ("vsock", &sockets.vsock),
        ("virtiofs", &sockets.virtiofs),
    ] {
        push(&["-chardev", &format!("socket,id={name},fd={}", socket.as_raw_fd())]);
    }
    push(&["-serial", "chardev:console"]);
    push(&["-mon", "chardev=monitor,mode=control"]);
    let bus = match options.machine {
        Machine::Microvm => "device",
        Machine::Q35 => "pci",
    };
    push(&["-device", &format!("vhost-user-vsock-{bus},chardev=vsock")]);
    // A deep queue: each open file of a busy pod may have a request under way.
    push(&[
        "-device",
        &format!("vhost-user-fs-{bus},chardev=virtiofs,tag={SHARE_TAG},queue-size=1024"),
    ]);

    for (number, (device, tap)) in sockets.network.iter().enumerate() {
        push(&["-netdev", &format!("tap,id=net{number},fd={}", tap.as_raw_fd())]);
        let mtu = device.mtu.map_or_else(String::new, |mtu| format!(",host_mtu={mtu}"));
        let mac = device.mac;
        // No boot from the network.
        let rom = if bus == "pci" { ",romfile=" } else { "" };
        let device = format!("virtio-net-{bus},netdev=net{number},mac={mac}{mtu}{rom}");
        push(&["-device", &device]);
    }

    let mut words = kernel_command_line(options, accelerator);
    words.push_str(&format!(" {LEVEL_WORD}={}", agent_log::level(&launch.log_level).name()));
    push(&["-append", &words]);
    push(&["-kernel", root::KERNEL, "-initrd", root::INITRAMFS]);
    arguments
}

fn machine(options: &VmOptions) -> &'static str {
    match options.machine {
        // Without the timer and the interrupt controller of the first PC: Linux uses its APIC, and
        // gets the time stamp counter's frequency from its command line or from KVM.
        Machine::Microvm => "microvm,pit=off,pic=off,rtc=on,isa-serial=on,memory-backend=memory",
        Machine::Q35 => "q35,memory-backend=memory",
    }
}

fn kernel_command_line(options: &VmOptions, accelerator: Usable) -> String {
    let mut words = vec![
        "console=ttyS0".to_owned(),
        "quiet".to_owned(),
        // Restart at once, which `-no-reboot` makes QEMU's end.
        "panic=-1".to_owned(),
        "reboot=t".to_owned(),
        // There is nobody to wait for at boot who would bring entropy.
        "random.trust_cpu=on".to_owned(),
        "no_timer_check".to_owned(),
        "cryptomgr.notests".to_owned(),
    ];
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
        // TCG's time stamp counter is the host's. Measuring it against an emulated timer takes
        // time, and on a busy host it fails and the guest hangs.
        if let Some(khz) = timestamp::frequency_khz() {
            words.push(format!("tsc_early_khz={khz}"));
        }
    }
    words.push(options.kernel_args.clone());
    words.join(" ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use runhcs_spec::Accelerator;

    use super::*;

    fn line(machine: Machine, vcpus: u32, accelerator: Usable) -> String {
        let options = VmOptions {
            kernel: "/k".into(),
            initramfs: "/i".into(),
            kernel_args: "one two=3".to_owned(),
            memory_mib: 64,
            vcpus,
            accelerator: Accelerator::Auto,
            machine,
            qemu: "qemu".into(),
            boot_timeout_seconds: 1,
            uid_base: 0,
        };
        kernel_command_line(&options, accelerator)
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
