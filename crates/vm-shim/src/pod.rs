//! What runs in the VM: containers, their shared file trees, and their processes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use oci_spec::runtime::{Mount, Spec};
use runhcs_compute::ContainerId;
use runhcs_protocol::guest::{
    self, DiskPurpose, Failure, ProcessKey, Reply, Request, UpdateContainer,
};
use runhcs_protocol::shim::{BindMount, CreateContainer, Disk, Info, StandIn};
use runhcs_spec::GUEST_OVERHEAD_MIB;
use runhcs_uvm::deadline;
use tokio::sync::Mutex;

use crate::agent::{Agent, NoReply};
use crate::disks::{Disks, Uses};
use crate::ending::Ending;
use crate::growth::Growth;
use crate::limits::Limits;
use crate::network::Link;
use crate::share::{ReadOnly, ShareTree, Shared, Tree};
use crate::vsock::Dialer;

/// What a container has of the host, as long as it exists. Locked while it is being created or
/// deleted.
type Slot = Rc<Mutex<Option<Brought>>>;

struct Brought {
    disks: Uses,
    /// Shared until it is dropped.
    _trees: Shared,
}

/// What of the VM's hardware comes and goes.
pub struct Hardware {
    /// Its disks.
    pub disks: Disks,
    /// Its memory and processors.
    pub growth: Growth,
}

/// The pod in the VM.
pub struct Pod {
    /// The guest agent.
    pub agent: Agent,
    /// For streams to the guest agent.
    pub dialer: Dialer,
    /// Tells when the VM has ended, and how.
    pub ending: Ending,
    /// About the VM.
    pub info: Info,
    network: Option<Rc<Link>>,
    share: RefCell<ShareTree>,
    hardware: Hardware,
    limits: Limits,
    containers: RefCell<HashMap<ContainerId, Slot>>,
    processes: RefCell<HashMap<ProcessKey, Process>>,
}

/// A process that can be attached to.
#[derive(Clone, Copy, Debug)]
struct Process {
    terminal: bool,
    guest_pid: u32,
    /// The host's process that has attached to it.
    attached: Option<u32>,
}

impl Pod {
    /// An empty pod.
    pub fn new(
        agent: Agent,
        dialer: Dialer,
        ending: Ending,
        info: Info,
        share: ShareTree,
        hardware: Hardware,
        network: Option<Rc<Link>>,
    ) -> Self {
        Self {
            agent,
            dialer,
            ending,
            info,
            network,
            share: RefCell::new(share),
            hardware,
            limits: Limits::default(),
            containers: RefCell::default(),
            processes: RefCell::default(),
        }
    }

