//! Suggests what to do about an error of the CUDA driver, according to NVIDIA's documentation of `CUresult`.

use cudarc::driver::sys::CUresult;

/// Returns what to do about an error, as a sentence without a full stop.
pub fn remedy(reason: CUresult) -> &'static str {
    use CUresult::*;
    match reason {
        CUDA_ERROR_OUT_OF_MEMORY => {
            "Other programs may hold the device's memory (nvidia-smi lists them); or try a smaller --batch-size, \
             or --device cpu"
        }
        CUDA_ERROR_STUB_LIBRARY => {
            "The library found is the toolkit's stub, not the driver's; take its folder out of LD_LIBRARY_PATH, \
             or train with --device cpu"
        }
        CUDA_ERROR_DEVICE_UNAVAILABLE => {
            "Another program has the device for itself: wait for it (nvidia-smi lists it and the compute mode), choose \
             another device with CUDA_VISIBLE_DEVICES, or train with --device cpu"
        }
        CUDA_ERROR_NO_BINARY_FOR_GPU | CUDA_ERROR_INVALID_PTX => {
            "The kernels need a GPU of compute capability 7.0 or later; train with --device cpu"
        }
        CUDA_ERROR_JIT_COMPILER_NOT_FOUND => {
            "The driver lacks its compiler, libnvidia-ptxjitcompiler.so.1: install the driver's package that has it \
             (Debian: libnvidia-ptxjitcompiler1; in a container let the NVIDIA toolkit add the capability compute), or \
             train with --device cpu"
        }
        CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            "The driver is older than the kernels: update NVIDIA's driver to 525 or later, and where NVRTC compiled them to one \
             as new as NVRTC; or train with --device cpu"
        }
        CUDA_ERROR_JIT_COMPILATION_DISABLED => {
            "The driver may not compile the kernels: unset CUDA_DISABLE_PTX_JIT, or train with --device cpu"
        }
        CUDA_ERROR_SYSTEM_NOT_READY => {
            "GPUs behind an NVSwitch need NVIDIA's fabric manager: start it (systemctl start nvidia-fabricmanager; its \
             version must be the driver's), or train with --device cpu"
        }
        CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "The driver's library and its kernel module have different versions, as after an update: reboot, or train \
             with --device cpu"
        }
        CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "The library found is of CUDA's forward compatibility package, which this GPU does not support: take its \
             folder (.../compat) out of LD_LIBRARY_PATH, or train with --device cpu"
        }
        CUDA_ERROR_MPS_CONNECTION_FAILED
        | CUDA_ERROR_MPS_RPC_FAILURE
        | CUDA_ERROR_MPS_SERVER_NOT_READY
        | CUDA_ERROR_MPS_MAX_CLIENTS_REACHED
        | CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED
        | CUDA_ERROR_MPS_CLIENT_TERMINATED => {
            "NVIDIA's multi-process service (MPS) refuses: see its log, or unset CUDA_MPS_PIPE_DIRECTORY to go without \
             it; or train with --device cpu"
        }
        CUDA_ERROR_ECC_UNCORRECTABLE
        | CUDA_ERROR_NVLINK_UNCORRECTABLE
        | CUDA_ERROR_HARDWARE_STACK_ERROR => {
            "The device reports a fault of the hardware: nvidia-smi -q and the system's log have more; reset it or \
             reboot, or train with --device cpu"
        }
        CUDA_ERROR_LAUNCH_TIMEOUT => {
            "The device also drives a display, which does not let a kernel run for long: try a smaller --batch-size, or \
             --device cpu"
        }
        CUDA_ERROR_OPERATING_SYSTEM | CUDA_ERROR_NOT_PERMITTED => {
            "The operating system refuses the device: may you use /dev/nvidia*, and does a container or batch system \
             give you the GPU? Else train with --device cpu"
        }
        CUDA_ERROR_UNKNOWN => {
            "Often the kernel module nvidia-uvm is missing or stale, as after a suspend: load it again (modprobe -r \
             nvidia-uvm; modprobe nvidia-uvm) or reboot, or train with --device cpu"
        }
        _ => "Try --device cpu; nvidia-smi shows the device's state",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks each remedy by words that no other one contains.
    #[test]
    fn each_error_has_its_own_remedy() {
        use CUresult::*;
        let cases = [
            (CUDA_ERROR_OUT_OF_MEMORY, 2, "smaller --batch-size"),
            (CUDA_ERROR_STUB_LIBRARY, 34, "stub"),
            (CUDA_ERROR_DEVICE_UNAVAILABLE, 46, "compute mode"),
            (CUDA_ERROR_NO_BINARY_FOR_GPU, 209, "compute capability 7.0"),
            (CUDA_ERROR_INVALID_PTX, 218, "compute capability 7.0"),
            (CUDA_ERROR_JIT_COMPILER_NOT_FOUND, 221, "ptxjitcompiler"),
            (
                CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
                222,
                "update NVIDIA's driver",
            ),
            (
                CUDA_ERROR_JIT_COMPILATION_DISABLED,
                223,
                "CUDA_DISABLE_PTX_JIT",
            ),
            (CUDA_ERROR_OPERATING_SYSTEM, 304, "/dev/nvidia"),
            (CUDA_ERROR_LAUNCH_TIMEOUT, 702, "display"),
            (CUDA_ERROR_LAUNCH_FAILED, 719, "nvidia-smi shows"),
            (CUDA_ERROR_SYSTEM_NOT_READY, 802, "nvidia-fabricmanager"),
            (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, 803, "reboot"),
            (CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE, 804, "compat"),
            (CUDA_ERROR_MPS_SERVER_NOT_READY, 807, "MPS"),
            (CUDA_ERROR_UNKNOWN, 999, "nvidia-uvm"),
        ];
        for (reason, number, words) in cases {
            assert_eq!(reason as u32, number);
            let found = remedy(reason);
            assert!(found.contains(words), "{reason:?}: {found}");
            assert!(found.contains("--device cpu"), "{reason:?}: {found}");
        }
    }
}
