//! Networks for unit tests: the shipped ones, and one of three channels without padding.

#![allow(missing_docs)]

macro_rules! network {
    ($($description:tt)*) => { lenet_core::network! { $($description)* } };
}

#[path = "../../lenet-core/networks/color.rs"]
pub mod color;
#[path = "../../lenet-core/networks/lenet.rs"]
pub mod lenet;
#[path = "../../lenet-core/networks/lenet-d2l.rs"]
pub mod lenet_d2l;
#[path = "../../lenet-core/networks/relu.rs"]
pub mod relu;
#[path = "../../lenet-core/networks/tiny.rs"]
pub mod tiny;

pub mod rgb {
    network! {
        name: "rgb",
        input: [3, 10, 8],
        conv1: conv2d { maps: 4, kernel: 3, activation: Tanh, pool: Average(2) },
        fc1: linear { outputs: 5, activation: Relu },
        fc2: linear { outputs: 3 },
    }
}

pub mod flat_net {
    network! {
        name: "flat",
        input: [3, 4, 5],
        fc1: linear { outputs: 6, activation: Sigmoid },
        fc2: linear { outputs: 6, activation: Sigmoid },
        fc3: linear { outputs: 6, activation: Sigmoid },
        fc4: linear { outputs: 2 },
    }
}

use bytemuck::zeroed_box;
use lenet_core::Network;

/// Returns parameters that are all different, of the size that PyTorch's initialization gives them.
pub fn params<N: Network>() -> Box<N::Params> {
    let mut params: Box<N::Params> = zeroed_box();
    let flat: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *params));
    for tensor in N::TENSORS {
        let inputs = tensor.dims()[1..].iter().product::<usize>().max(1) as f32;
        for (i, value) in flat[tensor.offset..][..tensor.len()].iter_mut().enumerate() {
            // Multiples of 2^-11 below 1, so that f16 has them exactly, times a power of two.
            let steps = ((i * 7919 + tensor.offset * 31 + 13) % 2047) as f32 - 1023.0;
            *value = steps / 1024.0 / inputs.sqrt().log2().ceil().exp2();
        }
    }
    params
}

/// Returns all parameters as one slice.
pub fn flat<P: bytemuck::Pod>(params: &P) -> &[f32] {
    bytemuck::cast_slice(std::slice::from_ref(params))
}

/// Returns the logits of an image whose values are `value` of their channel and index.
pub fn logits<N: Network>(params: &N::Params, value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let mut image: Box<N::Image> = zeroed_box();
    let [channels, h, w] = N::LAYERS[0].input;
    let pixels: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *image));
    for (i, pixel) in pixels.iter_mut().enumerate() {
        *pixel = value(i / (h * w), i);
    }
    assert_eq!(pixels.len(), channels * h * w);
    let mut act: Box<N::Activations> = zeroed_box();
    N::forward(params, &image, &mut act).as_ref().to_vec()
}

/// Returns a pixel of an image for tests, in 0..=1.
pub fn pixel(i: usize) -> f32 {
    (i * 37 % 256) as f32 / 255.0
}

/// Asserts that logits are equal up to rounding.
pub fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len());
    let scale = expected
        .iter()
        .fold(1.0_f32, |max, value| max.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= 2e-5 * scale,
            "{what}: {found} {expected}"
        );
    }
    // If all logits were the same, a mistake could go unnoticed.
    assert!(
        expected
            .iter()
            .any(|value| (value - expected[0]).abs() > 1e-3),
        "{what}"
    );
}
