//! Says what its arguments are, a line each, to whoever `NOTIFY_SOCKET` names (sd_notify(3)).

use std::os::unix::net::UnixDatagram;

fn main() -> anyhow::Result<()> {
    let message = std::env::args().skip(1).collect::<Vec<_>>().join("\n");
    UnixDatagram::unbound()?.send_to(message.as_bytes(), std::env::var("NOTIFY_SOCKET")?)?;
    Ok(())
}
