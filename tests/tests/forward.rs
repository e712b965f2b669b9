//! Compares the forward pass of every network with simple loops, layer by layer and bit for bit, and with the trainer's forward
//! pass, which is the same code compiled for the vectors of this CPU.

use lenet_core::Network;
use lenet_core::layer::Pool;
use lenet_core::network::{Activations, Params, forward};
use lenet_core::plan::{Kind, Layer};
use lenet_test_support::for_each_network;
use lenet_test_support::generate::{self, array};

/// Computes a sum of a layer by its definition: starts with the bias, and adds the products by channel, row and column.
fn sum(layer: &Layer, input: &[f32], weight: &[f32], bias: f32, y: usize, x: usize) -> f32 {
    let ([channels, h, w], k) = (layer.input, layer.kernel);
    let mut sum = bias;
    match layer.kind {
        Kind::Linear => input.iter().zip(weight).for_each(|(x, w)| sum += x * w),
        Kind::Conv2d => {
            for (c, i, j) in (0..channels * k * k).map(|n| (n / (k * k), n / k % k, n % k)) {
                let at = |from: usize, side: usize| {
                    from.checked_sub(layer.padding).filter(|&at| at < side)
                };
                let value = match (at(y + i, h), at(x + j, w)) {
                    (Some(y), Some(x)) => input[(c * h + y) * w + x],
                    _ => 0.0,
                };
                sum += value * weight[(c * k + i) * k + j];
            }
        }
    }
    sum
}

/// Computes a layer by its definition.
fn plain(layer: &Layer, input: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let ([maps, ph, pw], n) = (layer.output, layer.pool.window());
    let outputs = (0..maps * ph * pw).map(|p| (p / (ph * pw), p / pw % ph, p % pw));
    let per_map = layer.weight_len() / maps;
    let outputs = outputs.map(|(m, y, x)| {
        let weight = &weight[m * per_map..][..per_map];
        let sums =
            (0..n * n).map(|q| sum(layer, input, weight, bias[m], n * y + q / n, n * x + q % n));
        match layer.pool {
            Pool::Average(_) => {
                let values = sums.map(|x| layer.activation.of(x));
                values.reduce(|a, b| a + b).unwrap() / (n * n) as f32
            }
            _ => layer
                .activation
                .of(sums.reduce(|a, b| if b > a { b } else { a }).unwrap()),
        }
    });
    outputs.collect()
}

fn compare<N: Network>() {
    for (seed, kind) in generate::KINDS.into_iter().enumerate() {
        let seed = seed as u64;
        let mut params = array::<N::Params>(generate::Kind::Random, seed);
        let values: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *params));
        values.iter_mut().for_each(|p| *p *= 0.3);
        let image = array::<N::Image>(kind, seed + 100);
        let mut act: Box<N::Activations> = bytemuck::zeroed_box();
        N::forward(&params, &image, &mut act);

        let params: &[f32] = bytemuck::cast_slice(std::slice::from_ref(&*params));
        let layers = 0..N::LAYERS.len();
        let found: Vec<f32> = layers
            .flat_map(|layer| N::outputs(&act, layer).unwrap().iter())
            .collect();
        let mut found = &found[..];
        let mut input: Vec<f32> = bytemuck::cast_slice(std::slice::from_ref(&*image)).to_vec();
        for (layer, tensors) in N::LAYERS.iter().zip(N::TENSORS.chunks(2)) {
            let [weight, bias] = [0, 1].map(|part| {
                let tensor = &tensors[part];
                &params[tensor.offset..][..tensor.len()]
            });
            let expected = plain(layer, &input, weight, bias);
            let (out, rest) = found.split_at(expected.len());
            let bits =
                |values: &[f32]| -> Vec<u32> { values.iter().map(|v| v.to_bits()).collect() };
            // Extreme inputs give NaNs, whose bits depend on the machine.
            if expected.iter().all(|value| !value.is_nan()) {
                assert_eq!(
                    bits(out),
                    bits(&expected),
                    "{}, {}, {kind:?}",
                    N::NAME,
                    layer.name
                );
            }
            (input, found) = (out.to_vec(), rest);
        }
        assert!(found.is_empty());
    }
}

#[test]
fn forward_equals_the_plain_operations_bit_for_bit_for_every_network() {
    for_each_network!(compare);
}

#[test]
fn the_trainers_forward_gives_the_same_bits() {
    for seed in 0..8 {
        let mut params = array::<Params>(generate::Kind::Random, seed);
        params.as_flat_mut().iter_mut().for_each(|p| *p *= 0.3);
        let image = array(generate::Kind::Random, seed + 100);
        let (mut act, mut expected) = (Activations::new(), Activations::new());
        forward(&params, &image, &mut expected);
        trainer::forward::forward(&params, &image, &mut act);
        assert_eq!(
            bytemuck::bytes_of(&act),
            bytemuck::bytes_of(&expected),
            "seed {seed}"
        );
    }
}
