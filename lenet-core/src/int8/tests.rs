//! Compares the integer kernels with the plain loops of `plain`, for three networks that together have every activation and every pool
//! except `Max(3)`.

use super::plain::{self, Output};
use super::*;
use crate::Network;
use core::array::from_fn;
use std::collections::BTreeSet;
use std::vec::Vec;

/// Pooling windows of 1 and 2, padding, odd and even numbers of channels, all activations, and a linear layer whose number of
/// inputs, 27, is no multiple of 4.
mod first {
    crate::network! {
        name: "first",
        input: [3, 13, 13],
        conv1: conv2d { maps: 4, kernel: 4, padding: 2, pool: Max(2), activation: Tanh },
        conv2: conv2d { maps: 3, kernel: 2, padding: 1, pool: Average(2) },
        conv3: conv2d { maps: 3, kernel: 2, activation: Relu },
        fc1: linear { outputs: 6, activation: Sigmoid },
        fc2: linear { outputs: 3 },
    }
}

/// One channel of unequal sides, and the largest padding.
mod second {
    crate::network! {
        name: "second",
        input: [1, 20, 18],
        conv1: conv2d { maps: 2, kernel: 5, padding: 2, activation: Relu },
        conv2: conv2d { maps: 5, kernel: 3, pool: Max(2), activation: Sigmoid },
        fc1: linear { outputs: 2 },
    }
}

/// A pooling window of 3, which `pairs` does not compute.
mod third {
    crate::network! {
        name: "third",
        input: [1, 9, 12],
        conv1: conv2d { maps: 3, kernel: 3, padding: 1, pool: Average(3), activation: Relu },
        conv2: conv2d { maps: 2, kernel: 2, padding: 1, activation: Tanh },
        fc1: linear { outputs: 2 },
    }
}

/// A linear congruential generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 32) as u32
    }
}

/// Returns parameters with which the outputs of each layer differ. One hidden channel in four saturates often.
fn params<N: Int8>(random: &mut Random) -> N::Params {
    let mut params: N::Params = bytemuck::zeroed();
    for (index, layer) in N::LAYERS.iter().enumerate() {
        let LayerParamsMut {
            step,
            bias,
            finish,
            weight,
        } = N::layer_mut(&mut params, index).unwrap();
        step.fill(1.0 / 64.0);
        weight.fill_with(|| (1 + random.next() % 255) as u8);
        // Most inputs are about 128, so this moves the sums to the middle of the range.
        for (bias, weight) in bias.iter_mut().zip(weight.chunks(products_of(layer))) {
            let weights = weight.iter().map(|&w| i32::from(w) - 128).sum::<i32>();
            *bias = (random.next() as i32 >> 18) - 128 * weights;
        }
        let spread = 20_000.0 * f64::from(products_of(layer) as u32).sqrt();
        match finish {
            FinishesMut::Hidden(all) => all.fill_with(|| {
                let unit = [1.0, 2.0, 4.0, 40.0][random.next() as usize % 4] / spread;
                Rescale::new(layer.activation, unit, 1.0 / 64.0).unwrap()
            }),
            FinishesMut::Last(all) => all.fill_with(|| Scale(random.next() as f32 / 4.0e9 + 0.01)),
        }
    }
    params
}

/// Compares all outputs of a network with those of the plain loops, in which no sum may overflow. Returns the number of distinct
/// outputs of each layer, or 3 if there are more.
fn compare<N: Int8<Image = <N as Network>::Pixels>>(
    params: &N::Params,
    pixels: &N::Pixels,
) -> Vec<usize> {
    let mut act: N::Activations = bytemuck::zeroed();
    N::forward(params, pixels, &mut act);
    let expected = plain::forward::<N>(params, bytemuck::bytes_of(pixels));
    let layers = expected.into_iter().enumerate().map(|(index, expected)| {
        let expected = match expected {
            Output::Bytes(bytes) => bytes.into_iter().map(f32::from).collect(),
            Output::Logits(logits) => logits,
        };
        let found: Vec<f32> = N::outputs(&act, index).unwrap().iter().collect();
        assert_eq!(found, expected, "{}: {}", N::NAME, N::LAYERS[index].name);
        let distinct: BTreeSet<u32> = expected.iter().map(|value| value.to_bits()).collect();
        distinct.len().min(3)
    });
    layers.collect()
}

/// Compares all outputs of a network for several images.
fn check<N: Int8<Image = <N as Network>::Pixels>>() {
    let mut random = Random(1);
    let params = params::<N>(&mut random);
    assert_eq!(N::unusable(&params), None);
    for image in 0..4 {
        let mut pixels: N::Pixels = bytemuck::zeroed();
        bytemuck::bytes_of_mut(&mut pixels).fill_with(|| match image {
            0 => 0,
            1 => 255,
            _ => random.next() as u8,
        });
        let distinct = compare::<N>(&params, &pixels);
        for (layer, distinct) in N::LAYERS.iter().zip(distinct) {
            let saturates = distinct < layer.output_len().min(3);
            assert!(
                image < 2 || !saturates,
                "{}: {} saturates",
                N::NAME,
                layer.name
            );
        }
    }
}

#[test]
fn every_output_is_that_of_plain_loops() {
    check::<first::int8::Net>();
    check::<second::int8::Net>();
    check::<third::int8::Net>();
}

