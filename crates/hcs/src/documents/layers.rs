//! The layer folders of a configuration: read-only ones, topmost first, and the writable one last.

use oci_spec::runtime::Spec;
use uuid::Uuid;

use crate::schema::Layer;
use crate::{Invalid, Result};

/// A configuration's layer folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFolders {
    /// Folders of read-only layers, topmost first; at least one.
    pub read_only: Vec<String>,
    /// The folder of the writable layer.
    pub scratch: String,
}

impl LayerFolders {
    /// Those of a configuration.
    ///
    /// # Errors
    /// There are fewer than two.
    pub fn of(spec: &Spec) -> Result<Self> {
        let folders = spec.windows().as_ref().and_then(|windows| windows.layer_folders().as_ref());
        match folders.map(Vec::as_slice) {
            Some([read_only @ .., scratch]) if !read_only.is_empty() => {
                Ok(Self { read_only: read_only.to_vec(), scratch: scratch.clone() })
            }
            other => {
                let count = other.map_or(0, <[String]>::len);
                let message = format!(
                    "{count} folders; needed are the read-only layers, topmost first, and the \
                     writable one last"
                );
                Err(Invalid::new("windows.layerFolders", message))
            }
        }
    }
}

/// A layer's GUID. The service only needs that different layers have different ones and that one
/// layer has the same one whenever it is named: a UUID of version 5 of the folder's name.
pub fn layer_id(folder: &str) -> String {
    let name = folder.trim_end_matches(['\\', '/']).rsplit(['\\', '/']).next().unwrap_or(folder);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.to_lowercase().as_bytes()).to_string()
}

/// The schema's documents of read-only layers, given each one's own folder and the path at which it
/// is seen by who uses the document: the same folder on the host, a share in a guest.
pub fn layers<'a>(seen: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Layer> {
    let document = |(folder, path)| Layer { id: layer_id(folder), path: str::to_owned(path) };
    seen.into_iter().map(document).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folders(folders: serde_json::Value) -> Result<LayerFolders> {
        let json = json!({"ociVersion": "1.0.0", "windows": {"layerFolders": folders}});
        LayerFolders::of(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn the_last_is_writable() {
        let found = folders(json!(["a", "b", "c"])).unwrap();
        assert_eq!((found.read_only.len(), found.scratch.as_str()), (2, "c"));
        assert!(folders(json!(["a"])).unwrap_err().message.starts_with("1 folders"));
        assert!(folders(json!([])).is_err());
    }

    #[test]
    fn an_id_is_the_folders_name_wherever_it_lies() {
        let id = layer_id(r"C:\layers\one");
        assert_eq!(id, layer_id(r"\\?\C:\other\ONE\"));
        assert_ne!(id, layer_id(r"C:\layers\two"));
    }
}
