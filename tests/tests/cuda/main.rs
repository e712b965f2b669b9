//! Tests training with CUDA as far as possible on a machine without a GPU.
//!
//! | module | test | needs |
//! |---|---|---|
//! | `ptx` | compiles the kernels and compares the result with the PTX files in the repository; limits the use of registers | NVIDIA's compilers |
//! | `executed` | executes the PTX files by an interpreter (`machine`), compares the results with the reference backend, and counts instructions | |
//! | `host` | compiles the kernels for the host, compares them with the reference and the oracle, and runs them under sanitizers | g++ |
//! | `driver` | runs the whole backend with stand-ins for the CUDA driver and NCCL, on one device and several, compares it with the CPU and the reference backend, and lets each call fail | g++ |
//! | `gpu`, `gpus` | run the backend on one GPU and on two | GPUs |
//!
//! Tests that need more than the machine may have are ignored by default, with a reason.
//! `cargo test --test cuda host:: -- --ignored` runs those of a module.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use lenet_core::Network;
use lenet_core::ops::argmax;
use lenet_test_support::networks::Case;
use rand_chacha::rand_core::Rng;
use std::path::{Path, PathBuf};
use std::process::Command;
use trainer::cuda::Layout;
use trainer::dataset::{Split, generator};

mod driver;
mod executed;
mod gpu;
mod gpus;
mod host;
mod ptx;

/// Returns the first `len` images of a split.
fn first(split: &Split, len: usize) -> Split {
    Split::new(
        bytemuck::cast_slice(&split.images()[..len]).to_vec(),
        split.labels()[..len].to_vec(),
    )
}

/// Returns the path of a file in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Returns the path of a temporary file.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Writes the source of a network's kernels to a temporary file for one test.
fn write_source<N: Network>(test: &str) -> PathBuf {
    let path = scratch(&format!("{test}-{}.cu", N::NAME));
    std::fs::write(&path, Layout::of::<N>().source()).unwrap();
    path
}

/// Compiles a source file in cuda-host, together with the kernels in `step_cu`, to `output`.
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

/// Images with random pixels and random labels.
struct Random<N: Network> {
    pixels: Vec<N::Pixels>,
    labels: Vec<u8>,
}

/// The results of the reference backend for a batch.
struct Expected {
    /// The mean loss over the images.
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

    /// Computes the gradient of the mean loss over some of the images, after applying `change` to each.
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

/// Returns random parameters of the magnitude of PyTorch's initialisation.
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

/// Converts an image to the input of the network.
fn seen<N: Network>(pixels: &N::Pixels) -> Box<N::Image> {
    let mut image: Box<N::Image> = bytemuck::zeroed_box();
    N::write_image(pixels, &mut image);
    image
}

fn logits<N: Network>(params: &N::Params, image: &N::Image) -> Vec<f32> {
    let mut act: Box<N::Activations> = bytemuck::zeroed_box();
    N::forward(params, image, &mut act).as_ref().to_vec()
}

/// Compares a gradient with that of the reference, tensor by tensor.
fn assert_gradient<N: Network>(found: &[f32], expected: &[f32]) {
    use lenet_test_support::tolerance::GRADIENT;
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
