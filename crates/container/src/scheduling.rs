//! How the kernel schedules a process: CPU scheduler, I/O priority, CPU affinity, memory policy,
//! and the execution domain. None of it costs a system call unless it is asked for.

use std::io;

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process,
    Scheduler,
};
use runhcs_compute::{Error, Result};
use rustix::thread::CpuSet;

use crate::error::{Context, invalid};

/// linux/sched/types.h, `struct sched_attr`, in its first version.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// What `process.scheduler` and `process.ioPriority` ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scheduling {
    scheduler: Option<SchedAttr>,
    /// As ioprio_set(2) takes it.
    io_priority: Option<i32>,
}

impl Scheduling {
    pub(crate) fn new(process: &Process) -> Result<Self> {
        let scheduler = process.scheduler().as_ref().map(sched_attr).transpose()?;
        let io_priority = process.io_priority().as_ref().map(|asked| {
            let priority = u8::try_from(asked.priority()).ok().filter(|priority| *priority < 8);
            let Some(priority) = priority else {
                let message = format!("{} is not within 0 to 7", asked.priority());
                return Err(invalid("process.ioPriority.priority", message));
            };
            let class = match asked.class() {
                IOPriorityClass::IoprioClassRt => 1,
                IOPriorityClass::IoprioClassBe => 2,
                IOPriorityClass::IoprioClassIdle => 3,
            };
            Ok(class << 13 | i32::from(priority))
        });
        Ok(Self { scheduler, io_priority: io_priority.transpose()? })
    }

    /// Applies it to the calling process, which still has its privileges.
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(attributes) = &self.scheduler {
            // SAFETY: the kernel reads `size` bytes of the attributes, which outlive the call.
            let result = unsafe {
                libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0)
            };
            check(result).map_err(|error| {
                let why = match error.raw_os_error() {
                    Some(libc::EPERM) => {
                        "; with control groups of version 1, policies of real time take \
                         linux.resources.cpu.realtimeRuntime"
                    }
                    _ => "",
                };
                let what = "process.scheduler: set the scheduling policy";
                Error::failed(what, format!("{error}{why}"))
            })?;
        }
        if let Some(priority) = self.io_priority {
            const IOPRIO_WHO_PROCESS: libc::c_int = 1;
            // SAFETY: only numbers are passed.
            let result =
                unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) };
            check(result).context(|| "process.ioPriority: set the I/O priority".into())?;
        }
        Ok(())
    }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn sched_attr(asked: &Scheduler) -> Result<SchedAttr> {
    use LinuxSchedulerPolicy as P;
    let field = |name: &str| format!("process.scheduler.{name}");
    let policy = match asked.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => {
            let message = "SCHED_ISO is reserved; no version of Linux has it (sched(7))";
            return Err(invalid(field("policy"), message));
        }
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
    };
    let nice = asked.nice().unwrap_or_default();
    if !(-20..=19).contains(&nice) {
        return Err(invalid(field("nice"), format!("{nice} is not within -20 to 19")));
    }
    let priority = asked.priority().unwrap_or_default();
    let real_time = matches!(policy, 1 | 2);
    let allowed = if real_time { 1..=99 } else { 0..=0 };
    if !allowed.contains(&priority) {
        let why = match real_time {
            true => format!("{priority} is not within 1 to 99"),
            false => format!("{priority} is only for SCHED_FIFO and SCHED_RR"),
        };
        return Err(invalid(field("priority"), why));
    }
    for (name, value) in
        [("runtime", asked.runtime()), ("deadline", asked.deadline()), ("period", asked.period())]
    {
        if policy != 6 && value.is_some_and(|value| value != 0) {
            return Err(invalid(field(name), "is only for SCHED_DEADLINE"));
        }
    }
    let mut flags = 0;
    for (index, flag) in asked.flags().iter().flatten().enumerate() {
        use LinuxSchedulerFlag as F;
        flags |= match flag {
            F::SchedResetOnFork => 0x01,
            F::SchedFlagReclaim => 0x02,
            F::SchedFlagDLOverrun => 0x04,
            F::SchedFlagKeepPolicy => 0x08,
            F::SchedFlagKeepParams => 0x10,
            F::SchedFlagUtilClampMin | F::SchedFlagUtilClampMax => {
                let message = "needs a value, and the specification has no field for it";
                return Err(invalid(field(&format!("flags[{index}]")), message));
            }
        };
    }
    Ok(SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy,
        flags,
        nice,
        priority: priority as u32,
        runtime: asked.runtime().unwrap_or_default(),
        deadline: asked.deadline().unwrap_or_default(),
        period: asked.period().unwrap_or_default(),
    })
}

