//! Measures how the time of a step is spent.
//!
//! The phases of a step, for a network of `n` layers, are: the data; each layer's forward pass; the loss; each layer's backward
//! pass, from the last to the first; the update.

use lenet_core::layer::Pool;
use lenet_core::plan::{Kind, Layer};
use std::time::{Duration, Instant};

/// The index of the phase that converts stored pixels to the input of the first layer.
pub(super) const DATA: usize = 0;

/// Returns the index of the phase of a layer's forward pass.
pub(super) const fn forward(layer: usize) -> usize {
    1 + layer
}

/// Returns the index of the phase of the loss, for a network of `layers` layers.
pub(super) const fn loss(layers: usize) -> usize {
    1 + layers
}

/// Returns the index of the phase of a layer's backward pass, for a network of `layers` layers.
pub(super) const fn backward(layer: usize, layers: usize) -> usize {
    1 + 2 * layers - layer
}

/// Returns the index of the phase of the update, for a network of `layers` layers.
pub(super) const fn update(layers: usize) -> usize {
    2 + 2 * layers
}

/// A part of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Its name, such as `conv1 forward`.
    pub name: String,
    /// Multiply-adds per image by the definition, or 0 if there are none to count. The gradients of a convolution with max
    /// pooling count the winners only. An algorithm that executes fewer or more multiply-adds is counted with these.
    pub multiply_adds: usize,
}

/// Returns all phases in the order of a step.
pub fn phases(layers: &[Layer]) -> Vec<Phase> {
    let phase = |name: String, multiply_adds| Phase {
        name,
        multiply_adds,
    };
    let gradient = |layer: &Layer| match layer.pool {
        Pool::Max(window) => layer.multiply_adds() / (window * window),
        Pool::Whole | Pool::Average(_) => layer.multiply_adds(),
    };
    let mut phases = vec![phase("data".to_owned(), 0)];
    for layer in layers {
        phases.push(phase(
            format!("{} forward", layer.name),
            layer.multiply_adds(),
        ));
    }
    phases.push(phase("loss".to_owned(), 0));
    for (index, layer) in layers.iter().enumerate().rev() {
        // The first layer computes no input gradient. The weight gradient of linear layers is part of the update.
        let by_input = usize::from(index > 0);
        let by_weight = usize::from(layer.kind == Kind::Conv2d);
        let name = format!("{} backward", layer.name);
        phases.push(phase(name, (by_input + by_weight) * gradient(layer)));
    }
    let linear = layers.iter().filter(|layer| layer.kind == Kind::Linear);
    phases.push(phase(
        "gradients of linear weights, Adam".to_owned(),
        linear.map(Layer::multiply_adds).sum(),
    ));
    phases
}

/// Adds up the time of each phase. A stopped clock does nothing.
pub struct Clock {
    running: bool,
    last: Instant,
    times: Vec<Duration>,
}

impl Clock {
    /// Creates a clock that runs from [`start`](Self::start) on, or not at all.
    pub(super) fn new(layers: usize, running: bool) -> Self {
        Self {
            running,
            last: Instant::now(),
            times: vec![Duration::ZERO; 1 + update(layers)],
        }
    }

    /// Returns the time of each phase.
    pub(super) fn times(&self) -> &[Duration] {
        &self.times
    }

    /// Begins the first phase.
    pub(super) fn start(&mut self) {
        if self.running {
            self.last = Instant::now();
        }
    }

    /// Ends a phase and begins the next.
    pub(super) fn lap(&mut self, phase: usize) {
        if self.running {
            let now = Instant::now();
            self.times[phase] += now - self.last;
            self.last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_its_own_index() {
        let layers = 5;
        let mut indices = vec![DATA, loss(layers), update(layers)];
        indices.extend((0..layers).flat_map(|layer| [forward(layer), backward(layer, layers)]));
        indices.sort_unstable();
        assert!(indices.into_iter().eq(0..2 * layers + 3));
    }
}
