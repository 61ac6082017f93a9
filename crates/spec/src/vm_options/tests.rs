use proptest::prelude::*;
use serde_json::json;

use super::*;

fn options(fields: serde_json::Value, file: &VmDefaults) -> std::result::Result<VmOptions, String> {
    let mut json = json!({"ociVersion": "1.0.0"});
    json.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let spec = serde_json::from_value(json).unwrap();
    VmOptions::from_spec(&spec, file).map_err(|e| e.to_string())
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
        vcpus: 1,
        accelerator: Accelerator::Auto,
        machine: Machine::Microvm,
        qemu: "qemu-system-x86_64".into(),
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
        vcpus: Some(3),
        accelerator: Some(Accelerator::Kvm),
        machine: Some(Machine::Q35),
        qemu: Some("qemu-file".into()),
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
        vcpus: 3,
        accelerator: Accelerator::Kvm,
        machine: Machine::Q35,
        qemu: "qemu-file".into(),
        boot_timeout_seconds: 33,
        uid_base: 70_000,
    };
    assert_eq!(options(json!({}), &file()).unwrap(), from_file);

    let vm = json!({
        "kernel": {"path": "/vm/kernel", "parameters": ["vm=1", "two"], "initrd": "/vm/initrd"},
        "hypervisor": {"path": "/vm/qemu", "parameters": []},
    });
    let from_object = VmOptions {
        kernel: "/vm/kernel".into(),
        initramfs: "/vm/initrd".into(),
        kernel_args: "vm=1 two".into(),
        qemu: "/vm/qemu".into(),
        ..from_file
    };
    assert_eq!(options(json!({"vm": vm}), &file()).unwrap(), from_object);

    let annotations = json!({
        KERNEL: "/own/kernel", INITRAMFS: "/own/initramfs", KERNEL_ARGS: " own=1 ",
        MEMORY_MIB: "64", VCPUS: "5", ACCELERATOR: "tcg", MACHINE: "microvm", BOOT_TIMEOUT: "1",
    });
    let expected = VmOptions {
        kernel: "/own/kernel".into(),
        initramfs: "/own/initramfs".into(),
        kernel_args: "own=1".into(),
        memory_mib: 64,
        vcpus: 5,
        accelerator: Accelerator::Tcg,
        machine: Machine::Microvm,
        qemu: "/vm/qemu".into(),
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
        ("io.microsoft.virtualmachine.lcow.vpcienabled", "true"),
    ]);
    let expected = VmOptions {
        kernel: "/boot/vmlinux".into(),
        initramfs: "/boot/initramfs.img".into(),
        kernel_args: "debug".into(),
        memory_mib: 1024,
        vcpus: 2,
        ..built_in()
    };
    assert_eq!(found.unwrap(), expected);
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
        (VmDefaults { qemu: Some("..".into()), ..file() }, "qemu in"),
        (VmDefaults { boot_timeout_seconds: Some(0), ..file() }, "boot-timeout-seconds in"),
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
    fn no_value_makes_it_panic(name in 0..OWN_NAMES.len(), value in ".*") {
        if let Ok(found) = annotated_with(&[(OWN_NAMES[name], &value)]) {
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
