//! The sum of the gradients of several devices, by NVIDIA's library NCCL.
//!
//! The types are cudarc's, but the library is opened here: cudarc 0.19 looks for `libnccl.so` alone, where NVIDIA's,
//! Debian's and PyPI's packages install `libnccl.so.2`, and it panics where it finds none.

use super::driver::open;
use super::kernels::Device;
use crate::error::Error;
use cudarc::driver::{CudaSlice, DevicePtrMut};
use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclDataType_t, ncclRedOp_t};
use libloading::Library;
use std::ffi::{c_int, c_void};
use std::fmt;

/// The names under which the library may be installed.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

const INSTALL: &str = "Install NCCL 2 (Debian, Ubuntu: libnccl2; PyPI: nvidia-nccl-cu12, its folder lib in LD_LIBRARY_PATH), or train \
                       with --devices 1";

/// What a call returns, 0 for success. An integer: a newer NCCL may return what an enum of today does not have.
type Status = c_int;

/// The names of NCCL's errors, from 1 on.
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

/// NCCL, and what of it is used.
pub struct Nccl {
    version: c_int,
    comm_init_all: unsafe extern "C" fn(*mut ncclComm_t, c_int, *const c_int) -> Status,
    comm_abort: unsafe extern "C" fn(ncclComm_t) -> Status,
    group_start: unsafe extern "C" fn() -> Status,
    group_end: unsafe extern "C" fn() -> Status,
    all_reduce: AllReduceFn,
    /// Keeps the functions where they are.
    _library: Library,
}

impl Nccl {
    /// Opens the library.
    ///
    /// # Errors
    /// `Cuda`: it is missing, or is another one of that name.
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
                // SAFETY: the type is that of NCCL's documentation, the same in every version of NCCL 2.
                *unsafe { library.get($name) }.map_err(|_| lacking($name))?
            };
        }
        let get_version: unsafe extern "C" fn(*mut c_int) -> Status = function!("ncclGetVersion");
        let mut version = 0;
        // SAFETY: it writes the version to the integer it is handed.
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
        // `10000 * major + 100 * minor + patch` since NCCL 2.9.
        let (major, rest) = (self.version / 10_000, self.version % 10_000);
        write!(f, "NCCL {major}.{}.{}", rest / 100, rest % 100)
    }
}

/// For the error: which call failed, and NCCL's reason.
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

/// The gradients of several devices, and what adds them up.
pub struct AllReduce {
    nccl: Nccl,
    /// One a device.
    comms: Vec<ncclComm_t>,
    /// One for each parameter, on each device.
    pub grads: Vec<CudaSlice<f32>>,
}

impl AllReduce {
    /// Connects the devices, which are those of the machine from the first on.
    pub fn new<'a>(devices: impl ExactSizeIterator<Item = &'a Device>) -> Result<Self, Error> {
        let nccl = Nccl::open()?;
        let count = devices.len();
        let grads = devices
            .map(|device| device.alloc("gradients", device.layout.params()))
            .collect::<Result<_, _>>()?;
        let ordinals: Vec<c_int> = (0..count as c_int).collect();
        let mut comms = vec![std::ptr::null_mut(); count];
        // SAFETY: both arrays have `count` items, each device once.
        let status =
            unsafe { (nccl.comm_init_all)(comms.as_mut_ptr(), count as c_int, ordinals.as_ptr()) };
        check("ncclCommInitAll", status)?;
        let mut all_reduce = Self { nccl, comms, grads };
        // NCCL connects the devices at the first sum: better here, of zeros, than during a capture.
        all_reduce.run()?;
        Ok(all_reduce)
    }

    /// Each device's `grads` become the sum of all, in the order of its stream; during capture, in its graph.
    ///
    /// NCCL chooses the order of the sum by the number of devices and their connections. It is the same each time, and
    /// every device gets the same bits.
    pub fn run(&mut self) -> Result<(), Error> {
        // SAFETY: a group without conditions. One thread calls for all devices, so without it the first would wait.
        check("ncclGroupStart", unsafe { (self.nccl.group_start)() })?;
        let mut pairs = self.comms.iter().zip(&mut self.grads);
        let reduced = pairs.try_for_each(|(&comm, grads)| {
            let (stream, count) = (grads.stream().clone(), grads.len());
            let (grads, _) = grads.device_ptr_mut(&stream);
            // SAFETY: `count` floats at `grads`, on the device of the communicator and of the stream; in place is
            // allowed.
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
        // Ended in any case, so that the next group is not part of this one.
        // SAFETY: a group was started.
        let ended = check("ncclGroupEnd", unsafe { (self.nccl.group_end)() });
        reduced.and(ended)
    }
}

impl Drop for AllReduce {
    fn drop(&mut self) {
        for &comm in &self.comms {
            // Not ncclCommDestroy, which waits for a sum that a failed device will never join. A failure has no consequence.
            // SAFETY: `new` made each communicator, and this ends it once. The graphs that use them are already gone, because
            // `Engine` declares its replicas before this.
            let _ = unsafe { (self.nccl.comm_abort)(comm) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cudarc::nccl::sys::ncclResult_t;

    /// The last is one that no version has.
    #[test]
    fn every_status_has_a_name_or_its_number() {
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
