//! Checking what the guest agent answers: it is a hostile machine's word.
//!
//! An answer has to be of the kind that the question has, and within its bounds. Texts are shown to
//! people: they are cut, and what a terminal would act on is escaped.

use runhcs_compute::{ExitStatus, Signal};
use runhcs_protocol::guest::{Failure, Reply, Request};

use crate::agent_log::printable;

/// The most that a pid can be (`PID_MAX_LIMIT`, proc_sys_kernel(5)).
const MAX_PID: u32 = 4_194_304;
/// The most causes that a failure is shown with.
const MAX_CAUSES: usize = 16;

/// An answer that no agent of ours gives.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest agent's answer makes no sense: it is none to what was asked, or can't be")]
pub struct Nonsense;

/// The answer, if it is one to this request.
pub fn check(request: &Request, reply: Reply) -> Result<Reply, Nonsense> {
    if let Reply::Failed(failure) = reply {
        return Ok(Reply::Failed(presentable(failure)));
    }
    let fits = match request {
        Request::CreateContainer(_) => {
            matches!(reply, Reply::Process { exec: None, pid } if is_pid(pid))
        }
        Request::CreateProcess(_) => {
            matches!(reply, Reply::Process { exec: Some(_), pid } if is_pid(pid))
        }
        Request::WaitProcess(_) => matches!(reply, Reply::Exited(status) if is_status(status)),
        Request::ListProcesses(_) => {
            matches!(&reply, Reply::Processes(pids) if pids.iter().all(|pid| is_pid(*pid)))
        }
        Request::ContainerStatus(_) => matches!(reply, Reply::Status(_)),
        Request::DescribeProcesses(_) => matches!(reply, Reply::ProcessTable(_)),
        Request::ContainerStats(_) => matches!(reply, Reply::Stats(_)),
        Request::WaitOom(_) => matches!(reply, Reply::Oom(_)),
        Request::StartContainer(_)
        | Request::SignalProcess { .. }
        | Request::ResizeTerminal { .. }
        | Request::PauseContainer(_)
        | Request::ResumeContainer(_)
        | Request::UpdateContainer(_)
        | Request::DeleteContainer(_)
        | Request::DeleteProcess(_)
        | Request::ConfigureNetwork(_)
        | Request::UseHardware(_)
        | Request::Ping
        | Request::Sync => matches!(reply, Reply::Done),
    };
    if fits { Ok(reply) } else { Err(Nonsense) }
}

fn is_pid(pid: u32) -> bool {
    (1..=MAX_PID).contains(&pid)
}

fn is_status(status: ExitStatus) -> bool {
    match status {
        ExitStatus::Exited(_) => true,
        ExitStatus::Signaled(signal) => Signal::try_from(signal).is_ok(),
    }
}

/// A failure that can be shown to people.
pub fn presentable(failure: Failure) -> Failure {
    match failure {
        Failure::NotFound | Failure::InvalidStatus(_) => failure,
        Failure::Unsupported(why) => Failure::Unsupported(printable(&why)),
        Failure::Other(causes) => {
            Failure::Other(causes.iter().take(MAX_CAUSES).map(|cause| printable(cause)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use runhcs_compute::{ContainerId, Status};
    use runhcs_protocol::guest::ProcessKey;

    use super::*;

    fn id() -> ContainerId {
        "c".parse().unwrap()
    }

    #[test]
    fn answers_belong_to_their_questions() {
        let status = Request::ContainerStatus(id());
        assert!(matches!(
            check(&status, Reply::Status(Status::Running)),
            Ok(Reply::Status(Status::Running))
        ));
        for reply in [Reply::Done, Reply::Processes(vec![]), Reply::Process { exec: None, pid: 1 }]
        {
            check(&status, reply).unwrap_err();
        }
        check(&Request::Sync, Reply::Done).unwrap();
        check(&Request::Sync, Reply::Status(Status::Running)).unwrap_err();
    }

    #[test]
    fn numbers_are_within_their_bounds() {
        let list = Request::ListProcesses(id());
        check(&list, Reply::Processes(vec![1, MAX_PID])).unwrap();
        for pid in [0, MAX_PID + 1, u32::MAX] {
            check(&list, Reply::Processes(vec![1, pid])).unwrap_err();
        }
        let wait = Request::WaitProcess(ProcessKey { container: id(), exec: None });
        check(&wait, Reply::Exited(ExitStatus::Signaled(9))).unwrap();
        for signal in [0, 65, 255] {
            check(&wait, Reply::Exited(ExitStatus::Signaled(signal))).unwrap_err();
        }
    }

    #[test]
    fn a_failure_is_fit_to_be_shown() {
        let causes = vec!["\x1b[2Jgone\nrunhcs: all is well".to_owned(); 100];
        let reply = check(&Request::Sync, Reply::Failed(Failure::Other(causes))).unwrap();
        let Reply::Failed(Failure::Other(causes)) = reply else { panic!("{reply:?}") };
        assert_eq!(causes.len(), MAX_CAUSES);
        assert_eq!(causes[0], "\\u{1b}[2Jgone\\nrunhcs: all is well");
    }
}
