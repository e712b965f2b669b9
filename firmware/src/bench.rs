//! Cost of each layer and of the whole forward pass, in whatever a counter counts.

use crate::model::{Activations, Image, Net, Params, forward, forward_by_layer};
use core::hint::black_box;
use lenet_core::Network as _;
use lenet_core::network::{CLASSES, LAYERS, Logits};

/// Counts for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// One for each of [`LAYERS`], pooling and activation included.
    pub layers: [u32; LAYERS.len()],
    /// [`forward`], measured on its own.
    pub forward: u32,
    /// Whether the layers one by one gave the bits that `forward` gave.
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

/// Measures with a counter that counts upwards and may wrap; everything runs once before, to warm caches.
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

/// Measures the forward pass alone. It is one piece of code wherever it is called, so that images can be compared, and
/// `cycles.py` finds it by its name.
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

/// The outputs of the last layer.
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
    // The black boxes keep the work between the two readings.
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
