//! Edited configurations: what several files of tests have done with them.

use serde_json::{Value, json};

use crate::{Bundle, Harness, Isolation};

/// A list of one mapping of ids.
pub fn id_mappings(container: u32, host: u32, size: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": size }])
}

/// Gives a container a user namespace with the host's ids from `host` on.
pub fn in_user_namespace(config: &mut Value, host: u32, size: u32) {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    for kind in ["uidMappings", "gidMappings"] {
        config["linux"][kind] = id_mappings(0, host, size);
    }
}

/// Runs a script with an edited configuration; returns what it printed.
pub fn run_script(h: &Harness, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(change);
    let run = h.new_container(&["run"], &bundle, "box").ok();
    std::fs::remove_dir_all(bundle.path()).unwrap();
    run.stdout
}

/// Tries each of `rows`: what `change` is to do to the configuration, and what the error must say.
#[track_caller]
pub fn refused(name: &str, rows: &[(Value, &str)], change: fn(&mut Value, &Value)) {
    Harness::run(Isolation::Process, name, |h| {
        let mut wrong = Vec::new();
        for (values, field) in rows {
            let bundle = Bundle::new(h, "box", &["true"]).edit(|config| change(config, values));
            let outcome = h.new_container(&["create"], &bundle, "box");
            if outcome.code != 1 || !outcome.stderr.contains(field) {
                wrong.push(format!("{values} → {field}: {} {}", outcome.code, outcome.stderr));
                h.runhcs(&["delete", "--force", "box"]);
            }
            std::fs::remove_dir_all(bundle.path()).unwrap();
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
