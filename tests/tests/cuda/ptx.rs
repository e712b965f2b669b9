//! The PTX in the tree.
//!
//! NVRTC 12.0 (PyPI: nvidia-cuda-nvrtc-cu12==12.0.140) writes PTX 8.0, which every driver since 525 reads. Its folder
//! belongs in LD_LIBRARY_PATH; ptxas (nvidia-cuda-nvcc-cu12) in PATH.

use super::{repository, scratch};
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use std::process::Command;
use trainer::cuda::{ARCH, PTX, definitions};

/// To write it anew: `LENET_WRITE_PTX=1 cargo test -p lenet-tests --test cuda ptx::source -- --ignored`.
#[test]
#[ignore = "needs NVRTC 12.0"]
fn source_compiles_to_the_ptx_in_the_tree() {
    let options = CompileOptions {
        arch: Some(ARCH),
        name: Some("step.cu".to_owned()),
        options: [
            vec!["--std=c++17".to_owned()],
            definitions().iter().map(|d| format!("-D{d}")).collect(),
        ]
        .concat(),
        ..Default::default()
    };
    let source = std::fs::read_to_string(repository("trainer/src/cuda/step.cu")).unwrap();
    let ptx = match compile_ptx_with_opts(source, options) {
        Ok(ptx) => ptx.to_src(),
        Err(error) => panic!("{error}"),
    };
    if std::env::var_os("LENET_WRITE_PTX").is_some() {
        std::fs::write(repository("trainer/src/cuda/step.ptx"), ptx).unwrap();
        return;
    }
    let first_difference = ptx
        .lines()
        .zip(PTX.lines())
        .position(|(new, tree)| new != tree);
    assert!(
        ptx == PTX,
        "step.ptx is not what step.cu compiles to, from line {first_difference:?} on; write it anew"
    );
}

#[test]
fn ptx_is_of_an_old_version_and_architecture() {
    // 8.0 is CUDA 12.0's; a driver refuses what is newer than itself.
    assert!(
        PTX.contains("\n.version 8.0\n.target sm_70\n"),
        "{}",
        &PTX[..300]
    );
}

/// Registers for 512 threads, and static shared memory, within what every GPU from sm_75 on has; nothing spilled.
#[test]
#[ignore = "needs ptxas"]
fn kernels_fit_without_spills() {
    for arch in ["sm_75", "sm_80", "sm_90"] {
        let output = Command::new("ptxas")
            .args(["-v", &format!("-arch={arch}")])
            .arg(repository("trainer/src/cuda/step.ptx"))
            .arg("-o")
            .arg(scratch(arch))
            .output()
            .expect("ptxas starts");
        let report = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{report}");
        let kernels: Vec<&str> = report.split("Compiling entry function '").skip(1).collect();
        assert_eq!(kernels.len(), 6, "{report}");
        for kernel in kernels {
            let (name, _) = kernel.split_once('\'').unwrap();
            // What ptxas does not mention is none.
            let before = |unit: &str| -> u32 {
                let number = kernel.split_once(unit).map_or("0", |(number, _)| number);
                number.rsplit([' ', ',']).next().unwrap().parse().unwrap()
            };
            assert!(kernel.contains(" registers") && kernel.contains(" bytes stack frame"));
            let (registers, shared) = (before(" registers"), before(" bytes smem"));
            println!("{arch} {name}: {registers} registers, {shared} bytes shared");
            assert_eq!(
                (before(" bytes stack frame"), before(" bytes spill stores")),
                (0, 0),
                "{kernel}"
            );
            let (most_registers, most_shared) = match name {
                // One block of 512 threads a multiprocessor: 128 registers are free.
                "gradients" | "logits" => (128, 48 << 10),
                // Two blocks a multiprocessor, so that one's loads overlap the other's update.
                _ => (64, 16 << 10),
            };
            assert!(
                registers <= most_registers && shared <= most_shared,
                "{kernel}"
            );
        }
    }
}
