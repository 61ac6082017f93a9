//! D-Bus marshalling (specification, "Marshaling (Wire Format)"): every value is aligned to its
//! size, counted from the message's beginning.

use crate::{Error, Result};

/// Writes in little-endian order.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    /// A string or an object path.
    pub(crate) fn string(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    pub(crate) fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// An array whose elements have this alignment. Its length doesn't count the padding before
    /// the first element.
    pub(crate) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let bytes = (self.0.len() - start) as u32;
        self.0[length..length + 4].copy_from_slice(&bytes.to_le_bytes());
    }

    /// Appends a message's body, which is aligned for itself.
    pub(crate) fn body(&mut self, body: &[u8]) {
        self.align(8);
        self.0.extend_from_slice(body);
    }
}

/// Reads in either order. Every read is checked against the message's end.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], big: bool) -> Self {
        Self { bytes, at: 0, big }
    }

    /// How far it has read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn align(&mut self, to: usize) -> Result<()> {
        let padding = self.at.next_multiple_of(to) - self.at;
        self.take(padding).map(drop)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| Error::Protocol("a message ends too early".into()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.align(4)?;
        let bytes = self.take(4)?;
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// A string or an object path.
    pub(crate) fn string(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    pub(crate) fn signature(&mut self) -> Result<String> {
        let length = self.byte()?.into();
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(text).map_err(|_| Error::Protocol("a string is not UTF-8".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_and_arrays_count_their_elements_only() {
        let mut writer = Writer::default();
        writer.byte(7);
        writer.array(8, |writer| writer.u64(5));
        writer.string("ab");
        writer.signature("as");
        let bytes = writer.finish();
        let expected: &[u8] = &[
            7, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, // array of one u64
            2, 0, 0, 0, b'a', b'b', 0, 2, b'a', b's', 0,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn both_orders_are_read() {
        assert_eq!(Reader::new(&[1, 0, 0, 0], false).u32().unwrap(), 1);
        assert_eq!(Reader::new(&[0, 0, 0, 1], true).u32().unwrap(), 1);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_read_leads_out_of_the_message(bytes: Vec<u8>, big: bool) {
            let mut reader = Reader::new(&bytes, big);
            let _ = reader.string();
            let _ = reader.signature();
            let _ = reader.align(8);
            proptest::prop_assert!(reader.position() <= bytes.len());
        }

        #[test]
        fn strings_come_back(text: String) {
            let mut writer = Writer::default();
            writer.byte(1);
            writer.string(&text);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes, false);
            reader.byte().unwrap();
            proptest::prop_assert_eq!(reader.string().unwrap(), text);
        }
    }
}
