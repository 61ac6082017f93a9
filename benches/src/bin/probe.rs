//! What is measured inside a guest: `probe files DIRECTORY` and `probe net ADDRESS` print lines of a
//! name and milliseconds. It is the same program in a container and in a bare guest.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

const MIB: usize = 1 << 20;
/// Of a file, and of a connection each way, in MiB.
const SIZE: usize = 32;
/// Small files, and round trips.
const MANY: usize = 200;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["files", directory] => files(Path::new(directory)),
        ["net", address] => network(address.parse().context("read the address")?),
        _ => bail!("usage: probe files DIRECTORY | probe net ADDRESS"),
    }
}

fn timed(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    work().with_context(|| name.to_owned())?;
    println!("{name} {:.3}", begin.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn files(directory: &Path) -> Result<()> {
    let (large, block) = (directory.join("large"), vec![7; MIB]);
    timed("write", || {
        let mut file = File::create(&large)?;
        for _ in 0..SIZE {
            file.write_all(&block)?;
        }
        Ok(file.sync_all()?)
    })?;
    // Opened anew: what the guest has cached of it is forgotten (`CachePolicy::Auto` of virtiofs).
    timed("read", || {
        let (mut file, mut buffer, mut total) = (File::open(&large)?, vec![0; MIB], 0);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => total += read,
            }
        }
        ensure!(total == SIZE * MIB, "{total} bytes were read");
        Ok(())
    })?;
    fs::remove_file(&large)?;
    timed("small", || {
        let name = |number: usize| directory.join(format!("small{number}"));
        for number in 0..MANY {
            fs::write(name(number), [7; 1024])?;
        }
        for number in 0..MANY {
            ensure!(fs::read(name(number))?.len() == 1024, "a small file has another size");
            fs::remove_file(name(number))?;
        }
        Ok(())
    })
}

fn network(address: SocketAddr) -> Result<()> {
    let connect = |what: u8| -> Result<TcpStream> {
        let mut stream = TcpStream::connect(address).context("connect")?;
        stream.set_nodelay(true)?;
        stream.write_all(&[what])?;
        Ok(stream)
    };
    // Resolves the neighbour, too.
    connect(b'e')?;
    timed("receive", || {
        let (mut stream, mut buffer, mut total) = (connect(b's')?, vec![0; MIB], 0);
        while total < SIZE * MIB {
            match stream.read(&mut buffer)? {
                0 => bail!("the connection has ended after {total} bytes"),
                read => total += read,
            }
        }
        Ok(())
    })?;
    timed("send", || {
        let (mut stream, block) = (connect(b'r')?, vec![7; MIB]);
        for _ in 0..SIZE {
            stream.write_all(&block)?;
        }
        // Until the other side has it all.
        Ok(stream.read_exact(&mut [0])?)
    })?;
    let mut stream = connect(b'e')?;
    timed("trips", || {
        for _ in 0..MANY {
            stream.write_all(&[1])?;
            stream.read_exact(&mut [0])?;
        }
        Ok(())
    })
}
