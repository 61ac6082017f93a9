//! What every verb needs: the store, the configuration, the owner.

use std::path::PathBuf;

use runhcs_state::Store;

use crate::cli::{GlobalArgs, LogFormat};
use crate::sys::{self, Config};

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
        let owner = args.owner.clone().or_else(|| config.owner.clone());
        Ok(Self {
            store: sys::open_store(args.root.as_deref())?,
            owner: owner.unwrap_or_else(|| "runhcs".to_owned()),
            config,
            args,
        })
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
