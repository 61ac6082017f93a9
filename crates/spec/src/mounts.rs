//! Mount paths: destinations inside the root file system, sources of bind mounts on the host.

use std::path::Path;

use oci_spec::runtime::{Mount, Spec};

use crate::{Error, Result};

/// Makes destinations and bind mounts' sources absolute.
///
/// A relative destination is taken as relative to the root, as the specification did before 1.1
/// and other runtimes still do. A relative source is relative to the bundle.
pub(crate) fn prepare_mounts(spec: &mut Spec, bundle: &Path) -> Result<()> {
    for (index, mount) in spec.mounts_mut().iter_mut().flatten().enumerate() {
        let field = |name: &str| format!("mounts[{index}].{name}");
        if mount.destination() == Path::new("") {
            return Err(Error::invalid(field("destination"), "missing; it is where to mount"));
        }
        if !mount.destination().starts_with("/") {
            let destination = Path::new("/").join(mount.destination());
            mount.set_destination(destination);
        }
        if is_bind(mount) {
            let source = match mount.source() {
                Some(source) if source != Path::new("") => bundle.join(source),
                _ => return Err(Error::invalid(field("source"), "a bind mount needs a source")),
            };
            mount.set_source(Some(source));
        }
    }
    Ok(())
}

/// Whether a file or directory of the host is mounted; the type is then a mere comment.
fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn prepared(mount: serde_json::Value) -> Result<Mount> {
        let json = serde_json::json!({"ociVersion": "1.0.0", "mounts": [mount]});
        let mut spec: Spec = serde_json::from_value(json).unwrap();
        prepare_mounts(&mut spec, Path::new("/bundle"))?;
        Ok(spec.mounts().as_ref().unwrap()[0].clone())
    }

    #[test]
    fn paths_become_absolute() {
        for (mount, destination, source) in [
            (r#"{"destination":"a","type":"bind","source":"b"}"#, "/a", Some("/bundle/b")),
            (
                r#"{"destination":"/a","source":"b","options":["ro","rbind"]}"#,
                "/a",
                Some("/bundle/b"),
            ),
            (
                r#"{"destination":"/a","type":"none","source":"/b","options":["bind"]}"#,
                "/a",
                Some("/b"),
            ),
            (r#"{"destination":"/proc","type":"proc","source":"proc"}"#, "/proc", Some("proc")),
            (r#"{"destination":"tmp","type":"tmpfs"}"#, "/tmp", None),
        ] {
            let found = prepared(serde_json::from_str(mount).unwrap()).unwrap();
            assert_eq!(found.destination(), Path::new(destination), "{mount}");
            assert_eq!(found.source(), &source.map(PathBuf::from), "{mount}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (mount, message) in [
            (r#"{"destination":"","type":"tmpfs"}"#, "mounts[0].destination: missing"),
            (r#"{"destination":"/a","type":"bind"}"#, "mounts[0].source: a bind mount needs"),
            (r#"{"destination":"/a","source":"","options":["rbind"]}"#, "mounts[0].source: a bind"),
        ] {
            let error = prepared(serde_json::from_str(mount).unwrap()).unwrap_err().to_string();
            assert!(error.starts_with(message), "{mount}: {error}");
        }
    }
}
