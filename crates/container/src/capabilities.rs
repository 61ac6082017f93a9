//! The capability sets of a container's process (capabilities(7)), set with as few system calls as
//! the kernel allows.

use caps::Capability;
use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use runhcs_compute::Result;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

use crate::error::{Context, invalid};

/// The five sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sets {
    bounding: CapabilitySet,
    permitted: CapabilitySet,
    inheritable: CapabilitySet,
    effective: CapabilitySet,
    ambient: CapabilitySet,
}

impl Sets {
    /// Reads `process.capabilities`; without it every set is empty.
    pub(crate) fn new(configured: Option<&LinuxCapabilities>) -> Result<Self> {
        let set = |list: Option<&Option<Capabilities>>| -> Result<CapabilitySet> {
            let listed = list.and_then(Option::as_ref).into_iter().flatten();
            listed.map(capability).try_fold(CapabilitySet::empty(), |set, one| Ok(set | one?))
        };
        let sets = Self {
            bounding: set(configured.map(LinuxCapabilities::bounding))?,
            permitted: set(configured.map(LinuxCapabilities::permitted))?,
            inheritable: set(configured.map(LinuxCapabilities::inheritable))?,
            effective: set(configured.map(LinuxCapabilities::effective))?,
            ambient: set(configured.map(LinuxCapabilities::ambient))?,
        };
        for one in each(sets.ambient - (sets.permitted & sets.inheritable)) {
            // No warning: what `runc spec` has written for years asks for it.
            tracing::debug!(
                "can't raise ambient capability {}: it is not both permitted and inheritable",
                one.bits().trailing_zeros()
            );
        }
        Ok(sets)
    }

    /// Takes from the bounding set what is not to be in it, while the process still has
    /// CAP_SETPCAP.
    pub(crate) fn drop_bounding(&self) -> Result<()> {
        for bit in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            if self.bounding.contains(one) {
                continue;
            }
            match remove_capability_from_bounding_set(one) {
                Ok(()) => {}
                // The kernel has no more than these.
                Err(Errno::INVAL) => break,
                Err(error) => {
                    return Err(error)
                        .context(|| format!("drop capability {bit} from the bounding set"));
                }
            }
        }
        Ok(())
    }

    /// Sets the others. What the caller itself lacks can't be given; every set shrinks to what
    /// there is.
    pub(crate) fn apply(&self) -> Result<()> {
        let held = capabilities(None).context(|| "read capabilities".into())?.permitted;
        let permitted = self.permitted & held;
        let inheritable = self.inheritable & held;
        let effective = self.effective & permitted;
        clear_ambient_capability_set().context(|| "clear the ambient set".into())?;
        set_capabilities(None, CapabilitySets { effective, permitted, inheritable })
            .context(|| "set the capabilities".into())?;
        for one in each(self.ambient & permitted & inheritable) {
            configure_capability_in_ambient_set(one, true)
                .context(|| "set the ambient capabilities".into())?;
        }
        Ok(())
    }
}

/// The capabilities of a set one by one, whether this program knows them or not.
fn each(set: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    let all = (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    all.filter(move |one| set.contains(*one))
}

/// Same names as the kernel's; `caps` and `oci-spec` each have their own type.
fn capability(capability: &oci_spec::runtime::Capability) -> Result<CapabilitySet> {
    let name = serde_json::to_value(capability).ok();
    let name = name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    let unknown = |_| invalid("process.capabilities", format!("{name} is unknown"));
    let known: Capability = name.parse().map_err(unknown)?;
    Ok(CapabilitySet::from_bits_retain(known.bitmask()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_the_kernels_numbers() {
        let json = r#"{"bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]}"#;
        let sets = Sets::new(Some(&serde_json::from_str(json).unwrap())).unwrap();
        assert_eq!(sets.bounding.bits(), 1 | 1 << 21 | 1 << 40);
        assert_eq!(each(sets.bounding).count(), 3);
        assert_eq!(sets.ambient, CapabilitySet::empty());
    }
}
