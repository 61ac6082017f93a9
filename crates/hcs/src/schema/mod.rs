//! The documents that the Host Compute Service takes and gives, as its public schema 2.x names
//! them (Microsoft Learn, "HCS JSON Schema Reference"). Plain data: what goes into them is decided
//! in [`crate::documents`].
//!
//! In the schema an absent field, `false`, `0`, `""` and an empty list or map say the same. So a
//! field with its default value isn't written, and an absent one is read as its default. Fields
//! for which the schema tells absent from empty are an [`Option`]: `Some` is always written.

mod chipset;
mod container;
mod devices;
mod modify;
mod process;
mod properties;
mod registry;
mod result;
mod system;
mod vm;

pub use chipset::*;
pub use container::*;
pub use devices::*;
pub use modify::*;
pub use process::*;
pub use properties::*;
pub use registry::*;
pub use result::*;
pub use system::*;
pub use vm::*;

/// Whether a field has nothing to say.
fn absent<T: Default + PartialEq>(field: &T) -> bool {
    *field == T::default()
}

/// Declares documents: structs whose fields have the schema's names (`PascalCase`) and are left
/// out where they have their default value.
macro_rules! documents {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "crate::schema::absent")]
                pub $field: $type,
            )*
        }
    )*};
}
use documents;
