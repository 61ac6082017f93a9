use proptest::prelude::*;
use serde_json::json;

use super::*;

fn options(fields: serde_json::Value, file: &VmDefaults) -> std::result::Result<VmOptions, String> {
    let mut json = json!({"ociVersion": "1.0.0"});
    json.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let hardware = VmHardware::take(&mut json).unwrap();
    let spec = serde_json::from_value(json).unwrap();
    VmOptions::from_spec(&spec, hardware.as_ref(), file).map_err(|e| e.to_string())
}

fn annotated_with(pairs: &[(&str, &str)]) -> std::result::Result<VmOptions, String> {
    let annotations: HashMap<_, _> = pairs.iter().copied().collect();
    options(json!({"annotations": annotations}), &VmDefaults::default())
}

fn built_in() -> VmOptions {
    VmOptions {
        kernel: DEFAULT_KERNEL.into(),
        initramfs: DEFAULT_INITRAMFS.into(),
        kernel_args: String::new(),
        memory_mib: 256,
        max_memory_mib: None,
        preallocate_memory: false,
        huge_pages: false,
        vcpus: 1,
        max_vcpus: None,
        cpu_features: String::new(),
        accelerator: Accelerator::Auto,
        machine: Machine::Microvm,
        console: Console::Log,
        entropy: Entropy::Cpu,
        disk_bandwidth: None,
        disk_iops: None,
        qemu: "qemu-system-x86_64".into(),
        templates: Some(DEFAULT_TEMPLATES.into()),
        boot_timeout_seconds: 60,
        uid_base: 1_879_048_192,
    }
}

/// A configuration file that says everything.
fn file() -> VmDefaults {
    VmDefaults {
        kernel: Some("/file/kernel".into()),
        initramfs: Some("/file/initramfs".into()),
        kernel_args: Some("file=1".into()),
        memory_mib: Some(300),
        max_memory_mib: Some(600),
        preallocate_memory: Some(true),
        huge_pages: Some(true),
        vcpus: Some(3),
        max_vcpus: Some(6),
        cpu_features: Some("-avx".into()),
        accelerator: Some(Accelerator::Kvm),
        machine: Some(Machine::Q35),
        console: Some(Console::Off),
        entropy: Some(Entropy::Host),
        disk_bandwidth: Some(1000),
        disk_iops: Some(10),
        qemu: Some("qemu-file".into()),
        template: Some(TemplateUse::Auto),
        template_dir: Some("/file/templates".into()),
        boot_timeout_seconds: Some(33),
        uid_base: Some(70_000),
    }
}

#[test]
fn every_source_overrides_the_weaker_ones() {
    let none = VmDefaults::default();
    assert_eq!(options(json!({}), &none).unwrap(), built_in());

    let from_file = VmOptions {
        kernel: "/file/kernel".into(),
        initramfs: "/file/initramfs".into(),
        kernel_args: "file=1".into(),
        memory_mib: 300,
        max_memory_mib: Some(600),
        preallocate_memory: true,
        huge_pages: true,
        vcpus: 3,
        max_vcpus: Some(6),
        cpu_features: "-avx".to_owned(),
        accelerator: Accelerator::Kvm,
        machine: Machine::Q35,
        console: Console::Off,
        entropy: Entropy::Host,
        disk_bandwidth: NonZeroU64::new(1000),
        disk_iops: NonZeroU64::new(10),
        qemu: "qemu-file".into(),
        templates: Some("/file/templates".into()),
        boot_timeout_seconds: 33,
        uid_base: 70_000,
    };
    assert_eq!(options(json!({}), &file()).unwrap(), from_file);

    let vm = json!({
        "kernel": {"path": "/vm/kernel", "parameters": ["vm=1", "two"], "initrd": "/vm/initrd"},
        "hypervisor": {"path": "/vm/qemu", "parameters": []},
        "hwConfig": {"vcpus": 7, "memory": 400 << 20, "deviceTree": "", "irqs": []},
    });
    let from_object = VmOptions {
        kernel: "/vm/kernel".into(),
        initramfs: "/vm/initrd".into(),
        kernel_args: "vm=1 two".into(),
        memory_mib: 400,
        max_memory_mib: None,
        vcpus: 7,
        max_vcpus: None,
        qemu: "/vm/qemu".into(),
        ..from_file
    };
    assert_eq!(options(json!({"vm": vm}), &file()).unwrap(), from_object);

    let annotations = json!({
        KERNEL: "/own/kernel", INITRAMFS: "/own/initramfs", KERNEL_ARGS: " own=1 ",
        MEMORY_MIB: "64", VCPUS: "5", ACCELERATOR: "tcg", MACHINE: "microvm", BOOT_TIMEOUT: "1",
        TEMPLATE: "never",
        PREALLOCATE_MEMORY: "false", HUGE_PAGES: "false", MAX_MEMORY_MIB: "64",
        MAX_VCPUS: "5", CPU_FEATURES: " +a.b , -c-d_e,",
        CONSOLE: "log", ENTROPY: "cpu", DISK_BANDWIDTH: "7", DISK_IOPS: "0",
    });
    let expected = VmOptions {
        kernel: "/own/kernel".into(),
        initramfs: "/own/initramfs".into(),
        kernel_args: "own=1".into(),
        memory_mib: 64,
        max_memory_mib: None,
        preallocate_memory: false,
        huge_pages: false,
        vcpus: 5,
        max_vcpus: None,
        cpu_features: "+a.b,-c-d_e".to_owned(),
        accelerator: Accelerator::Tcg,
        machine: Machine::Microvm,
        console: Console::Log,
        entropy: Entropy::Cpu,
        disk_bandwidth: NonZeroU64::new(7),
        disk_iops: None,
        qemu: "/vm/qemu".into(),
        templates: None,
        boot_timeout_seconds: 1,
        uid_base: 70_000,
    };
    assert_eq!(options(json!({"vm": vm, "annotations": annotations}), &file()).unwrap(), expected);
}

