//! Compares every int8 network with a simple implementation in i64, byte by byte, and checks the properties that quantization
//! guarantees.

use lenet_core::int8::{Int8, Quantizable, headroom, input_zero, zero};
use lenet_core::layer::Activation;
use lenet_core::{Network, int8};
use lenet_test_support::for_each_network;
use lenet_test_support::generate::{self, array};
use lenet_test_support::int8::{Output, byte, forward};
use rand_chacha::rand_core::Rng;
use trainer::dataset::generator;
use trainer::quantize::{compare, quantize, ranges, run};

type Form<N> = <N as Quantizable>::Int8;
type Params<N> = <Form<N> as Network>::Params;

/// Returns images: black, white, the pattern of the self-test, noise, and noise of black and white.
fn images<N: Network>(seed: u64) -> Vec<Box<N::Pixels>> {
    let mut rng = generator(seed, 0);
    (0..5)
        .map(|kind| {
            let mut pixels: Box<N::Pixels> = bytemuck::zeroed_box();
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *pixels));
            for (i, byte) in bytes.iter_mut().enumerate() {
                let random = rng.next_u32();
                *byte = match kind {
                    0 => 0,
                    1 => 255,
                    2 => (37 * i + i * i) as u8,
                    3 => random as u8,
                    _ => (random >> 31) as u8 * 255,
                };
            }
            pixels
        })
        .collect()
}

/// Returns f32 parameters with which the activations neither vanish nor saturate.
fn trained<N: Quantizable>(seed: u64) -> Box<N::Params> {
    let mut params = array::<N::Params>(generate::Kind::Random, seed);
    let values: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *params));
    for (layer, tensors) in N::LAYERS.iter().zip(N::TENSORS.chunks(2)) {
        let per_output = (layer.weight_len() / layer.output[0]) as f32;
        let end = tensors[1].offset + tensors[1].len();
        for value in &mut values[tensors[0].offset..end] {
            *value *= 3.0 / per_output.sqrt();
        }
    }
    params
}

/// The f32 parameters, the quantized ones, and images.
type Sample<N> = (
    Box<<N as Network>::Params>,
    Box<Params<N>>,
    Vec<<N as Network>::Pixels>,
);

fn quantized<N: Quantizable>(seed: u64) -> Sample<N> {
    let params = trained::<N>(seed);
    let images: Vec<N::Pixels> = images::<N>(seed).into_iter().map(|image| *image).collect();
    let ranges = ranges::<N>(&params, &images, 1.0);
    let int8 = quantize::<N>(&params, &ranges).unwrap();
    (params, int8, images)
}

/// Asserts that the kernels compute the same bytes, and the same bits of the logits, as the simple implementation.
#[track_caller]
fn equals_the_oracle<N: Int8>(params: &N::Params, pixels: &N::Pixels) {
    let mut act: Box<N::Activations> = bytemuck::zeroed_box();
    run::<N>(params, pixels, &mut act);
    let bytes: &[u8] = bytemuck::cast_slice(std::slice::from_ref(pixels));
    for (index, expected) in forward::<N>(params, bytes).into_iter().enumerate() {
        let found = N::outputs(&act, index).unwrap();
        let at = N::LAYERS[index];
        match expected {
            Output::Bytes(bytes) => assert_eq!(
                found.page(0, bytes.len()).unwrap(),
                bytes,
                "{} {at:?}",
                N::NAME
            ),
            Output::Logits(logits) => {
                let bits = |values: &mut dyn Iterator<Item = f32>| -> Vec<u32> {
                    values.map(f32::to_bits).collect()
                };
                assert_eq!(
                    bits(&mut found.iter()),
                    bits(&mut logits.into_iter()),
                    "{} {at:?}",
                    N::NAME
                );
            }
        }
    }
}

#[test]
fn quantized_networks_agree_with_the_oracle_in_every_integer() {
    fn check<N: Quantizable>() {
        for seed in 0..3 {
            let (_, int8, images) = quantized::<N>(seed);
            assert_eq!(Form::<N>::unusable(&int8), None);
            images
                .iter()
                .for_each(|image| equals_the_oracle::<Form<N>>(&int8, image));
        }
    }
    for_each_network!(check);
}

