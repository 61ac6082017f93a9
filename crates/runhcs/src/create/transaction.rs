//! A list of steps, each with its undo. Unless all succeed, all that was done is undone, newest
//! first.

use std::time::Instant;

use anyhow::{Context, Result};
use tracing::{debug, warn};

/// Frees what a step left.
pub type Undo = Box<dyn FnOnce() -> Result<()>>;

/// Steps done so far.
pub struct Transaction {
    /// For the log.
    id: String,
    undo: Vec<(&'static str, Undo)>,
}

impl Transaction {
    /// Begins one.
    pub fn new(id: impl ToString) -> Self {
        Self { id: id.to_string(), undo: Vec::new() }
    }

    /// Takes a step that leaves nothing behind.
    pub fn step<T>(&mut self, name: &'static str, action: impl FnOnce() -> Result<T>) -> Result<T> {
        let value = self.timed(name, action)?;
        crate::faults::check(name)?;
        Ok(value)
    }

    /// Takes a step that leaves nothing behind if it fails, and `undo`, made from its result, if
    /// it succeeds.
    pub fn acquire<T>(
        &mut self,
        name: &'static str,
        action: impl FnOnce() -> Result<T>,
        undo: impl FnOnce(&T) -> Undo,
    ) -> Result<T> {
        let value = self.timed(name, action)?;
        self.undo.push((name, undo(&value)));
        crate::faults::check(name)?;
        Ok(value)
    }

    /// Takes a step that may leave something behind even if it fails; `undo` frees whatever it is.
    pub fn step_with_undo<T>(
        &mut self,
        name: &'static str,
        undo: impl FnOnce() -> Result<()> + 'static,
        action: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.undo.push((name, Box::new(undo)));
        self.step(name, action)
    }

    fn timed<T>(&self, name: &'static str, action: impl FnOnce() -> Result<T>) -> Result<T> {
        let begin = Instant::now();
        let outcome = action();
        let took = begin.elapsed();
        match &outcome {
            Ok(_) => debug!(step = name, took = ?took, "done"),
            Err(error) => debug!(step = name, took = ?took, "failed: {error:#}"),
        }
        outcome
    }

    /// All steps have succeeded: nothing is undone.
    pub fn commit(mut self) {
        self.undo.clear();
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        while let Some((name, undo)) = self.undo.pop() {
            match undo().with_context(|| format!("undo step `{name}` of container {}", self.id)) {
                Ok(()) => debug!(step = name, "undone"),
                // The caller reports the first error, not this one.
                Err(error) => warn!("{error:#}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn run(fail: bool) -> (Result<()>, Vec<&'static str>) {
        let log = Rc::new(RefCell::new(Vec::new()));
        let note = |what: &'static str| {
            let log = Rc::clone(&log);
            move || {
                log.borrow_mut().push(what);
                Ok(())
            }
        };
        let outcome = (|| {
            let mut transaction = Transaction::new("x");
            transaction.step_with_undo("one", note("undo one"), note("one"))?;
            transaction.step("two", note("two"))?;
            transaction.step_with_undo("three", note("undo three"), || {
                if fail { anyhow::bail!("three failed") } else { Ok(()) }
            })?;
            transaction.commit();
            Ok(())
        })();
        let log = log.borrow().clone();
        (outcome, log)
    }

    #[test]
    fn a_failure_undoes_all_newest_first() {
        let (outcome, log) = run(true);
        assert_eq!(outcome.unwrap_err().to_string(), "three failed");
        assert_eq!(log, ["one", "two", "undo three", "undo one"]);
    }

    #[test]
    fn success_undoes_nothing() {
        let (outcome, log) = run(false);
        outcome.unwrap();
        assert_eq!(log, ["one", "two"]);
    }
}
