//! A type of the specification, read strictly from a tree of JSON values: an array is no object, a
//! name has no value, and a string holds no NUL.
//!
//! A derived type also accepts an array of its fields' values, so `"root": []` would be a root. And
//! of a string with a NUL the kernel takes only what is before it, so that `/safe\0/../etc` is
//! another path to it than to whoever checks it. What the type ignores, this ignores.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde_json::{Map, Value, map};

use crate::field_path::FieldPath;

/// An error of a document's content.
#[derive(Debug, PartialEq)]
pub(crate) struct ContentError {
    /// As [`FieldPath`] writes it.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl ContentError {
    /// The same error, of a document in which the value is at `field`.
    pub(crate) fn within(self, field: &str) -> Self {
        let place = match self.field.as_str() {
            "." => field.to_owned(),
            inner if inner.starts_with('[') => format!("{field}{inner}"),
            inner => format!("{field}.{inner}"),
        };
        Self { field: place, ..self }
    }
}

/// Reads a value of the type.
pub(crate) fn read<'de, T: de::Deserialize<'de>>(value: &'de Value) -> Result<T, ContentError> {
    T::deserialize(Node(value)).map_err(|Failure(failure)| {
        fn field(parent: &FieldPath<'_>, rest: &[Step]) -> String {
            match rest.split_last() {
                None => parent.to_string(),
                Some((Step::Field(name), rest)) => field(&FieldPath::Field(parent, name), rest),
                Some((Step::Item(index), rest)) => field(&FieldPath::Item(parent, *index), rest),
            }
        }
        let (way, message) = *failure;
        ContentError { field: field(&FieldPath::Root, &way), message }
    })
}

/// A step of the way to where an error is.
#[derive(Debug)]
enum Step {
    Field(String),
    Item(usize),
}

/// The way to an error from the inside out, which grows on the error's own way out, and what is
/// wrong. In a box, because it is in what every function here returns.
#[derive(Debug)]
struct Failure(Box<(Vec<Step>, String)>);

impl Failure {
    fn within(mut self, step: Step) -> Self {
        self.0.0.push(step);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.1)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Box::new((Vec::new(), message.to_string())))
    }

    /// In JSON's words rather than in Rust's.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = if found == Unexpected::Unit { Unexpected::Other("null") } else { found };
        Self::custom(format_args!("invalid type: {found}, expected {expected}"))
    }
}

/// A value as what a type is read from.
#[derive(Clone, Copy)]
struct Node<'de>(&'de Value);

impl Node<'_> {
    fn is_no(self, expected: &dyn Expected) -> Failure {
        Failure::invalid_type(
            match self.0 {
                Value::Null => Unexpected::Unit,
                Value::Bool(value) => Unexpected::Bool(*value),
                Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                    (Some(value), _) => Unexpected::Unsigned(value),
                    (None, Some(value)) => Unexpected::Signed(value),
                    (None, None) => Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)),
                },
                Value::String(text) => Unexpected::Str(text),
                Value::Array(_) => Unexpected::Seq,
                Value::Object(_) => Unexpected::Map,
            },
            expected,
        )
    }
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_borrowed_str(without_nul(text)?),
            Value::Array(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Object(fields) => visitor.visit_map(Fields::new(fields)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.0 {
            Value::Object(fields) => visitor.visit_map(Fields::new(fields)),
            _ => Err(self.is_no(&"an object")),
        }
    }

    /// The specification's enumerations are plain names.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(name_of(without_nul(name)?)),
            _ => Err(self.is_no(&"a name")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier
    }
}

fn without_nul(text: &str) -> Result<&str, Failure> {
    if text.contains('\0') { Err(Failure::custom("holds a NUL character")) } else { Ok(text) }
}

fn name_of(name: &str) -> StrDeserializer<'_, Failure> {
    name.into_deserializer()
}

/// What is left of an array.
struct Items<'de> {
    items: &'de [Value],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Failure> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        self.next += 1;
        match seed.deserialize(Node(item)) {
            Ok(value) => Ok(Some(value)),
            Err(failure) => Err(failure.within(Step::Item(self.next - 1))),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

/// What is left of an object.
struct Fields<'de> {
    fields: map::Iter<'de>,
    /// Whose name was read, but not its value yet.
    current: Option<(&'de String, &'de Value)>,
}

