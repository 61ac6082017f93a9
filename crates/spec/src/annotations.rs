//! What annotations say about a container's place in a pod, and which annotations are runhcs's
//! own.

use std::collections::HashMap;

use oci_spec::runtime::Spec;
use runhcs_compute::ContainerId;

use crate::isolation::ISOLATION;
use crate::scratch::SCRATCH;
use crate::vm_options::names::OWN as OWN_NAMES;
use crate::{Error, Result};

/// What the names of runhcs's own annotations begin with.
const OWN_PREFIX: &str = "io.runhcs.";

/// A container's place in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxRole {
    /// It belongs to no pod.
    Plain,
    /// It stands for a pod and names this sandbox id (which must be its own).
    Sandbox(ContainerId),
    /// It belongs to the pod of this sandbox.
    Member(ContainerId),
}

/// How one CRI runtime writes it down.
struct Dialect {
    type_key: &'static str,
    id_key: &'static str,
    sandbox: &'static str,
    member: &'static str,
}

/// containerd's CRI plugin, CRI-O and dockershim.
const DIALECTS: [Dialect; 3] = [
    Dialect {
        type_key: "io.kubernetes.cri.container-type",
        id_key: "io.kubernetes.cri.sandbox-id",
        sandbox: "sandbox",
        member: "container",
    },
    Dialect {
        type_key: "io.kubernetes.cri-o.ContainerType",
        id_key: "io.kubernetes.cri-o.SandboxID",
        sandbox: "sandbox",
        member: "container",
    },
    Dialect {
        type_key: "io.kubernetes.docker.type",
        id_key: "io.kubernetes.sandbox.id",
        sandbox: "podsandbox",
        member: "container",
    },
];

/// Reads the annotations of containerd's CRI plugin, CRI-O and dockershim. A sandbox id without a
/// container type says nothing: some callers leave it on containers that are in no pod.
///
/// # Errors
/// An unknown container type, a type without a sandbox id, an id that isn't one, two of the
/// runtimes' annotations that contradict each other.
pub fn sandbox_role(annotations: &HashMap<String, String>) -> Result<SandboxRole> {
    let mut found: Option<(&str, SandboxRole)> = None;
    for dialect in &DIALECTS {
        let Some(role) = dialect.role(annotations)? else { continue };
        match &found {
            Some((other, before)) if *before != role => {
                let message = format!("contradicts the annotation {other}");
                return Err(Error::invalid(dialect.type_key, message));
            }
            Some(_) => {}
            None => found = Some((dialect.type_key, role)),
        }
    }
    Ok(found.map_or(SandboxRole::Plain, |(_, role)| role))
}

impl Dialect {
    fn role(&self, annotations: &HashMap<String, String>) -> Result<Option<SandboxRole>> {
        let Some(kind) = annotations.get(self.type_key) else { return Ok(None) };
        let role = match kind {
            kind if kind == self.sandbox => SandboxRole::Sandbox,
            kind if kind == self.member => SandboxRole::Member,
            other => {
                let (sandbox, member) = (self.sandbox, self.member);
                let message = format!("{other:?} is neither {sandbox:?} nor {member:?}");
                return Err(Error::invalid(self.type_key, message));
            }
        };
        let id = annotations.get(self.id_key).ok_or_else(|| {
            let message = format!("missing, but {} is {kind:?}", self.type_key);
            Error::invalid(self.id_key, message)
        })?;
        let id = id.parse().map_err(|e: runhcs_compute::InvalidId| {
            Error::invalid(self.id_key, format!("not a sandbox id: {e}"))
        })?;
        Ok(Some(role(id)))
    }
}

