use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A configuration that uses a bit of everything.
fn config() -> Value {
    let mut config = serde_json::to_value(crate::default_spec()).unwrap();
    config["process"]["user"]["additionalGids"] = json!([1, 2]);
    config["mounts"].as_array_mut().unwrap().push(
        json!({"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro"]}),
    );
    config["hooks"] = json!({"poststop": [{"path": "/bin/true", "args": ["true"], "timeout": 5}]});
    config["annotations"] = json!({"org.example.a": "b", "io.runhcs.vm.vcpus": "2"});
    config["linux"]["resources"]["memory"] = json!({"limit": 1 << 20, "swap": -1});
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    });
    config["vm"] = json!({
        "kernel": {"path": "/k", "parameters": ["a"]}, "hwConfig": {"vcpus": 3, "irqs": []}
    });
    config
}

/// A bundle with this configuration and an empty root file system.
fn bundle(config: &Value) -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("rootfs")).unwrap();
    fs::write(temp.path().join("config.json"), config.to_string()).unwrap();
    temp
}

fn load(config: &Value) -> std::result::Result<Bundle, String> {
    Bundle::load(bundle(config).path()).map_err(|e| e.to_string())
}

/// The configuration with one field replaced, or removed if `value` is `None`.
fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut config = config();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
    match (parent, value) {
        (Value::Object(fields), Some(value)) => {
            fields.insert(name.to_owned(), value);
        }
        (Value::Object(fields), None) => {
            fields.remove(name);
        }
        (Value::Array(items), Some(value)) => items[name.parse::<usize>().unwrap()] = value,
        other => panic!("{pointer}: {other:?}"),
    }
    config
}

#[test]
fn a_valid_bundle_comes_out_with_absolute_paths() {
    let temp = bundle(&config());
    let link = temp.path().join("link");
    symlink(temp.path(), &link).unwrap();
    let real = temp.path().canonicalize().unwrap();
    let bundle = Bundle::load(&link).unwrap();
    assert_eq!(bundle.path, real);
    assert_eq!(bundle.rootfs(), real.join("rootfs"));
    assert_eq!(bundle.spec.root().as_ref().unwrap().path(), &real.join("rootfs"));
    let mounts = bundle.spec.mounts().as_ref().unwrap();
    let data = mounts.last().unwrap();
    assert_eq!(data.source().as_deref(), Some(real.join("data").as_path()));
    assert_eq!(mounts[0].source().as_deref(), Some(Path::new("proc")));
    assert_eq!(bundle.hardware.and_then(|hardware| hardware.vcpus()), Some(3));
}

#[test]
fn a_wrong_type_of_the_hardware_is_placed() {
    let error = load(&with("/vm/hwConfig/vcpus", Some(json!("x")))).unwrap_err();
    assert!(error.contains("config.json: vm.hwConfig.vcpus: invalid type"), "{error}");
    assert!(error.contains(" at line 1 column "), "{error}");
}

#[test]
fn what_the_specification_allows_is_accepted() {
    for (pointer, value) in [
        ("/ociVersion", Some(json!("1.0.2-dev"))),
        ("/ociVersion", Some(json!("1.0.0-rc5"))),
        ("/ociVersion", Some(json!("1.99.0"))),
        ("/unknown", Some(json!({"a": [1]}))),
        ("/linux/unknown", Some(json!("x"))),
        ("/process", None),
        ("/process/user", None),
        ("/process/env", None),
        ("/process/env", Some(json!(["A=", "B=a=b"]))),
        ("/process/consoleSize", Some(json!({"height": 65535, "width": 0}))),
        ("/mounts", None),
        ("/mounts", Some(Value::Null)),
        ("/hooks", None),
        ("/annotations", None),
        ("/hostname", None),
        ("/linux", None),
        ("/linux/namespaces/0", Some(json!({"type": "pid", "path": "/proc/1/ns/pid"}))),
        ("/root/readonly", None),
        ("/root/path", Some(json!("./x/../rootfs"))),
        ("/solaris", Some(json!({"milestone": "x"}))),
    ] {
        let mut config = with(pointer, value.clone());
        if pointer == "/linux" {
            config["hostname"] = Value::Null;
        }
        let temp = bundle(&config);
        fs::create_dir(temp.path().join("x")).unwrap();
        if let Err(error) = Bundle::load(temp.path()) {
            panic!("{pointer} {value:?}: {error}");
        }
    }
}

