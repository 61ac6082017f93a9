//! Windows command lines: one text, which each program splits into arguments by itself. The rules
//! are those of the C run-time library (Microsoft Learn, "Parsing C command-line arguments"), so
//! that what a program finds in `argv` is what was meant.

/// The command line whose arguments are these. The first is the program.
///
/// The first word is split by simpler rules: it ends at the next blank, or at the next quotation
/// mark if it begins with one, and can't hold one. A Windows file name can't either.
pub fn quote(arguments: &[String]) -> String {
    let mut line = String::new();
    for (index, argument) in arguments.iter().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        push_quoted(&mut line, argument, index == 0);
    }
    line
}

fn push_quoted(line: &mut String, argument: &str, is_program: bool) {
    let needs_quotes = argument.is_empty() || argument.contains([' ', '\t', '\n', '\x0b', '"']);
    if !needs_quotes {
        line.push_str(argument);
        return;
    }
    line.push('"');
    let mut backslashes = 0;
    for character in argument.chars() {
        match character {
            '\\' => backslashes += 1,
            // Backslashes before a quotation mark count as half as many; one more makes the
            // mark a character of the argument.
            '"' => {
                line.extend(std::iter::repeat_n('\\', backslashes + 1));
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        line.push(character);
    }
    // Those at the end stand before the closing mark.
    if !is_program {
        line.extend(std::iter::repeat_n('\\', backslashes));
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The C run-time library's rules, written from their description.
    fn split(line: &str) -> Vec<String> {
        let mut rest = line.chars().peekable();
        let mut arguments = vec![program(&mut rest)];
        loop {
            while rest.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
            if rest.peek().is_none() {
                return arguments;
            }
            let (mut argument, mut in_quotes) = (String::new(), false);
            loop {
                let mut backslashes = 0;
                while rest.next_if_eq(&'\\').is_some() {
                    backslashes += 1;
                }
                let Some(next) = rest.peek().copied() else {
                    argument.extend(std::iter::repeat_n('\\', backslashes));
                    break;
                };
                if next == '"' {
                    argument.extend(std::iter::repeat_n('\\', backslashes / 2));
                    rest.next();
                    let doubled = |rest: &mut std::iter::Peekable<std::str::Chars<'_>>| {
                        in_quotes && rest.next_if_eq(&'"').is_some()
                    };
                    if backslashes % 2 == 1 || doubled(&mut rest) {
                        argument.push('"');
                    } else {
                        in_quotes = !in_quotes;
                    }
                    continue;
                }
                argument.extend(std::iter::repeat_n('\\', backslashes));
                if !in_quotes && (next == ' ' || next == '\t') {
                    break;
                }
                argument.push(next);
                rest.next();
            }
            arguments.push(argument);
        }
    }

    fn program(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
        let (mut name, mut in_quotes) = (String::new(), false);
        while let Some(c) = rest.next_if(|c| in_quotes || !(*c == ' ' || *c == '\t')) {
            if c == '"' {
                in_quotes = !in_quotes;
            } else {
                name.push(c);
            }
        }
        name
    }

    #[test]
    fn quotes_only_where_needed() {
        for (arguments, line) in [
            (&["cmd", "/c", "dir"][..], "cmd /c dir"),
            (&[r"C:\Program Files\a.exe", "b"], r#""C:\Program Files\a.exe" b"#),
            (&["a", ""], r#"a """#),
            (&["a", r"b\c"], r"a b\c"),
            (&["a", r"b c\"], r#"a "b c\\""#),
            (&["a", r#"b"c"#], r#"a "b\"c""#),
            (&["a", r#"b\"c"#], r#"a "b\\\"c""#),
            (&["a", "b\tc"], "a \"b\tc\""),
        ] {
            let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
            assert_eq!(quote(&arguments), line);
        }
    }

    proptest! {
        #[test]
        fn a_program_finds_what_was_meant(
            program in r#"[a-z :\\\.]{1,12}"#,
            arguments in proptest::collection::vec(r#"[a-z \t"\\]{0,10}"#, 0..5),
        ) {
            let all: Vec<String> = std::iter::once(program).chain(arguments).collect();
            prop_assert_eq!(split(&quote(&all)), all);
        }

        #[test]
        fn of_any_characters(arguments in proptest::collection::vec("[^\0]{0,8}", 1..4)) {
            let all: Vec<String> = std::iter::once("p".to_owned()).chain(arguments).collect();
            prop_assert_eq!(split(&quote(&all)), all);
        }
    }
}
