//! Device access on cgroup v2: `linux.resources.devices` as an eBPF program.
//!
//! cgroup v2 has no device files. The kernel asks a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`
//! instead, attached to the cgroup (Documentation/admin-guide/cgroup-v2.rst, "Device controller").
//! For each of the three kinds of access (read, write, mknod) the last rule that covers it
//! decides, as the rules' order in the specification says; what no rule covers is denied.
//!
//! [`program`] is pure; [`attach`] is the only part that talks to the kernel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Access bits as the kernel passes them (linux/bpf.h, `BPF_DEVCG_ACC_*`).
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// Kind of device a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    All,
    Block,
    Char,
}

/// One rule; `None` stands for every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub allow: bool,
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

/// A set of kinds of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(i32);

impl Access {
    pub(crate) const ALL: Self = Self(READ | WRITE | MKNOD);

    /// Parses the specification's letters `r`, `w`, `m`; `None` for any other.
    pub(crate) fn parse(letters: &str) -> Option<Self> {
        letters.chars().try_fold(Self(0), |Self(bits), letter| match letter {
            'r' => Some(Self(bits | READ)),
            'w' => Some(Self(bits | WRITE)),
            'm' => Some(Self(bits | MKNOD)),
            _ => None,
        })
    }
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (bit, letter) in [(READ, "r"), (WRITE, "w"), (MKNOD, "m")] {
            if self.0 & bit != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// One eBPF instruction (linux/bpf.h, `struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Opcodes, from the instruction set's class, size and operation bits.
mod op {
    pub const LOAD_U32: u8 = 0x61; // LDX | MEM | W
    pub const MOVE_REGISTER: u8 = 0xbf; // ALU64 | MOV | X
    pub const MOVE: u8 = 0xb7; // ALU64 | MOV | K
    pub const AND: u8 = 0x54; // ALU | AND | K (32 bits)
    pub const SHIFT_RIGHT: u8 = 0x74; // ALU | RSH | K (32 bits)
    pub const JUMP: u8 = 0x05; // JMP | JA
    pub const JUMP_NOT_EQUAL: u8 = 0x56; // JMP32 | JNE | K
    pub const JUMP_IF_SET: u8 = 0x46; // JMP32 | JSET | K
    pub const EXIT: u8 = 0x95; // JMP | EXIT
}

/// What each register holds.
mod register {
    pub const VERDICT: u8 = 0;
    pub const CONTEXT: u8 = 1;
    pub const KIND: u8 = 2;
    /// The kinds of access that no rule has decided yet.
    pub const UNDECIDED: u8 = 3;
    pub const MAJOR: u8 = 4;
    pub const MINOR: u8 = 5;
}

const fn instruction(code: u8, destination: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination, offset, immediate }
}

const fn load(destination: u8, offset: i16) -> Instruction {
    Instruction {
        code: op::LOAD_U32,
        registers: destination | register::CONTEXT << 4,
        offset,
        immediate: 0,
    }
}

/// The program for `rules`, given in the specification's order.
pub(crate) fn program(rules: &[Rule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor; four bytes each.
    let mut code = vec![
        load(register::KIND, 0),
        Instruction {
            code: op::MOVE_REGISTER,
            registers: register::UNDECIDED | register::KIND << 4,
            offset: 0,
            immediate: 0,
        },
        instruction(op::AND, register::KIND, 0, 0xffff),
        instruction(op::SHIFT_RIGHT, register::UNDECIDED, 0, 16),
        load(register::MAJOR, 4),
        load(register::MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        block(&mut code, rule);
    }
    verdict(&mut code, false);
    code
}

fn block(code: &mut Vec<Instruction>, rule: &Rule) {
    let kind = match rule.kind {
        Kind::All => None,
        Kind::Block => Some(1),
        Kind::Char => Some(2),
    };
    let conditions =
        [(register::KIND, kind), (register::MAJOR, rule.major), (register::MINOR, rule.minor)];
    let mut conditions: Vec<_> =
        conditions.into_iter().filter_map(|(r, value)| Some((r, value?))).collect();
    // Instructions of a block after its conditions.
    const DECISION: usize = 4;
    while !conditions.is_empty() {
        let (register, value) = conditions.remove(0);
        let skip = conditions.len() + DECISION;
        // The comparison is one of 32 bits, so the sign of the immediate doesn't matter.
        code.push(instruction(op::JUMP_NOT_EQUAL, register, skip as i16, value as i32));
    }
    let Access(access) = rule.access;
    if rule.allow {
        code.push(instruction(op::AND, register::UNDECIDED, 0, !access));
        code.push(instruction(op::JUMP_NOT_EQUAL, register::UNDECIDED, 2, 0));
    } else {
        code.push(instruction(op::JUMP_IF_SET, register::UNDECIDED, 1, access));
        code.push(instruction(op::JUMP, 0, 2, 0));
    }
    verdict(code, rule.allow);
}

fn verdict(code: &mut Vec<Instruction>, allow: bool) {
    code.push(instruction(op::MOVE, register::VERDICT, 0, i32::from(allow)));
    code.push(instruction(op::EXIT, 0, 0, 0));
}

/// bpf(2) commands and constants (linux/bpf.h).
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// `union bpf_attr` for `BPF_PROG_LOAD`, up to the last field used here. The kernel takes a
/// shorter union as one whose other bytes are zero.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface_index: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Loads the program for `rules` and attaches it to a cgroup; it goes with the cgroup.
///
/// # Errors
/// `EPERM` without `CAP_BPF` (or `CAP_SYS_ADMIN`), `EINVAL` where the kernel lacks
/// `CONFIG_CGROUP_BPF`.
pub(crate) fn attach(cgroup: BorrowedFd<'_>, rules: &[Rule]) -> io::Result<()> {
    let program = load_program(&program(rules))?;
    let attributes = AttachAttributes {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attributes hold two open descriptors and no pointers.
    unsafe { bpf(BPF_PROG_ATTACH, &attributes) }.map(drop)
}

fn load_program(code: &[Instruction]) -> io::Result<OwnedFd> {
    const LICENSE: &std::ffi::CStr = c"Apache-2.0";
    let mut name = [0; 16];
    name[..15].copy_from_slice(b"runhcs_devices_");
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name,
        interface_index: 0,
        expected_attach_type: BPF_CGROUP_DEVICE,
    };
    // SAFETY: `instructions` points to `instruction_count` instructions and `license` to a C
    // string; both outlive the call, which copies them.
    let descriptor = unsafe { bpf(BPF_PROG_LOAD, &attributes) }?;
    // SAFETY: BPF_PROG_LOAD returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// # Safety
/// Every pointer within `attributes` must be valid for what `command` does with it.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `attributes`; the rest is the caller's
    // promise.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAR: i32 = 2;
    const BLOCK: i32 = 1;

    /// Runs a program as the kernel would; panics on anything it doesn't know.
    fn decide(code: &[Instruction], access: i32, kind: i32, major: u32, minor: u32) -> bool {
        let context = [(access << 16 | kind) as u32, major, minor];
        let mut registers = [0u64; 11];
        let mut next = 0;
        loop {
            let at = code[next];
            next += 1;
            let (to, from) = (usize::from(at.registers & 15), usize::from(at.registers >> 4));
            let jump = match at.code {
                op::LOAD_U32 => {
                    registers[to] = u64::from(context[at.offset as usize / 4]);
                    false
                }
                op::MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                op::MOVE => {
                    registers[to] = at.immediate as u64;
                    false
                }
                op::AND => {
                    registers[to] = u64::from(registers[to] as u32 & at.immediate as u32);
                    false
                }
                op::SHIFT_RIGHT => {
                    registers[to] = u64::from(registers[to] as u32 >> at.immediate);
                    false
                }
                op::JUMP => true,
                op::JUMP_NOT_EQUAL => registers[to] as u32 != at.immediate as u32,
                op::JUMP_IF_SET => registers[to] as u32 & at.immediate as u32 != 0,
                op::EXIT => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            };
            if jump {
                next += at.offset as usize;
            }
        }
    }

    fn rule(allow: bool, kind: Kind, major: Option<u32>, minor: Option<u32>, access: &str) -> Rule {
        Rule { allow, kind, major, minor, access: Access::parse(access).unwrap() }
    }

    #[test]
    fn without_rules_all_is_denied() {
        assert!(!decide(&program(&[]), READ, CHAR, 1, 3));
    }

    #[test]
    fn deny_all_then_allow_one() {
        let code = program(&[
            rule(false, Kind::All, None, None, "rwm"),
            rule(true, Kind::Char, Some(1), Some(3), "rw"),
        ]);
        assert!(decide(&code, READ, CHAR, 1, 3));
        assert!(decide(&code, READ | WRITE, CHAR, 1, 3));
        assert!(!decide(&code, READ | MKNOD, CHAR, 1, 3));
        assert!(!decide(&code, READ, BLOCK, 1, 3));
        assert!(!decide(&code, READ, CHAR, 1, 5));
    }

    #[test]
    fn the_last_rule_decides_each_kind_of_access() {
        let code = program(&[
            rule(true, Kind::All, None, None, "rwm"),
            rule(false, Kind::Block, Some(8), None, "w"),
            rule(true, Kind::Block, Some(8), Some(1), "w"),
        ]);
        assert!(decide(&code, READ, BLOCK, 8, 0));
        assert!(!decide(&code, WRITE, BLOCK, 8, 0));
        assert!(!decide(&code, READ | WRITE, BLOCK, 8, 0));
        assert!(decide(&code, READ | WRITE, BLOCK, 8, 1));
        assert!(decide(&code, WRITE, CHAR, 8, 0));
    }

    #[test]
    fn access_granted_by_several_rules_adds_up() {
        let code = program(&[
            rule(true, Kind::Char, Some(10), Some(200), "r"),
            rule(true, Kind::Char, None, None, "m"),
            rule(true, Kind::Char, Some(10), None, "w"),
        ]);
        assert!(decide(&code, READ | WRITE | MKNOD, CHAR, 10, 200));
        assert!(!decide(&code, READ, CHAR, 10, 201));
    }

    #[test]
    fn large_numbers_compare_in_full() {
        let code = program(&[rule(true, Kind::Char, Some(u32::MAX), Some(0x8000_0000), "r")]);
        assert!(decide(&code, READ, CHAR, u32::MAX, 0x8000_0000));
        assert!(!decide(&code, READ, CHAR, u32::MAX, 0));
    }

    #[test]
    fn letters() {
        assert_eq!(Access::parse("rwm"), Some(Access::ALL));
        assert_eq!(Access::parse("mr"), Some(Access(MKNOD | READ)));
        assert_eq!(Access::parse("x"), None);
    }

    #[test]
    fn the_kernel_accepts_the_program() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: loading an eBPF program needs root");
            return;
        }
        let rules = [
            rule(false, Kind::All, None, None, "rwm"),
            rule(true, Kind::Char, Some(1), Some(3), "rwm"),
            rule(false, Kind::Block, None, Some(7), "w"),
        ];
        if let Err(error) = load_program(&program(&rules)) {
            panic!("the kernel refused the program: {error}");
        }
    }
}
