//! The annotations that the Windows program that runhcs is modelled on has for single containers,
//! with the meaning that they have for a Linux container: its limits, and two of its settings.
//!
//! What can't be had is refused, for a limit that is ignored is none; what only concerns Windows
//! containers is named, so that it can be warned of.

use oci_spec::runtime::{
    LinuxCpu, LinuxMemory, LinuxResources, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Spec,
};

use crate::{Error, Result};

/// What the names begin with.
const PREFIXES: [&str; 3] = ["io.microsoft.container.", "io.microsoft.lcow.", "io.microsoft.wcow."];

const MEMORY: &str = "io.microsoft.container.memory.sizeinmb";
const PROCESSORS: &str = "io.microsoft.container.processor.count";
const SHM: &str = "io.microsoft.lcow.shm.size-kb";
const CORE: &str = "io.microsoft.lcow.rlimitcore";

/// Those that are refused, and what to do instead.
const REFUSED: [(&str, &str); 7] = [
    (
        "io.microsoft.container.processor.limit",
        "give linux.resources.cpu.quota, or the annotation io.microsoft.container.processor.count",
    ),
    ("io.microsoft.container.processor.weight", "give linux.resources.cpu.shares"),
    (
        "io.microsoft.container.storage.qos.bandwidthmaximum",
        "give linux.resources.blockIO, or io.runhcs.vm.disk-bandwidth for a VM's disks",
    ),
    (
        "io.microsoft.container.storage.qos.iopsmaximum",
        "give linux.resources.blockIO, or io.runhcs.vm.disk-iops for a VM's disks",
    ),
    ("io.microsoft.container.gpu.capabilities", NO_GPU),
    ("io.microsoft.lcow.gpuvhdpath", NO_GPU),
    ("io.microsoft.container.wcow.deviceextensions", "it is for Windows containers"),
];
const NO_GPU: &str = "there are no shared GPUs; give linux.devices";

/// Those that concern dumps of Windows processes.
const IGNORED: [&str; 3] = [
    "io.microsoft.container.processdumplocation",
    "io.microsoft.wcow.processdumpcount",
    "io.microsoft.wcow.processdumptype",
];

/// The period of a quota that says how many processors there are, in microseconds.
const PERIOD: u64 = 100_000;
/// The most memory that can be written in bytes, in MiB.
const MOST_MIB: u64 = i64::MAX as u64 >> 20;

/// Puts what the annotations say into the configuration, and returns those that have no effect, in
/// order.
///
/// # Errors
/// A value that doesn't parse or that contradicts the configuration; an annotation that can't be
/// had, or that begins like these and is unknown. Each names the annotation.
pub fn apply_container_annotations(spec: &mut Spec) -> Result<Vec<String>> {
    let mut all: Vec<(String, String)> = spec
        .annotations()
        .iter()
        .flatten()
        .filter(|(name, _)| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    // So that the same document always gives the same error.
    all.sort_unstable();
    let mut ignored = Vec::new();
    for (name, value) in all {
        let applied = match name.as_str() {
            MEMORY => memory(spec, &value),
            PROCESSORS => processors(spec, &value),
            SHM => shared_memory(spec, &value),
            CORE => core_size(spec, &value),
            name if IGNORED.contains(&name) => {
                ignored.push(name.to_owned());
                Ok(())
            }
            name => Err(match REFUSED.iter().find(|(refused, _)| *refused == name) {
                // The model's word for no limit.
                Some(_) if value == "0" => continue,
                Some((_, instead)) => format!("{value:?} can't be had for a container: {instead}"),
                None => "no such annotation; docs/configuration.md has those that there are".into(),
            }),
        };
        applied.map_err(|message| Error::invalid(&name, message))?;
    }
    Ok(ignored)
}

fn number(text: &str, most: u64) -> std::result::Result<u64, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{text:?} is no whole number from 1 to {most}"))
}

fn resources(spec: &mut Spec) -> &mut LinuxResources {
    let linux = spec.linux_mut().get_or_insert_default();
    linux.resources_mut().get_or_insert_default()
}

