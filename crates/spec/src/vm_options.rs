//! The options of a utility VM. The stronger source wins: an annotation, the configuration's `vm`
//! object, the configuration file, the built-in default.
//!
//! Annotations have a name of runhcs's own and, where the Windows program that runhcs is modelled
//! on has a name for the same thing, that one too (`names.rs`).

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::annotations::refuse_unknown_own;
use crate::vm_hardware::VmHardware;
use crate::{Error, Result};

mod kinds;
pub(crate) mod names;
mod value;

pub use kinds::{Accelerator, Console, Entropy, Machine, TemplateUse};
use names::*;

/// The guest kernel if nothing names another one.
pub const DEFAULT_KERNEL: &str = "/usr/local/share/runhcs/vmlinux";
/// The guest's initramfs if nothing names another one.
pub const DEFAULT_INITRAMFS: &str = "/usr/local/share/runhcs/initramfs.img";

/// Where templates are if nothing names another directory.
pub const DEFAULT_TEMPLATES: &str = "/var/lib/runhcs/templates";

/// Memory of a VM in MiB: enough for a pod of small programs.
const DEFAULT_MEMORY_MIB: u64 = 256;
/// The unit of a VM's memory on huge pages, in MiB.
const HUGE_PAGE_MIB: u64 = 2;
/// What guest kernel and agent need beside the container, in MiB.
pub const GUEST_OVERHEAD_MIB: u64 = 128;
const DEFAULT_QEMU: &str = "qemu-system-x86_64";
/// Long enough for a machine without virtualisation and with other work to do.
const DEFAULT_BOOT_TIMEOUT_SECONDS: u64 = 60;

/// The first id that systemd leaves to nobody (its UIDS-GIDS.md, "Summary": 1879048192 to
/// 2147483647 are unused), so neither do distributions, users' subordinate ids or containers.
const DEFAULT_UID_BASE: u32 = 1_879_048_192;

/// The `[vm]` table of the configuration file: everything optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct VmDefaults {
    /// The guest kernel, an uncompressed ELF image with a PVH entry.
    pub kernel: Option<PathBuf>,
    /// The guest's initramfs.
    pub initramfs: Option<PathBuf>,
    /// Appended to the kernel command line.
    pub kernel_args: Option<String>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// To how many MiB of memory the VM may grow.
    pub max_memory_mib: Option<u64>,
    /// Whether all memory is taken from the host at once.
    pub preallocate_memory: Option<bool>,
    /// Whether the memory is the host's huge pages of 2 MiB.
    pub huge_pages: Option<bool>,
    /// Number of virtual CPUs.
    pub vcpus: Option<u32>,
    /// To how many virtual CPUs the VM may grow.
    pub max_vcpus: Option<u32>,
    /// Features of the virtual CPUs: `+name` or `-name`, separated by commas.
    pub cpu_features: Option<String>,
    /// What runs the guest's instructions.
    pub accelerator: Option<Accelerator>,
    /// QEMU's machine type.
    pub machine: Option<Machine>,
    /// What is done with the serial console.
    pub console: Option<Console>,
    /// Where random numbers come from.
    pub entropy: Option<Entropy>,
    /// What the VM's disks may read and write together, in bytes a second; 0 for no limit.
    pub disk_bandwidth: Option<u64>,
    /// How many requests they may be sent together a second; 0 for no limit.
    pub disk_iops: Option<u64>,
    /// The QEMU binary; looked up in `PATH` if it has no slash.
    pub qemu: Option<PathBuf>,
    /// Whether VMs resume from templates.
    pub template: Option<TemplateUse>,
    /// The directory of templates.
    pub template_dir: Option<PathBuf>,
    /// How long a VM may take to come up, in seconds.
    pub boot_timeout_seconds: Option<u64>,
    /// QEMU runs as the user of this id plus the pid of its VM's shim.
    pub uid_base: Option<u32>,
}