#[test]
fn the_models_names_are_understood() {
    let found = annotated_with(&[
        (MODEL_BOOT_FILES, "/boot"),
        (MODEL_KERNEL_ARGS, "debug"),
        (MODEL_MEMORY, "1024"),
        (MODEL_VCPUS, "2"),
        (MODEL_PHYSICAL, "true"),
        (MODEL_OVERCOMMIT, "false"),
        (MODEL_BANDWIDTH, "1000"),
        (MODEL_IOPS, "20"),
        ("io.microsoft.virtualmachine.lcow.vpcienabled", "true"),
        ("io.microsoft.virtualmachine.storage.scratch.encrypted", "false"),
    ]);
    let expected = VmOptions {
        kernel: "/boot/vmlinux".into(),
        initramfs: "/boot/initramfs.img".into(),
        kernel_args: "debug".into(),
        memory_mib: 1024,
        preallocate_memory: true,
        vcpus: 2,
        disk_bandwidth: NonZeroU64::new(1000),
        disk_iops: NonZeroU64::new(20),
        ..built_in()
    };
    assert_eq!(found.unwrap(), expected);
    let short = annotated_with(&[(MODEL_BOOT_FILES_SHORT, "/boot")]).unwrap();
    assert_eq!(short.kernel, expected.kernel);
}

