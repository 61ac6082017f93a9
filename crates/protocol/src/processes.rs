//! What the kernel's `/proc` says of a container's processes, so that a program of the host that
//! reads `/proc` can be shown those of the guest. All of it is the guest's word.

use serde::{Deserialize, Serialize};

/// The most of a command line that travels, in bytes.
pub const MAX_COMMAND_LINE: usize = 4096;

/// Asks for a part of a container's processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribeProcesses {
    /// The container's id.
    pub container: runhcs_compute::ContainerId,
    /// Only those with greater pids.
    pub after: u32,
}

/// Some of a container's processes, by ascending pids of the guest's first pid namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessTable {
    /// About the guest.
    pub system: SystemFiles,
    /// The processes.
    pub processes: Vec<ProcessFiles>,
    /// Whether there are more than fit into one answer.
    pub more: bool,
}

/// Files of `/proc` about the whole system (proc(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemFiles {
    /// `/proc/uptime`
    pub uptime: String,
    /// `/proc/stat`
    pub stat: String,
    /// `/proc/meminfo`
    pub memory: String,
}

/// Files of `/proc/<pid>` (proc(5)). Bytes that are no text are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessFiles {
    /// The pid.
    pub pid: u32,
    /// `stat`
    pub stat: String,
    /// `status`
    pub status: String,
    /// `cmdline`, at most [`MAX_COMMAND_LINE`] of it.
    pub command_line: String,
    /// `cgroup`
    pub cgroup: String,
}
