//! A guest agent that misbehaves, as `fake=…` on the kernel command line says. Compiled by the
//! tests with plain rustc, so it uses the standard library alone.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

const AF_VSOCK: c_int = 40;
const SOCK_STREAM: c_int = 1;
const SYS_FINIT_MODULE: c_long = 313;
const SCHED_FIFO: c_int = 1;
const HOST_CID: u32 = 2;
const CONTROL_PORT: u32 = 1023;
/// `runhcs_protocol::VERSION`, from the tests.
const VERSION: &str = env!("PROTOCOL_VERSION");

unsafe extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn connect(fd: c_int, address: *const SockaddrVm, length: u32) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn sched_setscheduler(pid: c_int, policy: c_int, priority: *const c_int) -> c_int;
}

#[repr(C)]
struct SockaddrVm {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    zero: [u8; 4],
}

fn main() {
    std::fs::create_dir_all("/proc").unwrap();
    let (kind, target) = (CString::new("proc").unwrap(), CString::new("/proc").unwrap());
    // SAFETY: the strings live through the call.
    unsafe { mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    let line = std::fs::read_to_string("/proc/cmdline").unwrap();
    let behaviour = line.split_whitespace().find_map(|word| word.strip_prefix("fake=")).unwrap();
    println!("the fake agent is going to be: {behaviour}");
    load_modules();
    match behaviour {
        "silent" => {}
        // Init's end makes the kernel panic.
        "panic" => std::process::exit(3),
        "wrong-version" => hello("99").write_all(b"").unwrap(),
        "half-hello" => {
            dial().write_all(&[0, 0, 0, 99, b'{']).unwrap();
        }
        "huge-hello" => {
            dial().write_all(&[0xff; 4096]).unwrap();
            sleep(Duration::from_secs(1000));
        }
        "close" => {
            let mut link = hello(VERSION);
            let _ = link.read(&mut [0; 64]).unwrap();
        }
        "half-reply" => {
            let mut link = hello(VERSION);
            let _ = link.read(&mut [0; 64]).unwrap();
            link.write_all(&[0, 0, 0, 99, b'{']).unwrap();
        }
        "second-link" => {
            let _link = hello(VERSION);
            let second = try_dial();
            println!("a second link: {}", second.map_or_else(|e| e.to_string(), |_| "yes".into()));
            sleep(Duration::from_secs(1000));
        }
        "hang" => serve(hello(VERSION), |_| None),
        // Nothing else in the guest gets the processor any more.
        "spin" => {
            let _link = hello(VERSION);
            spin();
        }
        // Answers what nobody has asked.
        "stray" => {
            let mut link = hello(VERSION);
            let _ = link.read(&mut [0; 64]).unwrap();
            send(&mut link, r#"{"reply":{"id":4096,"body":"done"}}"#);
        }
        // Talks without end, and answers everything in between, whatever it was.
        "flood" => flood(hello(VERSION)),
        "escapes" => serve(hello(VERSION), |_| {
            Some(r#"{"failed":{"other":["\u001b[2Jcleared\nrunhcs: all is well"]}}"#)
        }),
        // A process of another container's number.
        "same-process" => serve(hello(VERSION), |request| {
            Some(if request.contains("createProcess") {
                r#"{"process":{"exec":7,"pid":9}}"#
            } else {
                r#"{"exited":{"signaled":200}}"#
            })
        }),
        // Answers everything with the same nonsense.
        "nonsense" => serve(hello(VERSION), |_| Some(r#"{"process":{"exec":7,"pid":0}}"#)),
        // Answers the status at once, and all else never.
        "slow" => serve(hello(VERSION), |request| {
            request.contains("containerStatus").then_some(r#"{"status":"running"}"#)
        }),
        other => panic!("unknown behaviour {other}"),
    }
    loop {
        sleep(Duration::from_secs(1000));
    }
}

/// Takes the one processor, at the highest priority and without a limit.
fn spin() -> ! {
    let throttle = "/proc/sys/kernel/sched_rt_runtime_us";
    std::fs::write(throttle, "-1").unwrap();
    let highest = 99;
    // SAFETY: the parameter lives through the call.
    let result = unsafe { sched_setscheduler(0, SCHED_FIFO, &raw const highest) };
    assert_eq!(result, 0);
    println!("spinning");
    loop {
        std::hint::spin_loop();
    }
}

fn flood(mut link: File) -> ! {
    let (questions, asked) = std::sync::mpsc::channel();
    let mut reader = link.try_clone().unwrap();
    std::thread::spawn(move || {
        loop {
            questions.send(request(&mut reader).0).unwrap();
        }
    });
    let text = "x".repeat(4000);
    loop {
        while let Ok(id) = asked.try_recv() {
            send(&mut link, &format!(r#"{{"reply":{{"id":{id},"body":{{"status":"running"}}}}}}"#));
        }
        let line = r#"{"log":{"level":"error","container":null,"message":""#;
        send(&mut link, &format!(r#"{line}{text}"}}}}"#));
    }
}

/// The next request: its number, and all of it.
fn request(link: &mut File) -> (String, String) {
    let mut header = [0; 4];
    link.read_exact(&mut header).unwrap();
    let mut body = vec![0; u32::from_be_bytes(header) as usize];
    link.read_exact(&mut body).unwrap();
    let request = String::from_utf8(body).unwrap();
    let id = request
        .split_once(r#""id":"#)
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect());
    (id.unwrap(), request)
}

fn serve(mut link: File, answer: impl Fn(&str) -> Option<&'static str>) {
    loop {
        let (id, request) = request(&mut link);
        if let Some(answer) = answer(&request) {
            send(&mut link, &format!(r#"{{"reply":{{"id":{id},"body":{answer}}}}}"#));
        }
    }
}

fn hello(version: &str) -> File {
    let mut link = dial();
    send(&mut link, &format!(r#"{{"version":{version},"kernel":"fake"}}"#));
    link
}

fn send(link: &mut File, text: &str) {
    link.write_all(&(text.len() as u32).to_be_bytes()).unwrap();
    link.write_all(text.as_bytes()).unwrap();
}

fn dial() -> File {
    try_dial().expect("the host takes no connection")
}

fn try_dial() -> io::Result<File> {
    let address = SockaddrVm {
        family: AF_VSOCK as u16,
        reserved: 0,
        port: CONTROL_PORT,
        cid: HOST_CID,
        zero: [0; 4],
    };
    // SAFETY: the address lives through the calls; the descriptor is checked and owned once.
    unsafe {
        let fd = socket(AF_VSOCK, SOCK_STREAM, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = File::from_raw_fd(fd);
        match connect(fd, &address, size_of::<SockaddrVm>() as u32) {
            0 => Ok(socket),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Loads every module of the image, whatever their order: until no more can be loaded.
fn load_modules() {
    let mut modules = Vec::new();
    find(Path::new("/"), &mut modules);
    loop {
        let before = modules.len();
        modules.retain(|module| !load(module));
        if modules.is_empty() || modules.len() == before {
            return;
        }
    }
}

fn load(module: &Path) -> bool {
    let file = File::open(module).unwrap();
    // SAFETY: the descriptor and the empty string live through the call.
    unsafe { syscall(SYS_FINIT_MODULE, file.as_raw_fd(), c"".as_ptr(), 0) == 0 }
}

fn find(dir: &Path, modules: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && path != Path::new("/proc") {
            find(&path, modules);
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            modules.push(path);
        }
    }
}
