//! A process in a container, as the service is to start it.

use std::collections::BTreeMap;

use oci_spec::runtime::Process;

use crate::command_line::quote;
use crate::schema::ProcessParameters;
use crate::{Invalid, Result};

/// A process in a Windows container. `field` is where it stands in the configuration.
///
/// # Errors
/// No program; a variable without `=`.
pub fn windows_process(process: &Process, field: &str) -> Result<ProcessParameters> {
    let arguments = process.args().clone().unwrap_or_default();
    let command_line = match process.command_line() {
        Some(line) if !line.is_empty() => line.clone(),
        _ if arguments.is_empty() => {
            let message = "neither `args` nor `commandLine` says what to run";
            return Err(Invalid::new(field, message));
        }
        _ => quote(&arguments),
    };
    let terminal = process.terminal() == Some(true);
    Ok(ProcessParameters {
        command_line,
        user: process.user().username().clone().unwrap_or_default(),
        working_directory: process.cwd().to_string_lossy().into_owned(),
        environment: environment(process, field)?,
        emulate_console: terminal,
        console_size: process.console_size().as_ref().map(console_size).transpose()?,
        ..pipes(terminal)
    })
}

/// A process in a Linux container; `None` is the container's own.
///
/// # Errors
/// A console's size beyond 65535.
pub fn linux_process(own: &Process, exec: Option<&Process>) -> Result<ProcessParameters> {
    let process = exec.unwrap_or(own);
    Ok(ProcessParameters {
        oci_process: exec.cloned(),
        console_size: process.console_size().as_ref().map(console_size).transpose()?,
        ..pipes(process.terminal() == Some(true))
    })
}

/// Every process has its pipes; a console has one for both outputs.
fn pipes(terminal: bool) -> ProcessParameters {
    ProcessParameters {
        create_std_in_pipe: true,
        create_std_out_pipe: true,
        create_std_err_pipe: !terminal,
        ..ProcessParameters::default()
    }
}

fn console_size(size: &oci_spec::runtime::Box) -> Result<(u16, u16)> {
    let side = |name: &str, value: u64| {
        u16::try_from(value).map_err(|_| {
            let message = format!("{value} is more than 65535");
            Invalid::new(format!("process.consoleSize.{name}"), message)
        })
    };
    Ok((side("height", size.height())?, side("width", size.width())?))
}

/// The environment. On Windows a variable without a value doesn't exist.
fn environment(process: &Process, field: &str) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (index, text) in process.env().iter().flatten().enumerate() {
        // A name may begin with `=`: cmd.exe keeps each drive's directory in such variables.
        let end = text.char_indices().skip(1).find(|(_, c)| *c == '=').map(|(at, _)| at);
        let Some(end) = end else {
            let message = format!("{text:?} is not NAME=VALUE");
            return Err(Invalid::new(format!("{field}.env[{index}]"), message));
        };
        let (name, value) = (&text[..end], &text[end + 1..]);
        if value.is_empty() {
            variables.remove(name);
        } else {
            variables.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn process(json: serde_json::Value) -> Process {
        let mut all = json!({"user": {"uid": 0, "gid": 0}, "cwd": r"C:\"});
        all.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_given_command_line_is_taken_as_it_is() {
        let line = r#"cmd /c "a" "b""#;
        let found =
            windows_process(&process(json!({"commandLine": line, "args": ["x"]})), "process");
        assert_eq!(found.unwrap().command_line, line);
        let error = windows_process(&process(json!({})), "process").unwrap_err();
        assert_eq!(error.field, "process");
    }

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let env = ["A=1", "B=2=3", "A=", "=C:=C:\\x", "D=1", "D=2"];
        let found = windows_process(&process(json!({"args": ["x"], "env": env})), "process");
        let expected = [("=C:", r"C:\x"), ("B", "2=3"), ("D", "2")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found.unwrap().environment, BTreeMap::from(expected));
        let error = windows_process(&process(json!({"args": ["x"], "env": ["A=1", "B"]})), "p");
        assert_eq!(error.unwrap_err().field, "p.env[1]");
    }

    #[test]
    fn a_console_has_one_output() {
        let json = json!({"args": ["x"], "terminal": true,
            "consoleSize": {"height": 25, "width": 80}});
        let found = windows_process(&process(json), "process").unwrap();
        assert!(found.emulate_console && !found.create_std_err_pipe);
        assert_eq!(found.console_size, Some((25, 80)));
        let json = json!({"args": ["x"], "consoleSize": {"height": 70000, "width": 80}});
        let error = linux_process(&process(json), None).unwrap_err();
        assert_eq!(error.field, "process.consoleSize.height");
    }
}
