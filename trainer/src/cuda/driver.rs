//! Checks that there is a usable CUDA driver and a device before cudarc is called, because cudarc panics if a library or a symbol
//! is missing.

use super::remedy::remedy;
use crate::backend::Error;
use cudarc::driver::{CudaContext, DriverError, result, sys};
use libloading::Library;
use std::error::Error as _;
use std::fmt;

/// The CUDA version of the oldest usable driver, as `1000 * major + 10 * minor`. The bindings and the PTX are of this version.
const OLDEST: i32 = 12_000;

/// Every entry point that the backend calls.
const SYMBOLS: [&str; 38] = [
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncSetAttribute",
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA version that it supports, as `1000 * major + 10 * minor`.
    pub version: i32,
    /// The name and architecture of each device, such as `NVIDIA H100 PCIe, sm_90`. There is at least one.
    pub devices: Vec<String>,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let version = version_name(self.version);
        write!(f, "driver for CUDA {version}: {}", self.devices.join("; "))
    }
}

/// The remedy if there is no usable driver.
const INSTALL: &str = "Install NVIDIA's driver, 525 or later, or train with --device cpu";

/// Looks for the driver and its devices.
///
/// # Errors
/// `Cuda`: there is no driver library, the library is not that of a driver, the driver is too old, or there is no device. The
/// error says what to do about it.
pub fn probe() -> Result<Driver, Error> {
    let missing = |cause, remedy| Error::Cuda { cause, remedy };
    let names = ["cuda", "nvcuda"].map(cudarc::get_lib_name_candidates);
    let library = open(&names.concat())
        .map_err(|reason| missing(format!("no CUDA driver: {reason}"), INSTALL))?;
    if let Some(symbol) = SYMBOLS.iter().find(|symbol| {
        // SAFETY: the symbol is only looked up, not used.
        unsafe { library.get::<*const ()>(symbol.as_bytes()) }.is_err()
    }) {
        let oldest = version_name(OLDEST);
        return Err(missing(
            format!(
                "the CUDA library lacks {symbol}: it is not that of a driver for CUDA {oldest} or later"
            ),
            INSTALL,
        ));
    }

    let mut version = 0;
    // SAFETY: the symbol exists. The function writes the version to the given integer, and may be called before cuInit.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(failed("ask the driver for its version"))?;
    if version < OLDEST {
        let [found, oldest] = [version, OLDEST].map(version_name);
        return Err(missing(
            format!("the CUDA driver is too old: it supports CUDA {found}, and {oldest} is needed"),
            "Update NVIDIA's driver to 525 or later, or train with --device cpu",
        ));
    }
    let count = match result::init().and_then(|()| CudaContext::device_count()) {
        Ok(count) => count,
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => 0,
        Err(error) => return Err(failed("start the driver")(error)),
    };
    if count == 0 {
        return Err(missing(
            "no CUDA device: the driver is there but finds no GPU".to_owned(),
            "nvidia-smi lists GPUs, CUDA_VISIBLE_DEVICES may hide them; or train with --device cpu",
        ));
    }
    let devices = (0..count)
        .map(|ordinal| describe(ordinal).map_err(failed(format!("describe device {ordinal}"))))
        .collect::<Result<_, _>>()?;
    Ok(Driver { version, devices })
}

/// Opens a library under the first of its names that works. If none does, returns why the first one failed.
pub fn open(names: &[String]) -> Result<Library, String> {
    // SAFETY: opening a library runs its initialisers. The library is the one that the system's administrator or
    // LD_LIBRARY_PATH provides, as for every program that uses it.
    let mut libraries = names.iter().map(|name| unsafe { Library::new(name) });
    let first = libraries.next().expect("there are names");
    first
        .or_else(|error| libraries.find_map(Result::ok).ok_or(error))
        .map_err(|error| {
            let reason = error.source();
            reason.map_or(error.to_string(), ToString::to_string)
        })
}

/// Returns the name and architecture of a device.
fn describe(ordinal: i32) -> Result<String, DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let device = result::device::get(ordinal)?;
    let name = result::device::get_name(device)?;
    // SAFETY: the driver is started, and `device` is one of its devices.
    let [major, minor] =
        [MAJOR, MINOR].map(|which| unsafe { result::device::get_attribute(device, which) });
    Ok(format!("{name}, sm_{}{}", major?, minor?))
}

/// Formats a CUDA version, such as `12.4`.
fn version_name(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Returns a function for `map_err` that turns the driver's error into one that names the failed `action` and a remedy.
pub fn failed(action: impl Into<String>) -> impl FnOnce(DriverError) -> Error {
    let action = action.into();
    move |DriverError(reason)| Error::Cuda {
        cause: format!("CUDA: cannot {action}: {reason:?}"),
        remedy: remedy(reason),
    }
}
