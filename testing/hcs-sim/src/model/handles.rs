//! What callers' handles stand for.

use std::collections::HashMap;

use super::Failure;
use crate::hresult;

/// A caller's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection(pub u64);

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A system, by its number.
    System(u64),
    /// A process, by its system's number and its own id.
    Process(u64, u32),
}

/// The handles of all callers.
#[derive(Debug, Default)]
pub struct Handles(HashMap<(Connection, u64), Target>);

impl Handles {
    /// Gives a caller's handle a meaning.
    pub fn open(&mut self, connection: Connection, handle: u64, target: Target) {
        self.0.insert((connection, handle), target);
    }

    /// The system that a handle stands for.
    ///
    /// # Errors
    /// If it stands for none.
    pub fn system(&self, connection: Connection, handle: u64) -> Result<u64, Failure> {
        match self.0.get(&(connection, handle)) {
            Some(Target::System(number)) => Ok(*number),
            _ => Err(Failure::new(hresult::HANDLE, "not a system's handle")),
        }
    }

    /// The process that a handle stands for.
    ///
    /// # Errors
    /// If it stands for none.
    pub fn process(&self, connection: Connection, handle: u64) -> Result<(u64, u32), Failure> {
        match self.0.get(&(connection, handle)) {
            Some(Target::Process(system, process)) => Ok((*system, *process)),
            _ => Err(Failure::new(hresult::HANDLE, "not a process's handle")),
        }
    }

    /// Closes a handle and says what it stood for.
    pub fn close(&mut self, connection: Connection, handle: u64) -> Option<Target> {
        self.0.remove(&(connection, handle))
    }

    /// Closes all handles of a caller and says what they stood for.
    pub fn disconnect(&mut self, connection: Connection) -> Vec<Target> {
        let (gone, left) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|((owner, _), _)| *owner == connection);
        self.0 = left;
        let gone: HashMap<_, _> = gone;
        gone.into_values().collect()
    }

    /// Everybody's handles of a target.
    pub fn of(&self, target: Target) -> Vec<(Connection, u64)> {
        let same = self.0.iter().filter(|(_, other)| **other == target);
        same.map(|(handle, _)| *handle).collect()
    }
}
