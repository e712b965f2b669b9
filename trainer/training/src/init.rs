//! Initial parameters from a seed: PyTorch's default initialisation.

use crate::dataset::generator;
use bytemuck::zeroed_box;
use lenet_core::Network;
use lenet_core::network::{Net, Params};
use rand_chacha::rand_core::Rng;

/// Returns weights and biases that are uniform in `±1/sqrt(fan_in)`, where `fan_in` is the number of inputs of one output of
/// the layer, as in `torch.nn.Conv2d` and `torch.nn.Linear`. The numbers differ from PyTorch's, which has another generator.
pub fn initial_params(seed: u64) -> Box<Params> {
    initial::<Net>(seed)
}

/// Does the same for any network.
fn initial<N: Network>(seed: u64) -> Box<N::Params> {
    let mut rng = generator(seed, 0);
    let mut params: Box<N::Params> = zeroed_box();
    let flat: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *params));
    // A weight comes before its bias, which has the same bound.
    for [weight, bias] in N::TENSORS.as_chunks().0 {
        let fan_in: usize = weight.dims()[1..].iter().product();
        let bound = 1.0 / (fan_in as f64).sqrt();
        for value in &mut flat[weight.offset..][..weight.len() + bias.len()] {
            // 24 random bits: steps of 2^-23 in -1..1.
            let unit = f64::from(rng.next_u32() >> 8) / f64::from(1 << 23) - 1.0;
            *value = (unit * bound) as f32;
        }
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{flat, lenet};

    #[test]
    fn tensors_fill_their_ranges_evenly() {
        let params = initial::<lenet::Net>(1);
        let bounds = [5.0, 5.0, 150f32.sqrt(), 150f32.sqrt(), 16.0, 16.0].map(|root| 1.0 / root);
        for (tensor, bound) in lenet::TENSORS.iter().zip(bounds) {
            let values = &flat(&*params)[tensor.offset..][..tensor.len()];
            assert!(values.iter().all(|v| v.abs() <= bound), "{}", tensor.name);
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let deviation = bound / 3f32.sqrt() / (values.len() as f32).sqrt();
            assert!(mean.abs() < 4.0 * deviation, "{}: mean {mean}", tensor.name);
            assert!(
                values.len() < 100 || values.iter().any(|v| v.abs() > 0.95 * bound),
                "{}",
                tensor.name
            );
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_for_ever() {
        assert_eq!(initial_params(7), initial_params(7));
        assert_ne!(initial_params(7), initial_params(8));
        assert_eq!(
            initial::<lenet::Net>(0).conv1.bias.map(f32::to_bits)[..2],
            [3_182_230_064, 1_042_766_019]
        );
    }
}
