//! `vm-template`: makes, lists and removes the saved VMs from which new ones are resumed.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use oci_spec::runtime::Spec;
use runhcs_spec::{DEFAULT_TEMPLATES, TemplateUse, VmDefaults, VmOptions};
use runhcs_uvm::template::{self, Template, TemplateId, TemplateRequest, TemplateStore};
use serde_json::{Value, json};

use crate::cli::{ListFormat, LogFormat};
use crate::globals::Globals;
use crate::sys;
use crate::sys::progress::Progress;
use crate::sys::vm_template_args::{
    VmTemplateArgs, VmTemplateCreateArgs, VmTemplateListArgs, VmTemplateRemoveArgs, VmTemplateVerb,
};

const COLUMNS: [&str; 7] = ["ID", "STATUS", "CREATED", "ACCELERATOR", "VCPUS", "MEMORY", "SIZE"];
/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

/// Does what is asked for.
pub fn run(globals: &Globals, args: &VmTemplateArgs) -> Result<u8> {
    match &args.verb {
        VmTemplateVerb::Create(args) => create(globals, args),
        VmTemplateVerb::List(args) => list(globals, args),
        VmTemplateVerb::Remove(args) => remove(globals, args),
    }
}

fn directory(globals: &Globals) -> PathBuf {
    globals.config.vm.template_dir.clone().unwrap_or_else(|| DEFAULT_TEMPLATES.into())
}

/// Makes a template and prints its id.
fn create(globals: &Globals, args: &VmTemplateCreateArgs) -> Result<u8> {
    sys::check_may_have_vm()?;
    let (spec, hardware) = match &args.bundle {
        Some(path) => {
            let bundle = sys::load_bundle(path)?;
            (bundle.spec, bundle.hardware)
        }
        None => (Spec::default(), None),
    };
    let defaults = VmDefaults {
        memory_mib: args.memory_mib.or(globals.config.vm.memory_mib),
        vcpus: args.vcpus.or(globals.config.vm.vcpus),
        ..globals.config.vm.clone()
    };
    let options = VmOptions::from_spec(&spec, hardware.as_ref(), &defaults)?;
    if options.templates.is_none() || defaults.template == Some(TemplateUse::Never) {
        bail!("the configuration says that no VM is resumed from a template: `template`");
    }
    let request = TemplateRequest {
        options,
        store: directory(globals),
        log_level: if globals.args.debug { "debug" } else { "info" }.to_owned(),
        log_json: globals.args.log_format == LogFormat::Json,
    };
    let log = args.vm_log.clone().unwrap_or_else(|| "/dev/null".into());
    let opened = std::fs::File::options().create(true).append(true).open(&log);
    let opened = opened.with_context(|| format!("open the VM's log {}", log.display()))?;
    let mut progress = Progress::new("making a template of a virtual machine");
    let program = globals.config.vm_shim()?;
    let id = template::create(&program, &request, opened.into(), &mut || progress.tick())?;
    drop(progress);
    print(&format!("{id}\n"))
}

/// Prints the templates. One that can't be read is shown as damaged.
fn list(globals: &Globals, args: &VmTemplateListArgs) -> Result<u8> {
    let found = TemplateStore::at(&directory(globals)).list()?;
    let described = found.iter().map(|(id, template)| describe(id, template.as_ref()));
    if args.quiet {
        let ids: String = found.iter().map(|(id, _)| format!("{id}\n")).collect();
        return print(&ids);
    }
    let described: Vec<Value> = described.collect();
    if args.format == ListFormat::Json {
        return print(&format!("{}\n", Value::from(described)));
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(COLUMNS);
    for template in &described {
        let cell = |name: &str| match &template[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            number => number.to_string(),
        };
        let mib = |name: &str| {
            let bytes = template[name].as_u64();
            bytes.map_or_else(String::new, |bytes| format!("{} MiB", bytes / MIB))
        };
        table.add_row([
            cell("id"),
            cell("status"),
            cell("created"),
            cell("accelerator"),
            cell("vcpus"),
            mib("memory"),
            mib("size"),
        ]);
    }
    let lines: String = table.lines().map(|line| format!("{}\n", line.trim())).collect();
    print(&lines)
}

fn describe(
    id: &TemplateId,
    template: std::result::Result<&Template, &runhcs_compute::Error>,
) -> Value {
    let template = match template {
        Ok(template) => template,
        Err(error) => {
            let mut reason = error.to_string();
            if let Some(cause) = std::error::Error::source(error) {
                reason += &format!(": {cause}");
            }
            return json!({ "id": id.as_str(), "status": "damaged", "reason": reason });
        }
    };
    let manifest = &template.manifest;
    let ingredients = &manifest.ingredients;
    let outdated = ingredients.outdated();
    json!({
        "id": id.as_str(),
        "status": if outdated.is_some() { "outdated" } else { "usable" },
        "reason": outdated,
        "created": manifest.created,
        "accelerator": ingredients.accelerator,
        "vcpus": ingredients.vcpus,
        "memory": manifest.memory.size,
        "size": manifest.memory.saved(),
        "kernel": ingredients.kernel.path,
        "initramfs": ingredients.initramfs.path,
        "qemu": ingredients.qemu.path,
    })
}

fn remove(globals: &Globals, args: &VmTemplateRemoveArgs) -> Result<u8> {
    let store = TemplateStore::at(&directory(globals));
    let ids: Vec<TemplateId> = if args.all || args.outdated {
        let found = store.list()?.into_iter().filter(|(_, template)| {
            // What is damaged is of no more use than what is outdated.
            let usable = |template: &Template| template.manifest.ingredients.outdated().is_none();
            args.all || !template.as_ref().is_ok_and(usable)
        });
        found.map(|(id, _)| id).collect()
    } else {
        args.ids.clone()
    };
    for id in ids {
        if !store.remove(&id)? && !args.all && !args.outdated {
            bail!("there is no template {id}");
        }
    }
    Ok(0)
}

fn print(text: &str) -> Result<u8> {
    std::io::stdout().write_all(text.as_bytes()).context("write to standard output")?;
    Ok(0)
}
