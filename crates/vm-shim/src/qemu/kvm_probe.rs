//! The KVM probe: a guest of a few instructions, in 64-bit mode with paging as any kernel uses it.
//!
//! Opening `/dev/kvm` and making a virtual CPU proves nothing. Some hosts that are virtual machines
//! themselves offer both, run only guests that are made for them on the processor, and emulate any
//! other instruction by instruction, a thousand times slower. So the probe looks at the time too.

use std::num::Wrapping;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap};

const MEMORY: usize = 64 << 10;
const CODE: u64 = 0x1000;
const STACK: u64 = 0x8000;
/// Page tables: one page a level, the last with a single 2 MiB page.
const TABLES: u64 = 0x2000;
/// Where the guest reports to.
const PORT: u16 = 0x3f8;
const INPUT: u64 = 1234;

/// Turns of the loop between two reports, two instructions each.
const TURNS: u32 = 1500;
/// What they may take, at the best of several tries: 100 ns an instruction, hundreds of times what
/// a processor needs, a fraction of what an emulator does.
const LOOP_LIMIT: Duration = Duration::from_micros(300);
const TRIES: u32 = 3;

/// Squares RAX through the stack, reloads CR3 as every context switch does, and reports AX. Then
/// counts, and reports each time.
const PROGRAM: &[u8] = &[
    0x50, // push rax
    0x5b, // pop rbx
    0x48, 0x0f, 0xaf, 0xc3, // imul rax, rbx
    0x0f, 0x20, 0xd9, // mov rcx, cr3
    0x0f, 0x22, 0xd9, // mov cr3, rcx
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0x66, 0xef, // out dx, ax
    0xb9, 0xdc, 0x05, 0x00, 0x00, // again: mov ecx, TURNS
    0xff, 0xc9, // turn: dec ecx
    0x75, 0xfc, // jnz turn
    0x66, 0xef, // out dx, ax
    0xeb, 0xf3, // jmp again
];
const _: () = assert!(TURNS == 0x05dc);

/// Succeeds if the guest computes what it should, at a processor's speed.
pub fn run() -> anyhow::Result<()> {
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let vm = kvm.create_vm().context("KVM can't make a virtual machine")?;
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)])
        .context("cannot allocate the guest's memory")?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY as u64,
        userspace_addr: memory.get_host_address(GuestAddress(0))? as u64,
    };
    // SAFETY: the region is `memory`'s, which outlives the virtual machine.
    unsafe { vm.set_user_memory_region(region) }.context("KVM can't map the guest's memory")?;
    memory.write_slice(PROGRAM, GuestAddress(CODE))?;
    // Present and writable; the last level maps a large page.
    for (level, flags) in [(0, 0b11), (1, 0b11)] {
        let next = TABLES + (level + 1) * 0x1000;
        memory.write_obj(next | flags, GuestAddress(TABLES + level * 0x1000))?;
    }
    memory.write_obj(0b1000_0011u64, GuestAddress(TABLES + 2 * 0x1000))?;

    let mut vcpu = vm.create_vcpu(0).context("KVM can't make a virtual CPU")?;
    let mut sregs = vcpu.get_sregs()?;
    let code = kvm_segment {
        limit: u32::MAX,
        selector: 8,
        type_: 11,
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment { selector: 16, type_: 3, l: 0, db: 1, ..code };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr3 = TABLES;
    sregs.cr4 = 1 << 5; // PAE
    sregs.cr0 = 1 << 31 | 1 << 16 | 1; // PG, WP, PE
    sregs.efer = 1 << 10 | 1 << 8; // LMA, LME
    vcpu.set_sregs(&sregs).context("KVM can't set up 64-bit mode")?;
    let mut regs = vcpu.get_regs()?;
    (regs.rip, regs.rsp, regs.rax, regs.rflags) = (CODE, STACK, INPUT, 2);
    vcpu.set_regs(&regs).context("KVM can't set registers")?;

    match vcpu.run().context("KVM can't run a guest")? {
        VcpuExit::IoOut(PORT, data) => {
            let expected = (Wrapping(INPUT) * Wrapping(INPUT)).0 as u16;
            ensure!(data == expected.to_le_bytes(), "KVM's guest miscalculates: {data:?}");
        }
        exit => bail!("KVM's guest ended unexpectedly: {exit:?}"),
    }
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let start = Instant::now();
        match vcpu.run().context("KVM can't go on running a guest")? {
            VcpuExit::IoOut(PORT, _) => best = best.min(start.elapsed()),
            exit => bail!("KVM's guest ended unexpectedly: {exit:?}"),
        }
    }
    ensure!(
        best < LOOP_LIMIT,
        "KVM emulates ordinary guests here: {} instructions took it {} us",
        2 * TURNS,
        best.as_micros()
    );
    Ok(())
}
