//! Where the time of a step goes.

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
    /// pool1 from sixteen images interleaved to one after the other.
    Turn,
    /// The gradient by conv2's weight.
    Conv2GradWeight,
    /// The gradient by conv2's input.
    Conv2GradInput,
    /// The gradient by conv1's parameters.
    Conv1GradParams,
    /// The gradients by the weights of the fully connected layers, the sums over groups, and Adam.
    Update,
}

impl Phase {
    /// All, in the order of a step.
    pub const ALL: [Self; 10] = [
        Self::Data,
        Self::Conv1,
        Self::Conv2,
        Self::Linear,
        Self::LinearGradInput,
        Self::Turn,
        Self::Conv2GradWeight,
        Self::Conv2GradInput,
        Self::Conv1GradParams,
        Self::Update,
    ];
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
