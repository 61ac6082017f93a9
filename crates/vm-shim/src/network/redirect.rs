//! Moving packets between an interface and a tap, as
//! `tc filter add … u32 match u8 0 0 action mirred egress redirect dev …` does (tc-mirred(8)).

use anyhow::Context;
use rtnetlink::Handle;

/// Where filters for arriving packets are attached: the ingress queueing discipline's handle.
const INGRESS: u32 = 0xffff_0000;
/// `ETH_P_ALL` (linux/if_ether.h) as it goes over the wire.
const ALL_PROTOCOLS: u16 = 0x0003_u16.to_be();

/// Has everything that arrives at the one leave through the other, both ways. Both are indexes.
pub async fn redirect(handle: &Handle, interface: u32, tap: u32) -> anyhow::Result<()> {
    // A VM whose shim was killed may have left its own.
    undo(handle, interface).await;
    one_way(handle, interface, tap).await?;
    one_way(handle, tap, interface).await
}

async fn one_way(handle: &Handle, from: u32, to: u32) -> anyhow::Result<()> {
    let what = "cannot redirect its packets; the kernel needs sch_ingress, cls_u32 and act_mirred";
    let from = from.cast_signed();
    handle.qdisc().add(from).ingress().execute().await.context(what)?;
    let filter = handle.traffic_filter(from).add().parent(INGRESS).priority(1);
    let filter = filter.protocol(ALL_PROTOCOLS).redirect(to).context(what)?;
    filter.execute().await.context(what)
}

/// Ends the redirection of what arrives at an interface. Fails only if there is none.
pub async fn undo(handle: &Handle, index: u32) {
    let mut request = handle.qdisc().del(index.cast_signed());
    let header = &mut request.message_mut().header;
    header.parent = rtnetlink::packet_route::tc::TcHandle::INGRESS;
    header.handle = INGRESS.into();
    let _ = request.execute().await;
}
