//! Reading the configuration file. Its content is the operating system's `Config`.

use std::path::Path;

use anyhow::Context;
use serde::de::DeserializeOwned;

/// The most of a line that an error shows, in characters.
const MAX_SHOWN: usize = 80;

/// Reads the file that was named, or the default one if it exists.
pub fn load<T: DeserializeOwned + Default>(
    named: Option<&Path>,
    default: &Path,
) -> anyhow::Result<T> {
    let path = named.unwrap_or(default);
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            Ok(T::default())
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Understands a configuration.
pub fn parse<T: DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    // toml's messages span several lines to point at the place; errors here are one line. They don't
    // name the entry, but its line does.
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let number = text[..start].matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default().trim();
        let line: String = line.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
        anyhow::anyhow!("line {number}, `{line}`: {}", error.message().replace('\n', "; "))
    })
}
