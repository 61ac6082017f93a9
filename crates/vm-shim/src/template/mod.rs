//! Templates from the VM's side: making them, and resuming from them. Why templates have no
//! devices, and figures, are in `docs/decisions/0017-warm-start.md`.

mod resume;
mod save;
mod slots;

use std::path::Path;

use anyhow::{Context, ensure};
use runhcs_spec::{Console, Machine, VmOptions};
use runhcs_uvm::template::{FileIdentity, Ingredients};

use crate::qemu;
use crate::qemu::accelerator::Usable;

pub use resume::{Resuming, find, wake};
pub use save::run;

/// Checks that VMs with these options can be resumed.
///
/// # Errors
/// What is in the way.
fn check(options: &VmOptions) -> anyhow::Result<()> {
    ensure!(
        options.machine == Machine::Microvm,
        "there are templates for VMs of machine type microvm only: a PC's devices, which are found \
         when it boots, can't be added later"
    );
    ensure!(
        options.console != Console::Off,
        "there are no templates for VMs without a console: it is what they are woken by"
    );
    ensure!(
        !options.huge_pages && !options.preallocate_memory,
        "there are no templates for VMs on huge pages or with memory that is taken at once"
    );
    Ok(())
}

/// What a template for VMs with these options is made of.
///
/// # Errors
/// If there can't be any, or a file isn't there.
fn ingredients(
    options: &VmOptions,
    program: &Path,
    accelerator: Usable,
) -> anyhow::Result<Ingredients> {
    check(options)?;
    let machine = qemu::for_machine(options, accelerator, true);
    let machine = machine
        .into_iter()
        .map(|argument| argument.into_string().ok().context("an argument of QEMU's is not text"));
    Ok(Ingredients::new(
        [
            FileIdentity::of(&options.kernel)?,
            FileIdentity::of(&options.initramfs)?,
            FileIdentity::of(program)?,
        ],
        accelerator.name(),
        options.memory_mib,
        options.vcpus,
        machine.collect::<anyhow::Result<_>>()?,
        // The clock's frequency depends on the processor alone and is measured a little
        // differently each time.
        qemu::template_command_line(options, accelerator, None),
    )?)
}
