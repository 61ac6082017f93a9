//! Work in another network namespace, which only a thread of its own can enter without taking the
//! rest of the process along (setns(2)).

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, anyhow};
use rtnetlink::Handle;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace's descriptor that does not keep the file busy by which it was found, so that the
/// namespace's owner can unmount that while the VM runs.
pub fn open(path: &Path) -> anyhow::Result<File> {
    let found = File::open(path)?;
    enter_and(&found, || {
        File::open("/proc/thread-self/ns/net").context("cannot open the namespace again")
    })
}

fn enter(netns: &File) -> anyhow::Result<()> {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter it; is it a network namespace?")
}

/// Whether a namespace is the one this process is in.
pub fn is_our_own(netns: &File) -> anyhow::Result<bool> {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let ours =
        std::fs::metadata("/proc/self/ns/net").context("cannot look at /proc/self/ns/net")?;
    let theirs = netns.metadata().context("cannot look at the network namespace")?;
    Ok(identity(ours) == identity(theirs))
}

/// Runs `work` in the namespace.
pub fn enter_and<T: Send>(
    netns: &File,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let run = || {
        enter(netns)?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|_| Err(anyhow!("the thread in the network namespace failed")))
}

/// Runs `work` in the namespace, with a netlink socket of it.
pub fn within<T: Send>(
    netns: &File,
    work: impl AsyncFnOnce(Handle) -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    enter_and(netns, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make an event loop")?;
        runtime.block_on(async {
            let (connection, handle, _) =
                rtnetlink::new_connection().context("cannot open a netlink socket")?;
            let connection = tokio::spawn(connection);
            let outcome = work(handle).await;
            connection.abort();
            outcome
        })
    })
}
