//! systemd's manager: the interface `org.freedesktop.systemd1.Manager`
//! (org.freedesktop.systemd1(5)).

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bus::{Address, Bus, socket};
use crate::message::Call;
use crate::wire::Writer;
use crate::{Result, UnitName, Value};

/// A unit's property and its value.
pub type Property = (Cow<'static, str>, Value);

/// Whose units are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Whose {
    /// The system's.
    System,
    /// The caller's own.
    User,
}

/// A connection to a manager.
#[derive(Debug)]
pub struct Manager(Bus);

const DESTINATION: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";

impl Manager {
    /// Connects to the manager: over the bus or, where there is none, over its own socket.
    ///
    /// # Errors
    /// [`crate::Error::NoManager`] if nobody listens anywhere.
    pub fn connect(whose: Whose) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let addresses = match whose {
            Whose::System => addresses(
                variable("DBUS_SYSTEM_BUS_ADDRESS").as_deref(),
                Path::new("/run/dbus/system_bus_socket"),
                Path::new("/run/systemd/private"),
            ),
            Whose::User => {
                let directory = PathBuf::from(variable("XDG_RUNTIME_DIR").unwrap_or_default());
                addresses(
                    variable("DBUS_SESSION_BUS_ADDRESS").as_deref(),
                    &directory.join("bus"),
                    &directory.join("systemd/private"),
                )
            }
        };
        Self::over(Bus::connect(&addresses)?)
    }

    fn over(bus: Bus) -> Result<Self> {
        let mut manager = Self(bus);
        if !manager.0.is_direct() {
            // Without this the bus passes no signal on, and the manager sends none.
            let rule = format!(
                "type='signal',sender='{DESTINATION}',interface='{DESTINATION}.Manager',\
                 member='JobRemoved'"
            );
            manager.0.call(&Call {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "AddMatch",
                signature: "s",
                body: body(|writer| writer.string(&rule)),
            })?;
            manager.call("Subscribe", "", |_| ())?;
        }
        Ok(manager)
    }

    /// Starts a transient unit and waits until it has been. One that has failed earlier and is
    /// still known makes place.
    ///
    /// # Errors
    /// A unit of this name is there, or systemd refuses a property.
    pub fn start(&mut self, unit: &UnitName, properties: &[Property]) -> Result<()> {
        match self.try_start(unit, properties) {
            Err(error) if error.is("UnitExists") => {
                self.reset_failed(unit)?;
                self.try_start(unit, properties)
            }
            other => other,
        }
    }

    fn try_start(&mut self, unit: &UnitName, properties: &[Property]) -> Result<()> {
        let reply = self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", |writer| {
            writer.string(unit.as_str());
            writer.string("replace");
            write_properties(writer, properties);
            writer.array(8, |_| ());
        })?;
        let job = reply.body("o")?.string()?;
        self.wait_for_job(&job, unit)
    }

    /// Stops a unit, with all its processes, and forgets it. One that isn't there is stopped.
    ///
    /// # Errors
    /// It couldn't be stopped.
    pub fn stop(&mut self, unit: &UnitName) -> Result<()> {
        let stopped = self.call("StopUnit", "ss", |writer| {
            writer.string(unit.as_str());
            writer.string("replace");
        });
        match stopped {
            Ok(reply) => {
                let job = reply.body("o")?.string()?;
                self.wait_for_job(&job, unit)?;
            }
            Err(error) if error.is("NoSuchUnit") => {}
            Err(error) => return Err(error),
        }
        self.reset_failed(unit)
    }

    /// Has systemd forget that a unit has failed.
    fn reset_failed(&mut self, unit: &UnitName) -> Result<()> {
        match self.call("ResetFailedUnit", "s", |writer| writer.string(unit.as_str())) {
            Err(error) if !error.is("NoSuchUnit") => Err(error),
            _ => Ok(()),
        }
    }

    /// Changes properties until the unit ends.
    ///
    /// # Errors
    /// There is no such unit, or systemd refuses a property.
    pub fn set(&mut self, unit: &UnitName, properties: &[Property]) -> Result<()> {
        self.call("SetUnitProperties", "sba(sv)", |writer| {
            writer.string(unit.as_str());
            // Not beyond its end.
            writer.bool(true);
            write_properties(writer, properties);
        })
        .map(drop)
    }

    /// Moves a process into a unit's control group, which the caller itself needn't be allowed to,
    /// or into a group below it: an absolute path, or nothing.
    ///
    /// # Errors
    /// There is no such unit, group or process.
    pub fn attach(&mut self, unit: &UnitName, below: &str, pid: u32) -> Result<()> {
        self.call("AttachProcessesToUnit", "ssau", |writer| {
            writer.string(unit.as_str());
            writer.string(below);
            writer.array(4, |writer| writer.u32(pid));
        })
        .map(drop)
    }

    /// The manager's own control group, in which its slices are.
    ///
    /// # Errors
    /// It doesn't say.
    pub fn control_group(&mut self) -> Result<PathBuf> {
        self.property("ControlGroup").map(PathBuf::from)
    }

    /// systemd's version, such as 252: what it knows depends on it.
    ///
    /// # Errors
    /// It doesn't say.
    pub fn version(&mut self) -> Result<u32> {
        // "252.38-1~deb12u1", "v245-1.fc32"
        let text = self.property("Version")?;
        let number = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit()).next();
        number.and_then(|number| number.parse().ok()).ok_or_else(|| {
            crate::Error::Protocol(format!("its version is {text:?}, which is no number"))
        })
    }

    /// A property of the manager's that is text.
    fn property(&mut self, name: &str) -> Result<String> {
        let reply = self.0.call(&Call {
            destination: DESTINATION,
            path: PATH,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
            body: body(|writer| {
                writer.string("org.freedesktop.systemd1.Manager");
                writer.string(name);
            }),
        })?;
        let mut value = reply.body("v")?;
        value.signature()?;
        value.string()
    }

    fn wait_for_job(&mut self, job: &str, unit: &UnitName) -> Result<()> {
        let result = self.0.signal("JobRemoved", |message| {
            let mut body = message.body("uoss")?;
            body.u32()?;
            let removed = body.string()?;
            body.string()?;
            let result = body.string()?;
            Ok((removed == job).then_some(result))
        })?;
        if result == "done" {
            return Ok(());
        }
        Err(crate::Error::Job { unit: unit.as_str().to_owned(), result })
    }

    fn call(
        &mut self,
        member: &'static str,
        signature: &'static str,
        write: impl FnOnce(&mut Writer),
    ) -> Result<crate::message::Message> {
        self.0.call(&Call {
            destination: DESTINATION,
            path: PATH,
            interface: "org.freedesktop.systemd1.Manager",
            member,
            signature,
            body: body(write),
        })
    }
}

fn body(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer);
    writer.finish()
}

fn write_properties(writer: &mut Writer, properties: &[Property]) {
    writer.array(8, |writer| {
        for (name, value) in properties {
            writer.align(8);
            writer.string(name);
            value.write(writer);
        }
    });
}

/// Where to look for a manager: at the address that the environment names, at the bus's usual
/// place, and at the manager's own socket.
fn addresses(named: Option<&str>, usual: &Path, private: &Path) -> Vec<Address> {
    let buses = named.and_then(socket).into_iter().chain([usual.to_owned()]);
    let mut addresses: Vec<Address> = buses.map(|path| Address { path, direct: false }).collect();
    addresses.dedup();
    addresses.push(Address { path: private.to_owned(), direct: true });
    addresses
}

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;
