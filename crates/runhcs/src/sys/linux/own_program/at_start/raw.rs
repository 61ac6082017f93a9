//! System calls without the C library.

use core::arch::asm;

/// What a call failed with is of no use to the callers: they do without.
#[derive(Clone, Copy, Debug)]
pub struct Failed;

/// Makes a system call.
///
/// # Safety
/// As of that call.
pub unsafe fn call(number: libc::c_long, words: [usize; 6]) -> Result<usize, Failed> {
    let result: isize;
    // SAFETY: the kernel changes rax, rcx and r11 (syscall(2)), and memory as the call says.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") words[0],
            in("rsi") words[1],
            in("rdx") words[2],
            in("r10") words[3],
            in("r8") words[4],
            in("r9") words[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    usize::try_from(result).map_err(|_| Failed)
}

/// A descriptor that is closed in the end.
pub struct Descriptor(pub usize);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: it is this value's.
        let _ = unsafe { call(libc::SYS_close, [self.0, 0, 0, 0, 0, 0]) };
    }
}
