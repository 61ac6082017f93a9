//! How ids become names in the store. An id may be longer than a file or registry key name may
//! be, so a long one is cut and completed with its digest; so is one with capital letters where
//! names don't differ by case. Names that begin with `~` belong to the
//! store itself: `~` can't occur in an id.

use std::fmt::Write;

use runhcs_compute::ContainerId;
use sha2::{Digest, Sha256};

use crate::sys::NAMES_DIFFER_BY_CASE;

/// The longest id that is its own entry's name, in bytes; leaves room below NAME_MAX (255).
const LONGEST_PLAIN: usize = 200;
/// How much of a longer id its entry's name shows, in bytes.
const SHOWN: usize = 100;

/// The name of an id's entry: the id itself, or at most its first 100 bytes, `~` and its SHA-256.
pub(crate) fn entry_name(id: &ContainerId) -> String {
    let id = id.as_str();
    name_of(id, NAMES_DIFFER_BY_CASE)
}

fn name_of(id: &str, differ_by_case: bool) -> String {
    let unique = differ_by_case || !id.contains(|c: char| c.is_ascii_uppercase());
    if unique && id.len() <= LONGEST_PLAIN {
        return id.to_owned();
    }
    // An id is ASCII, so every index is a character boundary.
    format!("{}~{}", &id[..id.len().min(SHOWN)], digest(id))
}

/// The SHA-256 of a text, in hexadecimal: a name for texts that are no file names.
pub(crate) fn digest(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string succeeds");
        hex
    })
}

/// Whether the store keeps something of its own under this name.
pub(crate) fn is_internal(name: &str) -> bool {
    name.starts_with('~')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: &str) -> String {
        entry_name(&id.parse().unwrap())
    }

    #[test]
    fn a_short_id_is_its_own_name() {
        assert_eq!(name("a.b"), "a.b");
        assert_eq!(name(&"x".repeat(200)), "x".repeat(200));
    }

    #[test]
    fn long_ids_get_different_names_that_are_no_ids() {
        let (one, two) = (format!("{}1", "x".repeat(1000)), format!("{}2", "x".repeat(1000)));
        assert_ne!(name(&one), name(&two));
        for id in ["x".repeat(201), one, two] {
            let name = name(&id);
            assert!(name.len() < 200, "{name}");
            assert!(name.parse::<ContainerId>().is_err(), "{name} is an id");
            assert!(!is_internal(&name));
        }
    }

    #[test]
    fn where_case_says_nothing_ids_still_differ() {
        assert_eq!(name_of("box", false), "box");
        let names = ["Box", "BOX", "boX"].map(|id| name_of(id, false).to_lowercase());
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
        assert!(names.iter().all(|name| name.starts_with("box~")));
        assert_eq!(name_of("Box", true), "Box");
    }

    #[test]
    fn the_digest_is_sha_256() {
        let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest("abc"), of_abc);
    }
}
