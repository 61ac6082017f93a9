//! What a configuration asks of the virtual machine made for it, and of a container's bounds. Pure:
//! what has to be known of the host and its files is passed in.

mod annotations;
mod lcow;
mod limits;
pub(crate) mod names;
mod numa;
mod wcow;

pub use annotations::Annotations;
pub use lcow::{BootFolder, LcowOptions, RootFs};
pub use limits::Limits;
pub use numa::NumaOptions;
pub use wcow::WcowOptions;

use oci_spec::runtime::Spec;

use crate::{Invalid, Result};
use names::*;

/// Memory of a virtual machine without a wish, in MiB.
const DEFAULT_MEMORY_MB: u64 = 1024;
/// Processors of a virtual machine without a wish, if the host has as many.
const DEFAULT_PROCESSORS: u32 = 2;
/// From this build (Windows 10 21H1) on, a machine can be made in a group of processors.
const CPU_GROUP_BUILD: u32 = 19043;

/// What must be known of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Its logical processors.
    pub processors: u32,
    /// Windows' build number, such as 20348.
    pub build: u32,
}

/// The options of one utility VM that don't depend on its guest. All are in their range.
#[derive(Clone, Debug, PartialEq)]
pub struct VmOptions {
    /// Memory in MiB, an even number.
    pub memory_mb: u64,
    /// Whether the host backs the memory with virtual memory.
    pub allow_overcommit: bool,
    /// Whether memory is committed when it is first used.
    pub deferred_commit: bool,
    /// The gap for devices below 4 GiB, in MiB; the service's default if 0.
    pub low_mmio_gap_mb: u64,
    /// Where the gap above 4 GiB begins, in MiB; the service's default if 0.
    pub high_mmio_base_mb: u64,
    /// The gap above 4 GiB, in MiB; the service's default if 0.
    pub high_mmio_gap_mb: u64,
    /// Whether devices, too, are backed by physical memory only.
    pub fully_physically_backed: bool,
    /// Number of processors, at least 1, at most the host's.
    pub processors: u32,
    /// Bounds of processors and storage.
    pub limits: Limits,
    /// Memory nodes.
    pub numa: NumaOptions,
    /// The group of host processors, a GUID.
    pub cpu_group: Option<String>,
    /// The resource partition, a GUID.
    pub resource_partition: Option<String>,
    /// Whether folders of the host are shared read-only, or not at all.
    pub no_writable_shares: bool,
    /// The host's folder for what a crash of the guest leaves.
    pub dump_directory: Option<String>,
    /// Where processes that crash in the guest leave their dumps.
    pub process_dumps: Option<String>,
    /// The named pipe of the host for the serial console.
    pub console_pipe: Option<String>,
}

