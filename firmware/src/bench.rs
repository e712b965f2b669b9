//! Measures the cost of each layer and of the whole forward pass, in the unit of a given counter.

use crate::model::{Activations, Image, Net, Params, forward, forward_by_layer};
use core::hint::black_box;
use lenet_core::Network as _;
use lenet_core::network::{CLASSES, LAYERS, Logits};

/// The counts for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// One count for each of [`LAYERS`], including pooling and activation.
    pub layers: [u32; LAYERS.len()],
    /// The count of [`forward`], measured on its own.
    pub forward: u32,
    /// Whether the layers, run one by one, gave the same bits as `forward`.
    pub same_bits: bool,
}

impl Cost {
    /// Converts every count to another unit.
    pub fn map(self, unit: impl Fn(u32) -> u32) -> Self {
        Self {
            layers: self.layers.map(&unit),
            forward: unit(self.forward),
            ..self
        }
    }
}

/// Measures with a counter that counts up and may wrap around. Runs everything once before, to warm up the caches.
pub fn measure(
    params: &Params,
    image: &Image,
    act: &mut Activations,
    now: &dyn Fn() -> u32,
) -> Cost {
    measure_layers(params, image, act, now);
    let layers = measure_layers(params, image, act, now);
    let expected = last(act).map(f32::to_bits);

    measure_forward(params, image, act, now);
    let forward = measure_forward(params, image, act, now);
    Cost {
        layers,
        forward,
        same_bits: last(act).map(f32::to_bits) == expected,
    }
}

/// Measures only the forward pass. The function is never inlined, so that every call measures the same code and
/// `cycles.py` can find it by name.
#[inline(never)]
pub fn measure_forward(
    params: &Params,
    image: &Image,
    act: &mut Activations,
    now: &dyn Fn() -> u32,
) -> u32 {
    let start = now();
    black_box(forward(black_box(params), black_box(image), act));
    now().wrapping_sub(start)
}

/// Returns the outputs of the last layer.
fn last(act: &Activations) -> Logits {
    let mut logits = [0.0; CLASSES];
    if let Some(last) = Net::outputs(act, LAYERS.len() - 1) {
        logits
            .iter_mut()
            .zip(last.iter())
            .for_each(|(to, from)| *to = from);
    }
    logits
}

#[inline(never)]
fn measure_layers(
    params: &Params,
    image: &Image,
    act: &mut Activations,
    now: &dyn Fn() -> u32,
) -> [u32; LAYERS.len()] {
    let mut layers = [0; LAYERS.len()];
    let mut start = now();
    // `black_box` keeps the compiler from moving work out of the interval between the two readings.
    forward_by_layer(
        black_box(params),
        black_box(image),
        black_box(act),
        |layer| {
            layers[layer] = now().wrapping_sub(start);
            start = now();
        },
    );
    layers
}
