//! `vm.hwConfig` (config-vm.md, "HWConfig Object"), which the library's type of `vm` doesn't have.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::typed::{self, ContentError};
use crate::{Error, Result};

/// The field's name in the specification, and the one that the specification's own Go types write.
const NAMES: [&str; 2] = ["hwConfig", "hwconfig"];

/// The hardware that a VM is to have.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VmHardware {
    vcpus: Option<u32>,
    /// In bytes.
    memory: Option<u64>,
    device_tree: Option<PathBuf>,
    dtdevs: Option<Vec<IgnoredAny>>,
    iomems: Option<Vec<IgnoredAny>>,
    irqs: Option<Vec<IgnoredAny>>,
}

impl VmHardware {
    /// Takes it out of a configuration's tree.
    ///
    /// # Errors
    /// A wrong type, or both names. The error names the field.
    pub(crate) fn take(
        configuration: &mut Value,
    ) -> std::result::Result<Option<Self>, ContentError> {
        let Some(vm) = configuration.pointer_mut("/vm").and_then(Value::as_object_mut) else {
            return Ok(None);
        };
        let mut found = None;
        for name in NAMES {
            let Some(value) = vm.remove(name) else { continue };
            let at = format!("vm.{name}");
            let read = typed::read::<Option<Self>>(&value).map_err(|error| error.within(&at))?;
            if found.replace(read).is_some() {
                return Err(ContentError {
                    field: at,
                    message: format!("vm.{} is the same", NAMES[0]),
                });
            }
        }
        Ok(found.flatten())
    }

    /// Refuses what no VM here has: hardware of the host, and what only other processors' machines
    /// are described by.
    pub(crate) fn refuse_foreign(&self) -> Result<()> {
        if self.device_tree.as_ref().is_some_and(|path| !path.as_os_str().is_empty()) {
            let message = "not supported: VMs of this processor's kind have no device tree";
            return Err(Error::invalid("vm.hwConfig.deviceTree", message));
        }
        for (name, list) in
            [("dtdevs", &self.dtdevs), ("iomems", &self.iomems), ("irqs", &self.irqs)]
        {
            if list.as_ref().is_some_and(|list| !list.is_empty()) {
                let message = "not supported: hardware of the host isn't passed on to VMs";
                return Err(Error::invalid(format!("vm.hwConfig.{name}"), message));
            }
        }
        Ok(())
    }

    pub(crate) fn vcpus(&self) -> Option<u32> {
        self.vcpus
    }

    /// The most memory that the VM may have, in bytes.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.memory
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_taken_under_either_name_and_nowhere_else() {
        let expected = VmHardware { vcpus: Some(3), memory: Some(7 << 20), ..Default::default() };
        for name in NAMES {
            let fields = json!({ "vcpus": 3, "memory": 7 << 20, "irqs": null, "later": {} });
            let mut tree = json!({ "vm": { "kernel": {}, name: fields }, "hwConfig": [] });
            assert_eq!(VmHardware::take(&mut tree), Ok(Some(expected.clone())));
            assert_eq!(tree, json!({ "vm": { "kernel": {} }, "hwConfig": [] }));
        }
        for mut none in [json!({}), json!([]), json!({"vm": 5}), json!({"vm": {"hwConfig": null}})]
        {
            assert_eq!(VmHardware::take(&mut none), Ok(None));
        }
        let mut both = json!({ "vm": { "hwConfig": {}, "hwconfig": {} } });
        assert_eq!(VmHardware::take(&mut both).unwrap_err().field, "vm.hwconfig");
    }

    #[test]
    fn a_wrong_type_is_named_by_its_field() {
        for (value, field) in [
            (json!([]), "vm.hwConfig"),
            (json!({ "vcpus": -1 }), "vm.hwConfig.vcpus"),
            (json!({ "vcpus": 1u64 << 32 }), "vm.hwConfig.vcpus"),
            (json!({ "memory": "1G" }), "vm.hwConfig.memory"),
            (json!({ "deviceTree": {} }), "vm.hwConfig.deviceTree"),
            (json!({ "dtdevs": "/a" }), "vm.hwConfig.dtdevs"),
            (json!({ "iomems": {} }), "vm.hwConfig.iomems"),
            (json!({ "irqs": 1 }), "vm.hwConfig.irqs"),
        ] {
            let error = VmHardware::take(&mut json!({ "vm": { "hwConfig": value } })).unwrap_err();
            assert_eq!(error.field, field);
        }
    }
}