/// The options of one utility VM, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmOptions {
    /// The guest kernel, an uncompressed ELF image with a PVH entry.
    pub kernel: PathBuf,
    /// The guest's initramfs.
    pub initramfs: PathBuf,
    /// Appended to the kernel command line.
    pub kernel_args: String,
    /// Memory in MiB, at least 64.
    pub memory_mib: u64,
    /// To how many MiB of memory the VM may grow, more than it has; `None` if it may not.
    pub max_memory_mib: Option<u64>,
    /// Whether all memory is taken from the host at once.
    pub preallocate_memory: bool,
    /// Whether the memory is the host's huge pages of 2 MiB.
    pub huge_pages: bool,
    /// Number of virtual CPUs, at least 1.
    pub vcpus: u32,
    /// To how many virtual CPUs the VM may grow, more than it has; `None` if it may not.
    pub max_vcpus: Option<u32>,
    /// Features of the virtual CPUs, as QEMU takes them; may be empty.
    pub cpu_features: String,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// QEMU's machine type.
    pub machine: Machine,
    /// What is done with the serial console.
    pub console: Console,
    /// Where random numbers come from.
    pub entropy: Entropy,
    /// What the VM's disks may read and write together, in bytes a second.
    pub disk_bandwidth: Option<NonZeroU64>,
    /// How many requests they may be sent together a second.
    pub disk_iops: Option<NonZeroU64>,
    /// The QEMU binary; looked up in `PATH` if it has no slash.
    pub qemu: PathBuf,
    /// The directory of templates, if the VM may resume from one.
    pub templates: Option<PathBuf>,
    /// How long the VM may take to come up, in seconds, at least 1.
    pub boot_timeout_seconds: u64,
    /// QEMU runs as the user of this id plus the pid of its VM's shim.
    pub uid_base: u32,
}

impl VmOptions {
    /// The annotations that another system's VMs would be tuned by and that have no effect here.
    ///
    /// # Errors
    /// As [`Self::from_spec`].
    pub fn ignored_annotations(spec: &Spec) -> Result<Vec<&str>> {
        names::ignored(spec)
    }

    /// Translates the configuration and its annotations.
    ///
    /// If neither an annotation nor `vm.hwConfig` gives the memory, the VM has what `defaults` say,
    /// or more if the container's own memory limit needs more.
    ///
    /// # Errors
    /// A value that doesn't parse or is out of range, naming the annotation, field or entry of the
    /// configuration file; two annotations that contradict each other; an annotation that begins
    /// with `io.runhcs.` or `io.microsoft.virtualmachine.` and isn't known, or can't be had; a `vm`
    /// object that asks for what isn't possible.
    pub fn from_spec(
        spec: &Spec,
        hardware: Option<&VmHardware>,
        defaults: &VmDefaults,
    ) -> Result<Self> {
        refuse_unknown_own(spec)?;
        names::ignored(spec)?;
        let defaults = Checked::from_file(defaults)?;
        let object = Checked::from_object(spec, hardware)?;
        let annotated = Checked::from_annotations(spec.annotations().as_ref())?;
        let weaker = defaults.0.memory_mib.unwrap_or(DEFAULT_MEMORY_MIB);
        let given = annotated.0.memory_mib.or(object.0.memory_mib);
        let memory_mib = given.unwrap_or_else(|| weaker.max(needed_memory_mib(spec)));
        let Checked(merged) = annotated.or(object).or(defaults);
        let huge_pages = merged.huge_pages.unwrap_or_default();
        let (machine, vcpus) = (merged.machine.unwrap_or_default(), merged.vcpus.unwrap_or(1));
        Ok(Self {
            kernel: merged.kernel.unwrap_or_else(|| DEFAULT_KERNEL.into()),
            initramfs: merged.initramfs.unwrap_or_else(|| DEFAULT_INITRAMFS.into()),
            kernel_args: merged.kernel_args.unwrap_or_default(),
            memory_mib: if huge_pages {
                memory_mib.next_multiple_of(HUGE_PAGE_MIB)
            } else {
                memory_mib
            },
            max_memory_mib: grows(
                MAX_MEMORY_MIB,
                merged.max_memory_mib.filter(|most| *most > memory_mib),
                machine,
            )?,
            preallocate_memory: merged.preallocate_memory.unwrap_or_default(),
            huge_pages,
            vcpus,
            max_vcpus: grows(MAX_VCPUS, merged.max_vcpus.filter(|most| *most > vcpus), machine)?,
            cpu_features: merged.cpu_features.unwrap_or_default(),
            accelerator: merged.accelerator.unwrap_or_default(),
            machine,
            console: merged.console.unwrap_or_default(),
            entropy: merged.entropy.unwrap_or_default(),
            disk_bandwidth: merged.disk_bandwidth.and_then(NonZeroU64::new),
            disk_iops: merged.disk_iops.and_then(NonZeroU64::new),
            qemu: merged.qemu.unwrap_or_else(|| DEFAULT_QEMU.into()),
            templates: match merged.template.unwrap_or_default() {
                TemplateUse::Auto => {
                    Some(merged.template_dir.unwrap_or_else(|| DEFAULT_TEMPLATES.into()))
                }
                TemplateUse::Never => None,
            },
            boot_timeout_seconds: merged
                .boot_timeout_seconds
                .unwrap_or(DEFAULT_BOOT_TIMEOUT_SECONDS),
            uid_base: merged.uid_base.unwrap_or(DEFAULT_UID_BASE),
        })
    }
}

