//! A control group in every hierarchy of version 1, with the rules for devices that every runtime
//! sets.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Nothing first, then the devices that containers may use (runtime specification, "Default
/// Devices"), and any to be made.
const DEVICES: [(&str, &[&str]); 2] = [
    ("devices.deny", &["a *:* rwm"]),
    (
        "devices.allow",
        &[
            "c *:* m",
            "b *:* m",
            "c 1:3 rwm",
            "c 1:5 rwm",
            "c 1:7 rwm",
            "c 1:8 rwm",
            "c 1:9 rwm",
            "c 5:0 rwm",
            "c 5:1 rwm",
            "c 5:2 rwm",
            "c 136:* rwm",
        ],
    ),
];

/// The groups of one container. They are removed with this.
pub struct Groups(Vec<Group>);

/// A group of one hierarchy.
pub struct Group {
    /// The hierarchy's controllers, by which its directory is called.
    pub name: String,
    pub path: PathBuf,
}

impl Groups {
    /// Says where they are going to be: below this process's own.
    pub fn plan() -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        let group = |line: &str| {
            let mut fields = line.splitn(3, ':').skip(1);
            let name = fields.next()?.trim_start_matches("name=");
            let hierarchy = Path::new(MOUNT_POINT).join(name);
            let below = fields.next()?.trim_start_matches('/');
            let path = hierarchy.join(below).join(format!("floor-{}", std::process::id()));
            let version_1 = !name.is_empty() && hierarchy.join("tasks").exists();
            version_1.then(|| Group { name: name.to_owned(), path })
        };
        let groups: Vec<Group> = own.lines().filter_map(group).collect();
        ensure!(!groups.is_empty(), "this system has no control groups of version 1");
        Ok(Self(groups))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.0.iter()
    }

    pub fn make(&self) -> Result<()> {
        self.iter().try_for_each(|group| {
            group.make().with_context(|| format!("make {}", group.path.display()))
        })
    }

    /// Moves the calling thread into them.
    pub fn enter(&self) -> Result<()> {
        self.iter().try_for_each(|group| {
            write(&group.path.join("tasks"), &["0"])
                .with_context(|| format!("enter {}", group.path.display()))
        })
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for group in &self.0 {
            let _ = fs::remove_dir(&group.path);
        }
    }
}

impl Group {
    fn make(&self) -> Result<()> {
        fs::create_dir(&self.path)?;
        if self.name.split(',').any(|name| name == "cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = self.path.parent().context("the group is the root")?.join(file);
                write(&self.path.join(file), &[fs::read_to_string(above)?.trim()])?;
            }
        }
        if self.name.split(',').any(|name| name == "devices") {
            DEVICES.iter().try_for_each(|(file, rules)| write(&self.path.join(file), rules))?;
        }
        Ok(())
    }
}

/// Writes lines to a control file, each with a call of its own.
fn write(path: &Path, lines: &[&str]) -> Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    lines.iter().try_for_each(|line| file.write_all(line.as_bytes()))?;
    Ok(())
}
