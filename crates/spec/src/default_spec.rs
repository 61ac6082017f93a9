//! The configuration a new bundle starts from: a shell in namespaces of its own, few
//! capabilities, a read-only root file system. The same as `runc spec` makes, but for the host
//! name and the version.

use std::path::Path;

use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType, Mount, Spec,
};

use crate::{tree, typed};

/// The version of the specification that runhcs implements.
pub const OCI_VERSION: &str = "1.3.0";

const DEFAULT: &str = include_str!("default_spec.json");

/// The configuration `runhcs spec` prints.
pub fn default_spec() -> Spec {
    tree::read(DEFAULT.as_bytes())
        .ok()
        .and_then(|tree| typed::read(&tree).ok())
        .expect("the built-in configuration is valid; a test reads it")
}

/// The configuration `runhcs spec --rootless` prints: a user namespace in which this user and
/// group are root; what an ordinary user may not have is left out.
pub fn rootless_spec(uid: u32, gid: u32) -> Spec {
    let mut spec = default_spec();
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if mount.destination() == Path::new("/dev/pts") {
            // Group 5 isn't mapped.
            mount.options_mut().iter_mut().for_each(|options| options.retain(|o| o != "gid=5"));
        }
        if mount.destination() == Path::new("/sys") {
            *mount = host_sys();
        }
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_resources(None);
        linux.set_uid_mappings(Some(vec![root_is(uid)]));
        linux.set_gid_mappings(Some(vec![root_is(gid)]));
        let namespaces = linux.namespaces_mut().get_or_insert_default();
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
        namespaces.push(namespace(LinuxNamespaceType::User));
    }
    spec
}

/// Adds a cgroup namespace: on hosts with cgroup version 2, which lets a container see its own
/// part of the hierarchy only that way, `runc spec` has one too.
pub fn add_cgroup_namespace(spec: &mut Spec) {
    if let Some(linux) = spec.linux_mut() {
        let namespaces = linux.namespaces_mut().get_or_insert_default();
        if namespaces.iter().all(|each| each.typ() != LinuxNamespaceType::Cgroup) {
            namespaces.push(namespace(LinuxNamespaceType::Cgroup));
        }
    }
}

/// Without a network namespace of its own a user namespace can't mount a new sysfs.
fn host_sys() -> Mount {
    let mut mount = Mount::default();
    let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
    mount.set_destination("/sys".into());
    mount.set_typ(Some("none".to_owned()));
    mount.set_source(Some("/sys".into()));
    mount.set_options(Some(options.map(str::to_owned).to_vec()));
    mount
}

fn root_is(host_id: u32) -> LinuxIdMapping {
    let mapping = LinuxIdMappingBuilder::default().container_id(0u32).host_id(host_id).size(1u32);
    mapping.build().expect("every field is set")
}

fn namespace(typ: LinuxNamespaceType) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(typ);
    namespace
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::Value;

    use super::*;
    use crate::validate::validate;

    /// As a value in which the order of capabilities, which are a set, doesn't matter.
    fn comparable(mut value: Value) -> Value {
        let sets = value.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
        for (_, set) in sets.into_iter().flatten() {
            if let Some(names) = set.as_array_mut() {
                names.sort_by_key(Value::to_string);
            }
        }
        value
    }

    #[test]
    fn they_are_valid_and_nothing_is_lost() {
        let mut with_cgroup = default_spec();
        add_cgroup_namespace(&mut with_cgroup);
        add_cgroup_namespace(&mut with_cgroup);
        assert_eq!(with_cgroup.linux().as_ref().unwrap().namespaces().as_ref().unwrap().len(), 6);
        for spec in [default_spec(), rootless_spec(1000, 1001), with_cgroup] {
            assert_eq!(spec.version(), OCI_VERSION);
            validate(&spec).unwrap();
        }
        let written: Value = serde_json::from_str(DEFAULT).unwrap();
        let read = serde_json::to_value(default_spec()).unwrap();
        assert_eq!(comparable(read), comparable(written));
    }

    #[test]
    fn runc_makes_the_same() {
        let owner = std::fs::metadata("/proc/self").unwrap();
        let (uid, gid) = {
            use std::os::unix::fs::MetadataExt;
            (owner.uid(), owner.gid())
        };
        for (arguments, ours) in
            [(vec!["spec"], default_spec()), (vec!["spec", "--rootless"], rootless_spec(uid, gid))]
        {
            let bundle = tempfile::tempdir().unwrap();
            let output = match Command::new("runc").args(&arguments).current_dir(&bundle).output() {
                Ok(output) => output,
                Err(error) => return eprintln!("skipped: no runc to compare with: {error}"),
            };
            assert!(output.status.success(), "{output:?}");
            let text = std::fs::read(bundle.path().join("config.json")).unwrap();
            let mut theirs: Value = serde_json::from_slice(&text).unwrap();
            theirs["hostname"] = "runhcs".into();
            theirs["ociVersion"] = OCI_VERSION.into();
            let mut ours = ours;
            let cgroup = |each: &Value| each["type"] == "cgroup";
            if theirs["linux"]["namespaces"].as_array().unwrap().iter().any(cgroup) {
                add_cgroup_namespace(&mut ours);
            }
            let ours = serde_json::to_value(ours).unwrap();
            assert_eq!(comparable(ours), comparable(theirs), "{arguments:?}");
        }
    }
}
