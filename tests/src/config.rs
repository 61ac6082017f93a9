//! Edited configurations: what several files of tests have done with them.

use serde_json::{Value, json};

use crate::{Bundle, Harness, Isolation};

/// A list of one mapping of ids.
pub fn id_mappings(container: u32, host: u32, size: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": size }])
}

/// Maps users and groups alike, for a container's user namespace or, if that is what is given, for one
/// of its mounts.
pub fn map_ids(of: &mut Value, mappings: &Value) {
    for kind in ["uidMappings", "gidMappings"] {
        of[kind] = mappings.clone();
    }
}

/// Gives a container a user namespace with the host's ids from `host` on.
pub fn in_user_namespace(config: &mut Value, host: u32, size: u32) {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    map_ids(&mut config["linux"], &id_mappings(0, host, size));
}

/// The hooks of a point: one, that runs a script.
pub fn hook(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] }])
}

/// A container "box" that has these limits and sleeps.
pub fn limited(h: &Harness, resources: &Value) -> Bundle {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    bundle.edit(|config| config["linux"]["resources"] = resources.clone())
}

/// Runs one.
pub fn run_limited(h: &Harness, resources: &Value) -> Bundle {
    let bundle = limited(h, resources);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    bundle
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
