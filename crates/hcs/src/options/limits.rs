//! Bounds of processors, memory and storage: the annotation's, or else the configuration's in
//! `windows.resources`. A container and a virtual machine have the same ones under other names.

use oci_spec::runtime::Spec;
use serde::Deserialize;

use super::Annotations;
use super::names::*;
use crate::schema::{Memory, Processor, StorageQoS};
use crate::{Invalid, Result};

/// The most memory that is believed, in MiB: 16 TiB; more is a slip of units.
const MAX_MEMORY_MB: u64 = 16 << 20;

/// Bounds. 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Number of processors.
    pub processor_count: u32,
    /// Use of processors in 1/10,000.
    pub processor_limit: u32,
    /// Weight against others, to 10,000.
    pub processor_weight: u32,
    /// Bytes per second of reading and writing.
    pub bandwidth: u64,
    /// Operations per second.
    pub iops: u64,
}

struct Names {
    memory: &'static str,
    count: &'static str,
    limit: &'static str,
    weight: &'static str,
    bandwidth: &'static str,
    iops: &'static str,
}

impl Limits {
    /// A container's.
    ///
    /// # Errors
    /// A value out of its range; more than one of the processor's, which exclude each other.
    pub fn of_container(spec: &Spec) -> Result<Self> {
        let limits = Self::read(
            spec,
            &Names {
                memory: CONTAINER_MEMORY,
                count: CONTAINER_PROCESSOR_COUNT,
                limit: CONTAINER_PROCESSOR_LIMIT,
                weight: CONTAINER_PROCESSOR_WEIGHT,
                bandwidth: CONTAINER_BANDWIDTH,
                iops: CONTAINER_IOPS,
            },
        )?;
        let processor = [limits.processor_count, limits.processor_limit, limits.processor_weight];
        if processor.iter().filter(|value| **value > 0).count() > 1 {
            let message = "count, limit (maximum) and weight (shares) exclude each other: \
                           give one of them, here or as an annotation io.microsoft.container.processor.*";
            return Err(Invalid::new("windows.resources.cpu", message));
        }
        Ok(limits)
    }

    /// A virtual machine's, made for the container that the configuration describes.
    ///
    /// # Errors
    /// A value out of its range.
    pub fn of_vm(spec: &Spec) -> Result<Self> {
        Self::read(
            spec,
            &Names {
                memory: MEMORY_SIZE,
                count: PROCESSOR_COUNT,
                limit: PROCESSOR_LIMIT,
                weight: PROCESSOR_WEIGHT,
                bandwidth: STORAGE_BANDWIDTH,
                iops: STORAGE_IOPS,
            },
        )
    }

    fn read(spec: &Spec, names: &Names) -> Result<Self> {
        let annotations = Annotations::of(spec);
        let fields = Fields::of(spec)?;
        let share = |name: &str| annotations.number(name, 0..=10_000u32);
        let memory = annotations.number(names.memory, 0..=MAX_MEMORY_MB)?;
        let count = annotations.number(names.count, 0..=u32::from(u16::MAX))?;
        let bytes = annotations.number(names.bandwidth, 0..=u64::MAX)?;
        let operations = annotations.number(names.iops, 0..=u64::MAX)?;
        // As in the model, an annotation of 0 leaves the word to the configuration's field.
        let first = |annotated: Option<u64>, field| annotated.filter(|v| *v > 0).unwrap_or(field);
        let narrow = |annotated: Option<u32>, field| annotated.filter(|v| *v > 0).unwrap_or(field);
        Ok(Self {
            memory_mb: first(memory, fields.0.memory_mb),
            processor_count: narrow(count, fields.0.processor_count),
            processor_limit: narrow(share(names.limit)?, fields.0.processor_limit),
            processor_weight: narrow(share(names.weight)?, fields.0.processor_weight),
            bandwidth: first(bytes, fields.0.bandwidth),
            iops: first(operations, fields.0.iops),
        })
    }

    /// The schema's document of the processors' bounds, given how many there are; `None` without
    /// bounds. More processors than there are become all of them, as in Docker.
    pub fn processor(&self, available: u32) -> Option<Processor> {
        let processor = Processor {
            count: self.processor_count.min(available),
            maximum: self.processor_limit,
            weight: self.processor_weight,
        };
        (processor != Processor::default()).then_some(processor)
    }

    /// The schema's document of the memory's bound.
    pub fn memory(&self) -> Option<Memory> {
        (self.memory_mb > 0).then_some(Memory { size_in_mb: self.memory_mb })
    }

