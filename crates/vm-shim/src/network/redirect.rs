//! Moving packets between an interface and a tap, as
//! `tc filter add … u32 match u8 0 0 action mirred egress redirect dev …` does (tc-mirred(8)).

use std::os::fd::OwnedFd;

use anyhow::{Context, bail};
use futures_util::TryStreamExt;
use rtnetlink::{Handle, LinkUnspec};
use runhcs_protocol::network::Interface;

use super::tap;

/// Where filters for arriving packets are attached: the ingress queueing discipline's handle.
const INGRESS: u32 = 0xffff_0000;
/// `ETH_P_ALL` (linux/if_ether.h) as it goes over the wire.
const ALL_PROTOCOLS: u16 = 0x0003_u16.to_be();

/// Has everything that arrives at the interface leave through a new tap, and the other way round.
pub async fn redirect(
    handle: &Handle,
    index: u32,
    interface: &Interface,
) -> anyhow::Result<OwnedFd> {
    let (fd, name) = tap::open(c"rhtap%d").context("cannot make a tap device")?;
    let mut links = handle.link().get().match_name(name).execute();
    let Some(tap) = links.try_next().await.context("cannot find the tap device")? else {
        bail!("the tap device has gone");
    };
    let tap = tap.header.index;
    let up = LinkUnspec::new_with_index(tap).mtu(interface.mtu).up().build();
    handle.link().set(up).execute().await.context("cannot bring the tap device up")?;
    // A VM whose shim was killed may have left its own.
    undo(handle, index).await;
    one_way(handle, index, tap).await?;
    one_way(handle, tap, index).await?;
    Ok(fd)
}

async fn one_way(handle: &Handle, from: u32, to: u32) -> anyhow::Result<()> {
    let what = "cannot redirect its packets; the kernel needs sch_ingress, cls_u32 and act_mirred";
    let from = from.cast_signed();
    handle.qdisc().add(from).ingress().execute().await.context(what)?;
    let filter = handle.traffic_filter(from).add().parent(INGRESS).priority(1);
    let filter = filter.protocol(ALL_PROTOCOLS).redirect(to).context(what)?;
    filter.execute().await.context(what)
}

/// Ends the redirection of an interface. Fails only if there is none.
pub async fn undo(handle: &Handle, index: u32) {
    let mut request = handle.qdisc().del(index.cast_signed());
    let header = &mut request.message_mut().header;
    header.parent = rtnetlink::packet_route::tc::TcHandle::INGRESS;
    header.handle = INGRESS.into();
    let _ = request.execute().await;
}