#[test]
fn an_absent_user_is_root_and_an_empty_namespace_path_is_none() {
    let loaded = load(&with("/process/user", None)).unwrap();
    assert_eq!(loaded.spec.process().as_ref().unwrap().user().uid(), 0);
    let loaded = load(&with("/linux/namespaces/0/path", Some(json!("")))).unwrap();
    let namespaces = loaded.spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap();
    assert_eq!(namespaces[0].path(), &None);
}

#[test]
fn each_broken_rule_is_named_with_its_field() {
    let hook = |hook: Value| Some(json!({"createRuntime": [{"path": "/ok"}, hook]}));
    let rlimit = |soft: u64| json!({"type": "RLIMIT_CORE", "hard": 5, "soft": soft});
    for (pointer, value, message) in [
        ("/ociVersion", None, "ociVersion: missing"),
        ("/ociVersion", Some(json!("")), "ociVersion: missing"),
        ("/ociVersion", Some(json!("1.0")), "ociVersion: \"1.0\" is not a version"),
        ("/ociVersion", Some(json!("2.0.0")), "ociVersion: \"2.0.0\" is not supported"),
        ("/ociVersion", Some(json!("0.2.0")), "ociVersion: \"0.2.0\" is not supported"),
        ("/root", None, "root: missing"),
        ("/root", Some(json!({})), "root.path: missing"),
        ("/root/path", Some(json!("")), "root.path: missing"),
        ("/root/path", Some(json!("..")), "root.path: \"..\" leads out of the bundle"),
        ("/root/path", Some(json!("a/../../b")), "root.path: \"a/../../b\" leads out"),
        ("/root/path", Some(json!("config.json")), "root.path: /"),
        ("/root/path", Some(json!("/nonexistent")), "root.path: /nonexistent does not exist"),
        ("/process/args", None, "process.args: missing"),
        ("/process/args", Some(json!([])), "process.args: missing"),
        ("/process/args", Some(json!([""])), "process.args[0]: the program's name is empty"),
        ("/process/cwd", Some(json!("")), "process.cwd: \"\" is not an absolute path"),
        ("/process/cwd", Some(json!("a")), "process.cwd: \"a\" is not an absolute path"),
        ("/process/env/0", Some(json!("A")), "process.env[0]: \"A\" is not of the form"),
        ("/process/env/1", Some(json!("=a")), "process.env[1]: \"=a\" is not of the form"),
        (
            "/process/rlimits",
            Some(json!([rlimit(5), rlimit(6)])),
            "process.rlimits[1].type: RLIMIT_CORE is given twice",
        ),
        ("/process/rlimits/0", Some(rlimit(6)), "process.rlimits[0].soft: 6 is above the hard"),
        (
            "/process/consoleSize",
            Some(json!({"height": 1, "width": 65536})),
            "process.consoleSize.width: 65536 is above",
        ),
        ("/mounts/0/destination", Some(json!("")), "mounts[0].destination: missing"),
        ("/mounts/7/source", None, "mounts[7].source: a bind mount needs a source"),
        (
            "/linux/namespaces/1",
            Some(json!({"type": "pid"})),
            "linux.namespaces[1].type: linux.namespaces[0] has",
        ),
        (
            "/linux/namespaces/0/path",
            Some(json!("ns")),
            "linux.namespaces[0].path: \"ns\" is not an absolute",
        ),
        ("/linux/namespaces", None, "hostname: can only be set in a UTS namespace"),
        ("/hooks", hook(json!({"path": "a"})), "hooks.createRuntime[1].path: \"a\" is not"),
        (
            "/hooks",
            hook(json!({"path": "/a", "timeout": 0})),
            "hooks.createRuntime[1].timeout: 0 is",
        ),
        ("/annotations", Some(json!({"": "a"})), "annotations: a key is empty"),
        ("/annotations", Some(json!({"io.runhcs.vm.cpus": "1"})), "io.runhcs.vm.cpus: no such"),
    ] {
        let error = load(&with(pointer, value.clone())).unwrap_err();
        assert!(error.starts_with(message), "{pointer} {value:?}: {error}");
    }
    let mut domain = with("/linux/namespaces", None);
    domain["hostname"] = Value::Null;
    domain["domainname"] = json!("example");
    assert!(load(&domain).unwrap_err().starts_with("domainname: can only be set"));
    let mut windows = with("/windows", Some(json!({})));
    windows.as_object_mut().unwrap().remove("linux");
    assert!(
        load(&windows).unwrap_err().starts_with("windows: this is a configuration for Windows")
    );
}