    /// Shares a container's trees, plugs its disks in and creates it in the guest. Undone if it
    /// fails. `descriptors` are what came with the request.
    pub async fn create(
        &self,
        request: CreateContainer,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, NoReply> {
        let CreateContainer { id, mut spec, root_inner, mounts, disks } = request;
        let slot = self.containers.borrow_mut().entry(id.clone()).or_default().clone();
        let result = async {
            let mut slot = slot.lock().await;
            if slot.is_some() {
                return Err(refuse(format!("container {id} exists in the virtual machine")));
            }
            if descriptors.len() != 1 + mounts.len() + disks.len() {
                return Err(malformed("the number of descriptors doesn't match their uses"));
            }
            let mut trees = descriptors;
            let files = trees.split_off(1 + mounts.len());
            // What is written to the root goes to the disk, so the host's files stay as they are.
            let read_only = if has_scratch(&disks) { ReadOnly::Mount } else { ReadOnly::No };
            let shared = self.share(&mut spec, &mounts, trees, read_only)?;
            let inner = inner_mounts(&shared, &root_inner, &mounts);
            let plugged = self.hardware.disks.plug(disks.into_iter().zip(files).collect()).await;
            let disks = plugged.map_err(|error| refuse(format!("{error:#}")))?;
            let limits = spec.linux().as_ref().and_then(|linux| linux.resources().clone());
            match self.create_in_guest(&id, spec, &disks, inner).await {
                Ok(reply) => {
                    self.limits.note(&id, limits.as_ref());
                    *slot = Some(Brought { disks, _trees: shared });
                    Ok(reply)
                }
                Err(error) => {
                    self.hardware.disks.release(disks).await;
                    Err(error)
                }
            }
        }
        .await;
        self.forget_if_unused(&id, slot);
        result
    }

    async fn create_in_guest(
        &self,
        id: &ContainerId,
        spec: Spec,
        disks: &Uses,
        inner_mounts: Vec<PathBuf>,
    ) -> Result<Reply, NoReply> {
        let terminal = spec.process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
        let create =
            guest::CreateContainer { id: id.clone(), spec, disks: disks.for_guest(), inner_mounts };
        let create = Request::CreateContainer(Box::new(create));
        match self.agent.call(&create, deadline::of(&create)).await {
            Ok(reply @ Reply::Process { exec: None, pid }) => {
                let key = ProcessKey { container: id.clone(), exec: None };
                self.add_process(key, terminal, pid);
                Ok(reply)
            }
            Ok(reply) => Err(unexpected(&reply)),
            Err(error) => {
                if let NoReply::Failed(_) = error {
                    // It may have been late rather than failed, and still use what it was given.
                    let delete = Request::DeleteContainer(id.clone());
                    let _ = self.agent.call(&delete, deadline::of(&delete)).await;
                }
                Err(error)
            }
        }
    }

    /// Deletes a container in the guest, then takes back what it had of the host.
    pub async fn delete(&self, id: &ContainerId) -> Result<Reply, NoReply> {
        let slot = self.containers.borrow_mut().entry(id.clone()).or_default().clone();
        let result = async {
            let mut slot = slot.lock().await;
            let delete = Request::DeleteContainer(id.clone());
            match self.agent.call(&delete, deadline::of(&delete)).await {
                Ok(Reply::Done) | Err(NoReply::Failed(Failure::NotFound)) => {}
                Ok(reply) => return Err(unexpected(&reply)),
                Err(error) => return Err(error),
            }
            if let Some(brought) = slot.take() {
                self.hardware.disks.release(brought.disks).await;
            }
            self.processes.borrow_mut().retain(|key, _| key.container != *id);
            self.limits.forget(id);
            Ok(Reply::Done)
        }
        .await;
        self.forget_if_unused(id, slot);
        result
    }

    /// Has the guest follow the pod's network.
    pub async fn sync_network(&self) -> Result<Reply, NoReply> {
        let Some(network) = &self.network else { return Ok(Reply::Done) };
        let followed = network.follow().await;
        followed.map(|()| Reply::Done).map_err(|error| refuse(format!("{error:#}")))
    }

    /// Passes a request on to the agent. Before an update the VM grows, if it must.
    pub async fn forward(&self, request: Request) -> Result<Reply, NoReply> {
        if let Request::UpdateContainer(update) = &request {
            self.fit(update).await?;
        }
        let created = match &request {
            Request::CreateContainer(_) | Request::DeleteContainer(_) | Request::WaitProcess(_) => {
                return Err(refuse("the VM shim has a request of its own for this".to_owned()));
            }
            Request::CreateProcess(create) => {
                let terminal = create.process.terminal().unwrap_or(false);
                Some((create.container.clone(), terminal))
            }
            _ => None,
        };
        let reply = self.agent.call(&request, deadline::of(&request)).await?;
        if let Request::UpdateContainer(update) = &request {
            self.limits.note(&update.id, Some(&update.resources));
        }
        if let Some((container, terminal)) = created {
            let Reply::Process { exec: exec @ Some(_), pid } = reply else {
                return Err(unexpected(&reply));
            };
            let key = ProcessKey { container, exec };
            if self.processes.borrow().contains_key(&key) {
                // Somebody else's process would be handed out.
                return Err(unexpected(&Reply::Process { exec, pid }));
            }
            self.add_process(key, terminal, pid);
        }
        Ok(reply)
    }

    /// Has the VM hold what limits come to that a container is to get.
    async fn fit(&self, update: &UpdateContainer) -> Result<(), NoReply> {
        let UpdateContainer { id, resources } = update;
        if resources.memory().is_none() && resources.cpu().is_none() {
            return Ok(());
        }
        let needed = self.limits.needed(id, resources);
        let fitted = self.hardware.growth.fit(needed, GUEST_OVERHEAD_MIB).await;
        fitted.map_err(|error| refuse(format!("{error:#}")))
    }

    /// Lets the host's process `pid` attach to a process, the first who asks. Says whether it has a
    /// terminal.
    pub fn claim(&self, key: &ProcessKey, pid: u32) -> Result<bool, Failure> {
        match self.processes.borrow_mut().get_mut(key) {
            None => Err(Failure::NotFound),
            Some(Process { attached: Some(_), .. }) => {
                Err(Failure::Other(vec![format!("{key} is attached to already")]))
            }
            Some(process) => {
                process.attached = Some(pid);
                Ok(process.terminal)
            }
        }
    }

    /// Which of a container's processes a process of the host stands for.
    pub fn stand_ins(&self, id: &ContainerId) -> Vec<StandIn> {
        let processes = self.processes.borrow();
        let of_container = processes.iter().filter(|(key, _)| key.container == *id);
        let stand_ins = of_container.filter_map(|(key, process)| {
            let pid = process.attached?;
            Some(StandIn { pid, process: key.clone(), guest_pid: process.guest_pid })
        });
        stand_ins.collect()
    }

    /// Forgets an exec'd process that has ended, here and in the guest.
    pub async fn forget(&self, key: &ProcessKey) {
        if key.exec.is_none() {
            // An init process belongs to its container.
            return;
        }
        self.processes.borrow_mut().remove(key);
        let delete = Request::DeleteProcess(key.clone());
        if let Err(NoReply::Failed(error)) = self.agent.call(&delete, deadline::of(&delete)).await {
            tracing::warn!(%key, %error, "the guest agent doesn't forget a process");
        }
    }

    fn add_process(&self, key: ProcessKey, terminal: bool, guest_pid: u32) {
        self.processes.borrow_mut().insert(key, Process { terminal, guest_pid, attached: None });
    }

    /// Attaches the trees and puts the guest's paths into the spec.
    fn share(
        &self,
        spec: &mut Spec,
        mounts: &[BindMount],
        trees: Vec<OwnedFd>,
        read_only: ReadOnly,
    ) -> Result<Shared, NoReply> {
        let mut trees = trees.into_iter();
        let rootfs = trees.next().ok_or_else(|| malformed("no root file system"))?;
        let rootfs = Tree { mount: rootfs, read_only, follows_host: false, shareable: false };
        let mut shared_mounts = Vec::new();
        for (BindMount { index, shareable, .. }, mount) in mounts.iter().zip(trees) {
            let entry = spec.mounts().as_ref().and_then(|mounts| mounts.get(*index));
            let entry = entry.ok_or_else(|| malformed("no such mount"))?;
            shared_mounts.push(Tree {
                mount,
                read_only: read_only_part(entry),
                follows_host: follows_host(entry),
                shareable: *shareable,
            });
        }
        let shared = self
            .share
            .borrow_mut()
            .attach(rootfs, shared_mounts)
            .map_err(|error| NoReply::Failed(Failure::from_error(error.as_ref())))?;
        let root = spec.root_mut().as_mut().ok_or_else(|| malformed("the spec has no root"))?;
        root.set_path(shared.guest_rootfs());
        if let Some(entries) = spec.mounts_mut() {
            for (BindMount { index, .. }, source) in mounts.iter().zip(shared.guest_mounts()) {
                if let Some(entry) = entries.get_mut(*index) {
                    entry.set_source(Some(source));
                }
            }
        }
        Ok(shared)
    }

    fn forget_if_unused(&self, id: &ContainerId, slot: Slot) {
        let empty = slot.try_lock().is_ok_and(|shared| shared.is_none());
        // The map's, and ours.
        if empty && Rc::strong_count(&slot) == 2 {
            self.containers.borrow_mut().remove(id);
        }
    }
}

/// Which part of a mount its options make read-only. Of contradicting ones the last counts
/// (mount(8)).
fn read_only_part(mount: &Mount) -> ReadOnly {
    let options = mount.options().as_deref().unwrap_or_default();
    let last = |of: &[&str]| {
        let mut options = options.iter().rev().map(String::as_str);
        options.find(|option| of.contains(option))
    };
    if !matches!(last(&["ro", "rw", "rro", "rrw"]), Some("ro" | "rro")) {
        ReadOnly::No
    } else if last(&["rro", "rrw"]) == Some("rro") {
        ReadOnly::All
    } else {
        ReadOnly::Mount
    }
}

/// Where the guest finds other file systems in a container's trees.
fn inner_mounts(shared: &Shared, root: &[PathBuf], mounts: &[BindMount]) -> Vec<PathBuf> {
    let root = (shared.guest_rootfs(), root);
    let mounts = shared.guest_mounts().zip(mounts.iter().map(|mount| mount.inner.as_slice()));
    let join = |(tree, points): (PathBuf, &[PathBuf])| {
        // An absolute path would lead out of the tree.
        let inside = points.iter().filter(|point| !point.has_root());
        inside.map(|point| tree.join(point)).collect::<Vec<_>>()
    };
    std::iter::once(root).chain(mounts).flat_map(join).collect()
}

/// Whether a bind mount receives what is mounted in its source later (mount_namespaces(7)).
fn follows_host(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    options.iter().any(|option| matches!(option.as_str(), "slave" | "rslave"))
}

/// Whether what is written to the root file system goes to a disk.
fn has_scratch(disks: &[Disk]) -> bool {
    disks.iter().any(|disk| disk.purpose == DiskPurpose::Scratch)
}

fn malformed(what: &str) -> NoReply {
    refuse(format!("malformed request: {what}"))
}

fn refuse(message: String) -> NoReply {
    NoReply::Failed(Failure::Other(vec![message]))
}

fn unexpected(reply: &Reply) -> NoReply {
    tracing::warn!(?reply, "the guest agent's answer makes no sense");
    refuse("the guest agent's answer makes no sense".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mounts_options_make_read_only() {
        for (options, expected) in [
            (&[][..], ReadOnly::No),
            (&["rbind", "ro"], ReadOnly::Mount),
            (&["ro", "rw"], ReadOnly::No),
            (&["rbind", "rro"], ReadOnly::All),
            (&["rro", "ro"], ReadOnly::All),
            (&["rro", "rrw", "ro"], ReadOnly::Mount),
            (&["rro", "rw"], ReadOnly::No),
        ] {
            let text = serde_json::json!({ "destination": "/x", "options": options });
            assert_eq!(
                read_only_part(&serde_json::from_value(text).unwrap()),
                expected,
                "{options:?}"
            );
        }
    }
}