/// Refuses annotations that begin like runhcs's own but aren't: a slip in such a name must not
/// quietly give weaker isolation.
pub(crate) fn refuse_unknown_own(spec: &Spec) -> Result<()> {
    let own = spec.annotations().iter().flatten().map(|(key, _)| key.as_str());
    // The smallest, so that the same document always gives the same error.
    let unknown = own
        .filter(|key| key.starts_with(OWN_PREFIX))
        .filter(|key| ![ISOLATION, SCRATCH].contains(key) && !OWN_NAMES.contains(key))
        .min();
    match unknown {
        Some(key) => {
            let known = OWN_NAMES.map(|name| name.trim_start_matches(OWN_PREFIX)).join(", ");
            let message = format!(
                "no such annotation; those that begin with {OWN_PREFIX} go on with isolation, scratch, {known}"
            );
            Err(Error::invalid(key, message))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn role(pairs: &[(&str, &str)]) -> std::result::Result<SandboxRole, String> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        sandbox_role(&pairs.collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn every_runtime_is_understood() {
        for dialect in &DIALECTS {
            let id: ContainerId = "pod".parse().unwrap();
            let found = role(&[(dialect.type_key, dialect.sandbox), (dialect.id_key, "pod")]);
            assert_eq!(found, Ok(SandboxRole::Sandbox(id.clone())), "{}", dialect.type_key);
            let found = role(&[(dialect.type_key, dialect.member), (dialect.id_key, "pod")]);
            assert_eq!(found, Ok(SandboxRole::Member(id)), "{}", dialect.type_key);
        }
    }

    #[test]
    fn no_annotation_no_pod() {
        assert_eq!(role(&[]), Ok(SandboxRole::Plain));
        assert_eq!(role(&[("io.kubernetes.cri.sandbox-id", "pod")]), Ok(SandboxRole::Plain));
        assert_eq!(role(&[("unrelated", "sandbox")]), Ok(SandboxRole::Plain));
    }

    #[test]
    fn nonsense_is_named() {
        for dialect in &DIALECTS {
            let (kind, id) = (dialect.type_key, dialect.id_key);
            for (annotations, expected) in [
                (vec![(kind, "pod"), (id, "x")], format!("{kind}: \"pod\" is neither")),
                (vec![(kind, "container")], format!("{id}: missing, but {kind} is \"container\"")),
                (vec![(kind, dialect.sandbox), (id, "")], format!("{id}: not a sandbox id: ")),
                (vec![(kind, "container"), (id, "../x")], format!("{id}: not a sandbox id: ")),
            ] {
                let error = role(&annotations).unwrap_err();
                assert!(error.starts_with(&expected), "{annotations:?}: {error}");
            }
        }
    }

    #[test]
    fn two_runtimes_must_agree() {
        let both = |kind: &str, id: &str| {
            role(&[
                ("io.kubernetes.cri.container-type", "sandbox"),
                ("io.kubernetes.cri.sandbox-id", "pod"),
                ("io.kubernetes.docker.type", kind),
                ("io.kubernetes.sandbox.id", id),
            ])
        };
        assert!(both("podsandbox", "pod").is_ok());
        for error in [both("container", "pod").unwrap_err(), both("podsandbox", "p").unwrap_err()] {
            let expected =
                "io.kubernetes.docker.type: contradicts the annotation io.kubernetes.cri";
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn slips_in_own_names_are_found() {
        let check = |key: &str| {
            let json = serde_json::json!({"ociVersion": "1.0.0", "annotations": {key: "x"}});
            refuse_unknown_own(&serde_json::from_value(json).unwrap()).map_err(|e| e.to_string())
        };
        for known in
            OWN_NAMES.iter().copied().chain([ISOLATION, SCRATCH, "io.runhcsx", "org.example.a"])
        {
            assert_eq!(check(known), Ok(()));
        }
        for unknown in ["io.runhcs.isolatoin", "io.runhcs.vm.memory", "io.runhcs.", "io.runhcs.vm"]
        {
            let error = check(unknown).unwrap_err();
            assert!(error.starts_with(&format!("{unknown}: no such annotation")), "{error}");
            assert!(error.contains("vm.memory-mib"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_values_the_role_is_what_they_say(
            dialect in 0..DIALECTS.len(), kind in "sandbox|container|podsandbox|[a-z]{0,3}", id in ".{0,12}",
        ) {
            let dialect = &DIALECTS[dialect];
            match role(&[(dialect.type_key, &kind), (dialect.id_key, &id)]) {
                Ok(SandboxRole::Sandbox(found)) => {
                    prop_assert_eq!(kind, dialect.sandbox);
                    prop_assert_eq!(found.as_str(), id);
                }
                Ok(SandboxRole::Member(found)) => {
                    prop_assert_eq!(kind, dialect.member);
                    prop_assert_eq!(found.as_str(), id);
                }
                Ok(SandboxRole::Plain) => prop_assert!(false, "{kind:?} was ignored"),
                Err(_) => {
                    let known = kind == dialect.sandbox || kind == dialect.member;
                    prop_assert!(!known || id.parse::<ContainerId>().is_err());
                }
            }
        }
    }
}