#[test]
fn the_largest_sums_do_not_overflow() {
    type Net = first::int8::Net;
    let mut params = params::<Net>(&mut Random(1));
    let room = headroom(&first::LAYERS[0]) as i32;
    // The byte 0 stands for -128.
    params.conv1.weight = bytemuck::zeroed();
    for (bias, finish) in params.conv1.bias.iter_mut().zip(&params.conv1.finish) {
        *bias = finish.limit - room;
    }
    assert_eq!(Net::unusable(&params), None);
    compare::<Net>(&params, &[[[255; 13]; 13]; 3]);
    // One less would overflow.
    params.conv1.bias[2] -= 1;
    assert_eq!(Net::unusable(&params), Some(("conv1", 2)));
}

/// Compares both algorithms for a convolution. A host would use only the first one.
macro_rules! both_algorithms {
    ($($network:ident: $layer:ident),*) => {$({
        use $network::int8::$layer::{Input, LAYER, Output, This};
        use $network::int8::Net;
        const C: usize = LAYER.input[0];
        const M: usize = LAYER.output[0];
        const WINDOW: usize = LAYER.pool.window();
        const { assert!(pairs::scratch(&LAYER) > 0) };
        let mut random = Random(2);
        let params = params::<Net>(&mut random).$layer;
        let mut input: Input = bytemuck::zeroed();
        bytemuck::bytes_of_mut(&mut input).fill_with(|| random.next() as u8);
        let (mut direct, mut paired): (Output, Output) = (bytemuck::zeroed(), bytemuck::zeroed());
        let (weight, bias, finish) = (&params.weight, &params.bias, &params.finish);
        conv2d::forward(This, &input, weight, bias, finish, &mut direct);
        pairs::forward::<This, WINDOW, C, M, _, _, _, _, _>(&input, weight, bias, finish, &mut paired);
        assert_eq!(direct, paired, "{LAYER:?}");
    })*};
}

#[test]
fn pairs_give_the_same_bytes() {
    both_algorithms!(first: conv1, first: conv2, first: conv3, second: conv1, second: conv2, third: conv2);
}

/// Checks the number of words. `pairs` prepares four bands at once, fewer if they need more than 600 words, and does not compute a
/// layer of which even one band needs more.
#[test]
fn pairs_take_the_words_that_fit() {
    let words = first::LAYERS.each_ref().map(pairs::scratch);
    let expected = [18 * 17 + 72 + 28, 18 * 9 + 8 + 16, 15 * 4 + 24 + 6, 0, 0];
    assert_eq!(words, expected);
    let of = |kernel, input| {
        let spec = crate::layer::conv2d::Spec {
            maps: 1,
            kernel,
            ..crate::layer::conv2d::Spec::DEFAULT
        };
        pairs::scratch(&spec.layer("conv1", input))
    };
    assert_eq!(of(5, [6, 16, 16]), 24 * 16 + 75 + 24);
    assert_eq!(of(5, [6, 12, 14]), 36 * 14 + 75 + 20);
    assert_eq!(of(5, [6, 24, 24]), 18 * 24 + 75 + 40);
    assert_eq!(of(7, [3, 64, 64]), 0);
    assert_eq!(pairs::scratch(&third::LAYERS[0]), 0, "windows of 3");
}

#[test]
fn the_zero_points_follow_from_the_activations() {
    let zeros = from_fn(|index| input_zero(&first::LAYERS, index));
    assert_eq!(zeros, [0, 128, 128, 0, 0]);
}

#[test]
fn the_headroom_is_what_the_products_leave() {
    let [first, .., last] = first::LAYERS;
    assert_eq!(headroom(&first), (1 << 31) - 1 - 48 * 255 * 128);
    assert_eq!(headroom(&last), (1 << 31) - 1 - 6 * 255 * 128);
    assert_eq!([0, 1, 2, 3, 4].map(filling), [0, 3, 2, 1, 0]);
}

#[test]
fn the_first_invalid_output_is_named() {
    type Net = first::int8::Net;
    let usable = params::<Net>(&mut Random(3));
    let refused = |change: &dyn Fn(&mut first::int8::Params)| {
        let mut params = usable;
        change(&mut params);
        Net::unusable(&params)
    };
    assert_eq!(refused(&|_| {}), None);
    for step in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let found = refused(&|params| params.conv2.step[0] = step);
        assert_eq!(found, Some(("conv2", 0)));
    }
    let found = refused(&|params| params.fc2.finish[2].0 = 0.0);
    assert_eq!(found, Some(("fc2", 2)));
    let found = refused(&|params| {
        params.fc2.finish[2].0 = 0.0;
        params.fc1.finish[5].limit = 0;
        params.fc1.finish[3].limit = 0;
    });
    assert_eq!(found, Some(("fc1", 3)));
    // A bias and a limit may take all of the headroom, and no more.
    let room = headroom(&first::LAYERS[3]) as i32;
    for (excess, expected) in [(0, None), (1, Some(("fc1", 4)))] {
        let found = refused(&|params| {
            let limit = params.fc1.finish[4].limit;
            params.fc1.bias[4] = limit - room - excess;
        });
        assert_eq!(found, expected);
    }
}
