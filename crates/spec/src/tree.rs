//! JSON text as a tree of values, in which no object has two fields of one name.
//!
//! That a type reads from a tree rather than from the text keeps the program small: what serde
//! generates for each type of the specification need not know how JSON is written
//! (docs/decisions/0014).

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::field_path::FieldPath;

/// An error in the text: the field, and what is wrong with it, with line and column.
#[derive(Debug)]
pub(crate) struct TextError {
    /// As [`FieldPath`] writes it.
    pub field: String,
    /// With line and column.
    pub message: String,
}

/// Reads a document that is nothing but one JSON value.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, TextError> {
    read_until(bytes, None)
}

/// The message with the line and the column at which the field ends.
pub(crate) fn locate(bytes: &[u8], field: &str, message: &str) -> String {
    match read_until(bytes, Some((field, message))) {
        Err(error) => error.message,
        // A field that was added to the tree is nowhere in the text.
        Ok(_) => message.to_owned(),
    }
}

fn read_until(bytes: &[u8], end: Option<(&str, &str)>) -> Result<Value, TextError> {
    let mut text = serde_json::Deserializer::from_slice(bytes);
    let failed = RefCell::new(None);
    let node = Node { path: &FieldPath::Root, failed: &failed, end };
    let outcome = node.deserialize(&mut text).and_then(|value| text.end().map(|()| value));
    outcome.map_err(|error| TextError {
        field: failed.take().unwrap_or_else(|| FieldPath::Root.to_string()),
        message: error.to_string(),
    })
}

/// What is read next, a value of the document.
#[derive(Clone, Copy)]
struct Node<'a> {
    path: &'a FieldPath<'a>,
    /// The innermost field in which an error was met.
    failed: &'a RefCell<Option<String>>,
    /// The field to stop at, and the error to stop with.
    end: Option<(&'a str, &'a str)>,
}

impl Node<'_> {
    /// What is read below this.
    fn child<'b>(&'b self, path: &'b FieldPath<'b>) -> Node<'b> {
        Node { path, failed: self.failed, end: self.end }
    }

    fn fail(&self) {
        self.failed.borrow_mut().get_or_insert_with(|| self.path.to_string());
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<Value, D::Error> {
        let value = text.deserialize_any(self).inspect_err(|_| self.fail())?;
        match self.end {
            Some((field, message)) if self.path.to_string() == field => {
                self.fail();
                Err(D::Error::custom(message))
            }
            _ => Ok(value),
        }
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = FieldPath::Item(self.path, list.len());
            match items.next_element_seed(self.child(&path))? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let path = FieldPath::Field(self.path, &name);
            let node = self.child(&path);
            if object.contains_key(&name) {
                node.fail();
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            let value = fields.next_value_seed(node)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_read() {
        let text = r#"{"a":[null,true,-1,18446744073709551615,1.5,"x\ny",{"":[]}]}"#;
        assert_eq!(read(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn an_error_names_field_line_and_column() {
        for (text, field, message) in [
            ("", ".", "EOF while parsing a value at line 1 column 0"),
            ("{}x", ".", "trailing characters at line 1 column 3"),
            ("{\"a\":\n{\"b\":[1,x]}}", "a.b[1]", "expected value at line 2 column 9"),
            (r#"{"a":{"b":1,"b":2}}"#, "a.b", "duplicate field `b` at line 1 column 15"),
            (r#"{"a""#, ".", "EOF while parsing an object at line 1 column 4"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert_eq!((error.field.as_str(), error.message.as_str()), (field, message), "{text}");
        }
        let deep = "[".repeat(1000);
        assert!(read(deep.as_bytes()).unwrap_err().message.starts_with("recursion limit"));
    }

    #[test]
    fn a_field_is_found_again() {
        let text = b"{\"a\":\n[1,\n22],\"b\":3}";
        assert_eq!(locate(text, "a[1]", "is wrong"), "is wrong at line 3 column 3");
        assert_eq!(locate(text, "b", "is wrong"), "is wrong at line 3 column 10");
        assert_eq!(locate(text, ".", "is wrong"), "is wrong");
        assert_eq!(locate(text, "c", "is wrong"), "is wrong");
    }
}