/// The CPUs a further process may run on: before and after it enters the container's control
/// groups (`process.execCPUAffinity`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Affinity {
    initial: Option<CpuSet>,
    last: Option<CpuSet>,
}

impl Affinity {
    pub(crate) fn new(asked: Option<&ExecCPUAffinity>) -> Result<Self> {
        let Some(asked) = asked else { return Ok(Self::default()) };
        let set = |name: &str, list: Option<&str>| {
            let list = list.filter(|list| !list.is_empty());
            let field = format!("process.execCPUAffinity.{name}");
            list.map(|list| cpu_set(&field, list)).transpose()
        };
        Ok(Self {
            initial: set("initial", asked.initial().as_deref())?,
            last: set("final", asked.cpu_affinity_final().as_deref())?,
        })
    }

    /// Before the process enters the control groups.
    pub(crate) fn begin(&self) -> Result<()> {
        apply_affinity("initial", self.initial.as_ref())
    }

    /// When it is there.
    pub(crate) fn end(&self) -> Result<()> {
        apply_affinity("final", self.last.as_ref())
    }
}

fn apply_affinity(name: &str, set: Option<&CpuSet>) -> Result<()> {
    let Some(set) = set else { return Ok(()) };
    rustix::thread::sched_setaffinity(None, set)
        .context(|| format!("process.execCPUAffinity.{name}: set the CPU affinity"))
}

fn cpu_set(field: &str, list: &str) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    for cpu in numbers(field, list, CpuSet::MAX_CPU)? {
        set.set(cpu);
    }
    Ok(set)
}

/// A list such as `0-2,5` (cpuset(7), "List format") of numbers below `limit`.
fn numbers(field: &str, list: &str, limit: usize) -> Result<Vec<usize>> {
    let malformed = || invalid(field, format!("{list:?} is not a list such as 0-2,5"));
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| malformed())?;
        let last: usize = last.trim().parse().map_err(|_| malformed())?;
        if first > last {
            return Err(malformed());
        }
        if last >= limit {
            return Err(invalid(field, format!("{last} is not below {limit}")));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

/// The execution domain (personality(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Personality(libc::c_ulong);

impl Personality {
    pub(crate) fn new(asked: &LinuxPersonality) -> Result<Self> {
        if asked.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
            return Err(invalid("linux.personality.flags", "the specification has no flags yet"));
        }
        Ok(Self(match asked.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        }))
    }

    pub(crate) fn apply(self) -> Result<()> {
        // SAFETY: only a number is passed.
        let result = unsafe { libc::personality(self.0) };
        check(result.into()).context(|| "linux.personality: set the execution domain".into())
    }
}

/// On which NUMA nodes memory is allocated (set_mempolicy(2)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    mode: i32,
    /// One bit a node.
    nodes: Vec<libc::c_ulong>,
}

/// The most nodes that Linux can be built for (`CONFIG_NODES_SHIFT`, 10).
const MAX_NODES: usize = 1024;

