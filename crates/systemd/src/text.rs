//! Values as people write them: the part of GVariant's text format that unit properties take
//! (GLib's manual, "GVariant Text Format").

use crate::Value;

impl Value {
    /// Reads a value: `true`, `-5`, `uint64 5`, `'text'`, `['a', 'b']`, `[uint32 1, 2]`. A number
    /// without a type is an `i`, as in D-Bus.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let malformed = || format!("{text:?} is not a value such as true, uint64 5, 'a' or ['a']");
        match text.strip_prefix('[') {
            None => scalar(text, None).ok_or_else(malformed),
            Some(rest) => {
                let inside = rest.strip_suffix(']').ok_or_else(malformed)?;
                array(inside).ok_or_else(malformed)
            }
        }
    }
}

/// Types by their names in the format.
#[derive(Clone, Copy)]
enum Type {
    Bool,
    I32,
    U32,
    I64,
    U64,
    Text,
}

fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "boolean" => Type::Bool,
        "int32" => Type::I32,
        "uint32" => Type::U32,
        "int64" => Type::I64,
        "uint64" => Type::U64,
        "string" => Type::Text,
        _ => return None,
    })
}

/// A single value, whose type may be known from the one before it.
fn scalar(text: &str, known: Option<Type>) -> Option<Value> {
    let (kind, text) = match text.split_once(char::is_whitespace) {
        Some((name, rest)) if type_named(name).is_some() => (type_named(name), rest.trim()),
        _ => (known, text),
    };
    let quoted = text.starts_with(['\'', '"']);
    Some(match kind {
        Some(Type::Text) | None if quoted => Value::Text(unquote(text)?),
        Some(Type::Bool) => Value::Bool(text.parse().ok()?),
        Some(Type::U32) => Value::U32(text.parse().ok()?),
        Some(Type::I64) => Value::I64(text.parse().ok()?),
        Some(Type::U64) => Value::U64(text.parse().ok()?),
        Some(Type::I32) => Value::I32(text.parse().ok()?),
        Some(Type::Text) => return None,
        None => match text {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => Value::I32(number.parse().ok()?),
        },
    })
}

/// An array of texts or of unsigned numbers, the kinds that unit properties have.
fn array(inside: &str) -> Option<Value> {
    let (mut texts, mut numbers, mut known) = (Vec::new(), Vec::new(), None);
    for element in elements(inside)? {
        match scalar(element, known)? {
            Value::Text(text) => texts.push(text),
            Value::U32(number) => {
                known = Some(Type::U32);
                numbers.push(number);
            }
            _ => return None,
        }
    }
    match (texts.is_empty(), numbers.is_empty()) {
        (_, true) => Some(Value::Texts(texts)),
        (true, false) => Some(Value::U32s(numbers)),
        (false, false) => None,
    }
}

/// Parts at the commas that are outside of quotes.
fn elements(inside: &str) -> Option<Vec<&str>> {
    if inside.trim().is_empty() {
        return Some(Vec::new());
    }
    let (mut parts, mut begin, mut quote, mut escaped) = (Vec::new(), 0, None, false);
    for (at, c) in inside.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, ',') => {
                parts.push(inside[begin..at].trim());
                begin = at + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(inside[begin..].trim());
    quote.is_none().then_some(parts)
}

/// The text within quotes of either kind, in which a backslash takes the next character as it is.
fn unquote(text: &str) -> Option<String> {
    let quote = text.chars().next()?;
    let mut characters = text[quote.len_utf8()..].chars();
    let mut found = String::new();
    loop {
        match characters.next()? {
            '\\' => found.push(match characters.next()? {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            c if c == quote => return characters.as_str().is_empty().then_some(found),
            c => found.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_each_type() {
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("-5", Value::I32(-5)),
            ("uint64 123456789", Value::U64(123_456_789)),
            ("int64  -1", Value::I64(-1)),
            ("uint32 7", Value::U32(7)),
            ("'inactive-or-failed'", Value::Text("inactive-or-failed".into())),
            (r#""it's \"x\"""#, Value::Text("it's \"x\"".into())),
            ("['a.service', \"b,c\"]", Value::Texts(vec!["a.service".into(), "b,c".into()])),
            ("[uint32 1, 2]", Value::U32s(vec![1, 2])),
            ("[]", Value::Texts(Vec::new())),
        ] {
            assert_eq!(Value::parse(text).as_ref(), Ok(&value), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in
            ["", "x", "'a", "'a'b", "uint64 -1", "uint32 4294967296", "[1", "['a', uint32 1]"]
        {
            assert!(Value::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = Value::parse(&text);
        }
    }
}
