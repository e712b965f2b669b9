//! `lenet_core::network::forward` with the vectors of this CPU: the same code, compiled once more, and the same bits.
//!
//! `lenet_core` is compiled for any CPU of the architecture and, without `unsafe`, cannot call what is not. On hosts its
//! kernels are inlined, so here they become part of a function that has AVX2: registers of eight lanes for four. Without
//! FMA among its features there is nothing to fuse a product and a sum with.

use lenet_core::network::{self, Activations, Image, Logits, Params, Pixels, int8};

/// [`network::forward`], with AVX2 if the CPU has it.
pub fn forward<'a>(params: &Params, image: &Image, act: &'a mut Activations) -> &'a Logits {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has the feature, as the line above has seen.
        return unsafe { forward_avx2(params, image, act) };
    }
    network::forward(params, image, act)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn forward_avx2<'a>(params: &Params, image: &Image, act: &'a mut Activations) -> &'a Logits {
    network::forward(params, image, act)
}

/// [`int8::forward`], with AVX2 if the CPU has it.
pub fn forward_int8<'a>(
    params: &int8::Params,
    pixels: &Pixels,
    act: &'a mut int8::Activations,
) -> &'a Logits {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has the feature, as the line above has seen.
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
