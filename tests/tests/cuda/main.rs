//! CUDA training, proven as far as a machine without a GPU can.
//!
//! | module | compares | needs |
//! |---|---|---|
//! | `ptx` | the PTX in the tree with its source, compiled again; its use of registers with a budget | NVIDIA's compilers |
//! | `executed` | the PTX in the tree, executed by `machine`, with the reference backend; how much it executes | |
//! | `host` | the kernels, compiled for the host, with the reference backend and the oracle; under sanitizers, and whether those would notice | g++ |
//! | `driver` | the whole backend over cudarc, on stand-ins for the driver and NCCL, with one device and several, with the CPU backend; what happens when a call fails | g++ |
//! | `gpu`, `gpus` | the same on a GPU; on two | GPUs |
//!
//! What the machine may lack is ignored, with the reason; `cargo test -p lenet-tests --test cuda host:: -- --ignored`
//! runs a module's tests.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::path::{Path, PathBuf};
use std::process::Command;
use trainer::cuda::definitions;

mod driver;
mod executed;
mod gpu;
mod gpus;
mod host;
mod machine;
mod ptx;

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A file of a test's own.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Compiles a file of cuda-host with the kernels of `step_cu` into `output`.
fn compile(source: &str, step_cu: &Path, options: &[&str], output: &Path) {
    let host = |name| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("cuda-host")
            .join(name)
    };
    let result = Command::new("g++")
        .args([
            "-std=c++17",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
        ])
        .args(["-g1", "-ffp-contract=off"])
        .args(options)
        .args(
            definitions()
                .iter()
                .map(|definition| format!("-D{definition}")),
        )
        .arg(format!("-DSTEP_CU=\"{}\"", step_cu.display()))
        .arg("-include")
        .arg(host("cuda_host.hpp"))
        .arg(host(source))
        .arg("-o")
        .arg(output)
        .output()
        .expect("g++ starts");
    assert!(
        result.status.success(),
        "g++ {source}: {}",
        String::from_utf8_lossy(&result.stderr)
    );
}
