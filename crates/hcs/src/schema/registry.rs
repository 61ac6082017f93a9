//! Changes to a Windows guest's or container's registry before it starts.

use serde::{Deserialize, Serialize};

use super::documents;

documents! {
    /// Changes to a registry.
    pub struct RegistryChanges {
        /// Values to set.
        pub add_values: Vec<RegistryValue>,
        /// Keys to delete.
        pub delete_keys: Vec<RegistryKey>,
    }

    /// A key.
    pub struct RegistryKey {
        /// The hive it is in.
        pub hive: Option<RegistryHive>,
        /// Its path in the hive.
        pub name: String,
        /// Whether it is gone after the next boot.
        pub volatile: bool,
    }

    /// A value.
    pub struct RegistryValue {
        /// The key it is in.
        pub key: Option<RegistryKey>,
        /// Its name.
        pub name: String,
        /// Its type; the field of that type holds the value.
        #[serde(rename = "Type")]
        pub kind: Option<RegistryValueType>,
        /// A text.
        pub string_value: String,
        /// A number of 32 bits.
        #[serde(rename = "DWordValue")]
        pub dword_value: u32,
    }
}

impl RegistryValue {
    /// A number.
    pub fn dword(hive: RegistryHive, key: &str, name: &str, value: u32) -> Self {
        Self {
            dword_value: value,
            kind: Some(RegistryValueType::DWord),
            ..Self::in_key(hive, key, name)
        }
    }

    /// A text.
    pub fn string(hive: RegistryHive, key: &str, name: &str, value: impl Into<String>) -> Self {
        Self {
            string_value: value.into(),
            kind: Some(RegistryValueType::String),
            ..Self::in_key(hive, key, name)
        }
    }

    fn in_key(hive: RegistryHive, key: &str, name: &str) -> Self {
        let key = RegistryKey { hive: Some(hive), name: key.to_owned(), volatile: false };
        Self { key: Some(key), name: name.to_owned(), ..Self::default() }
    }
}

/// A file of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistryHive {
    /// `HKEY_LOCAL_MACHINE\SYSTEM`.
    System,
    /// `HKEY_LOCAL_MACHINE\SOFTWARE`.
    Software,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistryValueType {
    /// `REG_SZ`.
    String,
    /// `REG_DWORD`.
    DWord,
}
