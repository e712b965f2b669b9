//! Adds up the gradients of several devices with NCCL, NVIDIA's library for communication between GPUs.
//!
//! The types come from cudarc, but the library is opened here, for two reasons: cudarc 0.19 looks only for `libnccl.so`, although
//! the packages of NVIDIA, Debian and PyPI install `libnccl.so.2`, and it panics if it finds none.

use super::driver::open;
use super::kernels::Device;
use crate::backend::Error;
use cudarc::driver::{CudaSlice, DevicePtrMut};
use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclDataType_t, ncclRedOp_t};
use libloading::Library;
use std::ffi::{c_int, c_void};
use std::fmt;

/// The names under which the library may be installed.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

const INSTALL: &str = "Install NCCL 2 (Debian, Ubuntu: libnccl2; PyPI: nvidia-nccl-cu12, its folder lib in LD_LIBRARY_PATH), or train \
                       with --devices 1";

/// The status that a call returns; 0 is success. It is not an enum, because a newer NCCL may return other values.
type Status = c_int;

/// The names of NCCL's errors, starting with status 1.
const ERRORS: [&str; 7] = [
    "ncclUnhandledCudaError",
    "ncclSystemError",
    "ncclInternalError",
    "ncclInvalidArgument",
    "ncclInvalidUsage",
    "ncclRemoteError",
    "ncclInProgress",
];

type AllReduceFn = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    ncclDataType_t,
    ncclRedOp_t,
    ncclComm_t,
    cudaStream_t,
) -> Status;

/// The opened library and the functions that are used.
pub struct Nccl {
    version: c_int,
    comm_init_all: unsafe extern "C" fn(*mut ncclComm_t, c_int, *const c_int) -> Status,
    comm_abort: unsafe extern "C" fn(ncclComm_t) -> Status,
    group_start: unsafe extern "C" fn() -> Status,
    group_end: unsafe extern "C" fn() -> Status,
    all_reduce: AllReduceFn,
    /// Keeps the library loaded as long as the function pointers exist.
    _library: Library,
}

impl Nccl {
    /// Opens the library.
    ///
    /// # Errors
    /// `Cuda`: there is no such library, or it lacks a function of NCCL.
    pub fn open() -> Result<Self, Error> {
        let missing = |cause| Error::Cuda {
            cause,
            remedy: INSTALL,
        };
        let names = NAMES.map(str::to_owned);
        let library = open(&names).map_err(|reason| {
            missing(format!(
                "no NCCL, which adds up the devices' gradients (looked for {}): {reason}",
                NAMES.join(" and ")
            ))
        })?;
        let lacking = |name: &str| missing(format!("the library found as NCCL lacks {name}"));
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the type is the one in NCCL's documentation, which is the same in every version of NCCL 2.
                *unsafe { library.get($name) }.map_err(|_| lacking($name))?
            };
        }
        let get_version: unsafe extern "C" fn(*mut c_int) -> Status = function!("ncclGetVersion");
        let mut version = 0;
        // SAFETY: the function writes the version to the given integer.
        check("ncclGetVersion", unsafe { get_version(&mut version) })?;
        Ok(Self {
            version,
            comm_init_all: function!("ncclCommInitAll"),
            comm_abort: function!("ncclCommAbort"),
            group_start: function!("ncclGroupStart"),
            group_end: function!("ncclGroupEnd"),
            all_reduce: function!("ncclAllReduce"),
            _library: library,
        })
    }
}

impl fmt::Display for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // The version is `10000 * major + 100 * minor + patch` since NCCL 2.9.
        let (major, rest) = (self.version / 10_000, self.version % 10_000);
        write!(f, "NCCL {major}.{}.{}", rest / 100, rest % 100)
    }
}

/// Returns an error that names the call and NCCL's status unless the call succeeded.
fn check(call: &str, status: Status) -> Result<(), Error> {
    if status == 0 {
        return Ok(());
    }
    let name = ERRORS.iter().zip(1..).find(|(_, code)| *code == status);
    let reason = name.map_or(format!("error {status}"), |(name, _)| (*name).to_owned());
    Err(Error::Cuda {
        cause: format!("NCCL: {call}: {reason}"),
        remedy: "NCCL_DEBUG=INFO in the environment makes NCCL tell more; or train with --devices 1",
    })
}