impl<'de> Fields<'de> {
    fn new(fields: &'de Map<String, Value>) -> Self {
        Self { fields: fields.iter(), current: None }
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Failure> {
        self.current = self.fields.next();
        let Some((name, _)) = self.current else { return Ok(None) };
        match seed.deserialize(Name(name)) {
            Ok(value) => Ok(Some(value)),
            Err(failure) => Err(failure.within(Step::Field(name.clone()))),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failure> {
        let (name, value) = self.current.take().ok_or_else(|| Failure::custom("no value"))?;
        let outcome = seed.deserialize(Node(value));
        outcome.map_err(|failure| failure.within(Step::Field(name.clone())))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.fields.len())
    }
}

/// The name of a field.
struct Name<'de>(&'de str);

impl<'de> Deserializer<'de> for Name<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_str(without_nul(self.0)?)
    }

    /// The name of a structure's field, which may be one that it doesn't know.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_enum(name_of(without_nul(self.0)?))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Document {
        text: Option<String>,
        inner: Option<Box<Document>>,
        list: Vec<Document>,
        map: HashMap<String, String>,
        kind: Option<Kind>,
        small: u8,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
    }

    fn document(json: &str) -> Result<Document, (String, String)> {
        let value: Value = serde_json::from_str(json).unwrap();
        read(&value).map_err(|error: ContentError| (error.field, error.message))
    }

    #[test]
    fn what_is_right_is_read_whole() {
        let json = r#"{
            "text": "a\"b", "inner": {"text": "c", "inner": null}, "list": [{}, {"text": "d"}],
            "map": {"k": "v"}, "kind": "one", "unknown\u0000": ["x\u0000", {"a": [[]]}], "small": 9
        }"#;
        let document = document(json).unwrap();
        assert_eq!(document.text.as_deref(), Some("a\"b"));
        assert_eq!(document.inner.unwrap().text.as_deref(), Some("c"));
        assert_eq!(document.list[1].text.as_deref(), Some("d"));
        assert_eq!(document.map["k"], "v");
        assert_eq!(document.kind, Some(Kind::One));
        assert_eq!(document.small, 9);
    }

    #[test]
    fn an_array_is_no_object() {
        for (json, field) in
            [("[]", "."), (r#"{"inner": []}"#, "inner"), (r#"{"list": [{}, []]}"#, "list[1]")]
        {
            let (named, message) = document(json).unwrap_err();
            assert_eq!(named, field);
            assert!(message.contains("sequence, expected an object"), "{json}: {message}");
            // What this is here for.
            assert!(serde_json::from_str::<Document>(json).is_ok(), "{json}");
        }
    }

    #[test]
    fn a_nul_is_found_everywhere() {
        for (json, field) in [
            (r#"{"text": "a\u0000"}"#, "text"),
            (r#"{"inner": {"text": "\u0000"}}"#, "inner.text"),
            (r#"{"list": [{}, {"text": "\u0000b"}]}"#, "list[1].text"),
            (r#"{"map": {"a\u0000": "b"}}"#, "map.a\\0"),
            (r#"{"map": {"a": "\u0000"}}"#, "map.a"),
            (r#"{"kind": "one\u0000"}"#, "kind"),
        ] {
            assert_eq!(document(json).unwrap_err(), (field.into(), "holds a NUL character".into()));
        }
    }

    #[test]
    fn a_wrong_type_is_named() {
        for (json, field, expected) in [
            ("null", ".", "invalid type: null, expected an object"),
            (r#"{"kind": {"one": null}}"#, "kind", "invalid type: map, expected a name"),
            (r#"{"kind": 1}"#, "kind", "invalid type: integer `1`, expected a name"),
            (r#"{"kind": "two"}"#, "kind", "unknown variant `two`, expected `one`"),
            (r#"{"small": 256}"#, "small", "invalid value: integer `256`, expected u8"),
            (r#"{"small": -1}"#, "small", "invalid value: integer `-1`, expected u8"),
            (r#"{"small": 1.5}"#, "small", "invalid type: floating point `1.5`, expected u8"),
            (r#"{"text": true}"#, "text", "invalid type: boolean `true`, expected a string"),
            (r#"{"list": {}}"#, "list", "invalid type: map, expected a sequence"),
        ] {
            assert_eq!(document(json).unwrap_err(), (field.into(), expected.into()), "{json}");
        }
    }
}