/// How far a VM may grow, if its machine type lets it.
fn grows<T>(name: &str, most: Option<T>, machine: Machine) -> Result<Option<T>> {
    if most.is_some() && machine == Machine::Microvm {
        let message = "a VM of the machine type microvm can't grow; choose q35";
        return Err(Error::invalid(name, message));
    }
    Ok(most)
}

/// What one source says, every value in its range.
struct Checked(VmDefaults);

impl Checked {
    fn from_file(file: &VmDefaults) -> Result<Self> {
        let entry = |name: &str| format!("{name} in the configuration file's [vm]");
        let VmDefaults { kernel, initramfs, kernel_args, memory_mib, vcpus, .. } = file;
        let limits = [("disk-bandwidth", file.disk_bandwidth), ("disk-iops", file.disk_iops)];
        if let Some(path) = kernel {
            named(&entry("kernel"), value::file(path))?;
        }
        if let Some(path) = initramfs {
            named(&entry("initramfs"), value::file(path))?;
        }
        if let Some(args) = kernel_args {
            named(&entry("kernel-args"), value::kernel_args(args))?;
        }
        if let Some(mib) = memory_mib {
            named(&entry("memory-mib"), value::memory_mib(&mib.to_string()))?;
        }
        if let Some(count) = vcpus {
            named(&entry("vcpus"), value::vcpus(&count.to_string()))?;
        }
        if let Some(mib) = file.max_memory_mib {
            named(&entry("max-memory-mib"), value::memory_mib(&mib.to_string()))?;
        }
        if let Some(count) = file.max_vcpus {
            named(&entry("max-vcpus"), value::vcpus(&count.to_string()))?;
        }
        if let Some(features) = &file.cpu_features {
            named(&entry("cpu-features"), value::cpu_features(features))?;
        }
        for (name, limit) in limits {
            if let Some(limit) = limit {
                named(&entry(name), value::disk_limit(&limit.to_string()))?;
            }
        }
        if let Some(program) = &file.qemu {
            named(&entry("qemu"), value::program(program))?;
        }
        if let Some(directory) = &file.template_dir {
            named(&entry("template-dir"), value::file(directory))?;
        }
        if let Some(seconds) = file.boot_timeout_seconds {
            let field = entry("boot-timeout-seconds");
            named(&field, value::boot_timeout(&seconds.to_string()))?;
        }
        if let Some(base) = file.uid_base {
            named(&entry("uid-base"), value::uid_base(base))?;
        }
        Ok(Self(file.clone()))
    }

