//! Where the time of a step goes.

use crate::lenet::POOL;
use lenet_core::network::LAYERS;
use std::time::{Duration, Instant};

/// A part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Bytes to interleaved f32.
    Data,
    /// conv1, pool and sigmoid.
    Conv1,
    /// conv2, pool and sigmoid.
    Conv2,
    /// The fully connected layers forward.
    Linear,
    /// Loss, and the gradients by the inputs of the fully connected layers, with the turning into panels.
    LinearGradInput,
    /// The gradients by conv2's parameters and its input.
    Conv2Grad,
    /// pool1's gradient from sixteen images interleaved to one after the other.
    Turn,
    /// The gradient by conv1's parameters.
    Conv1Grad,
    /// The gradients by the weights of the fully connected layers, the sums over groups, and Adam.
    Update,
}

impl Phase {
    /// All, in the order of a step.
    pub const ALL: [Self; 9] = [
        Self::Data,
        Self::Conv1,
        Self::Conv2,
        Self::Linear,
        Self::LinearGradInput,
        Self::Conv2Grad,
        Self::Turn,
        Self::Conv1Grad,
        Self::Update,
    ];

    /// In a few words, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Conv1 => "conv1 forward, pool, sigmoid",
            Self::Conv2 => "conv2 forward, pool, sigmoid",
            Self::Linear => "fully connected forward",
            Self::LinearGradInput => "loss, fully connected backward",
            Self::Conv2Grad => "conv2 backward",
            Self::Turn => "pool1's gradient turned",
            Self::Conv1Grad => "conv1 backward",
            Self::Update => "weights of fully connected, Adam",
        }
    }

    /// Multiply-adds for one image by the definition, 0 where there are none to count: of a convolution's gradient those
    /// of the pool's winners, a quarter of all. What executes fewer or more is counted with these.
    pub fn multiply_adds(self) -> usize {
        let of = |names: &[&str]| -> usize {
            let layers = LAYERS.iter().filter(|layer| names.contains(&layer.name));
            layers.map(|layer| layer.multiply_adds()).sum()
        };
        const CONNECTED: &[&str] = &["fc1", "fc2", "fc3"];
        match self {
            Self::Data | Self::Turn => 0,
            Self::Conv1 => of(&["conv1"]),
            Self::Conv2 => of(&["conv2"]),
            Self::Linear | Self::LinearGradInput | Self::Update => of(CONNECTED),
            Self::Conv2Grad => 2 * of(&["conv2"]) / (POOL * POOL),
            Self::Conv1Grad => of(&["conv1"]) / (POOL * POOL),
        }
    }
}

/// Time by phase.
pub type Times = [Duration; Phase::ALL.len()];

/// Sums up the time of phases; a stopped clock does nothing.
pub(super) struct Clock {
    running: bool,
    last: Instant,
    pub times: Times,
}

impl Clock {
    pub(super) fn stopped() -> Self {
        Self {
            running: false,
            last: Instant::now(),
            times: Times::default(),
        }
    }

    /// A clock that runs from `start` on.
    pub(super) fn running() -> Self {
        Self {
            running: true,
            ..Self::stopped()
        }
    }

    /// Begins the first phase.
    pub(super) fn start(&mut self) {
        if self.running {
            self.last = Instant::now();
        }
    }

    /// Ends a phase and begins the next.
    pub(super) fn lap(&mut self, phase: Phase) {
        if self.running {
            let now = Instant::now();
            self.times[phase as usize] += now - self.last;
            self.last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_step_needs_463_320_multiply_adds_an_image() {
        let sum: usize = Phase::ALL.iter().map(|phase| phase.multiply_adds()).sum();
        assert_eq!(sum, 463_320);
    }
}