#[test]
fn capabilities_that_nobody_knows_are_left_out() {
    let listed = json!(["CAP_KILL", "CAP_NEW", "NEWER"]);
    let bundle = load(&with("/process/capabilities/bounding", Some(listed))).unwrap();
    let process = bundle.spec.process().clone().unwrap();
    let bounding = process.capabilities().as_ref().unwrap().bounding().clone().unwrap();
    assert_eq!(bounding, [oci_spec::runtime::Capability::Kill].into());
}

#[test]
fn a_wrong_type_or_an_unknown_name_is_named_with_its_field() {
    for (pointer, value, field) in [
        ("/process/args/0", json!(1), "process.args[0]"),
        ("/process/user/uid", json!(-1), "process.user.uid"),
        ("/process/user/uid", json!("0"), "process.user.uid"),
        ("/process/user/additionalGids/1", json!(4294967296u64), "process.user.additionalGids[1]"),
        ("/process/capabilities/bounding/1", json!(5), "process.capabilities.bounding[1]"),
        ("/process/rlimits/0/type", json!("RLIMIT_X"), "process.rlimits[0].type"),
        ("/linux/namespaces/3/type", json!("nonsense"), "linux.namespaces[3].type"),
        ("/linux/seccomp/defaultAction", json!("SCMP_ACT_X"), "linux.seccomp.defaultAction"),
        ("/linux/seccomp/syscalls/0/names", json!({}), "linux.seccomp.syscalls[0].names"),
        ("/linux/resources/memory/limit", json!(1.5), "linux.resources.memory.limit"),
        ("/mounts/2/options", json!("ro"), "mounts[2].options"),
        ("/annotations", json!({"a": 1}), "annotations.a"),
        ("/hooks/poststop/0/timeout", json!("1"), "hooks.poststop[0].timeout"),
        ("/root/readonly", json!("yes"), "root.readonly"),
        ("/process", json!([]), "process"),
        ("/root", json!(["rootfs"]), "root"),
        ("/linux/resources/memory", json!([1]), "linux.resources.memory"),
        ("/process/args", json!(["sh", "a\0b"]), "process.args[1]"),
        ("/annotations", json!({"a\0": "b"}), "annotations.a\\0"),
        ("/root/path", json!("rootfs\0"), "root.path"),
        ("/process/user", Value::Null, "process.user"),
    ] {
        let error = load(&with(pointer, Some(value.clone()))).unwrap_err();
        let expected = format!("config.json: {field}: ");
        assert!(error.contains(&expected), "{pointer} {value}: {error}");
        assert!(error.contains(" line "), "{pointer} {value}: {error}");
    }
    // Also where the document lacks its user object as well.
    let mut config = with("/process/user", None);
    config["linux"]["namespaces"][0]["type"] = json!("nonsense");
    let error = load(&config).unwrap_err();
    assert!(error.contains("linux.namespaces[0].type: unknown variant"), "{error}");
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    let big = vec![b' '; (16 << 20) + 1];
    for (text, message) in [
        (&b""[..], "config.json: .: EOF while parsing a value at line 1 column 0"),
        (b"{", "EOF"),
        (b"[]", "config.json: .: "),
        (b"null", "config.json: .: invalid type: null"),
        (b"{\"ociVersion\":\"\xff\"}", "config.json: ociVersion: invalid unicode"),
        (br#"{"ociVersion":"1.0.0"} x"#, "config.json: .: trailing characters at line 1"),
        (br#"{"ociVersion":"1.0.0","ociVersion":"1.0.0"}"#, "duplicate field"),
        (&big, "config.json: .: it is larger than the 16 MiB"),
    ] {
        let temp = bundle(&Value::Null);
        fs::write(temp.path().join("config.json"), text).unwrap();
        let error = Bundle::load(temp.path()).unwrap_err().to_string();
        let shown = String::from_utf8_lossy(&text[..text.len().min(60)]);
        assert!(error.contains(message), "{shown}: {error}");
    }
}

#[test]
fn a_missing_bundle_or_configuration_is_named() {
    let temp = tempfile::tempdir().unwrap();
    for path in [temp.path().join("nonexistent"), temp.path().to_owned()] {
        let error = Bundle::load(&path).unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_relative_root_leaves_the_bundle_through_no_link_either() {
    let elsewhere = tempfile::tempdir().unwrap();
    let temp = bundle(&with("/root/path", Some(json!("link"))));
    symlink("rootfs", temp.path().join("link")).unwrap();
    let rootfs = Bundle::load(temp.path()).unwrap().rootfs().to_owned();
    assert_eq!(rootfs, temp.path().canonicalize().unwrap().join("rootfs"));

    fs::remove_file(temp.path().join("link")).unwrap();
    symlink(elsewhere.path(), temp.path().join("link")).unwrap();
    let error = Bundle::load(temp.path()).unwrap_err().to_string();
    assert!(error.starts_with("root.path: \"link\" leads out of the bundle"), "{error}");

    let absolute = with("/root/path", Some(json!(elsewhere.path())));
    assert_eq!(load(&absolute).unwrap().rootfs(), elsewhere.path().canonicalize().unwrap());
}

#[test]
fn a_process_document_is_checked_like_a_configurations() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let process = |text: &str| {
        fs::write(file.path(), text).unwrap();
        load_process(file.path()).map_err(|e| e.to_string())
    };
    let loaded = process(r#"{"args":["id"],"cwd":"/","user":{"uid":3}}"#).unwrap();
    assert_eq!(loaded.user().uid(), 3);
    assert_eq!(process(r#"{"args":["id"],"cwd":"/"}"#).unwrap().user().uid(), 0);
    for (text, message) in [
        (r#"{"cwd":"/"}"#, "args: missing"),
        (r#"{"args":["id"],"cwd":"x"}"#, "cwd: \"x\" is not an absolute path"),
        (r#"{"args":["id"],"cwd":"/","env":["x"]}"#, "env[0]: \"x\" is not of the form"),
        (r#"{"args":["i\u0000d"],"cwd":"/"}"#, ": args[0]: holds a NUL"),
        (r#"{"args":"id","cwd":"/"}"#, ": args: invalid type"),
        (r#"{"args":["id"]}"#, ": .: missing field `cwd`"),
        ("", "EOF"),
    ] {
        let error = process(text).unwrap_err();
        assert!(error.contains(message), "{text}: {error}");
    }
    let error = load_process(Path::new("/nonexistent")).unwrap_err().to_string();
    assert_eq!(error, "cannot read /nonexistent");
}

mod mutations {
    //! Whatever is done to a valid configuration, it is read or refused; nothing panics.

    use proptest::prelude::*;

    use super::*;
    use crate::{IsolationHints, VmDefaults, VmOptions, decide_isolation, sandbox_role, windows};

    /// Every place in a document, as JSON pointers.
    fn places(value: &Value, at: String, all: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    places(value, format!("{at}/{name}"), all);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    places(item, format!("{at}/{index}"), all);
                }
            }
            _ => {}
        }
        all.push(at);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            "(/|\\.\\./|~|=|\0|a){0,5}".prop_map(Value::from),
            "(bind|rbind|uts|pid|1\\.0\\.0|sandbox|vm|io\\.runhcs\\.isolation)"
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\0.]{0,6}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// All that is done with a configuration once it is read.
    fn use_it(bytes: &[u8], bundle: &Path) {
        let Ok((spec, hardware)) = parse_spec(Path::new("config.json"), bytes) else { return };
        let _ = decide_isolation(&spec, IsolationHints::default());
        let _ = VmOptions::from_spec(&spec, hardware.as_ref(), &VmDefaults::default());
        let _ = sandbox_role(&spec.annotations().clone().unwrap_or_default());
        let _ = windows::make_absolute(&mut spec.clone(), r"C:\bundle");
        if let Ok(loaded) = Bundle::new(bundle.to_owned(), spec, hardware) {
            assert!(loaded.rootfs().is_absolute());
            for mount in loaded.spec.mounts().iter().flatten() {
                assert!(mount.destination().is_absolute(), "{mount:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn of_fields(changes in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4)) {
            let temp = tempfile::tempdir().unwrap();
            fs::create_dir(temp.path().join("rootfs")).unwrap();
            let mut document = config();
            for (place, value) in changes {
                let mut all = Vec::new();
                places(&document, String::new(), &mut all);
                *document.pointer_mut(&all[place.index(all.len())]).unwrap() = value;
            }
            use_it(document.to_string().as_bytes(), temp.path());
        }

        #[test]
        fn of_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
            let temp = tempfile::tempdir().unwrap();
            fs::create_dir(temp.path().join("rootfs")).unwrap();
            let mut bytes = config().to_string().into_bytes();
            for (place, byte) in changes {
                let index = place.index(bytes.len());
                bytes[index] = byte;
            }
            use_it(&bytes, temp.path());
            bytes.truncate(cut.index(bytes.len()));
            use_it(&bytes, temp.path());
        }
    }
}
