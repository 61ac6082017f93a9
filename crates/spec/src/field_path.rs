//! Where something stands in a document, as errors name it: `mounts[0].options[1]`.

use std::fmt::{self, Write as _};

/// The way from the document's root, on the stack of whoever walks it.
#[derive(Clone, Copy)]
pub(crate) enum FieldPath<'a> {
    /// The document itself.
    Root,
    /// A field of an object.
    Field(&'a FieldPath<'a>, &'a str),
    /// An item of an array.
    Item(&'a FieldPath<'a>, usize),
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_char('.'),
            Self::Field(Self::Root, name) => write!(f, "{}", name.escape_debug()),
            Self::Field(parent, name) => write!(f, "{parent}.{}", name.escape_debug()),
            Self::Item(Self::Root, index) => write!(f, "[{index}]"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_in_a_program() {
        let root = FieldPath::Root;
        assert_eq!(root.to_string(), ".");
        assert_eq!(FieldPath::Item(&root, 3).to_string(), "[3]");
        let mounts = FieldPath::Field(&root, "mounts");
        let first = FieldPath::Item(&mounts, 0);
        let odd = FieldPath::Field(&first, "a\0\n");
        assert_eq!(odd.to_string(), "mounts[0].a\\0\\n");
    }
}
