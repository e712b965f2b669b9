//! Finds out whether the CUDA driver can be used, before cudarc does, which panics where a library or symbol is
//! missing.

use super::failed;
use crate::error::Error;
use cudarc::driver::{CudaContext, result, sys};
use libloading::Library;
use std::fmt;

/// Oldest usable driver: `1000 * major + 10 * minor` of its CUDA version. The binding and the PTX are of this version.
const OLDEST: i32 = 12_000;

/// Every entry point that the backend calls.
const SYMBOLS: [&str; 32] = [
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAllocAsync",
    "cuMemAlloc_v2",
    "cuMemFreeAsync",
    "cuMemFree_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
];

/// A usable driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA it supports: `1000 * major + 10 * minor`.
    pub version: i32,
    /// Number of devices, at least one.
    pub devices: i32,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let plural = if self.devices == 1 { "" } else { "s" };
        let version = version_name(self.version);
        write!(f, "CUDA {version}, {} device{plural}", self.devices)
    }
}

/// Looks for the driver and its devices.
///
/// # Errors
/// `Backend`: what is missing, and what to do about it: no library, one that is not the driver's, a driver that is too
/// old, or no device.
pub fn probe() -> Result<Driver, Error> {
    let names = ["cuda", "nvcuda"].map(cudarc::get_lib_name_candidates);
    // SAFETY: the library's initialisers run, as they will when cudarc opens it: it is the driver that the system's
    // administrator, or LD_LIBRARY_PATH, provides.
    let library = names
        .iter()
        .flatten()
        .find_map(|name| unsafe { Library::new(name) }.ok())
        .ok_or_else(|| {
            let name = &names[0][0];
            Error::Backend(format!(
                "no CUDA driver: {name} was not found. Install NVIDIA's driver (525 or later), or train with --device cpu"
            ))
        })?;
    if let Some(symbol) = SYMBOLS.iter().find(|symbol| {
        // SAFETY: the symbol is only looked up, not used.
        unsafe { library.get::<*const ()>(symbol.as_bytes()) }.is_err()
    }) {
        return Err(Error::Backend(format!(
            "the CUDA library lacks {symbol}: it is not the library of a driver for CUDA {} or later. Install NVIDIA's \
             driver (525 or later), or train with --device cpu",
            version_name(OLDEST)
        )));
    }

    let mut version = 0;
    // SAFETY: the symbol exists, and writes the version to the integer it is handed. It may be called before cuInit.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(failed("ask the driver for its version"))?;
    if version < OLDEST {
        return Err(Error::Backend(format!(
            "the CUDA driver is too old: it supports CUDA {}, and {} is needed. Update NVIDIA's driver to 525 or later, \
             or train with --device cpu",
            version_name(version),
            version_name(OLDEST)
        )));
    }
    let devices = match result::init().and_then(|()| CudaContext::device_count()) {
        Ok(devices) => devices,
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => 0,
        Err(error) => return Err(failed("start the driver")(error)),
    };
    if devices == 0 {
        return Err(Error::Backend(
            "no CUDA device: the driver is there but finds no GPU (nvidia-smi lists them; CUDA_VISIBLE_DEVICES may hide \
             them). Train with --device cpu"
                .to_owned(),
        ));
    }
    Ok(Driver { version, devices })
}

fn version_name(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}
