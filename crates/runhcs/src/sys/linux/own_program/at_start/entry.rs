//! The program's entry point, which replaces the program by itself from a read-only mount.
//!
//! What `protect` wants can be had without executing the program again as long as the program has
//! done nothing yet: its parts are mapped once more, from the mount, over what the kernel mapped, and
//! the process is told that this is what it executes (`replace.rs`). Then the usual start follows. If
//! it can't be done, or needn't, nothing has changed, and `protect` does it its way.
//!
//! Nothing is set up yet: no thread-local storage, no functions that are chosen at the start
//! (`memcpy`, `strlen`), in a program that places itself no pointers in tables. Hence system calls by
//! hand (`raw.rs`), and volatile accesses in loops, which the compiler doesn't turn into such functions.

use core::arch::global_asm;
use core::ffi::{CStr, c_char};

use super::replace;

// The kernel starts a program with its arguments at the stack's pointer, which is aligned to 16
// bytes, and in rdx a function that `_start` is to register (System V ABI for x86-64, 3.4.1).
global_asm!(
    ".globl runhcs_entry",
    ".type runhcs_entry, @function",
    "runhcs_entry:",
    "mov rdi, rsp",
    "push rdx",
    "sub rsp, 8",
    "call {before_start}",
    "add rsp, 8",
    "pop rdx",
    "jmp _start",
    ".size runhcs_entry, . - runhcs_entry",
    before_start = sym before_start,
);

/// A list of C strings that ends with a null pointer.
pub type Strings = *const *const c_char;

/// What the kernel put on the stack of a new program.
pub struct Start {
    /// Where that is.
    pub stack: usize,
    pub arguments: Strings,
    pub environment: Strings,
    /// Pairs of a type and a value, up to one of type `AT_NULL` (getauxval(3)).
    pub auxiliary: *const [usize; 2],
}

/// # Safety
/// `stack` points to what the kernel put on the stack of a new program.
unsafe extern "C" fn before_start(stack: *const usize) {
    // SAFETY: the count of arguments, they, a null pointer, the environment, a null pointer, the
    // auxiliary vector.
    unsafe {
        let arguments: Strings = stack.add(1).cast();
        let environment: Strings = arguments.add(*stack + 1);
        // As `super::ENTERING`, and `super::VARIABLE`.
        let enters = any(arguments, c"create", b'\0')
            || any(arguments, c"exec", b'\0')
            || any(arguments, c"run", b'\0');
        if !enters || any(environment, c"RUNHCS_OWN_PROGRAM", b'=') {
            return;
        }
        let mut end = environment;
        while !(*end).is_null() {
            end = end.add(1);
        }
        let auxiliary = end.add(1).cast();
        replace::replace(&Start { stack: stack as usize, arguments, environment, auxiliary });
    }
}

/// Whether one of the strings begins with `text` and then `next`.
///
/// # Safety
/// As of the type.
unsafe fn any(mut strings: Strings, text: &CStr, next: u8) -> bool {
    let text = text.to_bytes();
    // SAFETY: nothing is read after a null pointer or a null byte.
    unsafe {
        while !(*strings).is_null() {
            let string: *const u8 = (*strings).cast();
            let mut same = 0;
            while same < text.len() && string.add(same).read_volatile() == text[same] {
                same += 1;
            }
            if same == text.len() && string.add(same).read_volatile() == next {
                return true;
            }
            strings = strings.add(1);
        }
    }
    false
}
