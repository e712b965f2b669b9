//! The forward pass, built from the fused kernel and the blocked linear layer, against the plain kernels in turn; and the
//! trainer's, which is the same code with the vectors of this CPU.

use lenet_core::image::grey;
use lenet_core::network::{self, Activations, Image, NUM_PARAMS, Params, Pixels};
use lenet_core::ops::{conv2d, max_pool2d, sigmoid_in_place};
use lenet_core::self_test;
use trainer::forward;
use trainer::lenet::{C1, C2, CONV1_SIDE, CONV2_SIDE, FLAT, SIDE};

/// The definition of the linear layer: from the bias, upward in the inputs.
fn linear<const IN: usize, const OUT: usize>(
    input: &[f32; IN],
    weight: &[[f32; IN]; OUT],
    bias: &[f32; OUT],
) -> [f32; OUT] {
    std::array::from_fn(|o| (0..IN).fold(bias[o], |sum, i| sum + input[i] * weight[o][i]))
}

/// The network, layer by layer.
fn plain(params: &Params, image: &Image) -> Activations {
    let mut act = Activations::new();
    let mut conv1 = [[[0.0; CONV1_SIDE]; CONV1_SIDE]; C1];
    conv2d(image, &params.conv1.weight, &params.conv1.bias, &mut conv1);
    max_pool2d(&conv1, &mut act.pool1);
    sigmoid_in_place(act.pool1.as_flattened_mut().as_flattened_mut());

    let mut conv2 = [[[0.0; CONV2_SIDE]; CONV2_SIDE]; C2];
    conv2d(
        &act.pool1,
        &params.conv2.weight,
        &params.conv2.bias,
        &mut conv2,
    );
    max_pool2d(&conv2, &mut act.pool2);
    sigmoid_in_place(act.pool2.as_flattened_mut().as_flattened_mut());

    let flat: &[f32; FLAT] = act
        .pool2
        .as_flattened()
        .as_flattened()
        .try_into()
        .expect("pool2 has FLAT elements");
    act.fc1 = linear(flat, &params.fc1.weight, &params.fc1.bias);
    sigmoid_in_place(&mut act.fc1);
    act.fc2 = linear(&act.fc1, &params.fc2.weight, &params.fc2.bias);
    sigmoid_in_place(&mut act.fc2);
    act.logits = linear(&act.fc2, &params.fc3.weight, &params.fc3.bias);
    act
}

/// Parameters of a trained network's size: uniform in ±1/4, from a seed.
fn params(seed: u32) -> Box<Params> {
    let mut state = seed;
    let mut params: Box<Params> = bytemuck::zeroed_box();
    let flat: &mut [f32; NUM_PARAMS] = params.as_flat_mut();
    for value in flat {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value = (state >> 8) as f32 / 33_554_432.0 - 0.25;
    }
    params
}

/// A shirt-like image: grey texture between sloping sides, black around it, so that many windows tie.
fn shirt(n: usize) -> Image {
    let mut pixels: Pixels = [[0; SIDE]; SIDE];
    for (y, row) in pixels.iter_mut().enumerate().skip(3).take(22) {
        let half_width = 4 + (y + n) % 9;
        for (x, pixel) in row.iter_mut().enumerate() {
            if x.abs_diff(SIDE / 2) < half_width {
                *pixel = (100 + 4 * x + (7 * n + y * x) % 40) as u8;
            }
        }
    }
    grey(&pixels)
}

fn bits(act: &Activations) -> Vec<u32> {
    bytemuck::cast_slice::<_, f32>(std::slice::from_ref(act))
        .iter()
        .map(|value| value.to_bits())
        .collect()
}

#[test]
fn forward_equals_the_plain_kernels_bit_for_bit() {
    for seed in 0..20 {
        let params = params(seed);
        for image in [
            self_test::IMAGE,
            shirt(seed as usize),
            [[[0.0; SIDE]; SIDE]; 1],
        ] {
            let expected = bits(&plain(&params, &image));
            let mut act = Activations::new();
            network::forward(&params, &image, &mut act);
            assert_eq!(bits(&act), expected, "seed {seed}");

            let mut act = Activations::new();
            forward::forward(&params, &image, &mut act);
            assert_eq!(bits(&act), expected, "the trainer's, seed {seed}");
        }
    }
}
