//! Checks the PTX files in the repository.
//!
//! They are written by NVRTC 12.0 (PyPI: nvidia-cuda-nvrtc-cu12==12.0.140), whose PTX 8.0 every driver since 525 can read. To run
//! these tests, put the folder of NVRTC into LD_LIBRARY_PATH, and that of ptxas (nvidia-cuda-nvcc-cu12) into PATH.

use super::{repository, scratch};
use lenet_core::Network;
use lenet_test_support::for_each_shipped_network;
use lenet_test_support::networks::{color, deep, lenet, lenet_d2l, relu, tiny};
use std::process::Command;
use trainer::cuda::{Kernels, Layout, SHARED_BYTES, SHIPPED, shipped};

/// To write the PTX files of all networks again, run `LENET_WRITE_PTX=1 cargo test --test cuda ptx::source -- --ignored`.
#[test]
#[ignore = "needs NVRTC 12.0"]
fn source_compiles_to_the_ptx_in_the_tree() {
    let networks = [
        compiled::<lenet::Net>(),
        compiled::<lenet_d2l::Net>(),
        compiled::<relu::Net>(),
        compiled::<color::Net>(),
        compiled::<tiny::Net>(),
    ];
    assert_eq!(networks.len(), SHIPPED.len());
    for ((name, ptx), (shipped_name, in_tree)) in networks.into_iter().zip(SHIPPED) {
        assert_eq!(name, shipped_name);
        if std::env::var_os("LENET_WRITE_PTX").is_some() {
            let path = repository("trainer/src/cuda/ptx").join(format!("{name}.ptx"));
            std::fs::write(path, ptx).unwrap();
            continue;
        }
        let mut lines = ptx.lines().zip(in_tree.lines());
        let first_difference = lines
            .position(|(new, tree)| new != tree)
            .map(|line| line + 1);
        assert!(
            ptx == in_tree,
            "{name}.ptx is not what its source compiles to, from line {first_difference:?} on; write it again"
        );
    }
}

fn compiled<N: Network>() -> (&'static str, String) {
    let kernels = Kernels::compiled::<N>().unwrap_or_else(|error| panic!("{error}"));
    (N::NAME, kernels.ptx().to_owned())
}

/// The PTX file of a network is found by its fingerprint, so kernels that were compiled before a description changed are not
/// used. The kernels of a network without a file are compiled, if there is NVRTC.
#[test]
fn each_network_finds_its_own_kernels() {
    fn find<N: Network>() {
        let ptx = shipped(N::FINGERPRINT);
        let expected = SHIPPED.iter().find(|(name, _)| *name == N::NAME);
        assert_eq!(
            ptx,
            expected.map(|(_, ptx)| *ptx),
            "{}: write the PTX again",
            N::NAME
        );
        assert_eq!(Some(Kernels::of::<N>().unwrap().ptx()), ptx);
    }
    for_each_shipped_network!(find);
    assert_eq!(shipped(deep::FINGERPRINT), None);
    match Kernels::of::<deep::Net>() {
        Ok(kernels) => assert!(kernels.ptx().contains(".visible .entry gradients(")),
        Err(error) => {
            let start = "this program has no CUDA kernels for the network deep, and no NVRTC to compile them: ";
            let error = error.to_string();
            assert!(error.starts_with(start), "{error}");
            assert!(error.ends_with(
                ". Install NVRTC 12 (PyPI: nvidia-cuda-nvrtc-cu12, its folder lib in LD_LIBRARY_PATH; or NVIDIA's CUDA \
                 toolkit), or train with --device cpu"
            ));
        }
    }
}

#[test]
fn ptx_has_an_old_version_and_architecture_and_is_small() {
    for (name, ptx) in SHIPPED {
        // PTX 8.0 belongs to CUDA 12.0. A driver rejects PTX that is newer than itself.
        assert!(ptx.contains("\n.version 8.0\n.target sm_70\n"), "{name}");
    }
    let bytes: usize = SHIPPED.iter().map(|(_, ptx)| ptx.len()).sum();
    assert!(bytes < 2_000_000, "{bytes}");
}

/// Blocks of 512 threads must not need more registers and shared memory than GPUs have, and no register may be spilled to memory.
#[test]
#[ignore = "needs ptxas"]
fn kernels_fit_without_spills() {
    for_each_shipped_network!(fit);
}

fn fit<N: Network>() {
    let (layout, network) = (Layout::of::<N>(), N::NAME);
    // Every GPU has 48 KiB; `color` needs a GPU that offers a block 96 KiB.
    let most_at_launch = match network {
        "color" => 96 << 10,
        _ => SHARED_BYTES,
    };
    for arch in ["sm_75", "sm_80", "sm_90"] {
        let output = Command::new("ptxas")
            .args(["-v", &format!("-arch={arch}")])
            .arg(repository(&format!("trainer/src/cuda/ptx/{network}.ptx")))
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
            // A quantity that ptxas does not mention is 0.
            let before = |unit: &str| -> usize {
                let number = kernel.split_once(unit).map_or("0", |(number, _)| number);
                number.rsplit([' ', ',']).next().unwrap().parse().unwrap()
            };
            assert!(kernel.contains(" registers") && kernel.contains(" bytes stack frame"));
            let (registers, declared) = (before(" registers"), before(" bytes smem"));
            let at_launch = match name {
                "logits" => layout.logits_bytes(),
                "gradients" => layout.gradients_bytes(),
                _ => 0,
            };
            println!(
                "{network} {arch} {name}: {registers} registers, {} bytes shared",
                declared + at_launch
            );
            assert_eq!(
                (before(" bytes stack frame"), before(" bytes spill stores")),
                (0, 0),
                "{network} {kernel}"
            );
            let (most_registers, most_declared) = match name {
                // With one block of 512 threads per multiprocessor, each thread can have 128 registers.
                "gradients" | "logits" => (128, 0),
                // Two blocks must fit on a multiprocessor, so that the loads of one overlap with the update of the other.
                _ => (64, 16 << 10),
            };
            assert!(
                registers <= most_registers
                    && declared <= most_declared
                    && at_launch <= most_at_launch,
                "{network} {kernel}"
            );
        }
    }
}
