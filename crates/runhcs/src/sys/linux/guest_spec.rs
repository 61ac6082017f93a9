//! A configuration as the guest needs it: what names things of this host is translated, dropped or
//! refused. Pure but for collecting what is known of the pod.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxSeccompAction, Mount, Process, Spec};
use runhcs_compute::ContainerId;
use runhcs_protocol::NAMESPACES;
use runhcs_state::{ProcessHandle, Record, Store};

use crate::existing::{Main, value};

/// The network namespace of the guest's first process, which has the pod's network.
const GUESTS_OWN_NETWORK: &str = "/proc/1/ns/net";

/// The containers that share a VM, as far as their namespaces can be joined.
#[derive(Debug, Default)]
pub struct PodView {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    id: ContainerId,
    /// Of its container shim, on this host; `None` if another process has it by now.
    pid: Option<u32>,
    netns: Option<PathBuf>,
}

impl PodView {
    /// The other containers in the VM that `record` joins.
    pub fn collect(store: &Store, record: &Record) -> Result<Self> {
        let mut members = Vec::new();
        for (_, listed) in store.list()? {
            // Another container's damaged state is its own matter.
            let Ok((entry, other)) = listed else { continue };
            if other.id == record.id || other.vm != record.vm {
                continue;
            }
            if let Some(Main { process, guest_pid: Some(_) }) = entry.get(value::MAIN)? {
                let now = ProcessHandle::of(process.pid)?;
                let pid = now.is_none_or(|now| now == process).then_some(process.pid);
                members.push(Member { id: other.id, pid, netns: other.netns });
            }
        }
        Ok(Self { members })
    }

    /// A namespace's path in the guest.
    fn translate(&self, kind: LinuxNamespaceType, path: &Path) -> Result<PathBuf> {
        let network = kind == LinuxNamespaceType::Network;
        let in_proc = path.strip_prefix("/proc").ok().and_then(|rest| {
            let mut parts = rest.iter().map(|part| part.to_str().unwrap_or_default());
            let pid = parts.next()?.parse::<u32>().ok()?;
            (parts.next() == Some("ns")).then(|| parts.next().map(|kind| (pid, kind.to_owned())))?
        });
        if let Some((pid, file)) = in_proc {
            let Some(member) = self.members.iter().find(|member| member.pid == Some(pid)) else {
                bail!(
                    "linux.namespaces: the {kind} namespace {} is not that of a container in the \
                     same VM",
                    path.display()
                );
            };
            return Ok(Path::new(NAMESPACES).join(member.id.as_str()).join(file));
        }
        let shared = self.members.iter().any(|member| member.netns.as_deref() == Some(path));
        if network && (shared || self.members.is_empty()) {
            return Ok(GUESTS_OWN_NETWORK.into());
        }
        let known: Vec<&str> = self.members.iter().map(|member| member.id.as_str()).collect();
        bail!(
            "linux.namespaces: the {kind} namespace {} can't be joined from within the VM; its \
             containers are: {}",
            path.display(),
            known.join(", ")
        )
    }
}

/// The network namespace that a configuration names by path.
pub fn network_namespace(spec: &Spec) -> Option<PathBuf> {
    let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
    let network = namespaces.iter().find(|ns| ns.typ() == LinuxNamespaceType::Network)?;
    network.path().clone().filter(|path| !path.as_os_str().is_empty())
}

/// A configuration for the guest.
#[derive(Debug)]
pub struct GuestSpec(pub Spec);

impl GuestSpec {
    /// Translates a configuration.
    ///
    /// # Errors
    /// A field that has no meaning in the guest, by its name.
    pub fn translate(spec: &Spec, record: &Record, pod: &PodView) -> Result<Self> {
        let mut spec = spec.clone();
        crate::sys::hooks::keep_for_guest(&mut spec);
        let Some(mut linux) = spec.linux().clone() else { bail!("linux is missing") };
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        if !namespaces.iter().any(|ns| ns.typ() == LinuxNamespaceType::Network) {
            bail!(
                "linux.namespaces has no network namespace: the host's own network can't be had in \
                 a VM; give the container one, or isolate it as a process"
            );
        }
        // sysfs wants a network namespace that is of the same user namespace.
        let users = namespaces.iter().any(|ns| ns.typ() == LinuxNamespaceType::User);
        for namespace in &mut namespaces {
            let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
            let translated = match path {
                Some(path) => Some(pod.translate(namespace.typ(), path)?),
                None if namespace.typ() == LinuxNamespaceType::Network
                    && record.is_vm_host()
                    && !users =>
                {
                    Some(GUESTS_OWN_NETWORK.into())
                }
                None => None,
            };
            namespace.set_path(translated);
        }
        linux.set_namespaces(Some(namespaces));
        // The guest has a hierarchy of its own, with no slices of this host's systemd.
        linux.set_cgroups_path(Some(Path::new("/containers").join(group_name(&record.id))));
        refuse_seccomp_agent(&linux)?;
        if linux.intel_rdt().is_some() {
            bail!(
                "linux.intelRdt: a container in a VM can't have a share of the host's caches of its \
                 own; isolate it as a process"
            );
        }
        leave_mount_label_here(&mut linux);
        // The pod's network has them.
        linux.set_net_devices(None);
        spec.set_linux(Some(linux));
        spec.mounts_mut().iter_mut().flatten().for_each(forget_id_mapping);
        for mount in spec.mounts_mut().iter_mut().flatten() {
            // The guest has the root elsewhere.
            let within = mount.destination().strip_prefix(&record.rootfs);
            let within = within.map(|within| Path::new("/").join(within));
            if let (Ok(within), true) = (within, record.rootfs != Path::new("/")) {
                mount.set_destination(within);
            }
        }
        spec.process_mut().iter_mut().for_each(leave_labels_here);
        Ok(Self(spec))
    }
}