fn memory(spec: &mut Spec, text: &str) -> std::result::Result<(), String> {
    let limit = (number(text, MOST_MIB)? << 20) as i64;
    let memory = resources(spec).memory_mut().get_or_insert_with(LinuxMemory::default);
    match memory.limit() {
        Some(other) if other > 0 && other != limit => Err(format!(
            "{text:?} contradicts linux.resources.memory.limit, which is {other} bytes"
        )),
        _ => {
            memory.set_limit(Some(limit));
            Ok(())
        }
    }
}

fn processors(spec: &mut Spec, text: &str) -> std::result::Result<(), String> {
    let count = number(text, 1 << 16)?;
    let cpu = resources(spec).cpu_mut().get_or_insert_with(LinuxCpu::default);
    let period = cpu.period().unwrap_or(PERIOD);
    let quota = i64::try_from(count.saturating_mul(period)).unwrap_or(i64::MAX);
    match cpu.quota() {
        Some(other) if other > 0 && other != quota => Err(format!(
            "{text:?} contradicts linux.resources.cpu.quota, which is {other} of {period} \
             microseconds"
        )),
        _ => {
            cpu.set_quota(Some(quota)).set_period(Some(period));
            Ok(())
        }
    }
}

fn shared_memory(spec: &mut Spec, text: &str) -> std::result::Result<(), String> {
    let size = number(text, MOST_MIB << 10)?;
    let mut mounts = spec.mounts_mut().iter_mut().flatten();
    let shm = mounts.find(|mount| {
        mount.destination().as_os_str() == "/dev/shm" && mount.typ().as_deref() == Some("tmpfs")
    });
    let shm = shm.ok_or("mounts has no tmpfs on /dev/shm whose size it could be")?;
    let options = shm.options_mut().get_or_insert_default();
    options.retain(|option| !option.starts_with("size="));
    options.push(format!("size={size}k"));
    Ok(())
}

