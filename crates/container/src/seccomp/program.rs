//! A filter's program, and its installation by seccomp(2).

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use libseccomp::ScmpFilterContext;
use rustix::fs::MemfdFlags;

/// One instruction of classic BPF (linux/filter.h, `struct sock_filter`).
pub(super) type Instruction = libc::sock_filter;

/// A program of classic BPF.
pub(crate) struct Program(Vec<Instruction>);

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} instructions)", self.0.len())
    }
}

impl Program {
    /// What libseccomp makes of its rules.
    pub(super) fn of(context: &ScmpFilterContext) -> io::Result<Self> {
        // The library writes to descriptors only; the call for memory is not in every version.
        let mut file = File::from(rustix::fs::memfd_create("seccomp", MemfdFlags::CLOEXEC)?);
        context.export_bpf(&file).map_err(io::Error::other)?;
        file.rewind()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (instructions, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(io::Error::other("libseccomp wrote half an instruction"));
        }
        let instruction = |[a, b, jt, jf, k @ ..]: &[u8; 8]| Instruction {
            code: u16::from_ne_bytes([*a, *b]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes(*k),
        };
        Ok(Self(instructions.iter().map(instruction).collect()))
    }

    /// Puts instructions that fall through to the program before it.
    pub(super) fn prepend(&mut self, instructions: Vec<Instruction>) {
        self.0.splice(0..0, instructions);
    }

    /// Installs it in the calling thread.
    pub(super) fn install(&self, flags: libc::c_ulong) -> io::Result<()> {
        match self.call(flags)? {
            0 => Ok(()),
            // With SECCOMP_FILTER_FLAG_TSYNC the kernel names a thread rather than an error.
            thread => Err(io::Error::other(format!("thread {thread} can't be synchronized"))),
        }
    }

    /// Installs it in the calling thread; `flags` ask for a listener. Its descriptor is closed
    /// when a program is executed (seccomp(2)).
    pub(super) fn install_with_listener(&self, flags: libc::c_ulong) -> io::Result<OwnedFd> {
        let listener = self.call(flags)?;
        // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(listener) })
    }

    fn call(&self, flags: libc::c_ulong) -> io::Result<RawFd> {
        let program = libc::sock_fprog {
            len: self.0.len() as libc::c_ushort,
            filter: self.0.as_ptr().cast_mut(),
        };
        seccomp(flags, std::ptr::from_ref(&program))
    }
}

/// Whether the running kernel knows the flags (seccomp(2), on how to find out).
pub(super) fn supports(flags: libc::c_ulong) -> bool {
    let error = seccomp(flags, std::ptr::null()).err();
    error.and_then(|error| error.raw_os_error()) == Some(libc::EFAULT)
}

fn seccomp(flags: libc::c_ulong, program: *const libc::sock_fprog) -> io::Result<RawFd> {
    // SAFETY: the program is null, or has as many instructions as it says, which the kernel reads
    // and which outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_logging_and_not_everything() {
        assert!(supports(libc::SECCOMP_FILTER_FLAG_LOG));
        assert!(!supports(1 << 30));
    }
}
