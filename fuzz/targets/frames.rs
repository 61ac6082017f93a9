//! Frames as the guest, or whoever reaches the VM shim's socket, may send them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runhcs_protocol::frame::{self, MAX_REPLY, MAX_REQUEST};
use runhcs_protocol::{guest, shim, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What can be read must come back as it is when it is sent on.
fn read<T: Serialize + DeserializeOwned>(bytes: &[u8], limit: usize) {
    let mut reader = bytes;
    while let Ok(Some(message)) = frame::read::<T>(&mut reader, limit) {
        let sent = frame::encode(&message).expect("a message can be sent");
        let received: T = frame::read(&mut sent.as_slice(), sent.len())
            .expect("a message that was sent can be received")
            .expect("it is there");
        assert_eq!(frame::encode(&received).expect("it can be sent again"), sent);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 6 {
        0 => read::<guest::Envelope<guest::Reply>>(bytes, MAX_REPLY),
        1 => read::<guest::FromAgent>(bytes, MAX_REPLY),
        2 => read::<guest::Envelope<guest::Request>>(bytes, MAX_REQUEST),
        3 => read::<shim::Request>(bytes, MAX_REQUEST),
        4 => read::<shim::Reply>(bytes, MAX_REPLY),
        _ => {
            let (mut reader, mut chunk) = (bytes, Vec::new());
            while let Ok(true) = stream::read_chunk(&mut reader, &mut chunk) {}
        }
    }
});
