//! The uncompressed kernel out of a bzImage (Documentation/x86/boot.rst): QEMU boots it by its PVH
//! entry, and a translated guest needn't decompress it at each boot.

use anyhow::{Context, Result, bail};

use crate::decompress::{MAGICS, decompress};

const ELF: &[u8] = b"\x7fELF";

/// The ELF image in `file`, which is one or holds one.
pub fn extract(file: &[u8]) -> Result<Vec<u8>> {
    if file.starts_with(ELF) {
        return Ok(file.to_vec());
    }
    if file.get(0x202..0x206) != Some(b"HdrS") {
        bail!("it is neither an ELF image nor a bzImage");
    }
    let word = |at: usize| -> Result<usize> {
        let bytes = file.get(at..at + 4).context("the boot header is cut off")?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    // setup_sects 512-byte sectors (4 if it says 0) come after the first; then the code, in which
    // the payload is at payload_offset.
    let sectors = match file[0x1f1] {
        0 => 4,
        n => usize::from(n),
    };
    let (offset, length) = (word(0x248)?, word(0x24c)?);
    let begin = (sectors + 1) * 512 + offset;
    let payload = file.get(begin..).and_then(|rest| rest.get(..length));
    let payload = payload.context("the payload is cut off")?;
    if !MAGICS.iter().any(|magic| payload.starts_with(magic)) && !payload.starts_with(ELF) {
        bail!(
            "the kernel is compressed in a way that is not supported; lz4, gzip, xz and zstd are"
        );
    }
    let image = decompress(payload)?;
    if !image.starts_with(ELF) {
        bail!("the payload is not an ELF image");
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(extract(b"hello").unwrap_err().to_string().contains("neither"));
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x24c] = 0xff;
        image[0x24e] = 0xff;
        assert!(extract(&image).unwrap_err().to_string().contains("cut off"));
    }

    #[test]
    fn an_elf_image_is_one_already() {
        assert_eq!(extract(b"\x7fELF...").unwrap(), b"\x7fELF...");
    }
}
