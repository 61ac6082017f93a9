//! One VM option's value, read from text: in its range, or an error that says what is accepted.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Accelerator, Console, Entropy, Machine, TemplateUse};

/// What is wrong with a value and what would be right.
pub(super) type Result<T> = std::result::Result<T, String>;

/// Too little for a kernel to unpack the initramfs is never meant.
pub(super) const MIN_MEMORY_MIB: u64 = 64;
/// 1 TiB; more is a slip of units.
pub(super) const MAX_MEMORY_MIB: u64 = 1 << 20;
/// What QEMU's machine types and the guest's kernel support without further options.
const MAX_VCPUS: u32 = 255;
const MAX_BOOT_TIMEOUT_SECONDS: u64 = 3600;
/// QEMU reckons with signed numbers.
const MAX_DISK_LIMIT: u64 = i64::MAX as u64;
/// Linux takes 2,048 on x86 (COMMAND_LINE_SIZE); the other half is for the VM shim.
const MAX_KERNEL_ARGS: usize = 1024;

pub(super) fn memory_mib(text: &str) -> Result<u64> {
    ranged(text, "a number of MiB", MIN_MEMORY_MIB, MAX_MEMORY_MIB)
}

pub(super) fn vcpus(text: &str) -> Result<u32> {
    ranged(text, "a number of virtual CPUs", 1, MAX_VCPUS)
}

pub(super) fn boot_timeout(text: &str) -> Result<u64> {
    ranged(text, "a number of seconds", 1, MAX_BOOT_TIMEOUT_SECONDS)
}

pub(super) fn accelerator(text: &str) -> Result<Accelerator> {
    match text {
        "auto" => Ok(Accelerator::Auto),
        "kvm" => Ok(Accelerator::Kvm),
        "tcg" => Ok(Accelerator::Tcg),
        other => Err(format!("{other:?} is unknown; it is `auto`, `kvm` or `tcg`")),
    }
}

pub(super) fn machine(text: &str) -> Result<Machine> {
    match text {
        "microvm" => Ok(Machine::Microvm),
        "q35" => Ok(Machine::Q35),
        other => Err(format!("{other:?} is unknown; it is `microvm` or `q35`")),
    }
}

pub(super) fn template(text: &str) -> Result<TemplateUse> {
    match text {
        "auto" => Ok(TemplateUse::Auto),
        "never" => Ok(TemplateUse::Never),
        other => Err(format!("{other:?} is unknown; it is `auto` or `never`")),
    }
}

pub(super) fn console(text: &str) -> Result<Console> {
    match text {
        "log" => Ok(Console::Log),
        "off" => Ok(Console::Off),
        other => Err(format!("{other:?} is unknown; it is `log` or `off`")),
    }
}

pub(super) fn entropy(text: &str) -> Result<Entropy> {
    match text {
        "cpu" => Ok(Entropy::Cpu),
        "host" => Ok(Entropy::Host),
        other => Err(format!("{other:?} is unknown; it is `cpu` or `host`")),
    }
}

pub(super) fn boolean(text: &str) -> Result<bool> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("{other:?} is neither `true` nor `false`")),
    }
}

/// 0 is none.
pub(super) fn disk_limit(text: &str) -> Result<u64> {
    ranged(text, "a limit, or none with 0,", 0, MAX_DISK_LIMIT)
}

/// Features as QEMU's `-cpu` takes them. Nothing else can be said that way.
pub(super) fn cpu_features(text: &str) -> Result<String> {
    let is_feature = |word: &str| {
        let name = word.strip_prefix(['+', '-']).unwrap_or_default();
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        !name.is_empty() && name.chars().all(known)
    };
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    match words.iter().find(|word| !is_feature(word)) {
        Some(word) => Err(format!("{word:?} is no feature such as `+avx2` or `-avx2`")),
        None => Ok(words.join(",")),
    }
}

/// Words for the kernel's command line; without blanks around them.
pub(super) fn kernel_args(text: &str) -> Result<String> {
    if let Some(bad) = text.chars().find(|c| !matches!(c, ' '..='~')) {
        return Err(format!("{text:?} holds {bad:?}; only printable ASCII is accepted"));
    }
    let args = text.trim_matches(' ');
    // Behind `--` the kernel passes everything to init.
    if args.split(' ').any(|word| word == "--") {
        return Err(format!("{text:?} holds `--`; arguments for init are not accepted"));
    }
    if args.len() > MAX_KERNEL_ARGS {
        return Err(format!("{} characters; at most {MAX_KERNEL_ARGS} are accepted", args.len()));
    }
    Ok(args.to_owned())
}

/// The lowest of the users that QEMU may run as. Below are the system's; above is room for each
/// pid there can be (`PID_MAX_LIMIT`, proc_sys_kernel(5)).
pub(super) fn uid_base(base: u32) -> Result<u32> {
    const LEAST: u32 = 1000;
    const MOST: u32 = u32::MAX - (1 << 22) - 1;
    ranged(&base.to_string(), "a user id", LEAST, MOST)
}

/// The path of a file or directory, absolute.
pub(super) fn file(path: &Path) -> Result<PathBuf> {
    let shown = path.display().to_string();
    if shown.contains('\0') {
        return Err(format!("{shown:?} holds a NUL character"));
    }
    if !path.has_root() {
        return Err(format!("{shown:?} is not an absolute path"));
    }
    Ok(path.to_owned())
}

/// A program: an absolute path, or a name to look up in `PATH`.
pub(super) fn program(path: &Path) -> Result<PathBuf> {
    let mut components = path.components();
    match (components.next(), components.next()) {
        (Some(std::path::Component::Normal(name)), None) if name == path.as_os_str() => {
            Ok(path.to_owned())
        }
        _ => file(path).map_err(|message| format!("{message}, nor the name of a program")),
    }
}

fn ranged<T: FromStr + PartialOrd + std::fmt::Display>(
    text: &str,
    what: &str,
    least: T,
    most: T,
) -> Result<T> {
    // FromStr also takes a plus sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<T>() {
        Ok(value) if digits && least <= value && value <= most => Ok(value),
        _ => Err(format!("{text:?} is not {what} from {least} to {most}")),
    }
}
