//! Names of templates.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Hexadecimal digits of an id.
const LENGTH: usize = 32;

/// A template's name: a digest of what it was made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TemplateId(String);

/// A text that is no template's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a template's id, which has {LENGTH} hexadecimal digits")]
pub struct InvalidTemplateId(String);

impl TemplateId {
    /// The id that stands for this content.
    pub(super) fn of(content: &[u8]) -> Self {
        let digest = Sha256::digest(content);
        Self(digest.iter().take(LENGTH / 2).map(|byte| format!("{byte:02x}")).collect())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TemplateId {
    type Err = InvalidTemplateId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == LENGTH && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTemplateId(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_no_path() {
        let id = TemplateId::of(b"x");
        assert_eq!(id.as_str().parse::<TemplateId>().unwrap(), id);
        for text in ["", ".", "../../etc", &"A".repeat(LENGTH), &"a".repeat(LENGTH + 1)] {
            assert!(text.parse::<TemplateId>().is_err(), "{text}");
        }
    }
}
