//! The compressions that kernels, modules and packages come in, told by their first bytes.

use std::io::Read;

use anyhow::{Context, Result, bail};

/// More than any kernel or module holds; a bound for hostile input, in bytes.
const MAX: u64 = 1 << 30;

const GZIP: &[u8] = &[0x1f, 0x8b, 0x08];
const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// The legacy frame format, which the kernel uses (lz4 frame format description, "Legacy frame").
const LZ4: &[u8] = &[0x02, 0x21, 0x4c, 0x18];
/// A block of the legacy format holds this much, in bytes, but for the last.
const LZ4_BLOCK: usize = 8 << 20;

/// The magic numbers of all that [`decompress`] knows.
pub const MAGICS: [&[u8]; 4] = [GZIP, XZ, ZSTD, LZ4];

/// Decompresses `data` if it is compressed in a known way; otherwise returns it as it is. What
/// follows the compressed data is ignored.
pub fn decompress(data: &[u8]) -> Result<Vec<u8>> {
    let read = |reader: &mut dyn Read| -> Result<Vec<u8>> {
        let mut out = Vec::new();
        reader.take(MAX + 1).read_to_end(&mut out).context("decompress")?;
        if out.len() as u64 > MAX {
            bail!("it decompresses to more than {MAX} bytes");
        }
        Ok(out)
    };
    if data.starts_with(GZIP) {
        read(&mut flate2::read::GzDecoder::new(data))
    } else if data.starts_with(XZ) {
        read(&mut liblzma::read::XzDecoder::new(data))
    } else if data.starts_with(ZSTD) {
        let mut decoder =
            ruzstd::decoding::StreamingDecoder::new(data).context("decompress zstd")?;
        read(&mut decoder)
    } else if data.starts_with(LZ4) {
        lz4_legacy(&data[LZ4.len()..])
    } else {
        Ok(data.to_vec())
    }
}

fn lz4_legacy(mut data: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((header, rest)) = data.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*header) as usize;
        // In a kernel the frame is followed by the payload's size, and then by other things: the
        // first length that can't be one ends it.
        if length == 0 || length > rest.len() || out.len() % LZ4_BLOCK != 0 {
            break;
        }
        let block = lz4_flex::block::decompress(&rest[..length], LZ4_BLOCK);
        out.extend(block.context("decompress LZ4")?);
        if out.len() as u64 > MAX {
            bail!("it decompresses to more than {MAX} bytes");
        }
        data = &rest[length..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_lz4_of_several_blocks() {
        let payload: Vec<u8> = (0..LZ4_BLOCK + 1000).map(|n| (n / 7) as u8).collect();
        let mut data = LZ4.to_vec();
        for block in payload.chunks(LZ4_BLOCK) {
            let block = lz4_flex::block::compress(block);
            data.extend((block.len() as u32).to_le_bytes());
            data.extend(block);
        }
        data.extend((payload.len() as u32).to_le_bytes());
        assert_eq!(decompress(&data).unwrap(), payload);
    }

    #[test]
    fn what_is_not_compressed_stays() {
        assert_eq!(decompress(b"plain").unwrap(), b"plain");
    }

    #[test]
    fn damage_is_an_error() {
        let mut data = LZ4.to_vec();
        data.extend([4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert!(decompress(&data).is_err());
        assert!(decompress(&[GZIP, b"nonsense"].concat()).is_err());
    }
}
