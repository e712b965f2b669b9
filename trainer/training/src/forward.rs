//! Compiles `lenet_core::network::forward` once more, for CPUs with AVX2. The code is the same, and gives the same bits.
//!
//! `lenet_core` is compiled for any CPU of the architecture and contains no `unsafe` code, so it cannot choose faster
//! instructions at run time. On hosts, its kernels are inlined. Here they are inlined into a function with the target feature
//! AVX2, so they use registers of eight lanes instead of four. The feature FMA is left out, so that the compiler cannot fuse a
//! multiplication and an addition, which would change the bits.

use lenet_core::image::grey;
use lenet_core::network::{self, Activations, Image, Logits, Params, Pixels, int8};
use rayon::prelude::*;

/// Calls [`network::forward`], compiled for AVX2 if the CPU supports it.
pub fn forward<'a>(params: &Params, image: &Image, act: &'a mut Activations) -> &'a Logits {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the line above has checked that the CPU supports AVX2.
        return unsafe { forward_avx2(params, image, act) };
    }
    network::forward(params, image, act)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn forward_avx2<'a>(params: &Params, image: &Image, act: &'a mut Activations) -> &'a Logits {
    network::forward(params, image, act)
}

/// Calls [`int8::forward`], compiled for AVX2 if the CPU supports it.
pub fn forward_int8<'a>(
    params: &int8::Params,
    pixels: &Pixels,
    act: &'a mut int8::Activations,
) -> &'a Logits {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the line above has checked that the CPU supports AVX2.
        return unsafe { forward_int8_avx2(params, pixels, act) };
    }
    int8::forward(params, pixels, act)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn forward_int8_avx2<'a>(
    params: &int8::Params,
    pixels: &Pixels,
    act: &'a mut int8::Activations,
) -> &'a Logits {
    int8::forward(params, pixels, act)
}

/// Computes the outputs of all layers for an image.
pub fn layers(params: &Params, pixels: &Pixels) -> Vec<Vec<f32>> {
    let mut act = Activations::new();
    forward(params, &grey(pixels), &mut act);
    act.layers().map(<[f32]>::to_vec).into()
}

/// Computes the logits of images with the code that a board runs. The threads share the images.
pub fn core_logits(params: &Params, images: &[Pixels]) -> Vec<Logits> {
    images
        .par_iter()
        .map_init(Activations::new, |act, pixels| {
            *forward(params, &grey(pixels), act)
        })
        .collect()
}

/// Computes the logits of images with the int8 network that a board runs. The threads share the images.
pub fn int8_logits(params: &int8::Params, images: &[Pixels]) -> Vec<Logits> {
    images
        .par_iter()
        .map_init(int8::Activations::new, |act, pixels| {
            *forward_int8(params, pixels, act)
        })
        .collect()
}
