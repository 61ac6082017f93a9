//! What a further process of a container is, as far as that is the same on all systems.

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{Process, Spec};

use crate::cli::ExecArgs;

/// The process to run: a document, or the container's own process with other arguments. `load`
/// reads the document.
pub fn describe(
    args: &ExecArgs,
    program: &[String],
    spec: &Spec,
    load: impl FnOnce(&std::path::Path) -> runhcs_spec::Result<Process>,
) -> Result<Process> {
    let mut process = match &args.process {
        Some(path) => load(path)?,
        None => {
            if program.is_empty() {
                bail!("exec needs a program to run, or --process");
            }
            let mut process = spec.process().clone().unwrap_or_default();
            process.set_args(Some(program.to_vec()));
            process.set_command_line(None);
            process.set_terminal(Some(false));
            process
        }
    };
    if args.tty {
        process.set_terminal(Some(true));
    }
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(args.env.iter().cloned());
    process.set_env(Some(env));
    Ok(process)
}

/// Sets the ids that `--user` gives.
pub fn set_ids(process: &mut Process, text: &str) -> Result<()> {
    let number = |part: &str| {
        part.parse::<u32>().with_context(|| {
            format!("--user {text:?} is not UID[:GID]; names can't be looked up here")
        })
    };
    let mut user = process.user().clone();
    match text.split_once(':') {
        Some((uid, gid)) => {
            user.set_uid(number(uid)?);
            user.set_gid(number(gid)?);
        }
        None => {
            user.set_uid(number(text)?);
        }
    }
    process.set_user(user);
    Ok(())
}