/// Uses weights of ±127 and biases at the end of their range, so that the sums are as close to the limits of i32 as possible.
#[test]
fn the_largest_sums_stay_within_i32() {
    fn check<N: Quantizable>() {
        let (_, mut int8, images) = quantized::<N>(7);
        let mut rng = generator(8, 0);
        for (index, layer) in N::LAYERS.iter().enumerate() {
            let params = Form::<N>::layer_mut(&mut int8, index).unwrap();
            let per_output = layer.weight_len() / layer.output[0];
            for (o, (bias, row)) in params
                .bias
                .iter_mut()
                .zip(params.weight.chunks_mut(per_output))
                .enumerate()
            {
                let limit = match &params.finish {
                    int8::FinishesMut::Hidden(all) => i64::from(all[o].limit),
                    int8::FinishesMut::Last(_) => 0,
                };
                let largest = i32::try_from(headroom(layer) - limit).unwrap();
                (*bias, _) = match o % 3 {
                    0 => (largest, row.fill(255)),
                    1 => (-largest, row.fill(1)),
                    _ => (
                        0,
                        row.fill_with(|| {
                            if rng.next_u32().is_multiple_of(2) {
                                1
                            } else {
                                255
                            }
                        }),
                    ),
                };
            }
        }
        assert_eq!(Form::<N>::unusable(&int8), None);
        images
            .iter()
            .for_each(|image| equals_the_oracle::<Form<N>>(&int8, image));
        // One more, and the file is refused.
        let layer = Form::<N>::layer_mut(&mut int8, 0).unwrap();
        layer.bias[0] += 1;
        assert!(Form::<N>::unusable(&int8).is_some());
    }
    for_each_network!(check);
}

/// The value of a byte must differ from the activation by at most half a step, plus the error of the table.
#[test]
fn a_byte_is_the_activation_rounded() {
    use Activation::*;
    for activation in [Identity, Sigmoid, Tanh, Relu] {
        let step = int8::table::output_step(activation).unwrap_or(0.05);
        let unit = 1.0 / 70_001.0;
        let rescale = int8::Rescale::new(activation, unit, step).unwrap();
        for sum in (-2_000_000..2_000_000i64).step_by(977) {
            let x = sum as f64 * unit;
            let exact = match activation {
                Identity => x.clamp(-127.0 * step, 127.0 * step),
                Sigmoid => 1.0 / (1.0 + (-x).exp()),
                Tanh => x.tanh(),
                Relu => x.clamp(0.0, 255.0 * step),
            };
            let found =
                (f64::from(byte(activation, rescale, sum)) - f64::from(zero(activation))) * step;
            // The steepest slope times half a step of the table; and the factor is rounded.
            let table = match activation {
                Sigmoid => 0.25 / 128.0,
                Tanh => 1.0 / 256.0,
                Identity | Relu => x.abs() * 1e-2,
            };
            assert!(
                (found - exact).abs() <= 0.5 * step + table + 1e-3,
                "{activation:?}({x}): {found}, {exact}"
            );
        }
    }
}

#[test]
fn zero_is_exact() {
    use Activation::*;
    for activation in [Identity, Tanh, Relu] {
        let rescale = int8::Rescale::new(activation, 1e-4, 0.01).unwrap();
        assert_eq!(byte(activation, rescale, 0), zero(activation));
    }
    let layers = <lenet_test_support::networks::color::Net as Network>::LAYERS;
    assert_eq!(
        [0, 1, 2, 3].map(|index| input_zero(layers, index)),
        [0, 0, 128, 128]
    );
}

