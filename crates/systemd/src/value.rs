//! Values of unit properties.

use crate::wire::Writer;

/// A unit property's value, by its D-Bus type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `s`
    Text(String),
    /// `au`
    U32s(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `as`
    Texts(Vec<String>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
    /// `a(st)`
    Numbers(Vec<(String, u64)>),
}

impl Value {
    /// Its type's signature.
    pub(crate) fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Text(_) => "s",
            Self::U32s(_) => "au",
            Self::Bytes(_) => "ay",
            Self::Texts(_) => "as",
            Self::Pairs(_) => "a(ss)",
            Self::Numbers(_) => "a(st)",
        }
    }

    /// Writes it as a variant.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.signature(self.signature());
        match self {
            Self::Bool(value) => writer.bool(*value),
            Self::I32(value) => writer.u32(*value as u32),
            Self::U32(value) => writer.u32(*value),
            Self::I64(value) => writer.u64(*value as u64),
            Self::U64(value) => writer.u64(*value),
            Self::Text(text) => writer.string(text),
            Self::U32s(list) => writer.array(4, |w| list.iter().for_each(|value| w.u32(*value))),
            Self::Bytes(list) => writer.array(1, |w| list.iter().for_each(|value| w.byte(*value))),
            Self::Texts(list) => writer.array(4, |w| list.iter().for_each(|text| w.string(text))),
            Self::Pairs(list) => writer.array(8, |w| {
                for (one, two) in list {
                    w.align(8);
                    w.string(one);
                    w.string(two);
                }
            }),
            Self::Numbers(list) => writer.array(8, |w| {
                for (name, number) in list {
                    w.align(8);
                    w.string(name);
                    w.u64(*number);
                }
            }),
        }
    }
}
