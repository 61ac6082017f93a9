//! The lists of types, and the format in which they are written.

use std::collections::HashMap;
use std::sync::OnceLock;

/// A type with a name.
#[derive(Debug)]
pub enum Type {
    /// An object.
    Object(Vec<Field>),
    /// One of some texts.
    Enumeration(Vec<String>),
}

/// A field of an object.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether it has to be there.
    pub required: bool,
}

/// What a field holds.
#[derive(Debug)]
pub enum Kind {
    /// Whatever it is.
    Any,
    /// A text.
    Text,
    /// True or false.
    Flag,
    /// A whole number.
    Number {
        /// The least.
        least: i128,
        /// The greatest.
        most: i128,
    },
    /// A list.
    List(Box<Kind>),
    /// An object with any names.
    Map(Box<Kind>),
    /// A type with a name.
    Named(String),
}

/// All types by their names.
///
/// # Panics
/// If the lists that are compiled in are not in their format.
pub fn tables() -> &'static HashMap<String, Type> {
    static TABLES: OnceLock<HashMap<String, Type>> = OnceLock::new();
    TABLES.get_or_init(|| {
        let mut types = HashMap::new();
        for text in
            [include_str!("published.txt"), include_str!("newer.txt"), include_str!("guests.txt")]
        {
            read(text, &mut types);
        }
        types
    })
}

fn read(text: &str, types: &mut HashMap<String, Type>) {
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(field) = line.strip_prefix("    ") {
            let mut words = field.split_whitespace();
            let (Some(name), Some(kind)) = (words.next(), words.next()) else {
                panic!("not a field: {line}");
            };
            let field = Field {
                name: name.to_owned(),
                kind: self::kind(kind),
                required: words.next() == Some("!"),
            };
            match types.get_mut(&current) {
                Some(Type::Object(fields)) => fields.push(field),
                _ => panic!("{name} is a field of nothing"),
            }
        } else if let Some((name, texts)) = line.split_once(" = ") {
            let texts = texts.split(" | ").map(|text| text.trim_matches('\'').to_owned());
            types.insert(name.to_owned(), Type::Enumeration(texts.collect()));
        } else if let Some(name) = line.strip_prefix('+') {
            name.clone_into(&mut current);
        } else {
            line.clone_into(&mut current);
            types.insert(line.to_owned(), Type::Object(Vec::new()));
        }
    }
}

fn kind(text: &str) -> Kind {
    let number = |least: i128, most: i128| Kind::Number { least, most };
    let inner = |end: char| text[1..].strip_suffix(end).map(|text| Box::new(kind(text)));
    match text {
        "any" => Kind::Any,
        "string" => Kind::Text,
        "bool" => Kind::Flag,
        "u8" => number(0, u8::MAX.into()),
        "u16" => number(0, u16::MAX.into()),
        "u32" => number(0, u32::MAX.into()),
        "u64" => number(0, u64::MAX.into()),
        "i32" => number(i32::MIN.into(), i32::MAX.into()),
        "i64" => number(i64::MIN.into(), i64::MAX.into()),
        _ => match (inner(']'), inner('}')) {
            (Some(element), _) if text.starts_with('[') => Kind::List(element),
            (_, Some(element)) if text.starts_with('{') => Kind::Map(element),
            _ => Kind::Named(text.to_owned()),
        },
    }
}
