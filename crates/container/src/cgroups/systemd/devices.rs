//! Rules for devices as `DevicePolicy` and `DeviceAllow` (systemd.resource-control(5)).

use std::collections::HashMap;

use runhcs_systemd::{Property, Value};

use crate::cgroups::device_filter::{Kind, Rule};

/// Drivers' names by kind and major number, of which systemd speaks where runtimes speak of
/// numbers.
pub(super) type Names = HashMap<(bool, u32), String>;

/// The names that the kernel has now (proc(5), `/proc/devices`).
pub(super) fn names() -> Names {
    parse(&std::fs::read_to_string("/proc/devices").unwrap_or_default())
}

fn parse(text: &str) -> Names {
    let (mut names, mut block) = (Names::new(), false);
    for line in text.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["Block", "devices:"] => block = true,
            [major, name] => {
                if let Ok(major) = major.parse() {
                    // The first of several names for a number stands for all.
                    names.entry((block, major)).or_insert_with(|| name.to_owned());
                }
            }
            _ => {}
        }
    }
    names
}

/// What systemd is to allow. It knows no rules that deny: what comes after the last rule that
/// denies everything must allow. Rules that it can't be told are left to the runtime's own filter
/// alone, for what systemd denied nobody else could allow again.
pub(super) fn properties(rules: &[Rule], names: &Names) -> [Property; 2] {
    let (policy, allowed) = match allowed(rules, names) {
        Some(allowed) => ("strict", allowed),
        None => ("auto", Vec::new()),
    };
    [
        ("DevicePolicy".into(), Value::Text(policy.into())),
        ("DeviceAllow".into(), Value::Pairs(allowed)),
    ]
}

fn allowed(rules: &[Rule], names: &Names) -> Option<Vec<(String, String)>> {
    let is_all =
        |rule: &Rule| rule.kind == Kind::All && rule.major.is_none() && rule.minor.is_none();
    let after = rules.iter().rposition(|rule| !rule.allow && is_all(rule))?;
    rules[after + 1..].iter().map(|rule| allow(rule, names)).collect()
}

fn allow(rule: &Rule, names: &Names) -> Option<(String, String)> {
    let kind = match rule.kind {
        Kind::All => return None,
        Kind::Block => "block",
        Kind::Char => "char",
    };
    let device = match (rule.major, rule.minor) {
        _ if !rule.allow => return None,
        (None, None) => format!("{kind}-*"),
        (Some(major), None) => {
            format!("{kind}-{}", names.get(&(rule.kind == Kind::Block, major))?)
        }
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (None, Some(_)) => return None,
    };
    Some((device, rule.access.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::device_filter::Access;

    fn rule(allow: bool, kind: Kind, major: Option<u32>, minor: Option<u32>) -> Rule {
        Rule { allow, kind, major, minor, access: Access::ALL }
    }

    fn convert(rules: &[Rule]) -> (Value, Value) {
        let text = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n";
        let [(_, policy), (_, allowed)] = properties(rules, &parse(text));
        (policy, allowed)
    }

    #[test]
    fn what_is_allowed_after_all_was_denied_is_listed() {
        let (policy, allowed) = convert(&[
            rule(true, Kind::Char, Some(9), Some(9)),
            rule(false, Kind::All, None, None),
            rule(true, Kind::Char, Some(136), None),
            rule(true, Kind::Block, Some(8), Some(1)),
            rule(true, Kind::Char, None, None),
        ]);
        assert_eq!(policy, Value::Text("strict".into()));
        let expected = ["char-pts", "/dev/block/8:1", "char-*"];
        let expected = expected.map(|name| (name.to_owned(), "rwm".to_owned())).to_vec();
        assert_eq!(allowed, Value::Pairs(expected));
    }

    #[test]
    fn what_systemd_cant_be_told_is_left_to_the_runtimes_filter() {
        let denied = rule(false, Kind::All, None, None);
        for rules in [
            &[rule(true, Kind::Char, Some(1), Some(3))][..],
            &[denied, rule(false, Kind::Char, Some(1), Some(3))],
            &[denied, rule(true, Kind::All, None, None)],
            &[denied, rule(true, Kind::Char, Some(77), None)],
            &[denied, rule(true, Kind::Char, None, Some(3))],
        ] {
            let expected = (Value::Text("auto".into()), Value::Pairs(Vec::new()));
            assert_eq!(convert(rules), expected, "{rules:?}");
        }
    }
}