/// `soft;hard`, in bytes.
fn core_size(spec: &mut Spec, text: &str) -> std::result::Result<(), String> {
    let limit = text.split_once(';').and_then(|(soft, hard)| {
        let limit: (u64, u64) = (soft.trim().parse().ok()?, hard.trim().parse().ok()?);
        (limit.0 <= limit.1).then_some(limit)
    });
    let (soft, hard) = limit
        .ok_or_else(|| format!("{text:?} is no `soft;hard`, two numbers of bytes in this order"))?;
    let process = spec.process_mut().as_mut().ok_or("process is missing")?;
    let mut rlimits = process.rlimits().clone().unwrap_or_default();
    let is_core = |rlimit: &PosixRlimit| rlimit.typ() == PosixRlimitType::RlimitCore;
    match rlimits.iter().find(|rlimit| is_core(rlimit)) {
        Some(other) if (other.soft(), other.hard()) != (soft, hard) => Err(format!(
            "{text:?} contradicts RLIMIT_CORE in process.rlimits, which is {};{}",
            other.soft(),
            other.hard()
        )),
        Some(_) => Ok(()),
        None => {
            let core = PosixRlimitBuilder::default()
                .typ(PosixRlimitType::RlimitCore)
                .soft(soft)
                .hard(hard)
                .build();
            rlimits.push(core.map_err(|error| error.to_string())?);
            process.set_rlimits(Some(rlimits));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn apply(annotations: Value, more: Value) -> std::result::Result<(Spec, Vec<String>), String> {
        let mut config = json!({
            "ociVersion": "1.0.2",
            "annotations": annotations,
            "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["a"]},
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut spec: Spec = serde_json::from_value(config).unwrap();
        let ignored = apply_container_annotations(&mut spec).map_err(|e| e.to_string())?;
        Ok((spec, ignored))
    }

    #[test]
    fn limits_come_into_the_configuration() {
        let shm = json!({ "destination": "/dev/shm", "type": "tmpfs",
                          "options": ["nosuid", "size=65536k"] });
        let (spec, ignored) = apply(
            json!({
                MEMORY: "64", PROCESSORS: "2", SHM: "1024", CORE: "0; 4096",
                "io.microsoft.container.processdumplocation": "/dumps",
                "io.microsoft.container.storage.qos.iopsmaximum": "0",
                "io.microsoft.virtualmachine.x": "other's", "io.kubernetes.x": "other's",
            }),
            json!({ "mounts": [shm], "linux": { "resources": { "cpu": { "period": 50_000 } } } }),
        )
        .unwrap();
        assert_eq!(ignored, ["io.microsoft.container.processdumplocation"]);
        let spec = serde_json::to_value(spec).unwrap();
        let resources = &spec["linux"]["resources"];
        assert_eq!(resources["memory"]["limit"], 64 << 20);
        assert_eq!(resources["cpu"], json!({ "quota": 100_000, "period": 50_000 }));
        assert_eq!(spec["mounts"][0]["options"], json!(["nosuid", "size=1024k"]));
        assert_eq!(
            spec["process"]["rlimits"],
            json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 4096 }])
        );
        let (spec, _) = apply(json!({ PROCESSORS: "1" }), json!({})).unwrap();
        let spec = serde_json::to_value(spec).unwrap();
        assert_eq!(
            spec["linux"]["resources"]["cpu"],
            json!({ "quota": 100_000, "period": 100_000 })
        );
    }

    #[test]
    fn what_is_said_twice_must_be_the_same() {
        let with = |name: &str, value: &str, resources: Value| {
            apply(json!({ name: value }), json!({ "linux": { "resources": resources } }))
        };
        with(MEMORY, "1", json!({ "memory": { "limit": 1 << 20 } })).unwrap();
        with(MEMORY, "1", json!({ "memory": { "limit": -1 } })).unwrap();
        let error = with(MEMORY, "1", json!({ "memory": { "limit": 5 } })).unwrap_err();
        assert_eq!(
            error,
            format!("{MEMORY}: \"1\" contradicts linux.resources.memory.limit, which is 5 bytes")
        );
        let cpu = |quota: i64| json!({ "cpu": { "quota": quota, "period": 1000 } });
        with(PROCESSORS, "2", cpu(2000)).unwrap();
        let error = with(PROCESSORS, "2", cpu(1000)).unwrap_err();
        assert!(error.starts_with(&format!("{PROCESSORS}: \"2\" contradicts ")), "{error}");
        let core = |hard: u64| {
            json!({ "process": { "cwd": "/", "user": { "uid": 0, "gid": 0 }, "args": ["a"],
                    "rlimits": [{ "type": "RLIMIT_CORE", "soft": 1, "hard": hard }] } })
        };
        apply(json!({ CORE: "1;2" }), core(2)).unwrap();
        let error = apply(json!({ CORE: "1;2" }), core(3)).unwrap_err();
        assert!(error.starts_with(&format!("{CORE}: \"1;2\" contradicts ")), "{error}");
    }

    #[test]
    fn what_cant_be_had_is_refused_by_name() {
        for (name, value, message) in [
            (MEMORY, "0", "is no whole number from 1"),
            (MEMORY, "many", "is no whole number from 1"),
            (MEMORY, "9999999999999", "is no whole number from 1"),
            (PROCESSORS, "-1", "is no whole number from 1"),
            (SHM, "1024", "no tmpfs on /dev/shm"),
            (CORE, "5", "is no `soft;hard`"),
            (CORE, "5;4", "is no `soft;hard`"),
            ("io.microsoft.container.processor.limit", "5000", "linux.resources.cpu.quota"),
            ("io.microsoft.container.processor.weight", "5", "linux.resources.cpu.shares"),
            ("io.microsoft.container.storage.qos.iopsmaximum", "5", "blockIO"),
            ("io.microsoft.container.storage.qos.bandwidthmaximum", "5", "blockIO"),
            ("io.microsoft.container.gpu.capabilities", "all", "GPU"),
            ("io.microsoft.lcow.gpuvhdpath", "/x", "GPU"),
            ("io.microsoft.container.wcow.deviceextensions", "/x", "Windows"),
            ("io.microsoft.container.memory.size", "5", "no such annotation"),
            ("io.microsoft.lcow.", "5", "no such annotation"),
            ("io.microsoft.wcow.processdump", "5", "no such annotation"),
        ] {
            let error = apply(json!({ name: value }), json!({})).unwrap_err();
            assert!(error.starts_with(&format!("{name}: ")) && error.contains(message), "{error}");
        }
    }
}
