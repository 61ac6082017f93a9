//! What goes wrong on purpose.
//!
//! A fault is written `FUNCTION[(ABOUT)][#N]:ACTION`:
//! - `FUNCTION` is the function's name, or `*` for any;
//! - `ABOUT` is part of what the call is about (an id, a path, a document);
//! - `#N` is for the Nth such call only, from 1; without it, all of them;
//! - `ACTION` is `fail:0x80370106` (it does nothing and returns this), `late:0x80370106` (it is done,
//!   and returns this), `hang` (it does nothing and never ends) or `kill` (the caller ends, and
//!   nothing is done).

use std::str::FromStr;

use crate::hresult::Hresult;

/// A fault, and how often its calls were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    function: Option<String>,
    about: Option<String>,
    only: Option<u32>,
    action: Action,
    seen: u32,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing is done and this is returned.
    Fail(Hresult),
    /// It is done and this is returned.
    Late(Hresult),
    /// Nothing is done and nothing is returned.
    Hang,
    /// The caller is killed.
    Kill,
}

/// A text that is not a fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fault: {0}")]
pub struct NotAFault(String);

impl Fault {
    /// Counts a call, and says what is to happen with it.
    pub fn meets(&mut self, function: &str, about: &str) -> Option<Action> {
        let named = self.function.as_ref().is_none_or(|name| name == function);
        if !named || self.about.as_ref().is_some_and(|part| !about.contains(part.as_str())) {
            return None;
        }
        self.seen += 1;
        self.only.is_none_or(|only| only == self.seen).then_some(self.action)
    }
}

impl FromStr for Fault {
    type Err = NotAFault;

    fn from_str(text: &str) -> Result<Self, NotAFault> {
        read(text).ok_or_else(|| NotAFault(text.to_owned()))
    }
}

fn read(text: &str) -> Option<Fault> {
    let end = text.find(['(', '#', ':'])?;
    let (function, mut rest) = text.split_at(end);
    let mut about = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let (part, after) = inner.split_once(')')?;
        about = Some(part.to_owned());
        rest = after;
    }
    let mut only = None;
    if let Some(inner) = rest.strip_prefix('#') {
        let (number, _) = inner.split_once(':')?;
        only = Some(number.parse().ok().filter(|number| *number > 0)?);
        rest = &inner[number.len()..];
    }
    let action = match rest.strip_prefix(':')? {
        "hang" => Action::Hang,
        "kill" => Action::Kill,
        other => {
            let (kind, code) = other.split_once(":0x")?;
            let code = Hresult(u32::from_str_radix(code, 16).ok()?);
            match kind {
                "fail" if code.is_failure() => Action::Fail(code),
                "late" if code.is_failure() => Action::Late(code),
                _ => return None,
            }
        }
    };
    let function = (function != "*").then(|| function.to_owned());
    Some(Fault { function, about, only, action, seen: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_the_calls_that_it_names() {
        let mut fault: Fault = "HcsStartComputeSystem(one@vm):fail:0x80370106".parse().unwrap();
        assert_eq!(fault.meets("HcsStartComputeSystem", "two"), None);
        assert_eq!(fault.meets("HcsOpenComputeSystem", "one@vm"), None);
        for _ in 0..2 {
            let met = fault.meets("HcsStartComputeSystem", "one@vm");
            assert_eq!(met, Some(Action::Fail(Hresult(0x8037_0106))));
        }
    }

    #[test]
    fn a_numbered_fault_meets_one_call() {
        let mut fault: Fault = "*#2:hang".parse().unwrap();
        let met: Vec<_> = (0..3).map(|_| fault.meets("HcsClose", "")).collect();
        assert_eq!(met, [None, Some(Action::Hang), None]);
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in
            ["", "HcsClose", "HcsClose:", "HcsClose#0:hang", "X(a:hang", "X:fail:0x0", "X:fail"]
        {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
