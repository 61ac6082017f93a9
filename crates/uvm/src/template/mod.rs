//! Templates: VMs that were saved when their kernel and agent were up and they had no devices yet.
//! A new VM resumes from one instead of booting.
//!
//! ```text
//! <store>/<id>/manifest.json   what it was made of, and how to read the rest
//!              memory          the parts of the VM's memory that aren't all zeroes
//!              devices         the machine's state, as QEMU writes it
//! ```
//!
//! The id is a digest of everything that the saved state depends on ([`Ingredients`]). So a
//! template whose kernel, agent, QEMU or processor is no longer the same isn't found any more.
//! Nothing of a template is changed once it is there, and whoever resumes from one has the files
//! open; so it can be removed at any time.

mod id;
mod ingredients;
mod memory;
mod request;
mod store;

pub use id::{InvalidTemplateId, TemplateId};
pub use ingredients::{FileIdentity, Ingredients, processor};
pub use memory::MemoryIndex;
pub use request::{TemplateRequest, create};
pub use store::{Draft, Manifest, Stream, Template, TemplateStore};
