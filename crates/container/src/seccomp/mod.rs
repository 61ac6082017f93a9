//! `linux.seccomp` as a filter, built before the process is cloned and installed as late as the
//! kernel allows (runtime specification, config-linux.md, "Seccomp").
//!
//! libseccomp makes the program from the rules; it is installed here, for the sake of flags that
//! the library may be too old for, and of the listener's descriptor.

mod agent;
mod missing_calls;
mod program;
mod trial;

use std::path::Path;

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use runhcs_compute::Result;

use crate::channel::Channel;
use crate::error::{Context, invalid};
pub(crate) use agent::{Agent, Watched};
use program::Program;

/// The largest error number that a filter can have a call return (`MAX_ERRNO` in linux/err.h).
const MAX_ERRNO: u32 = 4095;

/// A filter ready to be installed.
#[derive(Debug)]
pub(crate) struct Filter {
    program: Program,
    flags: libc::c_ulong,
    agent: Option<Agent>,
}

/// When a process installs its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before it loses its privileges: without no_new_privs the installing takes one.
    Privileged,
    /// While the creating process still listens, which has to tell the seccomp agent.
    Attended,
    /// Right before the program is executed.
    Last,
}

impl Filter {
    /// Builds the filter.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub(crate) fn new(seccomp: &LinuxSeccomp) -> Result<Self> {
        let default = action(
            seccomp.default_action(),
            seccomp.default_errno_ret(),
            "linux.seccomp.defaultErrnoRet",
        )?;
        let agent = agent(seccomp)?;
        if let Some(index) = trial::needed(seccomp) {
            let field = format!("linux.seccomp.syscalls[{index}]");
            let ends = trial::ends(|| drop(program(seccomp, default)));
            if !ends.context(|| "try out a seccomp filter".into())? {
                let why = "libseccomp can't combine this rule, or a later one, with the rules that \
                           its calls have already: give the calls fewer rules with several args";
                return Err(invalid(field, why));
            }
        }
        let mut program = program(seccomp, default)?;
        if refuses(default) {
            program.prepend(missing_calls::answer(seccomp));
        }
        Ok(Self { program, flags: flags(seccomp, agent.is_some()), agent })
    }

    /// When a process with or without no_new_privs installs it.
    pub(crate) fn moment(&self, no_new_privileges: bool) -> Moment {
        match (no_new_privileges, &self.agent) {
            (false, _) => Moment::Privileged,
            (true, Some(_)) => Moment::Attended,
            (true, None) => Moment::Last,
        }
    }

    /// Who is asked about calls, if anybody is.
    pub(crate) fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    /// Installs it in the calling thread. If there is an agent, returns once the creating process
    /// at the other end of `channel` has told it.
    pub(crate) fn install(&self, channel: &mut Channel) -> Result<()> {
        let what = || "install the seccomp filter".to_owned();
        if self.agent.is_none() {
            return self.install_unattended();
        }
        let handover = agent::Handover::begin(channel).context(what)?;
        let flags = self.flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let listener = self.program.install_with_listener(flags).context(what)?;
        handover.finish(&listener).context(what)?;
        channel.wait().map(drop)
    }

    /// Installs a filter without an agent in the calling thread.
    pub(crate) fn install_unattended(&self) -> Result<()> {
        self.program.install(self.flags).context(|| "install the seccomp filter".into())
    }
}

/// What libseccomp makes of the rules.
fn program(seccomp: &LinuxSeccomp, default: ScmpAction) -> Result<Program> {
    let mut context = ScmpFilterContext::new(default).context(|| "make a seccomp filter".into())?;
    for (index, arch) in seccomp.architectures().iter().flatten().enumerate() {
        let field = || format!("linux.seccomp.architectures[{index}]");
        context.add_arch(library_arch(*arch).context(field)?).context(field)?;
    }
    for (index, rule) in seccomp.syscalls().iter().flatten().enumerate() {
        add_rule(&mut context, default, rule, &format!("linux.seccomp.syscalls[{index}]"))?;
    }
    Program::of(&context).context(|| "make a seccomp filter".into())
}

/// Whether a call gets this action rather than being made.
fn refuses(action: ScmpAction) -> bool {
    match action {
        ScmpAction::Errno(number) => number != libc::ENOSYS,
        ScmpAction::KillThread | ScmpAction::KillProcess | ScmpAction::Trap => true,
        _ => false,
    }
}