impl VmOptions {
    /// Translates the configuration. `console_pipe` is the command line's.
    ///
    /// # Errors
    /// A value out of its range, options that exclude each other, options that the host is too old
    /// for, and options for confidential guests, which are not supported.
    pub fn from_spec(spec: &Spec, host: HostFacts, console_pipe: Option<&str>) -> Result<Self> {
        let annotations = Annotations::of(spec);
        refuse_confidential(annotations)?;
        let limits = Limits::of_vm(spec)?;
        let memory_mb = match limits.memory_mb {
            0 => DEFAULT_MEMORY_MB,
            // The service takes even numbers only.
            wish => wish.next_multiple_of(2),
        };
        let fully_physically_backed = annotations.flag(FULLY_PHYSICALLY_BACKED)?.unwrap_or(false);
        let allow_overcommit =
            annotations.flag(ALLOW_OVERCOMMIT)?.unwrap_or(true) && !fully_physically_backed;
        let deferred_commit = annotations.flag(DEFERRED_COMMIT)?.unwrap_or(false);
        if deferred_commit && !allow_overcommit {
            let message = "deferred commit needs memory that may be overcommitted";
            return Err(Invalid::new(DEFERRED_COMMIT, message));
        }
        let cpu_group = annotations.guid(CPU_GROUP)?;
        if cpu_group.is_some() && host.build < CPU_GROUP_BUILD {
            let message = format!("needs build {CPU_GROUP_BUILD} or later; this is {}", host.build);
            return Err(Invalid::new(CPU_GROUP, message));
        }
        let gap = |name| Ok(annotations.number(name, 0..=u64::from(u32::MAX))?.unwrap_or(0));
        let wish = match limits.processor_count {
            0 => DEFAULT_PROCESSORS,
            count => count,
        };
        let processors = wish.min(host.processors).max(1);
        let numa = NumaOptions::read(annotations, host)?;
        numa.check(memory_mb, processors, allow_overcommit)?;
        Ok(Self {
            memory_mb,
            allow_overcommit,
            deferred_commit,
            low_mmio_gap_mb: gap(LOW_MMIO_GAP)?,
            high_mmio_base_mb: gap(HIGH_MMIO_BASE)?,
            high_mmio_gap_mb: gap(HIGH_MMIO_GAP)?,
            fully_physically_backed,
            processors,
            limits,
            numa,
            cpu_group: cpu_group.map(|id| id.to_string()),
            resource_partition: annotations.guid(RESOURCE_PARTITION)?.map(|id| id.to_string()),
            no_writable_shares: annotations.flag(NO_WRITABLE_SHARES)?.unwrap_or(false),
            dump_directory: annotations.text(DUMP_DIRECTORY).map(str::to_owned),
            process_dumps: annotations.text(PROCESS_DUMPS).map(str::to_owned),
            console_pipe: console_pipe.map(str::to_owned),
        })
    }
}

fn refuse_confidential(annotations: Annotations<'_>) -> Result<()> {
    for name in CONFIDENTIAL {
        // A flag that is off asks for nothing.
        if annotations.text(name).is_some_and(|text| text != "false" && text != "0") {
            let message = "confidential virtual machines are not supported; without this \
                           annotation the machine is an ordinary one";
            return Err(Invalid::new(name, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOST: HostFacts = HostFacts { processors: 8, build: 20348 };

    fn options(annotations: serde_json::Value) -> Result<VmOptions> {
        let json = json!({"ociVersion": "1.0.0", "annotations": annotations});
        VmOptions::from_spec(&serde_json::from_value(json).unwrap(), HOST, None)
    }

    #[test]
    fn defaults() {
        let options = options(json!({})).unwrap();
        assert_eq!((options.memory_mb, options.processors), (1024, 2));
        assert!(options.allow_overcommit && !options.deferred_commit);
    }

    #[test]
    fn wishes_are_fitted_to_the_host() {
        let options = options(
            json!({MEMORY_SIZE: "2047", PROCESSOR_COUNT: "99", FULLY_PHYSICALLY_BACKED: "true"}),
        )
        .unwrap();
        assert_eq!((options.memory_mb, options.processors), (2048, 8));
        assert!(!options.allow_overcommit);
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        for (annotations, field) in [
            (json!({DEFERRED_COMMIT: "true", ALLOW_OVERCOMMIT: "false"}), DEFERRED_COMMIT),
            (json!({CPU_GROUP: "x"}), CPU_GROUP),
            (json!({CONFIDENTIAL[0]: "abc"}), CONFIDENTIAL[0]),
            (json!({MEMORY_SIZE: "1 GB"}), MEMORY_SIZE),
            (json!({NUMA_MAX_SIZE: "10", NUMA_PREFERRED: "0"}), NUMA_MAX_PROCESSORS),
        ] {
            assert_eq!(options(annotations).unwrap_err().field, field);
        }
        assert!(options(json!({CONFIDENTIAL[3]: "false"})).is_ok());
        let old = HostFacts { build: 17763, ..HOST };
        let json = json!({"ociVersion": "1", "annotations":
            {CPU_GROUP: "8f6a2b2c-1f0e-4b6a-9d3b-0123456789ab"}});
        let spec: Spec = serde_json::from_value(json).unwrap();
        assert_eq!(VmOptions::from_spec(&spec, old, None).unwrap_err().field, CPU_GROUP);
        assert!(VmOptions::from_spec(&spec, HOST, None).is_ok());
    }
}
