//! The forward pass: the order of the kernels, nothing else.

use crate::arch::{C1, C2, CLASSES, FC1, FC2, FLAT, Image, Logits, POOL1_SIDE, POOL2_SIDE, Params};
use crate::ops::{conv_pool_sigmoid, linear, sigmoid_in_place};
use bytemuck::{Pod, Zeroable};

/// What the layers compute for one image: the only memory the forward pass needs besides its stack.
///
/// Left as [`forward`] wrote it, so that two machines can be compared layer by layer.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Activations {
    /// After conv1, pool and sigmoid, `(C1, POOL1_SIDE, POOL1_SIDE)`.
    pub pool1: [[[f32; POOL1_SIDE]; POOL1_SIDE]; C1],
    /// After conv2, pool and sigmoid, `(C2, POOL2_SIDE, POOL2_SIDE)`.
    pub pool2: [[[f32; POOL2_SIDE]; POOL2_SIDE]; C2],
    /// After fc1 and sigmoid.
    pub fc1: [f32; FC1],
    /// After fc2 and sigmoid.
    pub fc2: [f32; FC2],
    /// Of fc3.
    pub logits: Logits,
}

impl Activations {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            pool1: [[[0.0; POOL1_SIDE]; POOL1_SIDE]; C1],
            pool2: [[[0.0; POOL2_SIDE]; POOL2_SIDE]; C2],
            fc1: [0.0; FC1],
            fc2: [0.0; FC2],
            logits: [0.0; CLASSES],
        }
    }

    /// What the layers computed, in order: the name of the layer and its outputs.
    pub fn layers(&self) -> [(&'static str, &[f32]); LAYERS_KEPT] {
        [
            ("pool1", self.pool1.as_flattened().as_flattened()),
            ("pool2", self.pool2.as_flattened().as_flattened()),
            ("fc1", &self.fc1),
            ("fc2", &self.fc2),
            ("fc3", &self.logits),
        ]
    }
}

/// Layers whose outputs are kept: all but the convolutions, which go straight into the pool.
pub const LAYERS_KEPT: usize = 5;

impl Default for Activations {
    fn default() -> Self {
        Self::new()
    }
}

/// Computes the logits of one image.
///
/// # Cost
/// 281,640 multiply-adds; memory: [`Activations`] (5,336 bytes) and a stack of 204 bytes, by painting, on a Cortex-M4F.
///
/// Instructions there, exact (QEMU 7.2, `mps2-an386`, `-icount`; rustc 1.95, opt-level 3, fat LTO, `thumbv7em-none-eabihf`
/// with and without `target-cpu=cortex-m4`), and cycles, estimated by an in-order model without wait states, never
/// measured on silicon (a load 2, or 1 after another; VMLA 3; VMUL, VADD 1, and one more where the next instruction
/// uses the result; VDIV 14; a branch 2 or 3):
///
/// | | default | `cortex-m4` |
/// |---|---|---|
/// | conv1, pool1, sigmoid | 173,566 | 254,189 |
/// | conv2, pool2, sigmoid | 240,542 | 383,137 |
/// | fc1 | 76,749 | 104,542 |
/// | sigmoid | 6,076 | 6,351 |
/// | fc2 | 25,414 | 33,694 |
/// | sigmoid | 4,249 | 4,443 |
/// | fc3 | 3,027 | 3,742 |
/// | **all** | **529,649** | **789,677** |
/// | cycles, estimated | 1.26 M | 1.10 M |
///
/// By default the compiler multiplies and adds by VMLA, one instruction that rounds twice; for `cortex-m4` it takes VMUL
/// and VADD, which gives the same bits.
///
/// # Numerics
/// The same bits on every target; each kernel states its order of sums.
#[cfg_attr(not(target_arch = "arm"), inline(always))]
pub fn forward<'a>(params: &Params, image: &Image, act: &'a mut Activations) -> &'a Logits {
    conv_pool_sigmoid(
        image,
        &params.conv1_weight,
        &params.conv1_bias,
        &mut act.pool1,
    );
    conv_pool_sigmoid(
        &act.pool1,
        &params.conv2_weight,
        &params.conv2_bias,
        &mut act.pool2,
    );
    let flat: &[f32; FLAT] = bytemuck::must_cast_ref(&act.pool2);
    linear(flat, &params.fc1_weight, &params.fc1_bias, &mut act.fc1);
    sigmoid_in_place(&mut act.fc1);
    linear(&act.fc1, &params.fc2_weight, &params.fc2_bias, &mut act.fc2);
    sigmoid_in_place(&mut act.fc2);
    linear(
        &act.fc2,
        &params.fc3_weight,
        &params.fc3_bias,
        &mut act.logits,
    );
    &act.logits
}

/// The class with the largest logit; of equal ones the first. NaN never wins, unless all are.
pub fn argmax(logits: &Logits) -> usize {
    let mut best = 0;
    let mut largest = f32::NEG_INFINITY;
    for (class, &logit) in logits.iter().enumerate() {
        if logit > largest {
            (best, largest) = (class, logit);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(
            argmax(&[0.0, 2.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]),
            1
        );
        assert_eq!(argmax(&[-1.0; 10]), 0);
    }

    #[test]
    fn argmax_ignores_nan() {
        let mut logits = [f32::NAN; 10];
        assert_eq!(argmax(&logits), 0);
        logits[7] = -3.0;
        assert_eq!(argmax(&logits), 7);
    }

    #[test]
    fn layers_are_all_there_is() {
        let act = Activations::new();
        let values: usize = act.layers().iter().map(|(_, values)| values.len()).sum();
        assert_eq!(values * size_of::<f32>(), size_of::<Activations>());
    }

    #[test]
    fn zero_parameters_give_zero_logits() {
        let params: &Params = &Params::zeroed();
        let image = [[[0.5; 28]; 28]; 1];
        assert_eq!(forward(params, &image, &mut Activations::new()), &[0.0; 10]);
    }
}
