//! The few formats that control files have (Documentation/admin-guide/cgroup-v2.rst, "Format").

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use runhcs_compute::stats::{Pressure, PressureLine};

/// A control group's directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'a>(pub &'a Path);

impl Group<'_> {
    /// A file's text; `None` if there is no such file.
    pub(crate) fn text(&self, file: &str) -> io::Result<Option<String>> {
        match fs::read_to_string(self.0.join(file)) {
            Ok(text) => Ok(Some(text)),
            // Pressure that is not accounted for has files that can't be read.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// One number; `max` is the largest there is.
    pub(crate) fn number(&self, file: &str) -> io::Result<Option<u64>> {
        Ok(self.text(file)?.map(|text| number(&text)))
    }

    /// Lines of a key and a number.
    pub(crate) fn keyed(&self, file: &str) -> io::Result<BTreeMap<String, u64>> {
        Ok(self.text(file)?.map(|text| keyed(&text)).unwrap_or_default())
    }

    pub(crate) fn pressure(&self, file: &str) -> io::Result<Option<Pressure>> {
        Ok(self.text(file)?.as_deref().and_then(pressure))
    }

    /// The page sizes that have files here.
    pub(crate) fn hugepage_sizes(&self) -> io::Result<Vec<String>> {
        let mut sizes = Vec::new();
        for entry in fs::read_dir(self.0)? {
            let name = entry?.file_name();
            let size = name.to_str().and_then(|name| name.strip_prefix("hugetlb."));
            if let Some((size, _)) = size.and_then(|rest| rest.split_once('.'))
                && !sizes.iter().any(|known| known == size)
            {
                sizes.push(size.to_owned());
            }
        }
        Ok(sizes)
    }
}

/// The kernel writes numbers; anything else here would be `max`.
pub(crate) fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(u64::MAX)
}

pub(crate) fn keyed(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// A list such as `0-2,5` (cpuset(7), "List format").
pub(crate) fn list(text: &str) -> Vec<u16> {
    text.trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse::<u16>().ok()?..=last.trim().parse().ok()?)
        })
        .flatten()
        .collect()
}

fn pressure(text: &str) -> Option<Pressure> {
    let mut found = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let target = match fields.next()? {
            "some" => &mut found.some,
            "full" => &mut found.full,
            _ => continue,
        };
        let mut values = PressureLine::default();
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            match key {
                "avg10" => values.avg10 = value.parse().ok()?,
                "avg60" => values.avg60 = value.parse().ok()?,
                "avg300" => values.avg300 = value.parse().ok()?,
                "total" => values.total = value.parse().ok()?,
                _ => {}
            }
        }
        *target = values;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert!(list("\n").is_empty());
    }

    #[test]
    fn keys_and_numbers() {
        assert_eq!(keyed("a 1\nb 22\n")["b"], 22);
        assert_eq!((number("max\n"), number("7\n")), (u64::MAX, 7));
    }

    #[test]
    fn pressure_lines() {
        let text = "some avg10=0.12 avg60=0.00 avg300=1.50 total=78\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        let found = pressure(text).unwrap();
        assert_eq!((found.some.avg10, found.some.avg300, found.some.total), (0.12, 1.5, 78));
        assert_eq!(found.full.total, 9);
    }
}
