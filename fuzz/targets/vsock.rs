//! Packets of a guest that follows no rules, while the host dials, writes and reads.
#![no_main]
#![allow(dead_code, reason = "the VM shim uses the rest of the included modules")]

use std::io::{Read, Write};
use std::os::fd::AsFd;

use libfuzzer_sys::fuzz_target;
use rustix::event::{EventfdFlags, eventfd};

use vsock::mux::{Listener, Mux};
use vsock::packet::Header;

#[path = "../../crates/vm-shim/src/vsock"]
mod vsock {
    pub mod connection;
    pub mod mux;
    pub mod packet;
}

const GUEST: u64 = 3;
const PORT: u32 = 1022;

fuzz_target!(|bytes: &[u8]| {
    let wake = eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
    let (accepted, _agent) = tokio::sync::oneshot::channel();
    let listener = Listener { port: 1023, accepted };
    let mut mux = Mux::new(GUEST, listener, wake.as_fd()).expect("a multiplexer");
    let mut host = mux.dial(PORT).expect("a connection");
    host.set_nonblocking(true).expect("a socket that doesn't block");
    let mut buffer = [0; 4096];
    for packet in bytes.chunks(Header::SIZE + 4) {
        let Some((raw, rest)) = packet.split_first_chunk::<{ Header::SIZE }>() else { break };
        let mut header = Header::from_bytes(raw);
        let [what, count, ..] = *rest else { break };
        if what & 1 != 0 {
            // Close enough to the truth to get somewhere.
            (header.src_cid, header.dst_cid, header.kind) = (GUEST, 2, 1);
            (header.src_port, header.dst_port) = (PORT, 1024);
        }
        let payload = vec![what; usize::from(count) * 16];
        header.len = payload.len() as u32;
        if mux.accepts_packets() {
            mux.receive(&header, &payload);
        }
        if what & 2 != 0 {
            let _ = host.write(&payload);
        }
        if what & 4 != 0 {
            let _ = host.read(&mut buffer);
        }
        mux.poll().expect("the sockets can be polled");
        if what & 8 != 0 {
            let room = usize::from(count) * 16;
            while let Some(sent) = mux.next_packet(&mut buffer[..room.min(4096)]) {
                assert!(sent.len as usize <= room, "{sent:?} in {room} bytes");
            }
        }
    }
});
