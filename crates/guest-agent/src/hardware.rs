//! Taking memory and processors into use that the VM was given while it runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use runhcs_protocol::guest::Hardware;

/// Where the kernel lists pieces of memory and processors (sysfs(5)).
const MEMORY: &str = "/sys/devices/system/memory";
const PROCESSORS: &str = "/sys/devices/system/cpu";
/// How long what was plugged in may take to be seen, and how often it is looked for.
const DEADLINE: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(5);

/// Takes all that is there into use, and waits until that is as much as it should be.
///
/// # Errors
/// If it isn't seen in time, or the kernel doesn't take it.
pub async fn take_into_use(hardware: Hardware) -> Result<()> {
    let seen = async {
        loop {
            let found = online_all()?;
            if found.memory_mib >= hardware.memory_mib && found.vcpus >= hardware.vcpus {
                return Ok(());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    match tokio::time::timeout(DEADLINE, seen).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let found = online_all()?;
            bail!("the kernel has {found:?} after {} s, not {hardware:?}", DEADLINE.as_secs())
        }
    }
}

/// Takes all into use that is seen, and says how much that is.
fn online_all() -> Result<Hardware> {
    let size = Path::new(MEMORY).join("block_size_bytes");
    let text =
        std::fs::read_to_string(&size).with_context(|| format!("read {}", size.display()))?;
    let block_mib =
        u64::from_str_radix(text.trim(), 16).context("the size of memory blocks")? >> 20;
    let mut blocks = 0;
    for block in numbered(MEMORY, "memory")? {
        ensure_is(&block.join("state"), "online")?;
        blocks += 1;
    }
    let mut vcpus = 0;
    for processor in numbered(PROCESSORS, "cpu")? {
        // The first one has no such file where it can't be taken out of use.
        let online = processor.join("online");
        if online.exists() {
            ensure_is(&online, "1")?;
        }
        vcpus += 1;
    }
    Ok(Hardware { memory_mib: blocks * block_mib, vcpus })
}

/// The directories `<name><number>` in a directory.
fn numbered(directory: &str, name: &str) -> Result<Vec<PathBuf>> {
    let what = || format!("list {directory}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(what)? {
        let entry = entry.with_context(what)?;
        let file_name = entry.file_name();
        let number = file_name.to_str().and_then(|text| text.strip_prefix(name));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if number.is_some_and(is_number) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn ensure_is(path: &Path, state: &str) -> Result<()> {
    let is = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    if is.trim() == state {
        return Ok(());
    }
    std::fs::write(path, state).with_context(|| format!("write {state} to {}", path.display()))
}
