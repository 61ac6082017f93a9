//! The last lines of a text that the guest wrote, fit to be shown.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How many of the console's last lines an error shows.
pub const SHOWN: usize = 8;
/// How much of the end of a console's log is looked at, in bytes.
const LOOKED_AT: u64 = 16 << 10;
/// The most of a line that is shown, in characters.
const MAX_LINE: usize = 256;

/// The lines of a text, without those that are empty. They hold nothing that a terminal would act
/// on: the text is the guest's, and is going to be shown to its owner.
pub fn lines(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    text.lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect::<String>())
        .map(|line| line.trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

/// The last of these lines, as an error shows them. `log` is where all are.
pub fn excerpt(mut lines: Vec<String>, log: &Path) -> String {
    if lines.is_empty() {
        return "; the guest's console is empty".to_owned();
    }
    let mut text = format!("; the guest's console ({}) ends with:", log.display());
    for line in lines.drain(lines.len().saturating_sub(SHOWN)..) {
        text += &format!("\n    {line}");
    }
    text
}

/// The last lines of a console's log.
pub fn last_lines(log: &Path) -> std::io::Result<Vec<String>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOOKED_AT)))?;
    let mut text = Vec::new();
    file.take(LOOKED_AT).read_to_end(&mut text)?;
    Ok(lines(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_safe_to_show() {
        assert_eq!(lines(b"\n\n\x1b]0;title\x07\x1b[31mred\xff\n"), ["]0;title[31mred\u{fffd}"]);
        assert_eq!(lines(&[b'x'; 10_000])[0].len(), MAX_LINE);
    }

    #[test]
    fn shows_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text: String = (0..10_000).map(|n| format!("line {n}\r\n")).collect();
        std::fs::write(file.path(), text).unwrap();
        let shown = excerpt(last_lines(file.path()).unwrap(), Path::new("/c"));
        assert!(shown.starts_with("; the guest's console (/c) ends with:\n    line 9992\n"));
        assert!(shown.ends_with("\n    line 9999"), "{shown}");
        assert!(excerpt(Vec::new(), Path::new("/c")).contains("empty"));
    }
}
