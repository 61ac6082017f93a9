//! The parts of this program, as the kernel has mapped them.

use core::arch::asm;

use super::entry::Start;
use super::raw::{Descriptor, Failed, call};

/// x86-64 has no other.
const PAGE: usize = 4096;
/// Where linkers put the program's headers in its file: right after the file's own.
const HEADERS_AT: usize = size_of::<libc::Elf64_Ehdr>();

/// A program without libraries.
pub struct Program {
    headers: &'static [libc::Elf64_Phdr],
    /// How far it lies from where it says.
    bias: usize,
}

impl Program {
    /// Fails for a program with libraries: the loader has written to it already.
    ///
    /// # Safety
    /// `start` is what the kernel gave this program.
    pub unsafe fn new(start: &Start) -> Result<Self, Failed> {
        let (mut at, mut count) = (0, 0);
        let mut auxiliary = start.auxiliary;
        // SAFETY: nothing is read after the vector's end.
        unsafe {
            while (*auxiliary)[0] != libc::AT_NULL as usize {
                let [kind, value] = *auxiliary;
                if kind == libc::AT_PHDR as usize {
                    at = value;
                } else if kind == libc::AT_PHNUM as usize {
                    count = value;
                }
                auxiliary = auxiliary.add(1);
            }
        }
        if at % PAGE != HEADERS_AT {
            return Err(Failed);
        }
        // SAFETY: the kernel says so.
        let headers: &[libc::Elf64_Phdr] =
            unsafe { core::slice::from_raw_parts(at as *const _, count) };
        if headers.iter().any(|header| header.p_type == libc::PT_INTERP) {
            return Err(Failed);
        }
        let is_first = |h: &&libc::Elf64_Phdr| h.p_type == libc::PT_LOAD && h.p_offset == 0;
        let first = headers.iter().find(is_first).ok_or(Failed)?;
        let bias = (at - HEADERS_AT).wrapping_sub(first.p_vaddr as usize);
        Ok(Self { headers, bias })
    }

    /// What is mapped from the file, and where.
    fn parts(&self) -> impl Iterator<Item = (usize, &libc::Elf64_Phdr)> {
        let mapped = self.headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_filesz > 0);
        mapped.map(|header| (self.bias.wrapping_add(header.p_vaddr as usize), header))
    }

    /// Maps all of it from `file`, which has the same content, as the kernel did.
    ///
    /// # Safety
    /// The program has written to nothing that is mapped from its file.
    pub unsafe fn map_from(&self, file: &Descriptor) -> Result<(), Failed> {
        for (address, header) in self.parts() {
            let before = address % PAGE;
            let end = address + header.p_filesz as usize;
            let has = |flag: u32, protection: libc::c_int| {
                if header.p_flags & flag != 0 { protection as usize } else { 0 }
            };
            let protection = has(libc::PF_R, libc::PROT_READ)
                | has(libc::PF_W, libc::PROT_WRITE)
                | has(libc::PF_X, libc::PROT_EXEC);
            let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED) as usize;
            let from = address - before;
            let offset = header.p_offset as usize - before;
            // SAFETY: there now is what there was, this code too.
            unsafe {
                call(libc::SYS_mmap, [from, end - from, protection, flags, file.0, offset])?;
                // What the program says is zero begins on the last page of what is in the file.
                if header.p_memsz > header.p_filesz {
                    clear(end, end.next_multiple_of(PAGE) - end);
                }
            }
        }
        Ok(())
    }

    /// Where what can be executed begins and ends.
    pub fn code(&self) -> [usize; 2] {
        self.extent(libc::PF_X)
    }

    /// Where what can be written begins and ends, without what is zero at first.
    pub fn data(&self) -> [usize; 2] {
        self.extent(libc::PF_W)
    }

    fn extent(&self, flag: u32) -> [usize; 2] {
        let part = self.parts().filter(|(_, header)| header.p_flags & flag != 0).last();
        part.map_or([0; 2], |(address, header)| [address, address + header.p_filesz as usize])
    }
}

/// # Safety
/// Nobody needs what is there.
unsafe fn clear(address: usize, length: usize) {
    // SAFETY: see above. The direction flag is clear (System V ABI for x86-64, 3.2.1).
    unsafe {
        asm!(
            "rep stosb",
            inout("rdi") address => _,
            inout("rcx") length => _,
            in("al") 0_u8,
            options(nostack, preserves_flags),
        );
    }
}