impl MemoryPolicy {
    pub(crate) fn new(asked: &LinuxMemoryPolicy) -> Result<Self> {
        use MemoryPolicyModeType as M;
        let mut mode = match asked.mode() {
            M::MpolDefault => 0,
            M::MpolPreferred => 1,
            M::MpolBind => 2,
            M::MpolInterleave => 3,
            M::MpolLocal => 4,
            M::MpolPreferredMany => 5,
            M::MpolWeightedInterleave => 6,
        };
        for flag in asked.flags().iter().flatten() {
            mode |= match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            };
        }
        let mut nodes = vec![0; MAX_NODES / libc::c_ulong::BITS as usize];
        let list = asked.nodes().as_deref().filter(|list| !list.is_empty());
        let bits = libc::c_ulong::BITS as usize;
        for node in list
            .map_or(Ok(Vec::new()), |list| numbers("linux.memoryPolicy.nodes", list, MAX_NODES))?
        {
            nodes[node / bits] |= 1 << (node % bits);
        }
        let empty = nodes.iter().all(|word| *word == 0);
        match asked.mode() {
            M::MpolDefault | M::MpolLocal if !empty => {
                Err(invalid("linux.memoryPolicy.nodes", "is not for this mode"))
            }
            M::MpolBind | M::MpolInterleave | M::MpolWeightedInterleave if empty => {
                Err(invalid("linux.memoryPolicy.nodes", "is needed for this mode"))
            }
            _ => Ok(Self { mode, nodes }),
        }
    }

    pub(crate) fn apply(&self) -> Result<()> {
        let empty = self.nodes.iter().all(|word| *word == 0);
        let (mask, count) =
            if empty { (std::ptr::null(), 0) } else { (self.nodes.as_ptr(), MAX_NODES) };
        // SAFETY: the mask has as many bits as we say, and outlives the call. The kernel takes one
        // more than it reads.
        let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, self.mode, mask, count + 1) };
        check(result).context(|| "linux.memoryPolicy: set the memory policy".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: &str) -> Process {
        let text = format!(r#"{{"user":{{"uid":0,"gid":0}},"cwd":"/","args":["x"],{json}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_is_asked_for_becomes_numbers() {
        let json = r#""scheduler":{"policy":"SCHED_RR","priority":7},
            "ioPriority":{"class":"IOPRIO_CLASS_BE","priority":3}"#;
        let scheduling = Scheduling::new(&process(json)).unwrap();
        let attributes = scheduling.scheduler.unwrap();
        assert_eq!((attributes.policy, attributes.priority, attributes.size), (2, 7, 48));
        assert_eq!(scheduling.io_priority, Some(2 << 13 | 3));
        let json = r#""scheduler":{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"period":3}"#;
        let attributes = Scheduling::new(&process(json)).unwrap().scheduler.unwrap();
        assert_eq!((attributes.runtime, attributes.deadline, attributes.period), (1, 2, 3));
    }

    #[test]
    fn contradictions_are_named_by_their_field() {
        for (json, field) in [
            (r#""scheduler":{"policy":"SCHED_OTHER","nice":20}"#, "scheduler.nice"),
            (r#""scheduler":{"policy":"SCHED_OTHER","priority":1}"#, "scheduler.priority"),
            (r#""scheduler":{"policy":"SCHED_FIFO"}"#, "scheduler.priority"),
            (r#""scheduler":{"policy":"SCHED_FIFO","priority":100}"#, "scheduler.priority"),
            (r#""scheduler":{"policy":"SCHED_ISO"}"#, "scheduler.policy"),
            (r#""scheduler":{"policy":"SCHED_IDLE","runtime":5}"#, "scheduler.runtime"),
            (r#""ioPriority":{"class":"IOPRIO_CLASS_RT","priority":8}"#, "ioPriority.priority"),
        ] {
            let error = Scheduling::new(&process(json)).unwrap_err().to_string();
            assert_eq!(error, format!("process.{field}"), "{json}");
        }
    }

    #[test]
    fn lists_of_numbers() {
        assert_eq!(numbers("f", "0-2,5", 8).unwrap(), [0, 1, 2, 5]);
        for list in ["", "a", "2-1", "1-", "8", "-1", "1,,2"] {
            assert!(numbers("f", list, 8).is_err(), "{list:?}");
        }
    }

    #[test]
    fn memory_policies() {
        let policy = |json: &str| MemoryPolicy::new(&serde_json::from_str(json).unwrap());
        let json = r#"{"mode":"MPOL_BIND","nodes":"0,65","flags":["MPOL_F_STATIC_NODES"]}"#;
        let bind = policy(json).unwrap();
        assert_eq!((bind.mode, bind.nodes[0], bind.nodes[1]), (2 | 1 << 15, 1, 2));
        assert!(policy(r#"{"mode":"MPOL_BIND"}"#).is_err());
        assert!(policy(r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#).is_err());
    }
}
