//! The service over its connections: handles, events, faults.

use serde_json::json;

use super::{listen, serve};
use crate::client::Client;
use crate::hresult;
use crate::wire::{Call, EventKind, Reply, SystemOperation, What};

/// The address of a service of the test's own.
fn service() -> String {
    let (listener, address) = listen().unwrap();
    std::thread::spawn(move || serve(&listener));
    address.to_string()
}

fn machine(ends_with_handles: bool) -> String {
    json!({
        "SchemaVersion": {"Major": 2, "Minor": 1},
        "ShouldTerminateOnLastHandleClosed": ends_with_handles,
        "VirtualMachine": {
            "Chipset": {"Uefi": {}},
            "ComputeTopology": {"Memory": {"SizeInMB": 512}, "Processor": {"Count": 1}},
            "Devices": {},
            "GuestConnection": {"UseVsock": true},
        },
    })
    .to_string()
}

fn create(client: &Client, handle: u64, ends_with_handles: bool) -> Reply {
    let document = machine(ends_with_handles);
    client.call(Call::Create { handle, id: format!("vm{handle}"), document })
}

fn call(client: &Client, handle: u64, operation: SystemOperation) -> Reply {
    client.call(Call::System { handle, operation, document: None })
}

fn ids(client: &Client) -> Vec<String> {
    client.snapshot().unwrap().systems.into_iter().map(|system| system.id).collect()
}

/// Waits until there are only these systems.
#[track_caller]
fn wait_for(client: &Client, wanted: &[&str]) {
    for _ in 0..500 {
        if ids(client) == wanted {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{:?} instead of {wanted:?}", ids(client));
}

#[test]
fn handles_are_each_callers_own() {
    let address = service();
    let (one, _events) = Client::connect(&address).unwrap();
    let (two, _events) = Client::connect(&address).unwrap();
    assert_eq!(create(&one, 1, false).result, hresult::OK);
    assert_eq!(call(&two, 1, SystemOperation::Start).result, hresult::HANDLE);
    assert_eq!(two.call(Call::Open { handle: 9, id: "vm1".into() }).result, hresult::OK);
    assert_eq!(call(&two, 9, SystemOperation::Start).result, hresult::OK);
}

#[test]
fn a_system_may_end_with_its_last_handle() {
    let address = service();
    let (one, _events) = Client::connect(&address).unwrap();
    let (two, _events) = Client::connect(&address).unwrap();
    create(&one, 1, true);
    create(&one, 2, false);
    two.call(Call::Open { handle: 1, id: "vm1".into() });
    one.call(Call::Close { handle: 1 });
    one.call(Call::Close { handle: 2 });
    assert_eq!(ids(&one), ["vm1", "vm2"]);
    two.call(Call::Close { handle: 1 });
    wait_for(&one, &["vm2"]);
}

#[test]
fn everybody_with_a_handle_is_told_of_the_end() {
    let address = service();
    let (one, events_of_one) = Client::connect(&address).unwrap();
    let (two, events_of_two) = Client::connect(&address).unwrap();
    create(&one, 1, false);
    two.call(Call::Open { handle: 7, id: "vm1".into() });
    call(&one, 1, SystemOperation::Terminate);
    for (events, handle) in [(events_of_one, 1), (events_of_two, 7)] {
        let event = events.recv().unwrap();
        assert_eq!((event.handle, event.kind), (handle, EventKind::SystemExited));
        assert!(event.document.contains("ForcedExit"), "{event:?}");
    }
}

#[test]
fn a_process_is_waited_for() {
    let (client, events) = Client::connect(&service()).unwrap();
    create(&client, 1, false);
    call(&client, 1, SystemOperation::Start);
    let document = r#"{"OciProcess": {"args": ["true"], "cwd": "/"}}"#.to_owned();
    let reply = client.call(Call::CreateProcess { system: 1, handle: 2, document });
    assert_eq!(reply.result, hresult::OK, "{reply:?}");
    let event = events.recv().unwrap();
    assert_eq!((event.handle, event.kind), (2, EventKind::ProcessExited));
    assert!(event.document.contains(r#""ExitCode":0"#), "{event:?}");
}

#[test]
fn calls_fail_and_hang_on_purpose() {
    let (client, _events) = Client::connect(&service()).unwrap();
    client
        .faults(&["HcsCreateComputeSystem(vm1):fail:0x80370106", "HcsStartComputeSystem#1:hang"])
        .unwrap();
    let failed = create(&client, 1, false);
    assert_eq!(failed.result, hresult::UNEXPECTED_EXIT);
    assert!(failed.document.unwrap().contains("on purpose"));
    assert_eq!(create(&client, 2, false).result, hresult::OK);
    let (sender, receiver) = std::sync::mpsc::channel();
    let operation = SystemOperation::Start;
    let start = Call::System { handle: 2, operation, document: None };
    client.send(What::Call(start), move |reply| drop(sender.send(reply)));
    assert!(receiver.recv_timeout(std::time::Duration::from_millis(100)).is_err());
    assert_eq!(call(&client, 2, SystemOperation::Start).result, hresult::OK);
    let calls = client.calls().unwrap();
    let results: Vec<_> = calls.iter().map(|call| call.result).collect();
    let (failed, ok) = (Some(hresult::UNEXPECTED_EXIT), Some(hresult::OK));
    assert_eq!(results, [failed, ok, None, ok], "{calls:?}");
}

#[test]
fn a_fault_can_come_after_the_deed() {
    let (client, _events) = Client::connect(&service()).unwrap();
    client.faults(&["HcsCreateComputeSystem:late:0x80370118"]).unwrap();
    assert_eq!(create(&client, 1, false).result, hresult::OPERATION_TIMEOUT);
    assert_eq!(ids(&client), ["vm1"]);
    client.faults(&["nonsense"]).unwrap_err();
}