/// The gradients of several devices, and the communicators that add them up.
pub struct AllReduce {
    nccl: Nccl,
    /// One per device.
    comms: Vec<ncclComm_t>,
    /// One buffer per device, with one gradient per parameter.
    pub grads: Vec<CudaSlice<f32>>,
}

impl AllReduce {
    /// Connects the devices, which must be the first of the machine, in order.
    pub fn new<'a>(devices: impl ExactSizeIterator<Item = &'a Device>) -> Result<Self, Error> {
        let nccl = Nccl::open()?;
        let count = devices.len();
        let grads = devices
            .map(|device| device.alloc("gradients", device.layout.params()))
            .collect::<Result<_, _>>()?;
        let ordinals: Vec<c_int> = (0..count as c_int).collect();
        let mut comms = vec![std::ptr::null_mut(); count];
        // SAFETY: both arrays have `count` items, and each device occurs once.
        let status =
            unsafe { (nccl.comm_init_all)(comms.as_mut_ptr(), count as c_int, ordinals.as_ptr()) };
        check("ncclCommInitAll", status)?;
        let mut all_reduce = Self { nccl, comms, grads };
        // NCCL connects the devices in the first call. Make that call here, on zeros, because it must not happen during a capture.
        all_reduce.run()?;
        Ok(all_reduce)
    }

    /// Replaces the `grads` of each device by the sum over all devices. The work is queued in each device's stream or, during a
    /// capture, added to its graph.
    ///
    /// NCCL chooses the order of the sum by the number of devices and their connections. The order is the same each time, and
    /// every device gets the same bits.
    pub fn run(&mut self) -> Result<(), Error> {
        // The calls must form a group, because one thread makes them for all devices: outside a group, the first call could wait
        // for the others forever.
        // SAFETY: the function has no preconditions.
        check("ncclGroupStart", unsafe { (self.nccl.group_start)() })?;
        let mut pairs = self.comms.iter().zip(&mut self.grads);
        let reduced = pairs.try_for_each(|(&comm, grads)| {
            let (stream, count) = (grads.stream().clone(), grads.len());
            let (grads, _) = grads.device_ptr_mut(&stream);
            // SAFETY: there are `count` floats at `grads`, on the device of the communicator and the stream. NCCL allows the
            // source to be the destination.
            let status = unsafe {
                (self.nccl.all_reduce)(
                    grads as *const c_void,
                    grads as *mut c_void,
                    count,
                    ncclDataType_t::ncclFloat32,
                    ncclRedOp_t::ncclSum,
                    comm,
                    stream.cu_stream() as cudaStream_t,
                )
            };
            check("ncclAllReduce", status)
        });
        // End the group after an error too, so that the next group does not become part of this one.
        // SAFETY: a group was started.
        let ended = check("ncclGroupEnd", unsafe { (self.nccl.group_end)() });
        reduced.and(ended)
    }
}

impl Drop for AllReduce {
    fn drop(&mut self) {
        for &comm in &self.comms {
            // ncclCommDestroy would wait for pending sums, which a failed device will never join. Errors are ignored because
            // nothing uses the communicator any more.
            // SAFETY: `new` created each communicator, and it is ended only here. The graphs that use it have been dropped,
            // because `Engine` declares its replicas before this field.
            let _ = unsafe { (self.nccl.comm_abort)(comm) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cudarc::nccl::sys::ncclResult_t;

    /// Also checks two numbers that no version of NCCL uses.
    #[test]
    fn an_error_shows_the_name_of_the_status_or_its_number() {
        check("call", ncclResult_t::ncclSuccess as Status).unwrap();
        let errors = [
            ncclResult_t::ncclUnhandledCudaError,
            ncclResult_t::ncclSystemError,
            ncclResult_t::ncclInternalError,
            ncclResult_t::ncclInvalidArgument,
            ncclResult_t::ncclInvalidUsage,
            ncclResult_t::ncclRemoteError,
            ncclResult_t::ncclInProgress,
        ];
        for error in errors {
            let text = check("call", error as Status).unwrap_err().to_string();
            assert!(
                text.starts_with(&format!("NCCL: call: {error:?}. ")),
                "{text}"
            );
        }
        for status in [-1, 4711] {
            let text = check("call", status).unwrap_err().to_string();
            assert!(
                text.starts_with(&format!("NCCL: call: error {status}. ")),
                "{text}"
            );
        }
    }
}
