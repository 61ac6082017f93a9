//! Where a container goes: its sandbox, its isolation and the VM it joins or owns. Pure; every
//! contradiction has its own message.

use anyhow::{Result, bail};
use oci_spec::runtime::Spec;
use runhcs_compute::ContainerId;
use runhcs_spec::{
    Isolation, IsolationHints, SandboxRole, decide_isolation, requested_isolation, sandbox_role,
};
use runhcs_state::{Record, VmPlace};

/// What is known before the decision.
pub struct Question<'a> {
    pub id: &'a ContainerId,
    pub unique_id: &'a str,
    pub spec: &'a Spec,
    /// `--host`.
    pub host: Option<&'a ContainerId>,
    /// `--isolation`.
    pub flag: Option<Isolation>,
    pub program_name: &'a str,
    pub configured: Option<Isolation>,
}

/// The decision.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub sandbox_id: Option<ContainerId>,
    /// `None` for process isolation.
    pub vm: Option<VmPlace>,
}

impl Place {
    /// Decides. `find` looks a container up; `None` if there is no such one.
    pub fn decide(
        question: &Question<'_>,
        find: impl Fn(&ContainerId) -> Result<Option<Record>>,
    ) -> Result<Self> {
        let id = question.id;
        let annotations = question.spec.annotations().clone().unwrap_or_default();
        let sandbox = match sandbox_role(&annotations)? {
            SandboxRole::Plain => None,
            SandboxRole::Sandbox(sandbox) if sandbox != *id => bail!(
                "container {id} is annotated as a sandbox, but its sandbox id is {sandbox}; \
                 a sandbox's id must be its own"
            ),
            SandboxRole::Sandbox(sandbox) => Some((sandbox, None)),
            SandboxRole::Member(sandbox) => {
                let Some(record) = find(&sandbox)? else {
                    bail!("sandbox {sandbox} of container {id} does not exist");
                };
                // Podman annotates a pod's members, but not the one that they name.
                if !record.is_sandbox() && record.sandbox_id.is_some() {
                    bail!("container {sandbox}, which {id} names as its sandbox, is not a sandbox");
                }
                Some((sandbox, Some(record)))
            }
        };
        let joined = sandbox.as_ref().and_then(|(_, record)| record.as_ref());
        let host = match (joined, question.host) {
            (Some(sandbox), Some(host)) => match &sandbox.vm {
                None => bail!(
                    "--host {host} was given, but sandbox {} of container {id} has no VM",
                    sandbox.id
                ),
                Some(vm) if vm.host_id != *host => bail!(
                    "--host {host} was given, but sandbox {} of container {id} is in the VM of {}",
                    sandbox.id,
                    vm.host_id
                ),
                Some(vm) => Some(vm.clone()),
            },
            (Some(sandbox), None) => sandbox.vm.clone(),
            (None, Some(host)) => Some(Self::of_host(id, host, &find)?),
            (None, None) => None,
        };
        let requested = requested_isolation(question.spec, question.flag)?;
        let inherited = match (joined, &host) {
            (_, Some(_)) => Some(Isolation::Vm),
            (Some(sandbox), None) if requested == Some(Isolation::Vm) => bail!(
                "VM isolation was asked for container {id}, but its sandbox {} has no VM",
                sandbox.id
            ),
            (Some(_), None) => Some(Isolation::Process),
            (None, None) => None,
        };
        if let (Some(vm), Some(Isolation::Process)) = (&host, requested) {
            bail!(
                "process isolation was asked for container {id}, but it is to join the VM of {}",
                vm.host_id
            );
        }
        let isolation = decide_isolation(
            question.spec,
            IsolationHints {
                inherited,
                flag: question.flag,
                program_name: question.program_name,
                configured: question.configured,
            },
        )?;
        let vm = match isolation {
            Isolation::Process => None,
            // No host to join: it becomes the host of a VM of its own.
            Isolation::Vm => Some(host.unwrap_or_else(|| VmPlace {
                host_id: id.clone(),
                host_unique_id: question.unique_id.to_owned(),
            })),
        };
        Ok(Self { sandbox_id: sandbox.map(|(id, _)| id), vm })
    }

