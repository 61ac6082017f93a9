//! The VM's network as it runs: the guest follows the pod's network namespace, by itself shortly
//! after something has changed there, and at once when it is asked to.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use runhcs_protocol::guest::{Reply, Request};
use runhcs_protocol::network::Network;
use runhcs_uvm::deadline;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::sync::Mutex;

use super::Carried;
use crate::agent::{Agent, NoReply};
use crate::watch::watch;

/// How long to wait after a change: they come in groups.
const GROUP: Duration = Duration::from_millis(50);

/// What the guest was told, and by whom it is told more.
pub struct Link {
    agent: Agent,
    state: Mutex<State>,
}

struct State {
    /// `None` once the VM has ended.
    carried: Option<Carried>,
    /// What the guest has; `None` if that isn't known.
    told: Option<Network>,
}

impl Link {
    /// Tells the guest of the network, and has it follow.
    ///
    /// # Errors
    /// If the guest can't set it up.
    pub async fn start(
        agent: Agent,
        carried: Carried,
        network: Network,
    ) -> anyhow::Result<Rc<Self>> {
        let changes = watch(carried.changes()?, Interest::READABLE)?;
        let state = State { carried: Some(carried), told: Some(Network::default()) };
        let link = Rc::new(Self { agent, state: Mutex::new(state) });
        link.tell(&mut *link.state.lock().await, network).await?;
        let follower = link.clone();
        tokio::task::spawn_local(async move {
            loop {
                let Ok(mut ready) = changes.readable().await else { return };
                // What has changed is seen by looking; this only empties the queue.
                let heard = ready.try_io(|socket| drain(socket.get_ref()));
                if let Ok(Err(error)) = heard {
                    tracing::warn!(%error, "the network namespace can't be watched any more");
                    return;
                }
                tokio::time::sleep(GROUP).await;
                if follower.state.lock().await.carried.is_none() {
                    return;
                }
                if let Err(error) = follower.follow().await {
                    tracing::warn!(error = format!("{error:#}"), "the VM can't follow its network");
                }
            }
        });
        Ok(link)
    }

    /// Has the guest's network be that of the namespace now.
    ///
    /// # Errors
    /// What can't be carried, or what the guest can't set up.
    pub async fn follow(&self) -> anyhow::Result<()> {
        let mut state = self.state.lock().await;
        let Some(carried) = &mut state.carried else { bail!("the virtual machine has ended") };
        let network = carried.follow()?;
        self.tell(&mut state, network).await
    }

    /// Gives the network back to the namespace. The VM has ended.
    pub async fn end(&self) {
        self.state.lock().await.carried = None;
    }

    async fn tell(&self, state: &mut State, network: Network) -> anyhow::Result<()> {
        if state.told.as_ref() == Some(&network) {
            return Ok(());
        }
        state.told = None;
        let request = Request::ConfigureNetwork(Box::new(network.clone()));
        match self.agent.call(&request, deadline::of(&request)).await {
            Ok(Reply::Done) => {}
            Ok(reply) => bail!("the guest agent's answer makes no sense: {reply:?}"),
            Err(NoReply::Failed(why)) => {
                return Err(anyhow!(why)).context("cannot set the guest's network up");
            }
            Err(NoReply::Ended(end)) => bail!("{end}"),
        }
        state.told = Some(network);
        Ok(())
    }
}

/// Reads all there is. Lost news (`ENOBUFS`, netlink(7)) are news too.
fn drain(socket: impl std::os::fd::AsFd) -> io::Result<()> {
    let mut buffer = [0_u8; 8192];
    let mut heard = false;
    loop {
        match rustix::io::read(&socket, &mut buffer) {
            Ok(_) | Err(Errno::NOBUFS) => heard = true,
            Err(Errno::AGAIN) if heard => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
