//! `linux.seccomp` as a libseccomp filter, built before the process is cloned and loaded last.

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use runhcs_compute::Result;

use crate::error::{Context, invalid};

/// A filter ready to be loaded.
#[derive(Debug)]
pub(crate) struct Filter(ScmpFilterContext);

impl Filter {
    /// Builds the filter.
    pub(crate) fn new(seccomp: &LinuxSeccomp) -> Result<Self> {
        if seccomp.listener_path().is_some() {
            return Err(invalid("linux.seccomp.listenerPath", "is not supported yet"));
        }
        let default = action(
            "linux.seccomp.defaultAction",
            seccomp.default_action(),
            seccomp.default_errno_ret(),
        )?;
        let mut filter =
            ScmpFilterContext::new(default).context(|| "make a seccomp filter".into())?;
        // no_new_privs is `process.noNewPrivileges`' business.
        filter.set_ctl_nnp(false).context(|| "set up a seccomp filter".into())?;
        for flag in seccomp.flags().iter().flatten() {
            match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => filter.set_ctl_log(true),
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => filter.set_ctl_tsync(true),
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => filter.set_ctl_ssb(true),
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                    filter.set_ctl_waitkill(true)
                }
            }
            .context(|| format!("linux.seccomp.flags: {flag:?}"))?;
        }
        for (index, arch) in seccomp.architectures().iter().flatten().enumerate() {
            let field = || format!("linux.seccomp.architectures[{index}]");
            let name = serde_json::to_value(arch).context(field)?;
            let arch: ScmpArch = name.as_str().unwrap_or_default().parse().context(field)?;
            filter.add_arch(arch).context(field)?;
        }
        for (index, rule) in seccomp.syscalls().iter().flatten().enumerate() {
            let field = format!("linux.seccomp.syscalls[{index}]");
            let action = action(&field, rule.action(), rule.errno_ret())?;
            if action == default {
                continue;
            }
            for name in rule.names() {
                // A call the running libseccomp has no name for can't be called by that name
                // either; profiles are written for newer kernels than ours.
                let Ok(call) = ScmpSyscall::from_name(name) else { continue };
                add(&mut filter, action, call, rule.args().as_deref().unwrap_or_default())
                    .context(|| format!("{field}: {name}"))?;
            }
        }
        Ok(Self(filter))
    }

    /// Loads the filter into the calling thread.
    pub(crate) fn load(&self) -> Result<()> {
        self.0.load().context(|| "load the seccomp filter".into())
    }
}

/// libseccomp takes each argument once a rule; several conditions on one argument are alternatives
/// (as runc documents it).
fn add(
    filter: &mut ScmpFilterContext,
    action: ScmpAction,
    call: ScmpSyscall,
    arguments: &[LinuxSeccompArg],
) -> std::result::Result<(), libseccomp::error::SeccompError> {
    let comparisons: Vec<ScmpArgCompare> = arguments.iter().map(comparison).collect();
    let repeated = (1..arguments.len())
        .any(|i| arguments[..i].iter().any(|other| other.index() == arguments[i].index()));
    if comparisons.is_empty() {
        filter.add_rule(action, call)?;
    } else if repeated {
        for comparison in &comparisons {
            filter.add_rule_conditional(action, call, &[*comparison])?;
        }
    } else {
        filter.add_rule_conditional(action, call, &comparisons)?;
    }
    Ok(())
}

fn comparison(argument: &LinuxSeccompArg) -> ScmpArgCompare {
    use LinuxSeccompOperator as O;
    let (value, second) = (argument.value(), argument.value_two().unwrap_or(0));
    let (operator, datum) = match argument.op() {
        O::ScmpCmpNe => (ScmpCompareOp::NotEqual, value),
        O::ScmpCmpLt => (ScmpCompareOp::Less, value),
        O::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, value),
        O::ScmpCmpEq => (ScmpCompareOp::Equal, value),
        O::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, value),
        O::ScmpCmpGt => (ScmpCompareOp::Greater, value),
        // The specification's first value is the mask, the second what must remain.
        O::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(value), second),
    };
    ScmpArgCompare::new(argument.index() as u32, operator, datum)
}

fn action(field: &str, action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction> {
    use LinuxSeccompAction as A;
    let errno = errno.unwrap_or(libc::EPERM as u32);
    Ok(match action {
        A::ScmpActKill | A::ScmpActKillThread => ScmpAction::KillThread,
        A::ScmpActKillProcess => ScmpAction::KillProcess,
        A::ScmpActTrap => ScmpAction::Trap,
        A::ScmpActErrno => ScmpAction::Errno(errno as i32),
        A::ScmpActTrace => ScmpAction::Trace(
            u16::try_from(errno)
                .map_err(|_| invalid(format!("{field}.errnoRet"), "is above 65535"))?,
        ),
        A::ScmpActLog => ScmpAction::Log,
        A::ScmpActAllow => ScmpAction::Allow,
        A::ScmpActNotify => return Err(invalid(field, "SCMP_ACT_NOTIFY is not supported yet")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: &str) -> Result<Filter> {
        Filter::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn an_ordinary_profile_builds() {
        filter(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
                "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
                "flags":["SECCOMP_FILTER_FLAG_LOG"],
                "syscalls":[
                  {"names":["read","no_such_call"],"action":"SCMP_ACT_ALLOW"},
                  {"names":["personality"],"action":"SCMP_ACT_ALLOW",
                   "args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"},
                           {"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
                  {"names":["clone"],"action":"SCMP_ACT_ALLOW",
                   "args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
        )
        .unwrap();
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let error = filter(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).unwrap_err();
        assert!(error.to_string().contains("linux.seccomp.defaultAction"), "{error}");
    }
}