/// Channels whose weights are all zero, or whose bias is far larger than the weights, must be quantized correctly too.
#[test]
fn channels_of_zeros_and_large_biases_are_quantized() {
    fn check<N: Quantizable>() {
        let mut params = trained::<N>(3);
        let values: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *params));
        for tensors in N::TENSORS.chunks(2) {
            let per_output = tensors[0].len() / tensors[1].len();
            values[tensors[0].offset..][..per_output].fill(0.0);
            let last = tensors[0].offset + tensors[0].len() - per_output;
            if tensors[1].len() > 1 {
                values[last..][..per_output].fill(1e-30);
            }
            values[tensors[1].offset + tensors[1].len() - 1] = 3.0;
        }
        let images: Vec<N::Pixels> = images::<N>(1).into_iter().map(|image| *image).collect();
        let ranges = ranges::<N>(&params, &images, 1.0);
        let int8 = quantize::<N>(&params, &ranges).unwrap();
        assert_eq!(Form::<N>::unusable(&int8), None);
        images
            .iter()
            .for_each(|image| equals_the_oracle::<Form<N>>(&int8, image));
        let difference = compare::<N>(&params, &int8, &images);
        assert!(
            difference.largest_change < 1.0,
            "{} {difference:?}",
            N::NAME
        );
    }
    for_each_network!(check);
}

#[test]
fn int8_is_near_f32() {
    fn check<N: Quantizable>() {
        let (f32, int8, images) = quantized::<N>(5);
        let difference = compare::<N>(&f32, &int8, &images);
        println!("{} {difference:?}", N::NAME);
        for (layer, db) in N::LAYERS.iter().zip(&difference.signal_to_noise) {
            assert!(*db > 20.0, "{} {}: {db} dB", N::NAME, layer.name);
        }
    }
    for_each_network!(check);
}

/// Compares the two algorithms for a convolution, of which this machine would use only one.
macro_rules! both_ways {
    ($network:ident: $($layer:ident),*) => {$({
        use lenet_test_support::networks::$network::int8::$layer::{Input, LAYER, Output, Params, This};
        const C: usize = LAYER.input[0];
        const M: usize = LAYER.output[0];
        const N: usize = LAYER.pool.window();
        const { assert!(int8::pairs::scratch(&LAYER) > 0) };
        let mut rng = generator(11, 0);
        for _ in 0..3 {
            let mut params: Params = bytemuck::zeroed();
            params.weight.as_flattened_mut().as_flattened_mut().as_flattened_mut().fill_with(|| rng.next_u32() as u8);
            params.bias.fill_with(|| (rng.next_u32() as i32) >> 14);
            for finish in &mut params.finish {
                let sums = f64::from(1 + rng.next_u32() % 8) * 40_000.0;
                *finish = int8::Rescale::new(LAYER.activation, 1.0 / sums, 1.0 / 100.0).unwrap();
            }
            let mut input: Input = bytemuck::zeroed();
            input.as_flattened_mut().as_flattened_mut().fill_with(|| rng.next_u32() as u8);
            let (mut direct, mut paired): (Output, Output) = (bytemuck::zeroed(), bytemuck::zeroed());
            let Params { weight, bias, finish, .. } = &params;
            int8::conv2d::forward(This, &input, weight, bias, finish, &mut direct);
            int8::pairs::forward::<This, N, C, M, _, _, _, _, _>(&input, weight, bias, finish, &mut paired);
            assert_eq!(direct, paired, "{LAYER:?}");
        }
    })*};
}

#[test]
fn both_convolution_algorithms_give_the_same_bytes() {
    both_ways!(lenet: conv1, conv2);
    both_ways!(lenet_d2l: conv1, conv2);
    both_ways!(relu: conv1, conv2);
    both_ways!(color: conv1, conv2);
    both_ways!(pointwise: conv1);
    both_ways!(wide: conv1);
    both_ways!(thirds: conv2);
    both_ways!(maps: conv1);
    both_ways!(square: conv1);
    both_ways!(deep: conv1, conv2);
    both_ways!(pixel: conv1);
    both_ways!(row: conv1);
    both_ways!(named: core);
}