    fn of_host(
        id: &ContainerId,
        host: &ContainerId,
        find: &impl Fn(&ContainerId) -> Result<Option<Record>>,
    ) -> Result<VmPlace> {
        if host == id {
            bail!("--host {host} names the container that is to be created");
        }
        let Some(record) = find(host)? else {
            bail!("host {host} of container {id} does not exist");
        };
        match record.vm {
            Some(vm) if vm.host_id == *host => Ok(vm),
            _ => bail!("container {host}, given by --host, is not the host of a VM"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ContainerId {
        text.parse().unwrap()
    }

    fn spec(annotations: &[(&str, &str)]) -> Spec {
        let mut spec = Spec::default();
        let map = annotations.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        spec.set_annotations(Some(map));
        spec
    }

    fn member_of(sandbox: &str) -> Spec {
        spec(&[
            ("io.kubernetes.cri.container-type", "container"),
            ("io.kubernetes.cri.sandbox-id", sandbox),
        ])
    }

    fn record(name: &str, sandbox: Option<&str>, host: Option<&str>) -> Record {
        Record {
            version: runhcs_state::RECORD_VERSION,
            id: id(name),
            unique_id: format!("u-{name}"),
            owner: "o".into(),
            oci_version: "1.2.0".into(),
            bundle: "/b".into(),
            rootfs: "/b/r".into(),
            created: "now".into(),
            annotations: Default::default(),
            sandbox_id: sandbox.map(id),
            vm: host.map(|host| VmPlace { host_id: id(host), host_unique_id: format!("u-{host}") }),
            netns: None,
            terminal: false,
        }
    }

    /// `vs`: sandbox with a VM; `ps`: sandbox without; `h`: plain VM host; `m`: member of `vs`.
    fn decide(spec: &Spec, host: Option<&str>, flag: Option<Isolation>) -> Result<Place, String> {
        let known = [
            record("vs", Some("vs"), Some("vs")),
            record("ps", Some("ps"), None),
            record("h", None, Some("h")),
            record("m", Some("vs"), Some("vs")),
            record("plain", None, None),
        ];
        let host = host.map(id);
        let question = Question {
            id: &id("new"),
            unique_id: "u-new",
            spec,
            host: host.as_ref(),
            flag,
            program_name: "runhcs",
            configured: None,
        };
        Place::decide(&question, |id| Ok(known.iter().find(|r| r.id == *id).cloned()))
            .map_err(|error| error.to_string())
    }

    fn vm(host: &str) -> Option<VmPlace> {
        Some(VmPlace { host_id: id(host), host_unique_id: format!("u-{host}") })
    }

    #[test]
    fn a_plain_container_is_a_process_unless_asked_otherwise() {
        let plain = spec(&[]);
        assert_eq!(decide(&plain, None, None), Ok(Place { sandbox_id: None, vm: None }));
        let own = Ok(Place { sandbox_id: None, vm: vm("new") });
        assert_eq!(decide(&plain, None, Some(Isolation::Vm)), own);
        assert_eq!(decide(&spec(&[("io.runhcs.isolation", "vm")]), None, None), own);
    }

    #[test]
    fn members_go_where_their_sandbox_is() {
        let joined = Place { sandbox_id: Some(id("vs")), vm: vm("vs") };
        assert_eq!(decide(&member_of("vs"), None, None), Ok(joined));
        let joined = Place { sandbox_id: Some(id("vs")), vm: vm("vs") };
        assert_eq!(decide(&member_of("vs"), Some("vs"), Some(Isolation::Vm)), Ok(joined));
        assert_eq!(
            decide(&member_of("ps"), None, None),
            Ok(Place { sandbox_id: Some(id("ps")), vm: None })
        );
        // As Podman's pods are.
        assert_eq!(
            decide(&member_of("plain"), None, None),
            Ok(Place { sandbox_id: Some(id("plain")), vm: None })
        );
        assert_eq!(
            decide(&member_of("h"), None, None),
            Ok(Place { sandbox_id: Some(id("h")), vm: vm("h") })
        );
    }

    #[test]
    fn a_host_can_be_joined_without_a_sandbox() {
        assert_eq!(
            decide(&spec(&[]), Some("h"), None),
            Ok(Place { sandbox_id: None, vm: vm("h") })
        );
    }

    #[test]
    fn a_sandbox_owns_its_vm() {
        let sandbox = spec(&[
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.kubernetes.cri.sandbox-id", "new"),
        ]);
        let own = Place { sandbox_id: Some(id("new")), vm: vm("new") };
        assert_eq!(decide(&sandbox, None, Some(Isolation::Vm)), Ok(own));
    }

    #[test]
    fn every_contradiction_has_its_own_message() {
        let other_sandbox = spec(&[
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.kubernetes.cri.sandbox-id", "else"),
        ]);
        let vm = Some(Isolation::Vm);
        let cases = [
            (decide(&other_sandbox, None, None), "must be its own"),
            (
                decide(&member_of("gone"), None, None),
                "sandbox gone of container new does not exist",
            ),
            (decide(&member_of("m"), None, None), "is not a sandbox"),
            (decide(&member_of("ps"), Some("h"), None), "has no VM"),
            (decide(&member_of("vs"), Some("h"), None), "is in the VM of vs"),
            (decide(&member_of("ps"), None, vm), "VM isolation was asked for"),
            (
                decide(&member_of("vs"), None, Some(Isolation::Process)),
                "process isolation was asked for",
            ),
            (decide(&spec(&[]), Some("gone"), None), "host gone of container new does not exist"),
            (decide(&spec(&[]), Some("plain"), None), "is not the host of a VM"),
            (decide(&spec(&[]), Some("m"), None), "is not the host of a VM"),
            (decide(&spec(&[]), Some("new"), None), "that is to be created"),
        ];
        let mut messages = Vec::new();
        for (outcome, expected) in cases {
            let message = outcome.unwrap_err();
            assert!(message.contains(expected), "{message}");
            messages.push(message);
        }
        messages.dedup();
        assert_eq!(messages.len(), 11);
    }
}
