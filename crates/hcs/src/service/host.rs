//! What must be known of the host.

use windows_sys::Wdk::System::SystemServices::RtlGetVersion;
use windows_sys::Win32::System::SystemInformation::OSVERSIONINFOW;

use crate::options::HostFacts;

/// The number of processors that this process can use, and Windows' build.
pub fn host_facts() -> HostFacts {
    let processors = std::thread::available_parallelism().map_or(1, |number| number.get());
    let mut version = OSVERSIONINFOW {
        dwOSVersionInfoSize: size_of::<OSVERSIONINFOW>() as u32,
        ..OSVERSIONINFOW::default()
    };
    // Not GetVersionEx: that tells programs without a manifest of an older Windows.
    // SAFETY: the place outlives the call and says its own size.
    unsafe { RtlGetVersion(&mut version) };
    HostFacts {
        processors: processors.try_into().unwrap_or(u32::MAX),
        build: version.dwBuildNumber,
    }
}
