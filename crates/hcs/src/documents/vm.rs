//! What the virtual machines of both guests have in common.

use std::collections::BTreeMap;

use crate::options::VmOptions;
use crate::schema::{
    ComPort, ComputeSystem, CpuGroup, DebugOptions, Devices, GuestConnection, HvSocket2,
    HvSocketSystemConfig, Scsi, Topology, Version, VirtualMachine, VirtualMachineMemory,
    VirtualMachineProcessor,
};

/// The GUIDs of the SCSI controllers, by number. Guests find a controller's number by its GUID.
pub const SCSI_CONTROLLERS: [&str; 4] = [
    "df6d0690-79e5-55b6-a5ec-c1e2f77f580a",
    "0110f83b-de10-5172-a266-78bca56bf50a",
    "b5d2d8d4-3a75-51bf-945b-3444dc6b8579",
    "305891a9-b251-5dfe-91a2-c25d9212275b",
];

/// Administrators and the system only, as SDDL.
const ADMINISTRATORS: &str = "D:P(A;;FA;;;SY)(A;;FA;;;BA)";

/// A machine of the given kind of guest.
pub(super) fn compute_system(owner: &str, machine: VirtualMachine) -> ComputeSystem {
    ComputeSystem {
        owner: owner.to_owned(),
        schema_version: Some(Version::V2_1),
        virtual_machine: Some(VirtualMachine { stop_on_reset: true, ..machine }),
        // A machine whose shim is gone belongs to nobody, so it goes with it.
        should_terminate_on_last_handle_closed: true,
        ..ComputeSystem::default()
    }
}

/// Memory, processors and nodes. What differs between guests is left as it is.
pub(super) fn topology(options: &VmOptions) -> Topology {
    let (numa, spread, slit_type) = options.numa.documents();
    let processor = VirtualMachineProcessor {
        count: options.processors,
        limit: options.limits.processor_limit.into(),
        weight: options.limits.processor_weight.into(),
        reservation: 0,
        cpu_group: options.cpu_group.clone().map(|id| CpuGroup { id }),
        numa_processors_settings: spread,
    };
    let memory = VirtualMachineMemory {
        size_in_mb: options.memory_mb,
        allow_overcommit: options.allow_overcommit,
        enable_deferred_commit: options.deferred_commit,
        low_mmio_gap_in_mb: options.low_mmio_gap_mb,
        high_mmio_base_in_mb: options.high_mmio_base_mb,
        high_mmio_gap_in_mb: options.high_mmio_gap_mb,
        slit_type,
        ..VirtualMachineMemory::default()
    };
    Topology { memory: Some(memory), processor: Some(processor), numa }
}

/// Hyper-V sockets for administrators, the serial console, and empty SCSI controllers.
pub(super) fn devices(options: &VmOptions, scsi_controllers: usize) -> Devices {
    let port =
        options.console_pipe.clone().map(|named_pipe| ("0".to_owned(), ComPort { named_pipe }));
    let controllers = SCSI_CONTROLLERS.iter().take(scsi_controllers);
    Devices {
        com_ports: port.into_iter().collect(),
        scsi: controllers.map(|id| ((*id).to_owned(), Scsi::default())).collect(),
        hv_socket: Some(HvSocket2 {
            hv_socket_config: Some(HvSocketSystemConfig {
                default_bind_security_descriptor: ADMINISTRATORS.to_owned(),
                default_connect_security_descriptor: ADMINISTRATORS.to_owned(),
                service_table: BTreeMap::new(),
            }),
        }),
        ..Devices::default()
    }
}

/// Files for what a crash of the guest leaves, named after the machine.
pub(super) fn debug_options(options: &VmOptions, vm_id: &str) -> Option<DebugOptions> {
    let folder = options.dump_directory.as_ref()?;
    let file = |name: &str| format!(r"{}\{vm_id}-{name}", folder.trim_end_matches('\\'));
    Some(DebugOptions {
        bugcheck_saved_state_file_name: file("savedstate.vmrs"),
        bugcheck_no_crashdump_saved_state_file_name: file("savedstate_nocrashdump.vmrs"),
    })
}

/// The service's own connection to the guest's compute service.
pub(super) fn guest_connection(use_vsock: bool) -> Option<GuestConnection> {
    Some(GuestConnection { use_vsock, use_connected_suspend: true })
}
