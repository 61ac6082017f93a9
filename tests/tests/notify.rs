//! Containers that notify a service manager, as those of `Type=notify` units do.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use runhcs_tests::{Bundle, Harness, Isolation, Outcome};

/// A service manager.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn new(h: &Harness) -> Self {
        let path = h.path("manager");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self::of(socket, path.display().to_string())
    }

    fn abstractly(h: &Harness) -> Self {
        let name = format!("runhcs-{}", h.token);
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self::of(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
    }

    fn of(socket: UnixDatagram, name: String) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { socket, name }
    }

    fn command(&self, mut command: Command) -> Command {
        command.env("NOTIFY_SOCKET", &self.name);
        command
    }

    fn runhcs(&self, h: &Harness, arguments: &[&str]) -> Outcome {
        h.finish(self.command(h.command(arguments)))
    }

    fn message(&self) -> String {
        let mut buffer = [0; 4096];
        let size = self.socket.recv(&mut buffer).expect("no message in a minute");
        String::from_utf8_lossy(&buffer[..size]).into_owned()
    }

    fn heard_all(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let more = self.socket.recv(&mut buffer).map(|size| buffer[..size].to_vec());
        assert!(more.is_err(), "{:?}", String::from_utf8_lossy(&more.unwrap()));
    }
}

fn bundle(h: &Harness, name: &str, script: &str) -> Bundle {
    Bundle::new(h, name, &["sh", "-c", script]).with_program("notify-probe").edit(|config| {
        // The mount makes its place.
        config["root"]["readonly"] = false.into();
    })
}

fn arguments<'a>(verb: &[&'a str], bundle: &'a Bundle, id: &'a str) -> Vec<&'a str> {
    [verb, &["--bundle", bundle.path().to_str().unwrap(), id]].concat()
}

#[test]
fn in_the_foreground_what_is_said_is_passed_on() {
    Harness::run(Isolation::Process, "foreground", |h| {
        for (id, manager) in [("path", Manager::new(h)), ("abstract", Manager::abstractly(h))] {
            let script = "echo $NOTIFY_SOCKET
                notify-probe MAINPID=7 READY=1 FDSTORE=1 STATUS=up
                notify-probe FDSTORE=1
                notify-probe WATCHDOG=1";
            let bundle = bundle(h, id, script);
            let said = manager.runhcs(h, &arguments(&["run"], &bundle, id)).ok().stdout;
            assert_eq!(said, "/run/notify/notify.sock\n");
            assert_eq!(manager.message(), "READY=1\nSTATUS=up");
            assert_eq!(manager.message(), "WATCHDOG=1");
            manager.heard_all();
        }
    });
}

#[test]
fn start_returns_once_the_container_is_ready() {
    Harness::run(Isolation::Process, "start", |h| {
        let script = "notify-probe STATUS=early; sleep 1; touch /ready
            notify-probe READY=1; sleep 1000";
        for verb in ["create", "run"] {
            let (manager, bundle) = (Manager::new(h), bundle(h, verb, script));
            let ready = bundle.path().join("rootfs/ready");
            if verb == "create" {
                manager.runhcs(h, &arguments(&["create"], &bundle, verb)).ok();
                manager.runhcs(h, &["start", verb]).ok();
            } else {
                manager.runhcs(h, &arguments(&["run", "--detach"], &bundle, verb)).ok();
            }
            assert!(ready.exists(), "{verb}");
            let pid = &h.state(verb)["pid"];
            assert_eq!(manager.message(), format!("MAINPID={pid}\nREADY=1"), "{verb}");
            manager.heard_all();
            h.runhcs(&["delete", "--force", verb]).ok();
            std::fs::remove_file(h.path("manager")).unwrap();
        }
    });
}

#[test]
fn who_waits_is_in_nobodys_way() {
    Harness::run(Isolation::Process, "waiting", |h| {
        let (manager, bundle) = (Manager::new(h), bundle(h, "box", "sleep 1000"));
        manager.runhcs(h, &arguments(&["create"], &bundle, "box")).ok();
        let start = h.spawn(manager.command(h.command(&["start", "box"])));
        h.wait_status("box", "running");
        h.runhcs(&["kill", "box", "KILL"]).ok();
        // Its end ends the wait.
        runhcs_tests::wait(start.0, start.1).ok();
        manager.heard_all();
        h.runhcs(&["delete", "box"]).ok();
    });
}

#[test]
fn without_a_manager_there_is_no_socket() {
    Harness::run(Isolation::Process, "none", |h| {
        let script = "echo ${NOTIFY_SOCKET-none}; test ! -e /run/notify";
        let bundle = bundle(h, "box", script);
        assert_eq!(h.runhcs(&arguments(&["run"], &bundle, "box")).ok().stdout, "none\n");
        // A manager that is gone is no reason not to run.
        let manager = Manager { name: h.path("gone").display().to_string(), ..Manager::new(h) };
        let bundle = self::bundle(h, "gone", "notify-probe READY=1");
        manager.runhcs(h, &arguments(&["run"], &bundle, "gone")).ok();
        let log = std::fs::read_to_string(h.path("log")).unwrap();
        assert!(log.contains("notify the service manager"), "{log}");
    });
}

#[test]
fn a_name_that_is_none_is_refused() {
    Harness::run(Isolation::Process, "refused", |h| {
        let bundle = bundle(h, "box", "true");
        for name in ["vsock:2:1", "relative", &format!("/{}", "x".repeat(200))] {
            let manager = Manager { name: name.to_owned(), ..Manager::new(h) };
            let refused = manager.runhcs(h, &arguments(&["create"], &bundle, "box"));
            refused.refused("NOTIFY_SOCKET=");
            std::fs::remove_file(h.path("manager")).unwrap();
        }
    });
}

#[test]
fn a_container_in_a_vm_is_said_to_be_silent() {
    Harness::run(Isolation::Vm, "vm", |h| {
        let (manager, bundle) = (Manager::new(h), bundle(h, "box", "echo ${NOTIFY_SOCKET-none}"));
        let verb = ["run", "--isolation", "vm"];
        assert_eq!(manager.runhcs(h, &arguments(&verb, &bundle, "box")).ok().stdout, "none\n");
        manager.heard_all();
        let log = std::fs::read_to_string(h.path("log")).unwrap();
        assert!(log.contains("a container in a VM can't notify"), "{log}");
    });
}
