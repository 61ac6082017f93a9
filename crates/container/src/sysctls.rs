//! `linux.sysctl`: kernel parameters that belong to namespaces of the container's own. Those of the
//! whole kernel are refused, and so are those whose namespace the container shares.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use runhcs_compute::Result;

use crate::error::{Context, invalid};
use crate::namespaces::Namespaces;
use crate::proc;

/// A container's parameters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sysctls(Vec<Sysctl>);

#[derive(Debug, PartialEq, Eq)]
struct Sysctl {
    field: String,
    /// Below `/proc/sys`.
    path: PathBuf,
    value: String,
}

/// System V IPC's, in the directory `kernel` (ipc_namespaces(7)).
const IPC: [&str; 10] = [
    "auto_msgmni",
    "msg_next_id",
    "msgmax",
    "msgmnb",
    "msgmni",
    "sem",
    "sem_next_id",
    "shm_next_id",
    "shm_rmid_forced",
    "shmall",
];

impl Sysctls {
    /// Checks the parameters against the namespaces.
    ///
    /// # Errors
    /// Names the parameter that isn't the container's to set.
    pub(crate) fn new(spec: &Spec, namespaces: &Namespaces) -> Result<Self> {
        let listed = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
        let mut found = Vec::new();
        for (name, value) in listed.into_iter().flatten() {
            let field = format!("linux.sysctl.{name}");
            let path = path(name).ok_or_else(|| {
                invalid(field.as_str(), "is no name of a parameter, such as net.ipv4.ip_forward")
            })?;
            if path == Path::new("kernel/hostname") {
                return Err(invalid(field, "is what `hostname` is for"));
            }
            let domain = spec.domainname().as_deref().filter(|name| !name.is_empty());
            if path == Path::new("kernel/domainname") && domain.is_some_and(|name| name != value) {
                let why = format!("is {value:?}, and `domainname`, which is for the same, isn't");
                return Err(invalid(field, why));
            }
            match owner(&path) {
                Some((_, flag)) if namespaces.has(flag) => {}
                Some((kind, _)) => {
                    let why = format!(
                        "would be set for this whole host: it takes a namespace of type {kind} in \
                         linux.namespaces"
                    );
                    return Err(invalid(field, why));
                }
                None => {
                    let why = "is a parameter of the whole kernel, not of any namespace";
                    return Err(invalid(field, why));
                }
            }
            found.push(Sysctl { field, path, value: value.clone() });
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self(found))
    }

    /// Sets them; the caller is in the namespaces, and `/proc` is still its own.
    pub(crate) fn write(&self) -> Result<()> {
        self.0.iter().try_for_each(|Sysctl { field, path, value }| {
            proc::write(&Path::new("sys").join(path), value).context(|| field.clone())
        })
    }
}

/// The path below `/proc/sys`: of dots and slashes, whichever comes first in a name separates its
/// parts, and the other one stands for the first in them (sysctl(8)).
fn path(name: &str) -> Option<PathBuf> {
    let separator = name.find(['.', '/'])?;
    let path: String = if name.as_bytes()[separator] == b'/' {
        name.to_owned()
    } else {
        let swap = |letter| match letter {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        name.chars().map(swap).collect()
    };
    let sound = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    sound.then(|| PathBuf::from(path))
}

/// The kind of namespace that a parameter belongs to: its name and its flag.
fn owner(path: &Path) -> Option<(&'static str, i32)> {
    let ipc = ("ipc", libc::CLONE_NEWIPC);
    let mut parts = path.iter().map(|part| part.to_str().unwrap_or_default());
    match (parts.next()?, parts.next()?) {
        ("net", _) => Some(("network", libc::CLONE_NEWNET)),
        ("fs", "mqueue") => Some(ipc),
        ("user", _) => Some(("user", libc::CLONE_NEWUSER)),
        ("kernel", "domainname") => Some(("uts", libc::CLONE_NEWUTS)),
        ("kernel", "shmmax" | "shmmni") => Some(ipc),
        ("kernel", name) if IPC.contains(&name) => Some(ipc),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysctls(name: &str, namespaces: &[&str]) -> Result<Sysctls> {
        let listed: Vec<_> = namespaces
            .iter()
            .chain(&["mount"])
            .map(|kind| serde_json::json!({ "type": kind }))
            .collect();
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.2.0",
            "linux": { "namespaces": listed, "sysctl": { name: "1" } },
        }))
        .unwrap();
        Sysctls::new(&spec, &Namespaces::from_spec(&spec)?)
    }

    #[test]
    fn a_parameter_takes_its_namespace() {
        for (name, kind, file) in [
            ("net.ipv4.ip_forward", "network", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/100.forwarding", "network", "net/ipv4/conf/eth0.100/forwarding"),
            ("net/ipv4/conf/eth0.100/forwarding", "network", "net/ipv4/conf/eth0.100/forwarding"),
            ("kernel.shmmax", "ipc", "kernel/shmmax"),
            ("kernel.msgmax", "ipc", "kernel/msgmax"),
            ("fs.mqueue.msg_max", "ipc", "fs/mqueue/msg_max"),
            ("kernel.domainname", "uts", "kernel/domainname"),
            ("user.max_user_namespaces", "user", "user/max_user_namespaces"),
        ] {
            assert_eq!(sysctls(name, &[kind]).unwrap().0[0].path, Path::new(file), "{name}");
            let error = sysctls(name, &["pid"]).unwrap_err();
            assert_eq!(error.to_string(), format!("linux.sysctl.{name}"));
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains(&format!("of type {kind}")), "{cause}");
        }
    }

    #[test]
    fn what_is_not_the_containers_is_refused() {
        let all = ["network", "ipc", "uts", "user", "pid"];
        for name in [
            "kernel.hostname",
            "kernel.panic",
            "vm.overcommit_memory",
            "fs.file-max",
            "net..x",
            "net/../kernel/panic",
            "kernel",
            "",
            "/net/x",
        ] {
            let error = sysctls(name, &all).unwrap_err();
            assert_eq!(error.to_string(), format!("linux.sysctl.{name}"));
        }
    }
}