/// The functions of `lenet-asm` must give the same results as their equivalents in safe Rust. On this machine, they are the
/// equivalents; in QEMU, whole networks are compared.
#[test]
fn smlad_multiplies_the_halves_of_words() {
    use lenet_asm::{pair_at, plain, smlad};
    let mut rng = generator(12, 0);
    for _ in 0..100_000 {
        let [a, b, sum] = [0; 3].map(|_: u32| rng.next_u32());
        let half = |word: u32, shift: u32| i64::from((word >> shift) as i16);
        let exact = i64::from(sum) + half(a, 0) * half(b, 0) + half(a, 16) * half(b, 16);
        assert_eq!(smlad(a, b, sum), exact as u32);
        assert_eq!(plain::smlad(a, b, sum), exact as u32);
    }
    assert_eq!(pair_at::<1>(&[1, 2, 3]), [2, 3]);
    assert_eq!(pair_at::<2>(&[1, 2, 3]), [3, 0]);
}

/// Every change of a byte of the committed file must be rejected: all 255 changes of each byte, which the checksum detects. As in
/// `tests/tests/weights.rs`, this uses the linearity of the checksum: the effect of a change depends only on its position and
/// bits.
#[test]
fn every_change_of_a_byte_of_the_file_is_refused() {
    use crc::{CRC_32_ISO_HDLC, Crc};
    use lenet_core::weights::view;
    use lenet_test_support::networks::lenet::int8::{Net, Params};
    const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
    static FILE: &[u8] = lenet_core::include_weights!("../../data/lenet-int8.weights");
    assert!(view::<Net>(FILE).is_ok());
    // The change of the checksum for each change of the last covered byte. For an earlier byte, it is followed by one zero byte
    // per byte in between.
    let covered = FILE.len() - 4;
    let of_last = |change: u8| CRC.checksum(&[change]) ^ CRC.checksum(&[0]);
    let further = |difference: u32| {
        let low = (difference & 0xff) as u8;
        difference >> 8 ^ of_last(low)
    };
    let mut differences: Vec<u32> = (1..=255).map(of_last).collect();
    for position in (0..covered).rev() {
        assert!(
            differences.iter().all(|&difference| difference != 0),
            "byte {position}"
        );
        differences
            .iter_mut()
            .for_each(|difference| *difference = further(*difference));
    }
    // Verify this with `view`: one change of every 16th byte of the parameters, and ten changes of each other byte.
    let mut words = vec![0u32; FILE.len().div_ceil(4)];
    let file: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut words)[..FILE.len()];
    file.copy_from_slice(FILE);
    let mut rng = generator(13, 0);
    let params = lenet_core::weights::PARAMS_OFFSET
        ..lenet_core::weights::PARAMS_OFFSET + size_of::<Params>();
    for position in 0..FILE.len() {
        let changes: Vec<u8> = match params.contains(&position) {
            true if position % 16 == 0 => vec![(rng.next_u32() % 255 + 1) as u8],
            true => continue,
            false => vec![
                1,
                2,
                4,
                8,
                16,
                32,
                64,
                128,
                255,
                (rng.next_u32() % 255 + 1) as u8,
            ],
        };
        for change in changes {
            file[position] ^= change;
            assert!(
                view::<Net>(file).is_err(),
                "byte {position} ^ {change:#04x}"
            );
            file[position] ^= change;
        }
    }
}

/// The committed int8 file must be the one that `trainer quantize` makes from the committed f32 weights, with the accuracy that
/// the README states.
#[test]
fn the_committed_file_is_that_of_the_committed_weights() {
    use lenet_test_support::networks::lenet::{LAYERS, Net, int8};
    use std::path::Path;
    use trainer::weights_file::WeightsFile;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
    let f32 = std::fs::read(data.join("lenet.weights")).unwrap();
    let f32 = WeightsFile::<Net>::checked(&f32, Path::new("lenet.weights")).unwrap();
    let int8 = std::fs::read(data.join("lenet-int8.weights")).unwrap();
    let int8 = WeightsFile::<int8::Net>::checked(&int8, Path::new("lenet-int8.weights")).unwrap();
    let ranges = [0.0; LAYERS.len()];
    let expected = quantize::<Net>(f32.weights().params, &ranges).unwrap();
    assert!(int8.weights().params == &*expected);
    assert_eq!(int8.weights().metadata.provenance.test_accuracy, 0.903);
}
