//! The last lines of a stream, for error messages.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use runhcs_uvm::console;

/// How much is kept, in bytes.
const KEPT: usize = 16 << 10;

/// Keeps the end of what is written to it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// Takes more of the stream.
    pub fn push(&self, data: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(&data[data.len().saturating_sub(KEPT)..]);
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
    }

    /// Up to `count` of the last lines.
    pub fn lines(&self, count: usize) -> Vec<String> {
        let mut lines = self.all();
        lines.drain(..lines.len().saturating_sub(count));
        lines
    }

    /// The last line that holds `text`.
    pub fn find(&self, text: &str) -> Option<String> {
        self.all().into_iter().rfind(|line| line.contains(text))
    }

    /// All of its lines that are kept, fit to be shown.
    pub fn all(&self) -> Vec<String> {
        let kept: Vec<u8> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        console::lines(&kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end_only() {
        let tail = Tail::default();
        for n in 0..10_000 {
            tail.push(format!("line {n}\r\n").as_bytes());
        }
        assert_eq!(tail.lines(2), ["line 9998", "line 9999"]);
        tail.push(&[b"start\n", vec![b'x'; 100_000].as_slice()].concat());
        assert_eq!(tail.lines(9).len(), 1);
        tail.push(b"\nKernel panic: one\nKernel panic: two\nmore\n");
        assert_eq!(tail.find("panic").as_deref(), Some("Kernel panic: two"));
        assert_eq!(tail.find("peace"), None);
    }
}
