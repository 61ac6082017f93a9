//! `computestorage.dll`.

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::core::{HRESULT, PCWSTR, PWSTR};

use super::disk::path_of;
use super::text::{Freed, give, read};
use super::{code, library};
use crate::hresult::{self, Hresult};
use crate::wire::{Call, LayerOperation};

/// The texts that a function of a layer takes besides the layer's path.
struct Texts {
    other: PCWSTR,
    layers: PCWSTR,
    options: PCWSTR,
}

impl Texts {
    const NONE: Self =
        Self { other: std::ptr::null(), layers: std::ptr::null(), options: std::ptr::null() };
}

fn call(
    operation: LayerOperation,
    path: Option<String>,
    [other, layers, options]: [Option<String>; 3],
) -> Result<Option<String>, Hresult> {
    let path = path.ok_or(hresult::INVALID_ARGUMENT)?;
    let call = Call::Layer { operation, path, other, layers, options };
    library()?.call(call).map(|reply| reply.document).map_err(|reply| reply.result)
}

/// # Safety
/// All texts are null or texts.
unsafe fn layer(operation: LayerOperation, path: PCWSTR, texts: &Texts) -> HRESULT {
    // SAFETY: as the caller promises.
    let (path, more) =
        unsafe { (read(path), [read(texts.other), read(texts.layers), read(texts.options)]) };
    code(call(operation, path, more).map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsAttachLayerStorageFilter(path: PCWSTR, layers: PCWSTR) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { layer(LayerOperation::AttachFilter, path, &Texts { layers, ..Texts::NONE }) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsDetachLayerStorageFilter(path: PCWSTR) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { layer(LayerOperation::DetachFilter, path, &Texts::NONE) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsInitializeWritableLayer(
    path: PCWSTR,
    layers: PCWSTR,
    options: PCWSTR,
) -> HRESULT {
    let texts = Texts { layers, options, ..Texts::NONE };
    // SAFETY: as the caller promises.
    unsafe { layer(LayerOperation::InitializeWritable, path, &texts) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsImportLayer(path: PCWSTR, source: PCWSTR, layers: PCWSTR) -> HRESULT {
    let texts = Texts { other: source, layers, ..Texts::NONE };
    // SAFETY: as the caller promises.
    unsafe { layer(LayerOperation::Import, path, &texts) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsExportLayer(
    path: PCWSTR,
    target: PCWSTR,
    layers: PCWSTR,
    options: PCWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { layer(LayerOperation::Export, path, &Texts { other: target, layers, options }) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsDestroyLayer(path: PCWSTR) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { layer(LayerOperation::Destroy, path, &Texts::NONE) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsSetupBaseOSLayer(
    path: PCWSTR,
    _disk: HANDLE,
    options: PCWSTR,
) -> HRESULT {
    // SAFETY: as the caller promises.
    unsafe { layer(LayerOperation::SetupBase, path, &Texts { options, ..Texts::NONE }) }
}

#[unsafe(no_mangle)]
extern "system" fn HcsFormatWritableLayerVhd(disk: HANDLE) -> HRESULT {
    code(call(LayerOperation::FormatWritableVhd, path_of(disk).ok(), [None, None, None]).map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsGetLayerVhdMountPath(disk: HANDLE, path: *mut PWSTR) -> HRESULT {
    let volume = path_of(disk)
        .and_then(|disk| call(LayerOperation::GetVhdMountPath, Some(disk), [None, None, None]));
    let text = volume.as_ref().ok().and_then(Option::as_deref);
    // SAFETY: as the caller promises.
    unsafe { give(path, text, Freed::Local) };
    code(volume.map(drop))
}