    fn from_object(spec: &Spec, hardware: Option<&VmHardware>) -> Result<Self> {
        let mut found = hardware.map_or_else(|| Ok(VmDefaults::default()), Self::of_hardware)?;
        let Some(vm) = spec.vm() else { return Ok(Self(found)) };
        found.kernel = Some(named("vm.kernel.path", value::file(vm.kernel().path()))?);
        if let Some(initrd) = vm.kernel().initrd() {
            found.initramfs = Some(named("vm.kernel.initrd", value::file(Path::new(initrd)))?);
        }
        if let Some(parameters) = vm.kernel().parameters() {
            let args = value::kernel_args(&parameters.join(" "));
            found.kernel_args = Some(named("vm.kernel.parameters", args)?);
        }
        if let Some(hypervisor) = vm.hypervisor() {
            // The specification wants an absolute path here, so no look-up in PATH.
            found.qemu = Some(named("vm.hypervisor.path", value::file(hypervisor.path()))?);
            if hypervisor.parameters().as_ref().is_some_and(|list| !list.is_empty()) {
                let message = "own parameters for the hypervisor are not supported";
                return Err(Error::invalid("vm.hypervisor.parameters", message));
            }
        }
        if vm.image().is_some() {
            let message = "not supported: the guest starts from an initramfs, vm.kernel.initrd";
            return Err(Error::invalid("vm.image", message));
        }
        Ok(Self(found))
    }

    fn of_hardware(hardware: &VmHardware) -> Result<VmDefaults> {
        hardware.refuse_foreign()?;
        let vcpus = hardware.vcpus().map(|count| value::vcpus(&count.to_string()));
        let memory = hardware.memory().map(|bytes| {
            let mib = value::memory_mib(&(bytes >> 20).to_string());
            mib.map_err(|why| format!("{bytes} bytes are too few or too many: {why}"))
        });
        let memory_mib = named("vm.hwConfig.memory", memory.transpose())?;
        Ok(VmDefaults {
            vcpus: named("vm.hwConfig.vcpus", vcpus.transpose())?,
            memory_mib,
            // It is the most that the VM may have.
            max_memory_mib: memory_mib,
            ..VmDefaults::default()
        })
    }