fn agent(seccomp: &LinuxSeccomp) -> Result<Option<Agent>> {
    use LinuxSeccompAction::ScmpActNotify as Notify;
    let path = seccomp.listener_path().as_deref().filter(|path| *path != Path::new(""));
    let metadata = seccomp.listener_metadata().clone().filter(|text| !text.is_empty());
    if path.is_none() && metadata.is_some() {
        let why = "is for the agent at linux.seccomp.listenerPath, which is missing";
        return Err(invalid("linux.seccomp.listenerMetadata", why));
    }
    if seccomp.default_action() == Notify {
        let why = "can't be SCMP_ACT_NOTIFY: the process couldn't even tell the agent";
        return Err(invalid("linux.seccomp.defaultAction", why));
    }
    let mut asks = false;
    for (index, rule) in seccomp.syscalls().iter().flatten().enumerate() {
        if rule.action() != Notify {
            continue;
        }
        asks = true;
        if let Some(name) = rule.names().iter().position(|name| name == "write") {
            let field = format!("linux.seccomp.syscalls[{index}].names[{name}]");
            let why = "write can't be SCMP_ACT_NOTIFY: the process couldn't even tell the agent";
            return Err(invalid(field, why));
        }
    }
    match path {
        _ if !asks => Ok(None),
        Some(path) => Ok(Some(Agent::new(path, metadata))),
        None => {
            let why = "is needed for SCMP_ACT_NOTIFY: it is the agent's socket";
            Err(invalid("linux.seccomp.listenerPath", why))
        }
    }
}

/// The flags for seccomp(2).
fn flags(seccomp: &LinuxSeccomp, asks: bool) -> libc::c_ulong {
    let of = |flag: &LinuxSeccompFilterFlag| match flag {
        // The one thread that is there beside, of the hand-over, must not be filtered.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync if asks => 0,
        // The kernel takes it with a listener only, where alone it means anything.
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if !asks => 0,
        flag => number(*flag),
    };
    seccomp.flags().iter().flatten().fold(0, |flags, flag| flags | of(flag))
}

/// Whether the running kernel supports a flag.
pub(crate) fn supports(flag: LinuxSeccompFilterFlag) -> bool {
    use LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv as WaitKillable;
    let listener = if flag == WaitKillable { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    program::supports(number(flag) | listener)
}

/// A flag's number in seccomp(2).
fn number(flag: LinuxSeccompFilterFlag) -> libc::c_ulong {
    match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
            libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        }
    }
}

/// Whether a filter can be for this architecture.
pub(crate) fn knows(arch: Arch) -> bool {
    library_arch(arch).is_ok()
}

fn library_arch(
    arch: Arch,
) -> std::result::Result<ScmpArch, Box<dyn std::error::Error + Send + Sync>> {
    let name = serde_json::to_value(arch)?;
    Ok(name.as_str().unwrap_or_default().parse()?)
}

fn add_rule(
    context: &mut ScmpFilterContext,
    default: ScmpAction,
    rule: &LinuxSyscall,
    field: &str,
) -> Result<()> {
    let action = action(rule.action(), rule.errno_ret(), &format!("{field}.errnoRet"))?;
    if rule.names().is_empty() {
        return Err(invalid(format!("{field}.names"), "is empty"));
    }
    let arguments = rule.args().as_deref().unwrap_or_default();
    for (index, argument) in arguments.iter().enumerate() {
        if argument.index() > 5 {
            let field = format!("{field}.args[{index}].index");
            return Err(invalid(field, format!("{} is not within 0 to 5", argument.index())));
        }
    }
    if action == default {
        return Ok(());
    }
    for name in rule.names() {
        // A call the running libseccomp has no name for can't be called by that name either;
        // profiles are written for newer kernels than ours.
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        add_call(context, action, call, arguments).context(|| format!("{field}: {name}"))?;
    }
    Ok(())
}