    /// The schema's document of the storage's bounds.
    pub fn storage(&self) -> Option<StorageQoS> {
        let qos = StorageQoS { iops_maximum: self.iops, bandwidth_maximum: self.bandwidth };
        (qos != StorageQoS::default()).then_some(qos)
    }
}

/// What `windows.resources` says.
struct Fields(Limits);

/// `windows.resources`. The type of the `oci-spec` crate holds the same, but has no getters.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources {
    memory: MemoryResources,
    cpu: CpuResources,
    storage: StorageResources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MemoryResources {
    limit: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CpuResources {
    count: u64,
    shares: u16,
    maximum: u16,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StorageResources {
    iops: u64,
    bps: u64,
}

impl Fields {
    fn of(spec: &Spec) -> Result<Self> {
        let resources = spec.windows().as_ref().and_then(|windows| windows.resources());
        let read = serde_json::to_value(resources)
            .and_then(serde_json::from_value::<Option<Resources>>)
            .map_err(|error| Invalid::new("windows.resources", error.to_string()))?;
        let Resources { memory, cpu, storage } = read.unwrap_or_default();
        let memory_mb = memory.limit >> 20;
        if memory.limit > 0 && memory_mb == 0 {
            let message = format!("{} bytes are less than 1 MiB", memory.limit);
            return Err(Invalid::new("windows.resources.memory.limit", message));
        }
        let processor_count = u32::try_from(cpu.count).map_err(|_| {
            Invalid::new("windows.resources.cpu.count", format!("{} is too large", cpu.count))
        })?;
        Ok(Self(Limits {
            memory_mb,
            processor_count,
            processor_limit: share("maximum", cpu.maximum)?,
            processor_weight: share("shares", cpu.shares)?,
            bandwidth: storage.bps,
            iops: storage.iops,
        }))
    }
}

fn share(name: &str, value: u16) -> Result<u32> {
    match value {
        value @ 0..=10_000 => Ok(value.into()),
        value => {
            let message = format!("{value} is not a number from 0 to 10000");
            Err(Invalid::new(format!("windows.resources.cpu.{name}"), message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(annotations: serde_json::Value, resources: serde_json::Value) -> Spec {
        let json = json!({
            "ociVersion": "1.0.0", "annotations": annotations, "windows": {"resources": resources},
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_annotation_comes_before_the_field() {
        let resources = json!({
            "memory": {"limit": 300 << 20}, "cpu": {"count": 3}, "storage": {"iops": 5, "bps": 6},
        });
        let container = Limits::of_container(&spec(json!({}), resources.clone())).unwrap();
        let expected = Limits {
            memory_mb: 300,
            processor_count: 3,
            iops: 5,
            bandwidth: 6,
            ..Default::default()
        };
        assert_eq!(container, expected);
        let annotations = json!({CONTAINER_MEMORY: "64", MEMORY_SIZE: "2048", CONTAINER_IOPS: "9"});
        let spec = spec(annotations, resources);
        let container = Limits::of_container(&spec).unwrap();
        assert_eq!((container.memory_mb, container.iops, container.processor_count), (64, 9, 3));
        assert_eq!(Limits::of_vm(&spec).unwrap().memory_mb, 2048);
    }

    #[test]
    fn contradictions_and_nonsense_are_refused() {
        let none = json!({});
        for (annotations, resources, field) in [
            (none.clone(), json!({"cpu": {"count": 1, "shares": 5}}), "windows.resources.cpu"),
            (json!({CONTAINER_PROCESSOR_LIMIT: "10001"}), none.clone(), CONTAINER_PROCESSOR_LIMIT),
            (json!({CONTAINER_MEMORY: "lots"}), none.clone(), CONTAINER_MEMORY),
            (none.clone(), json!({"cpu": {"shares": 20000}}), "windows.resources.cpu.shares"),
            (none.clone(), json!({"memory": {"limit": 5}}), "windows.resources.memory.limit"),
        ] {
            let error = Limits::of_container(&spec(annotations, resources)).unwrap_err();
            assert_eq!(error.field, field);
        }
    }

    #[test]
    fn more_processors_than_there_are_become_all() {
        let limits = Limits { processor_count: 64, ..Limits::default() };
        assert_eq!(limits.processor(4).unwrap().count, 4);
        assert_eq!(Limits::default().processor(4), None);
    }
}
