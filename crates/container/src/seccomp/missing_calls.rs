//! Calls that are newer than a profile: answered as a kernel without them would, by ENOSYS.
//!
//! C libraries try the newest call first and fall back to older ones on ENOSYS only. A profile that
//! denies what it doesn't list would answer EPERM to calls that its author had never heard of, and
//! break programs that are newer than it. So, as with runc, a call whose number is above all that
//! the profile lists is answered by ENOSYS, unless the default action lets calls pass.

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{Arch, LinuxSeccomp};

use super::library_arch;
use super::program::Instruction;

/// linux/bpf_common.h and linux/seccomp.h.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// The bit in x32's numbers, by which alone the kernel tells it from x86-64.
const X32_BIT: u32 = 0x4000_0000;

/// The instructions to put before the filter; none if there is nothing to answer.
pub(super) fn answer(seccomp: &LinuxSeccomp) -> Vec<Instruction> {
    let mut architectures: Vec<Arch> = seccomp.architectures().iter().flatten().copied().collect();
    // libseccomp always adds the machine's own.
    architectures.retain(|arch| *arch != Arch::ScmpArchNative);
    architectures.extend(native().filter(|native| !architectures.contains(native)));
    let last = |arch: Arch| last_listed(seccomp, arch);
    let x32 = architectures.contains(&Arch::ScmpArchX32).then(|| last(Arch::ScmpArchX32)).flatten();
    let mut answers = Vec::new();
    for arch in architectures {
        if arch == Arch::ScmpArchX32 {
            continue;
        }
        let Some(last) = last(arch) else { continue };
        answers.push((arch, last));
    }
    encode(&answers, x32)
}

fn native() -> Option<Arch> {
    Some(match std::env::consts::ARCH {
        "x86_64" => Arch::ScmpArchX86_64,
        "aarch64" => Arch::ScmpArchAarch64,
        "riscv64" => Arch::ScmpArchRiscv64,
        "s390x" => Arch::ScmpArchS390x,
        "powerpc64" if cfg!(target_endian = "little") => Arch::ScmpArchPpc64le,
        _ => return None,
    })
}

/// The largest number of a call that the profile lists, whatever it does with it.
fn last_listed(seccomp: &LinuxSeccomp, arch: Arch) -> Option<u32> {
    let arch: ScmpArch = library_arch(arch).ok()?;
    let names = seccomp.syscalls().iter().flatten().flat_map(|rule| rule.names());
    let number = |name: &String| ScmpSyscall::from_name_by_arch(name, arch).ok();
    // What the architecture lacks has a negative number.
    names.filter_map(number).filter_map(|call| u32::try_from(call.as_raw_syscall()).ok()).max()
}

/// The numbers of libseccomp's architectures are the kernel's (linux/audit.h), but for x32.
fn encode(answers: &[(Arch, u32)], x32: Option<u32>) -> Vec<Instruction> {
    let step = |code, k, jt, jf| Instruction { code, jt, jf, k };
    // A number above the last one is answered, any other goes to the end.
    let answer = |last| {
        [step(IF_GREATER, last, 0, 1), step(RETURN, ENOSYS, 0, 0), step(JUMP, u32::MAX, 0, 0)]
    };
    let mut program = Vec::new();
    for (arch, last) in answers {
        let mut part = vec![step(LOAD, NUMBER, 0, 0)];
        if *arch == Arch::ScmpArchX86_64 {
            part.push(step(IF_NOT_LESS, X32_BIT, 3, 0));
            part.extend(answer(*last));
            match x32 {
                Some(last) => part.extend(answer(last)),
                None => part.push(step(JUMP, u32::MAX, 0, 0)),
            }
        } else {
            part.extend(answer(*last));
        }
        program.push(step(IF_EQUAL, *arch as u32, 0, part.len() as u8));
        program.append(&mut part);
    }
    if program.is_empty() {
        return program;
    }
    program.insert(0, step(LOAD, ARCHITECTURE, 0, 0));
    let end = program.len();
    for (index, step) in program.iter_mut().enumerate().filter(|(_, step)| step.code == JUMP) {
        step.k = (end - index - 1) as u32;
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the instructions: what they return, or `None` if they come to their end.
    fn run(program: &[Instruction], arch: u32, number: u32) -> Option<u32> {
        let (mut at, mut value) = (0, 0);
        while at < program.len() {
            let step = &program[at];
            let branch = |so| usize::from(if so { step.jt } else { step.jf });
            at += 1;
            match step.code {
                LOAD => value = if step.k == NUMBER { number } else { arch },
                JUMP => at += step.k as usize,
                IF_EQUAL => at += branch(value == step.k),
                IF_GREATER => at += branch(value > step.k),
                IF_NOT_LESS => at += branch(value >= step.k),
                RETURN => return Some(step.k),
                code => panic!("{code:#x}"),
            }
        }
        assert_eq!(at, program.len(), "no jump leads into the filter's middle");
        None
    }

    #[test]
    fn only_numbers_above_the_last_are_answered() {
        let (x64, x86) = (Arch::ScmpArchX86_64, Arch::ScmpArchX86);
        for x32 in [None, Some(X32_BIT | 500)] {
            let program = encode(&[(x64, 300), (x86, 400)], x32);
            for (arch, number, answered) in [
                (x64, 300, false),
                (x64, 301, true),
                (x86, 400, false),
                (x86, 401, true),
                (x64, X32_BIT | 500, false),
                (x64, X32_BIT | 501, x32.is_some()),
                (Arch::ScmpArchArm, 999, false),
            ] {
                let expected = answered.then_some(ENOSYS);
                assert_eq!(run(&program, arch as u32, number), expected, "{arch:?} {number:#x}");
            }
        }
        assert!(encode(&[], None).is_empty());
    }

    #[test]
    fn the_last_call_is_that_of_each_architecture() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO",
            "syscalls":[{"names":["read","no_such_call"],"action":"SCMP_ACT_ALLOW"},
                        {"names":["mkdir","waitpid"],"action":"SCMP_ACT_LOG"}]}"#;
        let seccomp = serde_json::from_str(json).unwrap();
        assert_eq!(last_listed(&seccomp, Arch::ScmpArchX86_64), Some(83));
        assert_eq!(last_listed(&seccomp, Arch::ScmpArchX86), Some(39));
    }
}