#[test]
fn the_models_other_names_are_known_refused_or_unknown() {
    let ignored = |pairs: &[(&str, &str)]| {
        let annotations: HashMap<_, _> = pairs.iter().copied().collect();
        let json = json!({"ociVersion": "1.0.0", "annotations": annotations});
        let spec: Spec = serde_json::from_value(json).unwrap();
        let ignored = VmOptions::ignored_annotations(&spec).map_err(|e| e.to_string())?;
        Ok::<_, String>(ignored.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let prefix = "io.microsoft.virtualmachine";
    let (weight, logs) =
        (format!("{prefix}.computetopology.processor.weight"), format!("{prefix}.forwardlogs.x"));
    let found = ignored(&[(&logs, "1"), (&weight, "100"), (MODEL_VCPUS, "x"), ("other", "y")]);
    assert_eq!(found, Ok(vec![weight, logs]));
    for (name, value, message) in [
        ("lcow.securitypolicy", "abc", "\"abc\" can't be had: confidential VMs"),
        ("storage.scratch.encrypted", "true", "\"true\" can't be had: scratch disks"),
        ("computetopology.memory.sizeinmib", "5", "no such annotation"),
        ("", "", "no such annotation"),
    ] {
        let name = format!("{prefix}.{name}");
        let error = ignored(&[(&name, value)]).unwrap_err();
        assert!(error.starts_with(&format!("{name}: {message}")), "{error}");
        assert_eq!(annotated_with(&[(&name, value)]).unwrap_err(), error);
    }
}

#[test]
fn only_some_machines_grow() {
    let q35 = (MACHINE, "q35");
    let found = annotated_with(&[q35, (MAX_MEMORY_MIB, "512"), (MAX_VCPUS, "4")]).unwrap();
    assert_eq!((found.max_memory_mib, found.max_vcpus), (Some(512), Some(4)));
    // What is no more than the VM has says nothing.
    let found = annotated_with(&[(MAX_MEMORY_MIB, "256"), (MAX_VCPUS, "1")]).unwrap();
    assert_eq!((found.max_memory_mib, found.max_vcpus), (None, None));
    for name in [MAX_MEMORY_MIB, MAX_VCPUS] {
        let error =
            annotated_with(&[(name, if name == MAX_VCPUS { "2" } else { "257" })]).unwrap_err();
        assert!(error.starts_with(&format!("{name}: a VM of the machine type")), "{error}");
    }
}

#[test]
fn huge_pages_are_whole() {
    let found = annotated_with(&[(HUGE_PAGES, "true"), (MEMORY_MIB, "65")]).unwrap();
    assert_eq!((found.huge_pages, found.memory_mib), (true, 66));
}

#[test]
fn two_names_of_one_option_must_agree() {
    for (own, model, same, other) in [
        (MEMORY_MIB, MODEL_MEMORY, "512", "513"),
        (VCPUS, MODEL_VCPUS, "2", "3"),
        (KERNEL_ARGS, MODEL_KERNEL_ARGS, "a", "b"),
    ] {
        annotated_with(&[(own, same), (model, same)]).unwrap();
        let error = annotated_with(&[(own, same), (model, other)]).unwrap_err();
        let expected = format!("{model}: {other:?} contradicts the annotation {own}");
        assert_eq!(error, expected);
    }
    let error = annotated_with(&[(MODEL_PHYSICAL, "true"), (MODEL_OVERCOMMIT, "true")]);
    assert!(error.unwrap_err().contains("contradicts"));
    annotated_with(&[(KERNEL, "/boot/vmlinux"), (MODEL_BOOT_FILES, "/boot")]).unwrap();
    let error = annotated_with(&[(KERNEL, "/k"), (MODEL_BOOT_FILES, "/boot")]).unwrap_err();
    assert!(error.contains("contradicts"), "{error}");
}

#[test]
fn a_bad_annotation_is_named_with_its_value_and_what_is_accepted() {
    let long = "x".repeat(1025);
    for (name, value, message) in [
        (MEMORY_MIB, "63", "\"63\" is not a number of MiB from 64 to 1048576"),
        (MEMORY_MIB, "1048577", "\"1048577\" is not a number of MiB"),
        (MEMORY_MIB, "512M", "\"512M\" is not a number"),
        (MEMORY_MIB, "", "\"\" is not a number"),
        (MODEL_MEMORY, "-1", "\"-1\" is not a number"),
        (MODEL_MEMORY, "99999999999999999999999", "\"99999999999999999999999\" is not"),
        (VCPUS, "0", "\"0\" is not a number of virtual CPUs from 1 to 255"),
        (VCPUS, "256", "\"256\" is not"),
        (MODEL_VCPUS, "+2", "\"+2\" is not"),
        (BOOT_TIMEOUT, "0", "\"0\" is not a number of seconds from 1 to 3600"),
        (ACCELERATOR, "KVM", "\"KVM\" is unknown; it is `auto`, `kvm` or `tcg`"),
        (MACHINE, "pc", "\"pc\" is unknown; it is `microvm` or `q35`"),
        (KERNEL, "vmlinux", "\"vmlinux\" is not an absolute path"),
        (KERNEL, "", "\"\" is not an absolute path"),
        (INITRAMFS, "/a\0", "\"/a\\0\" holds a NUL"),
        (MODEL_BOOT_FILES, "boot", "\"boot\" is not an absolute path"),
        (KERNEL_ARGS, "a\nb", "\"a\\nb\" holds '\\n'; only printable ASCII"),
        (KERNEL_ARGS, "quiet -- init", "\"quiet -- init\" holds `--`"),
        (CPU_FEATURES, "avx", "\"avx\" is no feature such as `+avx2`"),
        (CPU_FEATURES, "+a,hv=1", "\"hv=1\" is no feature"),
        (CPU_FEATURES, "+", "\"+\" is no feature"),
        (HUGE_PAGES, "yes", "\"yes\" is neither `true` nor `false`"),
        (PREALLOCATE_MEMORY, "", "\"\" is neither"),
        (MODEL_OVERCOMMIT, "1", "\"1\" is neither"),
        (CONSOLE, "on", "\"on\" is unknown; it is `log` or `off`"),
        (ENTROPY, "", "\"\" is unknown; it is `cpu` or `host`"),
        (DISK_BANDWIDTH, "10M", "\"10M\" is not a limit, or none with 0, from 0 to"),
        (DISK_IOPS, "9223372036854775808", "\"9223372036854775808\" is not a limit"),
        (MODEL_KERNEL_ARGS, &long, "1025 characters; at most 1024"),
    ] {
        let error = annotated_with(&[(name, value)]).unwrap_err();
        assert!(error.starts_with(&format!("{name}: {message}")), "{error}");
    }
    let error = annotated_with(&[("io.runhcs.vm.qemu", "/bin/sh")]).unwrap_err();
    assert!(error.starts_with("io.runhcs.vm.qemu: no such annotation"), "{error}");
}

#[test]
fn a_bad_entry_of_the_configuration_file_is_named() {
    let file = VmDefaults::default;
    for (file, message) in [
        (
            VmDefaults { kernel: Some("k".into()), ..file() },
            "kernel in the configuration file's [vm]: \"k\" is not an absolute path",
        ),
        (VmDefaults { initramfs: Some("".into()), ..file() }, "initramfs in"),
        (VmDefaults { kernel_args: Some("\t".into()), ..file() }, "kernel-args in"),
        (VmDefaults { memory_mib: Some(1), ..file() }, "memory-mib in"),
        (VmDefaults { vcpus: Some(0), ..file() }, "vcpus in"),
        (
            VmDefaults { qemu: Some("bin/qemu".into()), ..file() },
            "qemu in the configuration file's [vm]: \"bin/qemu\" is not an absolute path, nor the name of a program",
        ),
        (VmDefaults { cpu_features: Some("x".into()), ..file() }, "cpu-features in"),
        (VmDefaults { disk_iops: Some(u64::MAX), ..file() }, "disk-iops in"),
        (VmDefaults { qemu: Some("..".into()), ..file() }, "qemu in"),
        (VmDefaults { boot_timeout_seconds: Some(0), ..file() }, "boot-timeout-seconds in"),
        (VmDefaults { template_dir: Some("templates".into()), ..file() }, "template-dir in"),
        (VmDefaults { uid_base: Some(0), ..file() }, "uid-base in"),
        (VmDefaults { uid_base: Some(u32::MAX), ..file() }, "uid-base in"),
    ] {
        let error = options(json!({}), &file).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
    // Even where something stronger decides.
    let bad = VmDefaults { memory_mib: Some(1), ..file() };
    assert!(options(json!({"annotations": {MEMORY_MIB: "512"}}), &bad).is_err());
}

#[test]
fn a_vm_object_that_asks_too_much_is_refused() {
    let kernel = json!({"path": "/k"});
    for (vm, message) in [
        (json!({"kernel": {"path": ""}}), "vm.kernel.path: \"\" is not an absolute path"),
        (json!({"kernel": {"path": "/k", "initrd": "i"}}), "vm.kernel.initrd: \"i\" is not"),
        (json!({"kernel": {"path": "/k", "parameters": ["a\tb"]}}), "vm.kernel.parameters: "),
        (json!({"kernel": kernel, "hypervisor": {"path": "qemu"}}), "vm.hypervisor.path: \"qemu\""),
        (
            json!({"kernel": kernel, "hypervisor": {"path": "/q", "parameters": ["-S"]}}),
            "vm.hypervisor.parameters: own parameters",
        ),
        (json!({"kernel": kernel, "image": {"path": "/i", "format": "raw"}}), "vm.image: not"),
        (
            json!({"kernel": kernel, "hwConfig": {"vcpus": 0}}),
            "vm.hwConfig.vcpus: \"0\" is not a number of virtual CPUs from 1 to 255",
        ),
        (
            json!({"kernel": kernel, "hwConfig": {"memory": 4_194_304}}),
            "vm.hwConfig.memory: 4194304 bytes are too few or too many: \"4\" is not a number of MiB from 64 to",
        ),
        (
            json!({"kernel": kernel, "hwConfig": {"deviceTree": "/vm.dtb"}}),
            "vm.hwConfig.deviceTree: not supported",
        ),
        (
            json!({"kernel": kernel, "hwConfig": {"dtdevs": ["/soc/uart"]}}),
            "vm.hwConfig.dtdevs: not supported",
        ),
        (
            json!({"kernel": kernel, "hwConfig": {"iomems": [{"firstMFN": 1, "nrMFNs": 1}]}}),
            "vm.hwConfig.iomems: not supported",
        ),
        (json!({"kernel": kernel, "hwConfig": {"irqs": [11]}}), "vm.hwConfig.irqs: not supported"),
    ] {
        let error = options(json!({"vm": vm}), &VmDefaults::default()).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn the_memory_suffices_for_the_containers_limit() {
    let with_limit = |limit: i64, annotation: Option<&str>, file: &VmDefaults| {
        let annotations: HashMap<_, _> = annotation.iter().map(|mib| (MEMORY_MIB, *mib)).collect();
        let linux = json!({"resources": {"memory": {"limit": limit}}});
        options(json!({"linux": linux, "annotations": annotations}), file).unwrap().memory_mib
    };
    let none = VmDefaults::default();
    for (limit, expected) in [
        (-1, 256),
        (0, 256),
        (100 << 20, 256),
        (200 << 20, 328),
        ((200 << 20) + 1, 329),
        (1 << 40, 256),
        (i64::MAX, 256),
        (i64::MIN, 256),
    ] {
        assert_eq!(with_limit(limit, None, &none), expected, "{limit}");
    }
    assert_eq!(with_limit(400 << 20, None, &file()), 528);
    assert_eq!(with_limit(100 << 20, None, &file()), 300);
    assert_eq!(with_limit(400 << 20, Some("100"), &none), 100, "an annotation is final");
    let fields = json!({
        "linux": {"resources": {"memory": {"limit": 400 << 20}}},
        "vm": {"kernel": {"path": "/k"}, "hwConfig": {"memory": (101 << 20) - 1}},
    });
    assert_eq!(options(fields, &none).unwrap().memory_mib, 100, "the hardware is a maximum");
}

proptest! {
    #[test]
    fn accepted_numbers_come_out_as_they_went_in(mib in any::<u64>(), cpus in any::<u32>()) {
        let found = annotated_with(&[(MEMORY_MIB, &mib.to_string()), (VCPUS, &cpus.to_string())]);
        let fits = (64..=1 << 20).contains(&mib) && (1..=255).contains(&cpus);
        prop_assert_eq!(found.is_ok(), fits);
        if let Ok(found) = found {
            prop_assert_eq!((found.memory_mib, found.vcpus), (mib, cpus));
        }
    }

    #[test]
    fn numbers_in_range_are_accepted(mib in 64u64..=1 << 20, cpus in 1u32..=255) {
        let found = annotated_with(&[(MODEL_MEMORY, &mib.to_string()), (MODEL_VCPUS, &cpus.to_string())]);
        let found = found.unwrap();
        prop_assert_eq!((found.memory_mib, found.vcpus), (mib, cpus));
    }

    #[test]
    fn no_value_makes_it_panic(name in 0..names::OWN.len(), value in ".*") {
        if let Ok(found) = annotated_with(&[(names::OWN[name], &value)]) {
            prop_assert!(found.kernel.is_absolute() && found.initramfs.is_absolute());
            prop_assert!(found.kernel_args.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }

    #[test]
    fn options_survive_serialisation(mib in 64u64..=1 << 20, args in "[ -~]{0,40}") {
        if let Ok(found) = annotated_with(&[(MEMORY_MIB, &mib.to_string()), (KERNEL_ARGS, &args)]) {
            let json = serde_json::to_string(&found).unwrap();
            prop_assert_eq!(serde_json::from_str::<VmOptions>(&json).unwrap(), found);
        }
    }
}
