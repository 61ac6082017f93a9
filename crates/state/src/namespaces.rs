//! The persisted configuration of network namespaces: which container, and so which utility VM,
//! a namespace belongs to. It leads a network plugin that changes a namespace to the VM which has
//! to follow.

use runhcs_compute::ContainerId;
use serde::{Deserialize, Serialize};

use crate::name::digest;
use crate::store::encode;
use crate::sys::{self, Read};
use crate::{Error, Result};

/// The store's own directory for the configurations.
const DIRECTORY: &str = "~namespaces";

/// Which container a network namespace belongs to. None of its fields is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct NamespaceConfig {
    namespace: String,
    container_id: ContainerId,
    host_unique_id: String,
}

/// What is written; [`NamespaceConfig::new`] checks it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    namespace: String,
    container_id: ContainerId,
    host_unique_id: String,
}

impl NamespaceConfig {
    /// Says that `namespace` (on Linux its path) belongs to a container whose utility VM's owner
    /// has the unique id `host_unique_id`.
    ///
    /// # Errors
    /// [`Error::Namespace`] if one of them is empty.
    pub fn new(
        namespace: impl Into<String>,
        container_id: ContainerId,
        host_unique_id: impl Into<String>,
    ) -> Result<Self> {
        let (namespace, host_unique_id) = (namespace.into(), host_unique_id.into());
        let empty = |reason: &str| Error::Namespace {
            namespace: namespace.clone(),
            reason: reason.to_owned(),
        };
        if namespace.is_empty() {
            return Err(empty("the namespace can't be empty"));
        }
        if host_unique_id.is_empty() {
            return Err(empty("the host's unique id can't be empty"));
        }
        Ok(Self { namespace, container_id, host_unique_id })
    }

    /// The namespace; on Linux its path.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The container it was made for.
    pub fn container_id(&self) -> &ContainerId {
        &self.container_id
    }

    /// The unique id of the utility VM's owner.
    pub fn host_unique_id(&self) -> &str {
        &self.host_unique_id
    }
}

impl TryFrom<Fields> for NamespaceConfig {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        Self::new(fields.namespace, fields.container_id, fields.host_unique_id)
    }
}

/// The configurations under one `--root`.
#[derive(Clone, Debug)]
pub struct Namespaces {
    root: sys::Root,
}

impl Namespaces {
    pub(crate) fn new(root: sys::Root) -> Self {
        Self { root }
    }

    /// Stores a configuration, in place of the namespace's earlier one if there is one.
    pub fn store(&self, config: &NamespaceConfig) -> Result<()> {
        let dir = self.root.shared(DIRECTORY)?;
        let name = digest(&config.namespace);
        let json = encode(config, &dir.value_path(&name))?;
        dir.lock()?;
        let written = dir.write(&name, &json);
        dir.unlock();
        written
    }

    /// A namespace's configuration; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Namespace`] if the stored one is damaged.
    pub fn load(&self, namespace: &str) -> Result<Option<NamespaceConfig>> {
        let Some(dir) = self.root.entry(DIRECTORY)? else { return Ok(None) };
        let name = digest(namespace);
        let damaged = |reason: String| Error::Namespace {
            namespace: namespace.to_owned(),
            reason: format!("{} is damaged: {reason}", dir.value_path(&name).display()),
        };
        match dir.read(&name)? {
            Read::Absent | Read::Gone => Ok(None),
            Read::Unusable(reason) => Err(damaged(reason)),
            Read::Value(json) => match serde_json::from_slice::<NamespaceConfig>(&json) {
                Ok(config) if config.namespace == namespace => Ok(Some(config)),
                Ok(config) => Err(damaged(format!("it belongs to {:?}", config.namespace))),
                Err(error) => Err(damaged(error.to_string())),
            },
        }
    }

    /// Removes a namespace's configuration, unless it belongs to another VM meanwhile. Succeeds if
    /// there is none.
    pub fn remove(&self, namespace: &str, host_unique_id: &str) -> Result<()> {
        let Some(dir) = self.root.entry(DIRECTORY)? else { return Ok(()) };
        dir.lock()?;
        let removed = match self.load(namespace) {
            Ok(Some(config)) if config.host_unique_id != host_unique_id => Ok(()),
            // A damaged one is nobody's.
            _ => dir.erase(&digest(namespace)),
        };
        dir.unlock();
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    const HOST: &str = "some-uuid";

    fn config(namespace: &str, container: &str) -> NamespaceConfig {
        NamespaceConfig::new(namespace, container.parse().unwrap(), HOST).unwrap()
    }

    #[test]
    fn a_configuration_is_stored_replaced_and_removed() {
        let temp = tempfile::tempdir().unwrap();
        let namespaces = Store::open(&temp.path().join("root")).unwrap().namespaces();
        let path = "/run/netns/a";
        assert_eq!(namespaces.load(path).unwrap(), None);
        namespaces.remove(path, HOST).unwrap();

        namespaces.store(&config(path, "one")).unwrap();
        namespaces.store(&config("/run/netns/b", "other")).unwrap();
        assert_eq!(namespaces.load(path).unwrap(), Some(config(path, "one")));
        namespaces.store(&config(path, "two")).unwrap();
        assert_eq!(namespaces.load(path).unwrap(), Some(config(path, "two")));

        namespaces.remove(path, "another VM's").unwrap();
        assert_eq!(namespaces.load(path).unwrap(), Some(config(path, "two")));
        namespaces.remove(path, HOST).unwrap();
        namespaces.remove(path, HOST).unwrap();
        assert_eq!(namespaces.load(path).unwrap(), None);
        assert!(namespaces.load("/run/netns/b").unwrap().is_some());
    }

    #[test]
    fn configurations_are_no_containers() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("root")).unwrap();
        store.namespaces().store(&config("/run/netns/a", "one")).unwrap();
        assert_eq!(store.list().unwrap().len(), 0);
    }

    #[test]
    fn no_field_is_empty() {
        let id: ContainerId = "a".parse().unwrap();
        for (namespace, unique) in [("", "uuid"), ("/run/netns/a", "")] {
            let error = NamespaceConfig::new(namespace, id.clone(), unique).unwrap_err();
            assert!(error.to_string().contains("can't be empty"), "{error}");
            let json = serde_json::json!({
                "namespace": namespace, "container_id": "a", "host_unique_id": unique,
            });
            let error = serde_json::from_value::<NamespaceConfig>(json).unwrap_err();
            assert!(error.to_string().contains("can't be empty"), "{error}");
        }
    }

    #[test]
    fn a_damaged_configuration_is_an_error_and_can_be_removed() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        let namespaces = Store::open(&root).unwrap().namespaces();
        namespaces.store(&config("/run/netns/a", "one")).unwrap();
        let file = root.join(DIRECTORY).join(format!("{}.json", digest("/run/netns/a")));
        for text in ["", "{", r#"{"namespace":"/run/netns/a"}"#] {
            std::fs::write(&file, text).unwrap();
            let error = namespaces.load("/run/netns/a").unwrap_err();
            assert!(error.to_string().contains("is damaged"), "{error}");
        }
        namespaces.remove("/run/netns/a", HOST).unwrap();
        assert_eq!(namespaces.load("/run/netns/a").unwrap(), None);
    }
}
