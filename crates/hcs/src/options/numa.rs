//! Nodes of non-uniform memory of a virtual machine.

use super::names::*;
use super::{Annotations, HostFacts};
use crate::schema::{
    MemoryBackingType, Numa, NumaProcessors, NumaRange, NumaSetting, VirtualSlitType,
};
use crate::{Invalid, Result};

/// From this build (Windows Server 2025) on, a machine can have memory nodes.
const NUMA_BUILD: u32 = 26100;
/// The schema's type of the number of nodes.
const MAX_NODES: usize = u8::MAX as usize;

/// How a machine's processors and memory are spread over nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum NumaOptions {
    /// One node, or whatever the service does by itself.
    #[default]
    Default,
    /// As many as these bounds need.
    Bounded {
        /// Processors of a node.
        max_processors: u32,
        /// Memory of a node, in MiB.
        max_size_mb: u64,
        /// Nodes of the host to prefer.
        preferred: Vec<u32>,
    },
    /// These.
    Nodes {
        /// Each lies on a node of the host.
        nodes: Vec<NumaSetting>,
        /// Nodes of the host to prefer.
        preferred: Vec<u32>,
    },
}

impl NumaOptions {
    pub(super) fn read(annotations: Annotations<'_>, host: HostFacts) -> Result<Self> {
        let any = 0..=u32::MAX;
        let preferred = annotations.numbers(NUMA_PREFERRED, any.clone())?;
        let max_processors = annotations.number(NUMA_MAX_PROCESSORS, 1..=u32::MAX)?;
        let max_size_mb = annotations.number(NUMA_MAX_SIZE, 1..=u64::MAX)?;
        let mapped = annotations.numbers(NUMA_MAPPED, any.clone())?;
        let processors = annotations.numbers(NUMA_PROCESSORS, any)?;
        let blocks = annotations.numbers(NUMA_MEMORY_BLOCKS, 0..=u64::MAX)?;
        let is_explicit = !(mapped.is_empty() && processors.is_empty() && blocks.is_empty());
        let options = match (max_processors, max_size_mb) {
            (Some(_), _) | (_, Some(_)) if is_explicit => {
                let message =
                    format!("excludes bounds of nodes, {NUMA_MAX_PROCESSORS} and {NUMA_MAX_SIZE}");
                return Err(Invalid::new(NUMA_MAPPED, message));
            }
            (Some(max_processors), Some(max_size_mb)) => {
                Self::Bounded { max_processors, max_size_mb, preferred }
            }
            (Some(_), None) => return Err(missing(NUMA_MAX_SIZE, NUMA_MAX_PROCESSORS)),
            (None, Some(_)) => return Err(missing(NUMA_MAX_PROCESSORS, NUMA_MAX_SIZE)),
            (None, None) if is_explicit => {
                Self::Nodes { nodes: nodes(&mapped, &processors, &blocks)?, preferred }
            }
            (None, None) if preferred.is_empty() => return Ok(Self::Default),
            (None, None) => return Err(missing(NUMA_MAPPED, NUMA_PREFERRED)),
        };
        if host.build < NUMA_BUILD {
            let name = if is_explicit { NUMA_MAPPED } else { NUMA_MAX_PROCESSORS };
            let message = format!("needs build {NUMA_BUILD} or later; this is {}", host.build);
            return Err(Invalid::new(name, message));
        }
        Ok(options)
    }

    /// Whether the nodes have what the machine has. Only physical memory can lie on a node.
    pub(super) fn check(&self, memory_mb: u64, processors: u32, overcommit: bool) -> Result<()> {
        if *self == Self::Default {
            return Ok(());
        }
        if overcommit {
            let message = "must be `false` for memory nodes: they need physical memory";
            return Err(Invalid::new(ALLOW_OVERCOMMIT, message));
        }
        let Self::Nodes { nodes, .. } = self else { return Ok(()) };
        let count: u64 = nodes.iter().map(|node| u64::from(node.count_of_processors)).sum();
        if count != u64::from(processors) {
            let message = format!("{count} in all, but the machine has {processors} processors");
            return Err(Invalid::new(NUMA_PROCESSORS, message));
        }
        let sizes = nodes.iter().map(|node| node.count_of_memory_blocks);
        let size = sizes.fold(0u64, u64::saturating_add);
        if size != memory_mb {
            let message = format!("{size} MiB in all, but the machine has {memory_mb} MiB");
            return Err(Invalid::new(NUMA_MEMORY_BLOCKS, message));
        }
        Ok(())
    }

