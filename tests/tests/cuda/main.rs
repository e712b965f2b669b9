//! CUDA training, proven as far as a machine without a GPU can.
//!
//! | module | compares | needs |
//! |---|---|---|
//! | `ptx` | the PTX in the tree with its source, compiled again; its use of registers with a budget | NVIDIA's compilers |
//! | `executed` | the PTX in the tree, executed by `machine`, with the reference; how much it executes | |
//! | `host` | the kernels, compiled for the host, with the reference and the oracle; under sanitizers, and whether those would notice | g++ |
//! | `driver` | the whole backend over cudarc, on stand-ins for the driver and NCCL, with one device and several, with the CPU backend; each network that is shipped with the reference; what happens when a call fails | g++ |
//! | `gpu`, `gpus` | the same on a GPU; on two | GPUs |
//!
//! What the machine may lack is ignored, with the reason; `cargo test -p lenet-tests --test cuda host:: -- --ignored`
//! runs a module's tests.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use lenet_core::Network;
use lenet_core::ops::argmax;
use lenet_tests::networks::Case;
use rand_chacha::rand_core::Rng;
use std::path::{Path, PathBuf};
use std::process::Command;
use trainer::cuda::Layout;
use trainer::dataset::generator;

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

/// Writes the source of a network's kernels into a file of a test's own.
fn write_source<N: Network>(test: &str) -> PathBuf {
    let path = scratch(&format!("{test}-{}.cu", N::NAME));
    std::fs::write(&path, Layout::of::<N>().source()).unwrap();
    path
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

/// Images of random pixels with random labels.
struct Random<N: Network> {
    pixels: Vec<N::Pixels>,
    labels: Vec<u8>,
}

/// What the reference makes of a batch.
struct Expected {
    /// The mean over the images.
    loss: f64,
    correct: u32,
    grads: Vec<f32>,
}

impl<N: Case> Random<N> {
    fn new(count: usize) -> Self {
        let mut rng = generator(count as u64, 9);
        let classes = Layout::of::<N>().classes() as u32;
        let pixels = (0..count).map(|_| {
            let mut pixels: N::Pixels = bytemuck::Zeroable::zeroed();
            rng.fill_bytes(bytemuck::bytes_of_mut(&mut pixels));
            pixels
        });
        let pixels = pixels.collect();
        let labels = (0..count).map(|_| (rng.next_u32() % classes) as u8);
        Self {
            pixels,
            labels: labels.collect(),
        }
    }

    /// The gradient of the mean loss of some of the images, which are changed before they are seen.
    fn expected(
        &self,
        params: &[f32],
        batch: &[usize],
        change: impl Fn(usize, &N::Pixels) -> N::Pixels,
    ) -> Expected {
        let params = &boxed::<N>(params);
        let mut grads: Box<N::Params> = bytemuck::zeroed_box();
        let (mut loss, mut correct) = (0.0, 0);
        for &index in batch {
            let (image, label) = (
                seen::<N>(&change(index, &self.pixels[index])),
                self.labels[index],
            );
            let scale = 1.0 / batch.len() as f32;
            loss += f64::from(N::gradient(params, &image, label, scale, &mut grads));
            correct += u32::from(argmax(&logits::<N>(params, &image)) == usize::from(label));
        }
        Expected {
            loss: loss / batch.len() as f64,
            correct,
            grads: bytemuck::pod_collect_to_vec(std::slice::from_ref(&*grads)),
        }
    }
}

/// Parameters of the size that PyTorch's initialisation gives them.
fn params<N: Network>(seed: u64) -> Vec<f32> {
    let mut rng = generator(seed, 0);
    let mut params = Vec::new();
    for [weight, bias] in N::TENSORS.as_chunks().0 {
        let inputs = weight.dims()[1..].iter().product::<usize>() as f32;
        params.extend((0..weight.len() + bias.len()).map(|_| {
            let unit = (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0;
            unit / inputs.sqrt()
        }));
    }
    params
}

fn boxed<N: Network>(params: &[f32]) -> Box<N::Params> {
    let mut boxed: Box<N::Params> = bytemuck::zeroed_box();
    bytemuck::cast_slice_mut(std::slice::from_mut(&mut *boxed)).copy_from_slice(params);
    boxed
}

/// An image as the network sees it.
fn seen<N: Network>(pixels: &N::Pixels) -> Box<N::Image> {
    let mut image: Box<N::Image> = bytemuck::zeroed_box();
    N::write_image(pixels, &mut image);
    image
}

fn logits<N: Network>(params: &N::Params, image: &N::Image) -> Vec<f32> {
    let mut act: Box<N::Activations> = bytemuck::zeroed_box();
    N::forward(params, image, &mut act).as_ref().to_vec()
}

/// Compares a gradient with the reference's, tensor by tensor.
fn assert_gradient<N: Network>(found: &[f32], expected: &[f32]) {
    use lenet_tests::tolerance::GRADIENT;
    assert_eq!(found.len(), expected.len());
    for tensor in N::TENSORS {
        let values = tensor.offset..tensor.offset + tensor.len();
        let largest = expected[values.clone()]
            .iter()
            .fold(0.0f32, |a, b| a.max(b.abs()));
        let limit = GRADIENT * f64::from(largest) + 1e-9;
        for i in values.clone() {
            let error = f64::from(found[i] - expected[i]).abs();
            assert!(
                error <= limit,
                "{} {}[{}]: off by {error}, limit {limit}",
                N::NAME,
                tensor.name,
                i - values.start
            );
        }
    }
}