/// libseccomp takes each argument once a rule; several conditions on one argument are alternatives
/// (as runc documents it).
fn add_call(
    context: &mut ScmpFilterContext,
    action: ScmpAction,
    call: ScmpSyscall,
    arguments: &[LinuxSeccompArg],
) -> std::result::Result<(), libseccomp::error::SeccompError> {
    let comparisons: Vec<ScmpArgCompare> = arguments.iter().map(comparison).collect();
    let repeated = (1..arguments.len())
        .any(|i| arguments[..i].iter().any(|other| other.index() == arguments[i].index()));
    if comparisons.is_empty() {
        context.add_rule(action, call)?;
    } else if repeated {
        for comparison in &comparisons {
            context.add_rule_conditional(action, call, &[*comparison])?;
        }
    } else {
        context.add_rule_conditional(action, call, &comparisons)?;
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

/// An action with its number, which stands in `field`.
fn action(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<ScmpAction> {
    use LinuxSeccompAction as A;
    let number = |limit: u32| match errno.unwrap_or(libc::EPERM as u32) {
        number if number > limit => Err(invalid(field, format!("{number} is above {limit}"))),
        number => Ok(number),
    };
    let without_number = |action| match errno {
        Some(_) => Err(invalid(field, "is only for SCMP_ACT_ERRNO and SCMP_ACT_TRACE")),
        None => Ok(action),
    };
    match action {
        A::ScmpActErrno => number(MAX_ERRNO).map(|number| ScmpAction::Errno(number as i32)),
        A::ScmpActTrace => number(u16::MAX.into()).map(|number| ScmpAction::Trace(number as u16)),
        A::ScmpActKill | A::ScmpActKillThread => without_number(ScmpAction::KillThread),
        A::ScmpActKillProcess => without_number(ScmpAction::KillProcess),
        A::ScmpActTrap => without_number(ScmpAction::Trap),
        A::ScmpActLog => without_number(ScmpAction::Log),
        A::ScmpActAllow => without_number(ScmpAction::Allow),
        A::ScmpActNotify => without_number(ScmpAction::Notify),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: &str) -> Result<Filter> {
        Filter::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn an_ordinary_profile_builds() {
        let filter = filter(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
                "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
                "flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                "syscalls":[
                  {"names":["read","no_such_call"],"action":"SCMP_ACT_ALLOW"},
                  {"names":["personality"],"action":"SCMP_ACT_ALLOW",
                   "args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"},
                           {"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
                  {"names":["clone"],"action":"SCMP_ACT_ALLOW",
                   "args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
        )
        .unwrap();
        assert_eq!(filter.flags, libc::SECCOMP_FILTER_FLAG_LOG, "nobody waits for an agent");
        assert_eq!(filter.moment(true), Moment::Last);
    }

    #[test]
    fn a_filter_with_an_agent_is_installed_while_it_can_be_told() {
        let filter = filter(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/a","listenerMetadata":"m",
                "flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        )
        .unwrap();
        assert_eq!(filter.flags, libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
        assert_eq!(filter.moment(true), Moment::Attended);
        assert_eq!(filter.moment(false), Moment::Privileged);
    }

    #[test]
    fn an_agent_that_nobody_asks_is_none() {
        let filter = filter(r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/a"}"#).unwrap();
        assert!(filter.agent().is_none());
    }

    #[test]
    fn rules_that_the_library_never_combines_are_refused() {
        let args = |ops: [&str; 3]| {
            let arg = |(index, op)| format!(r#"{{"index":{index},"value":{index},"op":"{op}"}}"#);
            ops.iter().enumerate().map(arg).collect::<Vec<_>>().join(",")
        };
        let rule = |action: &str, args: &str| {
            format!(r#"{{"names":["mkdir"],"action":"{action}","args":[{args}]}}"#)
        };
        let profile = |rules: [String; 2]| {
            format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#, rules.join(","))
        };
        let all = args(["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"]);
        let ends =
            r#"{"index":0,"value":0,"op":"SCMP_CMP_NE"},{"index":2,"value":2,"op":"SCMP_CMP_LE"}"#;
        let error = filter(&profile([rule("SCMP_ACT_KILL", &all), rule("SCMP_ACT_TRAP", ends)]));
        assert_eq!(error.unwrap_err().to_string(), "linux.seccomp.syscalls[1]");
        let equal = args(["SCMP_CMP_EQ"; 3]);
        let last = r#"{"index":2,"value":9,"op":"SCMP_CMP_EQ"}"#;
        filter(&profile([rule("SCMP_ACT_KILL", &equal), rule("SCMP_ACT_TRAP", last)])).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let rule = |rule: &str| {
            format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/a","syscalls":[{rule}]}}"#
            )
        };
        for (json, field) in [
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/a"}"#.to_owned(), "defaultAction"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#.to_owned(), "defaultErrnoRet"),
            (r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#.to_owned(), "defaultErrnoRet"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"m"}"#.to_owned(), "listenerMetadata"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#.to_owned(),
                "listenerPath",
            ),
            (rule(r#"{"names":["a","write"],"action":"SCMP_ACT_NOTIFY"}"#), "syscalls[0].names[1]"),
            (rule(r#"{"names":[],"action":"SCMP_ACT_TRAP"}"#), "syscalls[0].names"),
            (rule(r#"{"names":["mkdir"],"action":"SCMP_ACT_KILL","errnoRet":1}"#), "syscalls[0].errnoRet"),
            (rule(r#"{"names":["mkdir"],"action":"SCMP_ACT_TRACE","errnoRet":65536}"#), "syscalls[0].errnoRet"),
            (
                rule(r#"{"names":["mkdir"],"action":"SCMP_ACT_TRAP","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}"#),
                "syscalls[0].args[0].index",
            ),
        ] {
            let error = filter(&json).unwrap_err().to_string();
            assert_eq!(error, format!("linux.seccomp.{field}"), "{json}");
        }
    }
}