    fn from_annotations(annotations: Option<&HashMap<String, String>>) -> Result<Self> {
        let Some(all) = annotations else { return Ok(Self(VmDefaults::default())) };
        let path = |text: &str| value::file(Path::new(text));
        let boot_file = |name: &'static str| {
            move |text: &str| value::file(Path::new(text)).map(|dir| dir.join(name))
        };
        let (vmlinux, initramfs) = (boot_file("vmlinux"), boot_file("initramfs.img"));
        Ok(Self(VmDefaults {
            kernel: annotated(
                all,
                &[
                    (KERNEL, &path),
                    (MODEL_BOOT_FILES, &vmlinux),
                    (MODEL_BOOT_FILES_SHORT, &vmlinux),
                ],
            )?,
            initramfs: annotated(
                all,
                &[
                    (INITRAMFS, &path),
                    (MODEL_BOOT_FILES, &initramfs),
                    (MODEL_BOOT_FILES_SHORT, &initramfs),
                ],
            )?,
            kernel_args: annotated(
                all,
                &[(KERNEL_ARGS, &value::kernel_args), (MODEL_KERNEL_ARGS, &value::kernel_args)],
            )?,
            memory_mib: annotated(
                all,
                &[(MEMORY_MIB, &value::memory_mib), (MODEL_MEMORY, &value::memory_mib)],
            )?,
            max_memory_mib: annotated(all, &[(names::MAX_MEMORY_MIB, &value::memory_mib)])?,
            max_vcpus: annotated(all, &[(MAX_VCPUS, &value::vcpus)])?,
            preallocate_memory: annotated(
                all,
                &[
                    (PREALLOCATE_MEMORY, &value::boolean),
                    (MODEL_PHYSICAL, &value::boolean),
                    (MODEL_OVERCOMMIT, &|text| value::boolean(text).map(|overcommit| !overcommit)),
                ],
            )?,
            huge_pages: annotated(all, &[(HUGE_PAGES, &value::boolean)])?,
            vcpus: annotated(all, &[(VCPUS, &value::vcpus), (MODEL_VCPUS, &value::vcpus)])?,
            cpu_features: annotated(all, &[(CPU_FEATURES, &value::cpu_features)])?,
            accelerator: annotated(all, &[(ACCELERATOR, &value::accelerator)])?,
            machine: annotated(all, &[(MACHINE, &value::machine)])?,
            console: annotated(all, &[(CONSOLE, &value::console)])?,
            entropy: annotated(all, &[(ENTROPY, &value::entropy)])?,
            disk_bandwidth: annotated(
                all,
                &[(DISK_BANDWIDTH, &value::disk_limit), (MODEL_BANDWIDTH, &value::disk_limit)],
            )?,
            disk_iops: annotated(
                all,
                &[(DISK_IOPS, &value::disk_limit), (MODEL_IOPS, &value::disk_limit)],
            )?,
            qemu: None,
            template: annotated(all, &[(TEMPLATE, &value::template)])?,
            template_dir: None,
            boot_timeout_seconds: annotated(all, &[(BOOT_TIMEOUT, &value::boot_timeout)])?,
            // Nor are the host's users.
            uid_base: None,
        }))
    }

    /// What this source says, and where it says nothing, what the weaker one says.
    fn or(self, weaker: Self) -> Self {
        let (strong, weak) = (self.0, weaker.0);
        Self(VmDefaults {
            kernel: strong.kernel.or(weak.kernel),
            initramfs: strong.initramfs.or(weak.initramfs),
            kernel_args: strong.kernel_args.or(weak.kernel_args),
            memory_mib: strong.memory_mib.or(weak.memory_mib),
            max_memory_mib: strong.max_memory_mib.or(weak.max_memory_mib),
            max_vcpus: strong.max_vcpus.or(weak.max_vcpus),
            preallocate_memory: strong.preallocate_memory.or(weak.preallocate_memory),
            huge_pages: strong.huge_pages.or(weak.huge_pages),
            vcpus: strong.vcpus.or(weak.vcpus),
            cpu_features: strong.cpu_features.or(weak.cpu_features),
            accelerator: strong.accelerator.or(weak.accelerator),
            machine: strong.machine.or(weak.machine),
            console: strong.console.or(weak.console),
            entropy: strong.entropy.or(weak.entropy),
            disk_bandwidth: strong.disk_bandwidth.or(weak.disk_bandwidth),
            disk_iops: strong.disk_iops.or(weak.disk_iops),
            qemu: strong.qemu.or(weak.qemu),
            template: strong.template.or(weak.template),
            template_dir: strong.template_dir.or(weak.template_dir),
            boot_timeout_seconds: strong.boot_timeout_seconds.or(weak.boot_timeout_seconds),
            uid_base: strong.uid_base.or(weak.uid_base),
        })
    }
}

/// An annotation's name and how its value is read.
type Name<'a, T> = (&'static str, &'a dyn Fn(&str) -> value::Result<T>);

/// The value of an option that may be annotated under several names.
fn annotated<T: PartialEq>(
    annotations: &HashMap<String, String>,
    names: &[Name<'_, T>],
) -> Result<Option<T>> {
    let mut found: Option<(&str, T)> = None;
    for (name, parse) in names {
        let Some(text) = annotations.get(*name) else { continue };
        let value = named(name, parse(text))?;
        match &found {
            Some((other, before)) if *before != value => {
                let message = format!("{text:?} contradicts the annotation {other}");
                return Err(Error::invalid(*name, message));
            }
            Some(_) => {}
            None => found = Some((name, value)),
        }
    }
    Ok(found.map(|(_, value)| value))
}

/// Says whose value it is that can't be used.
fn named<T>(field: &str, value: value::Result<T>) -> Result<T> {
    value.map_err(|message| Error::invalid(field, message))
}

/// What the container's memory limit asks of its VM, in MiB; 0 without a limit. A limit beyond any
/// VM's memory is as good as none.
fn needed_memory_mib(spec: &Spec) -> u64 {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let memory = resources.and_then(|resources| resources.memory().as_ref());
    let limit = memory.and_then(|memory| memory.limit()).and_then(|limit| limit.try_into().ok());
    let needed = limit.map_or(0, |bytes: u64| bytes.div_ceil(1 << 20) + GUEST_OVERHEAD_MIB);
    if needed > value::MAX_MEMORY_MIB { 0 } else { needed }
}

#[cfg(test)]
mod tests;