/// Drops the labels that this host's security modules know. The guest has none of their policies;
/// what keeps the container from this host is the VM.
pub fn leave_labels_here(process: &mut Process) {
    if let Some(profile) = process.apparmor_profile().as_ref().filter(|name| !name.is_empty()) {
        tracing::warn!(profile, "process.apparmorProfile is this host's, and left out in the VM");
    }
    if let Some(label) = process.selinux_label().as_ref().filter(|label| !label.is_empty()) {
        tracing::warn!(label, "process.selinuxLabel is this host's, and left out in the VM");
    }
    process.set_apparmor_profile(None).set_selinux_label(None);
}

/// The same for `linux.mountLabel`.
fn leave_mount_label_here(linux: &mut Linux) {
    if let Some(label) = linux.mount_label().as_ref().filter(|label| !label.is_empty()) {
        tracing::warn!(label, "linux.mountLabel is this host's, and left out in the VM");
    }
    linux.set_mount_label(None);
}

/// The agent would be a program of this host, and get a descriptor of the guest's kernel.
fn refuse_seccomp_agent(linux: &Linux) -> Result<()> {
    let rules = linux.seccomp().iter().flat_map(|seccomp| seccomp.syscalls().iter().flatten());
    if rules.into_iter().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify) {
        bail!(
            "linux.seccomp.listenerPath: a seccomp agent of this host can't decide about calls to \
             a VM's kernel (SCMP_ACT_NOTIFY); isolate the container as a process"
        );
    }
    Ok(())
}

/// The host has mapped the ids of the mount's files.
fn forget_id_mapping(mount: &mut Mount) {
    mount.set_uid_mappings(None);
    mount.set_gid_mappings(None);
    for options in mount.options_mut().iter_mut() {
        options.retain(|option| !matches!(option.as_str(), "idmap" | "ridmap"));
    }
}

/// An id can be longer than a directory's name may be (255 bytes).
fn group_name(id: &ContainerId) -> String {
    let id = id.as_str();
    if id.len() <= 200 {
        return id.to_owned();
    }
    use std::hash::{Hash, Hasher};
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    id.hash(&mut hasher);
    format!("{}~{:016x}", &id[..100], hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodView {
        let member = |name: &str, pid, netns: Option<&str>| Member {
            id: name.parse().unwrap(),
            pid,
            netns: netns.map(PathBuf::from),
        };
        PodView {
            members: vec![
                member("s", Some(100), Some("/run/netns/pod")),
                member("c", Some(101), None),
                member("old", None, None),
            ],
        }
    }

    #[test]
    fn namespaces_of_containers_in_the_vm_are_found_there() {
        let translate = |kind, path| pod().translate(kind, Path::new(path)).unwrap();
        assert_eq!(
            translate(LinuxNamespaceType::Ipc, "/proc/100/ns/ipc"),
            Path::new("/run/runhcs/namespaces/s/ipc")
        );
        assert_eq!(
            translate(LinuxNamespaceType::Pid, "/proc/101/ns/pid"),
            Path::new("/run/runhcs/namespaces/c/pid")
        );
        assert_eq!(
            translate(LinuxNamespaceType::Network, "/proc/101/ns/net"),
            Path::new("/run/runhcs/namespaces/c/net")
        );
    }

    #[test]
    fn the_pods_network_is_the_guests_own() {
        let translate =
            |path| pod().translate(LinuxNamespaceType::Network, Path::new(path)).unwrap();
        assert_eq!(translate("/run/netns/pod"), Path::new(GUESTS_OWN_NETWORK));
        assert_eq!(
            PodView::default()
                .translate(LinuxNamespaceType::Network, Path::new("/run/netns/x"))
                .unwrap(),
            Path::new(GUESTS_OWN_NETWORK)
        );
    }

    #[test]
    fn labels_stay_on_the_host() {
        let json = r#"{"cwd":"/","user":{"uid":0,"gid":0},"args":["a"],
                       "apparmorProfile":"docker-default","selinuxLabel":"a:b:c:s0"}"#;
        let mut process: Process = serde_json::from_str(json).unwrap();
        leave_labels_here(&mut process);
        assert_eq!(process.apparmor_profile(), &None);
        assert_eq!(process.selinux_label(), &None);
        assert_eq!(process.args().as_deref(), Some(&["a".to_owned()][..]));
        let mut linux: Linux = serde_json::from_str(r#"{"mountLabel":"a:b:c:s0"}"#).unwrap();
        leave_mount_label_here(&mut linux);
        assert_eq!(linux.mount_label(), &None);
    }

    #[test]
    fn others_namespaces_are_out_of_reach() {
        let translate =
            |kind, path| pod().translate(kind, Path::new(path)).unwrap_err().to_string();
        assert!(translate(LinuxNamespaceType::Ipc, "/proc/7/ns/ipc").contains("/proc/7/ns/ipc"));
        assert!(translate(LinuxNamespaceType::Ipc, "/run/ipcns/x").contains("s, c, old"));
        assert!(
            translate(LinuxNamespaceType::Network, "/run/netns/other").contains("/run/netns/other")
        );
    }
}
