//! What a signal by its Linux name becomes in the guest.

use runhcs_compute::Signal;

use crate::schema::{ControlEvent, GuestSignal, SignalOptions};

/// What a guest's processes understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalSupport {
    /// Linux signals, by number.
    Linux,
    /// Control events of a Windows console.
    Windows,
    /// Nothing: the guest's compute service is too old, or the process has an emulated console,
    /// which takes no control events.
    None,
}

/// How a process is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// By a signal.
    Signal(SignalOptions),
    /// By ending it.
    Terminate,
}

/// A signal that the guest has no counterpart for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} has no counterpart on Windows; HUP, INT, QUIT, TERM and KILL have one, and a process that \
     takes no control events can only be ended, by TERM or KILL"
)]
pub struct NoCounterpart(pub Signal);

/// Works out how to deliver a signal.
///
/// On Windows `INT` becomes Ctrl-C, `QUIT` Ctrl-Break, `HUP` the closing of the console, `TERM` the
/// shutdown of the system, as container engines do. `KILL` ends the process. A process that can't
/// be told anything is ended by `TERM` and `KILL`; any other signal is refused rather than turned
/// into an end.
pub fn deliver(signal: Signal, support: SignalSupport) -> Result<Delivery, NoCounterpart> {
    let number = signal.number();
    let by = |signal| Ok(Delivery::Signal(SignalOptions { signal }));
    match support {
        SignalSupport::Linux => by(GuestSignal::Linux(number)),
        SignalSupport::Windows | SignalSupport::None if signal == Signal::KILL => {
            Ok(Delivery::Terminate)
        }
        SignalSupport::Windows => match control_event(signal) {
            Some(event) => by(GuestSignal::Windows(event)),
            None => Err(NoCounterpart(signal)),
        },
        SignalSupport::None if signal == Signal::TERM => Ok(Delivery::Terminate),
        SignalSupport::None => Err(NoCounterpart(signal)),
    }
}

fn control_event(signal: Signal) -> Option<ControlEvent> {
    /// `SIGQUIT` (signal(7)).
    const QUIT: u8 = 3;
    match signal {
        Signal::INT => Some(ControlEvent::CtrlC),
        Signal::HUP => Some(ControlEvent::CtrlClose),
        Signal::TERM => Some(ControlEvent::CtrlShutdown),
        other if other.number() == QUIT => Some(ControlEvent::CtrlBreak),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, support: SignalSupport) -> Option<String> {
        match deliver(name.parse().unwrap(), support).ok()? {
            Delivery::Signal(options) => Some(serde_json::to_string(&options).unwrap()),
            Delivery::Terminate => Some("end".to_owned()),
        }
    }

    #[test]
    fn linux_takes_every_number() {
        for (name, number) in [("TERM", 15), ("KILL", 9), ("RTMIN+3", 37)] {
            let expected = format!(r#"{{"Signal":{number}}}"#);
            assert_eq!(document(name, SignalSupport::Linux), Some(expected));
        }
    }

    #[test]
    fn windows_takes_control_events() {
        for (name, expected) in [
            ("INT", Some(r#"{"Signal":"CtrlC"}"#)),
            ("QUIT", Some(r#"{"Signal":"CtrlBreak"}"#)),
            ("HUP", Some(r#"{"Signal":"CtrlClose"}"#)),
            ("TERM", Some(r#"{"Signal":"CtrlShutdown"}"#)),
            ("KILL", Some("end")),
            ("USR1", None),
        ] {
            assert_eq!(document(name, SignalSupport::Windows).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn without_support_only_an_end_is_possible() {
        for (name, expected) in [("TERM", Some("end")), ("KILL", Some("end")), ("INT", None)] {
            assert_eq!(document(name, SignalSupport::None).as_deref(), expected, "{name}");
        }
    }
}
