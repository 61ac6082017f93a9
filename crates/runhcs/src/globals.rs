//! What every verb needs: the store, the configuration, the owner.

use std::path::{Path, PathBuf};

use anyhow::bail;
use runhcs_container::{CgroupDriver, InheritedFds};
use runhcs_state::Store;

use crate::cli::{GlobalArgs, LogFormat, Rootless};
use crate::config::Config;

/// The options before the verb, worked out.
#[derive(Debug)]
pub struct Globals {
    /// The state of all containers.
    pub store: Store,
    /// The configuration file.
    pub config: Config,
    /// Who new containers belong to.
    pub owner: String,
    /// The options themselves, to be passed on to shims.
    pub args: GlobalArgs,
}

impl Globals {
    /// Works the options out.
    pub fn new(args: GlobalArgs) -> anyhow::Result<Self> {
        let config = Config::load(args.config.as_deref())?;
        let root = args.root.clone().map_or_else(default_root, Ok)?;
        let owner = args.owner.clone().or_else(|| config.owner.clone());
        Ok(Self {
            store: Store::open(&root)?,
            owner: owner.unwrap_or_else(|| "runhcs".to_owned()),
            config,
            args,
        })
    }

    /// Whether containers may do without control groups that can't be had.
    pub fn rootless(&self) -> bool {
        match self.args.rootless {
            Rootless::True => true,
            Rootless::False => false,
            Rootless::Auto => !is_privileged(),
        }
    }

    /// Who makes the control groups of process-isolated containers.
    pub fn cgroup_driver(&self) -> CgroupDriver {
        match self.args.systemd_cgroup {
            true => CgroupDriver::Systemd,
            false => CgroupDriver::Directories,
        }
    }

    /// The options that make a shim log as this command does.
    pub fn log_arguments(&self, log: Option<&PathBuf>) -> Vec<std::ffi::OsString> {
        let mut arguments = Vec::new();
        if let Some(log) = log.or(self.args.log.as_ref()) {
            arguments.extend(["--log".into(), log.into()]);
        }
        if self.args.log_format == LogFormat::Json {
            arguments.extend(["--log-format".into(), "json".into()]);
        }
        if self.args.debug && (log.is_some() || self.args.log.is_some()) {
            arguments.push("--debug".into());
        }
        arguments
    }
}

/// The descriptors that a container's process inherits: `preserved` ones after those that systemd
/// has passed to this command by its socket activation, if it has.
///
/// # Errors
/// `LISTEN_FDS` is no number.
pub fn inherited_fds(preserved: u32) -> anyhow::Result<InheritedFds> {
    let listen = match std::env::var("LISTEN_FDS") {
        Ok(number) if !number.is_empty() => number.parse().map_err(|_| {
            anyhow::anyhow!("LISTEN_FDS={number:?} in the environment is no number of descriptors")
        })?,
        _ => 0,
    };
    Ok(InheritedFds { listen, others: preserved })
}

/// Whether the caller is root outside of all user namespaces.
pub fn is_privileged() -> bool {
    rustix::process::geteuid().is_root() && !runhcs_container::in_user_namespace()
}

/// Where state is unless `--root` says otherwise: for ordinary users, and for those who are root in
/// a user namespace only, in the directory that is theirs while they are logged in.
fn default_root() -> anyhow::Result<PathBuf> {
    let system = PathBuf::from("/run/runhcs");
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let private = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        // As runc has it: the name of a user namespace's own root, as in a container, is root.
        let of_a_user = variable("USER").is_none_or(|name| name != "root");
        let private = private.filter(|_| of_a_user && runhcs_container::in_user_namespace());
        return Ok(private.map_or(system, |directory| directory.join("runhcs")));
    }
    let usual = || Some(Path::new("/run/user").join(uid.to_string())).filter(|path| path.is_dir());
    match private.or_else(usual) {
        Some(directory) => Ok(directory.join("runhcs")),
        None => bail!(
            "there is no directory for the state of user {uid}'s containers: set XDG_RUNTIME_DIR \
             or give --root"
        ),
    }
}
