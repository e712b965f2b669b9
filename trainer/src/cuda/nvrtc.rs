//! Compiles the kernels of a network at run time with NVRTC, NVIDIA's CUDA compiler in the form of a library.
//!
//! The library is opened here because cudarc 0.19 panics if it finds none.

use super::driver::open;
use super::layout::ARCH;
use crate::backend::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};

/// The status that a call returns; 0 is success. It is not an enum, because a newer NVRTC may return other values.
type Status = c_int;
type Program = *mut c_void;

const INSTALL: &str = "Install NVRTC 12 (PyPI: nvidia-cuda-nvrtc-cu12, its folder lib in LD_LIBRARY_PATH; or NVIDIA's CUDA toolkit), or \
                       train with --device cpu";

/// Compiles the kernels of the network `name` to PTX.
///
/// # Errors
/// `Cuda`: there is no NVRTC, or it cannot compile the source.
pub fn compile(name: &str, source: &str) -> Result<String, Error> {
    let missing = |reason: String| Error::Cuda {
        cause: format!(
            "this program has no CUDA kernels for the network {name}, and no NVRTC to compile them: {reason}"
        ),
        remedy: INSTALL,
    };
    let library = open(&cudarc::get_lib_name_candidates("nvrtc")).map_err(missing)?;
    let lacking = |symbol: &str| missing(format!("the library found as NVRTC lacks {symbol}"));
    macro_rules! function {
        ($name:literal: ($($argument:ty),*) -> $result:ty) => {{
            type Function = unsafe extern "C" fn($($argument),*) -> $result;
            // SAFETY: the type is the one in NVRTC's documentation, which is the same in every version.
            *unsafe { library.get::<Function>($name) }.map_err(|_| lacking($name))?
        }};
    }
    let error_string = function!("nvrtcGetErrorString": (Status) -> *const c_char);
    let create = function!(
        "nvrtcCreateProgram":
        (*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> Status
    );
    let compile =
        function!("nvrtcCompileProgram": (Program, c_int, *const *const c_char) -> Status);
    let log_size = function!("nvrtcGetProgramLogSize": (Program, *mut usize) -> Status);
    let log = function!("nvrtcGetProgramLog": (Program, *mut c_char) -> Status);
    let ptx_size = function!("nvrtcGetPTXSize": (Program, *mut usize) -> Status);
    let ptx = function!("nvrtcGetPTX": (Program, *mut c_char) -> Status);
    let destroy = function!("nvrtcDestroyProgram": (*mut Program) -> Status);
    let check = |call: &str, status: Status, log: &str| {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC returns a static string for every status, even for one that it does not know.
        let reason = unsafe { CStr::from_ptr(error_string(status)) };
        let separator = if log.is_empty() { "" } else { ": " };
        Err(Error::Cuda {
            cause: format!(
                "NVRTC cannot compile the CUDA kernels for the network {name}: {call}: {}{separator}{log}",
                reason.to_string_lossy()
            ),
            remedy: INSTALL,
        })
    };

    let text = CString::new(source).expect("the source has no zeros");
    let options = [
        format!("--gpu-architecture={ARCH}"),
        "--std=c++17".to_owned(),
    ]
    .map(|option| CString::new(option).expect("options have no zeros"));
    let options = options.each_ref().map(|option| option.as_ptr());
    let mut program = Destroyed {
        program: null_mut(),
        destroy,
    };
    // SAFETY: both strings outlive the program, which has no headers.
    let created = unsafe {
        create(
            &mut program.program,
            text.as_ptr(),
            c"step.cu".as_ptr(),
            0,
            null(),
            null(),
        )
    };
    check("nvrtcCreateProgram", created, "")?;
    // SAFETY: the program was created, and `options` has the given number of strings.
    let compiled = unsafe { compile(program.program, options.len() as c_int, options.as_ptr()) };
    if compiled != 0 {
        let log = program.text(log_size, log).unwrap_or_default();
        let first = log.lines().find(|line| line.contains("error"));
        check("nvrtcCompileProgram", compiled, first.unwrap_or_default())?;
    }
    program.text(ptx_size, ptx).or_else(|status| {
        check("nvrtcGetPTX", status, "")?;
        Ok(String::new())
    })
}

/// An NVRTC program that is destroyed when it is dropped.
struct Destroyed {
    program: Program,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
}

impl Destroyed {
    /// Returns a text about the program (its log or its PTX), or the status of the call that failed. `size` and `get` are NVRTC's
    /// functions for its length and its bytes.
    fn text(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        get: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<String, Status> {
        let mut len = 0;
        // SAFETY: the program was created, and the function writes the size to the given integer.
        match unsafe { size(self.program, &mut len) } {
            0 => {}
            status => return Err(status),
        }
        let mut text = vec![0_u8; len];
        // SAFETY: the buffer has the `len` bytes that the text needs, including its terminating zero.
        match unsafe { get(self.program, text.as_mut_ptr().cast()) } {
            0 => {}
            status => return Err(status),
        }
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(len);
        Ok(String::from_utf8_lossy(&text[..end]).into_owned())
    }
}

impl Drop for Destroyed {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // Errors are ignored: the program could not be freed, which has no other consequence.
            // SAFETY: NVRTC created this program, and nothing uses it any more.
            let _ = unsafe { (self.destroy)(&mut self.program) };
        }
    }
}
