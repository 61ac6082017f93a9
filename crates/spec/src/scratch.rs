//! The disk to which a container in a VM writes what it changes in its root file system.

use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::{Error, Result};

/// The annotation that asks for one.
pub(crate) const SCRATCH: &str = "io.runhcs.scratch";

/// The least that ext4 and its journal are of use on, and as much as ext4 holds.
const MIB: std::ops::RangeInclusive<u64> = 16..=(1 << 24);

/// Where changes of the root file system go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scratch {
    /// To a disk of this many MiB that is made for the container, and goes with it.
    New {
        /// Its size in MiB.
        mib: u64,
    },
    /// To this image or block device, which stays when the container is deleted.
    Kept(PathBuf),
}

impl Scratch {
    /// What the configuration asks for.
    ///
    /// # Errors
    /// A value that is neither a size in range nor an absolute path; a root file system that can't
    /// be written to anyway.
    pub fn from_spec(spec: &Spec) -> Result<Option<Self>> {
        let annotation = spec.annotations().as_ref().and_then(|all| all.get(SCRATCH));
        let Some(text) = annotation else { return Ok(None) };
        let scratch = Self::parse(text).map_err(|message| Error::invalid(SCRATCH, message))?;
        if spec.root().as_ref().and_then(|root| root.readonly()) == Some(true) {
            let message = "root.readonly is true, so there is nothing to be written to it";
            return Err(Error::invalid(SCRATCH, message));
        }
        Ok(Some(scratch))
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        if text.starts_with('/') {
            if text.contains('\0') {
                return Err(format!("{text:?} holds a NUL character"));
            }
            return Ok(Self::Kept(text.into()));
        }
        let malformed = || {
            format!(
                "{text:?} is neither an absolute path nor a size from {}M to {}G, such as 512M or \
                 20G",
                MIB.start(),
                MIB.end() >> 10
            )
        };
        let (digits, factor) = text
            .strip_suffix(['M', 'm'])
            .map(|digits| (digits, 1))
            .or_else(|| text.strip_suffix(['G', 'g']).map(|digits| (digits, 1024)))
            .ok_or_else(malformed)?;
        // FromStr also takes a plus sign.
        let number =
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>());
        let mib = number.and_then(std::result::Result::ok).and_then(|n| n.checked_mul(factor));
        match mib {
            Some(mib) if MIB.contains(&mib) => Ok(Self::New { mib }),
            _ => Err(malformed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(value: &str, readonly: bool) -> std::result::Result<Option<Scratch>, String> {
        let spec = serde_json::json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs", "readonly": readonly },
            "annotations": { SCRATCH: value },
        });
        Scratch::from_spec(&serde_json::from_value(spec).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_size_or_a_path() {
        for (text, mib) in [("16M", 16), ("512m", 512), ("20G", 20480), ("16384g", 1 << 24)] {
            assert_eq!(scratch(text, false), Ok(Some(Scratch::New { mib })), "{text}");
        }
        assert_eq!(scratch("/a b", false), Ok(Some(Scratch::Kept("/a b".into()))));
        for text in [
            "",
            "1",
            "15M",
            "16385G",
            "+16M",
            "1.5G",
            "20GB",
            "M",
            "a",
            "./x",
            "-1G",
            "99999999999999999999G",
        ] {
            let error = scratch(text, false).unwrap_err();
            let expected = format!("{SCRATCH}: {text:?} is neither an absolute path nor a size");
            assert!(error.starts_with(&expected), "{error}");
        }
        assert!(scratch("/a\0", false).unwrap_err().contains("NUL"));
    }

    #[test]
    fn what_can_not_be_written_to_needs_none() {
        assert!(scratch("1G", true).unwrap_err().contains("root.readonly is true"));
    }
}
