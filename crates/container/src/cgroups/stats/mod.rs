//! What a container uses, read from its control groups. A controller that isn't there leaves its
//! part at zero, as runc has it.

pub(crate) mod parse;
mod v1;
mod v2;

use std::io;

use runhcs_compute::Result;
use runhcs_compute::stats::{HugePages, Stats};

use super::{Cgroup, CgroupPaths};
use crate::error::Context;
use parse::Group;

impl Cgroup {
    /// What the processes in the groups use.
    pub(crate) fn stats(&self) -> Result<Stats> {
        let stats = match &self.paths {
            CgroupPaths::V1(paths) => v1::read(paths),
            CgroupPaths::V2(path) => v2::read(path),
            CgroupPaths::None => {
                return Err(runhcs_compute::Error::Unsupported(
                    "this system has no control groups to read statistics from".into(),
                ));
            }
        };
        stats.context(|| "read the statistics of the container's control groups".into())
    }
}

/// Huge pages of every size the group counts; `files` names usage, maximum and failures of a size.
fn huge_pages(
    group: &Group<'_>,
    stats: &mut Stats,
    files: impl Fn(&Group<'_>, &str) -> io::Result<Option<HugePages>>,
) -> io::Result<()> {
    for size in group.hugepage_sizes()? {
        if let Some(pages) = files(group, &size)? {
            stats.hugetlb.insert(size, pages);
        }
    }
    Ok(())
}