    /// The schema's documents: the nodes, the spread of processors, the table of distances.
    pub fn documents(&self) -> (Option<Numa>, Option<NumaProcessors>, Option<VirtualSlitType>) {
        let slit = Some(VirtualSlitType::FirmwareFallbackMeasured);
        match self {
            Self::Default => (None, None, None),
            Self::Bounded { max_processors, max_size_mb, preferred } => {
                let numa = Numa {
                    preferred_physical_nodes: preferred.clone(),
                    max_size_per_node: *max_size_mb,
                    ..Numa::default()
                };
                let count_per_node = NumaRange { max: *max_processors };
                (Some(numa), Some(NumaProcessors { count_per_node }), slit)
            }
            Self::Nodes { nodes, preferred } => {
                let numa = Numa {
                    virtual_node_count: nodes.len() as u8,
                    preferred_physical_nodes: preferred.clone(),
                    settings: nodes.clone(),
                    max_size_per_node: 0,
                };
                (Some(numa), None, slit)
            }
        }
    }
}

fn missing(name: &str, other: &str) -> Invalid {
    Invalid::new(name, format!("missing, but {other} is given"))
}

fn nodes(mapped: &[u32], processors: &[u32], blocks: &[u64]) -> Result<Vec<NumaSetting>> {
    if mapped.len() != processors.len() || mapped.len() != blocks.len() {
        let message = format!(
            "{} nodes, but {NUMA_PROCESSORS} has {} and {NUMA_MEMORY_BLOCKS} has {}",
            mapped.len(),
            processors.len(),
            blocks.len()
        );
        return Err(Invalid::new(NUMA_MAPPED, message));
    }
    if mapped.len() > MAX_NODES {
        let message = format!("{} nodes; at most {MAX_NODES} are possible", mapped.len());
        return Err(Invalid::new(NUMA_MAPPED, message));
    }
    let nodes = (0u32..).zip(mapped).zip(processors).zip(blocks);
    Ok(nodes
        .map(|(((number, physical), processors), blocks)| NumaSetting {
            virtual_node_number: number,
            physical_node_number: *physical,
            virtual_socket_number: number,
            count_of_processors: *processors,
            count_of_memory_blocks: *blocks,
            memory_backing_type: MemoryBackingType::Physical,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;
    use serde_json::json;

    use super::*;

    fn read(annotations: serde_json::Value, build: u32) -> Result<NumaOptions> {
        let json = json!({"ociVersion": "1.0.0", "annotations": annotations});
        let spec: Spec = serde_json::from_value(json).unwrap();
        NumaOptions::read(Annotations::of(&spec), HostFacts { processors: 8, build })
    }

    #[test]
    fn nodes_must_add_up_to_the_machine() {
        let annotations =
            json!({NUMA_MAPPED: "0,1", NUMA_PROCESSORS: "1,3", NUMA_MEMORY_BLOCKS: "512,1536"});
        let numa = read(annotations.clone(), 26100).unwrap();
        assert_eq!(numa.check(2048, 4, false), Ok(()));
        for (memory, processors, overcommit, field) in [
            (2048, 2, false, NUMA_PROCESSORS),
            (1024, 4, false, NUMA_MEMORY_BLOCKS),
            (2048, 4, true, ALLOW_OVERCOMMIT),
        ] {
            assert_eq!(numa.check(memory, processors, overcommit).unwrap_err().field, field);
        }
        assert_eq!(read(annotations, 20348).unwrap_err().field, NUMA_MAPPED);
    }

    #[test]
    fn half_a_wish_is_refused() {
        for (annotations, field) in [
            (json!({NUMA_MAX_SIZE: "10"}), NUMA_MAX_PROCESSORS),
            (json!({NUMA_MAX_PROCESSORS: "1"}), NUMA_MAX_SIZE),
            (json!({NUMA_PREFERRED: "0"}), NUMA_MAPPED),
            (json!({NUMA_MAPPED: "0,1", NUMA_PROCESSORS: "1"}), NUMA_MAPPED),
            (json!({NUMA_MAPPED: "0", NUMA_MAX_SIZE: "1"}), NUMA_MAPPED),
        ] {
            assert_eq!(read(annotations, 26100).unwrap_err().field, field);
        }
        assert_eq!(read(json!({}), 0), Ok(NumaOptions::Default));
    }
}
