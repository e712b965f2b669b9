//! Layers and lists of layers: the order of the passes, and the memory between the layers.
//!
//! Each kind of layer is a module. It offers one type per algorithm, which is a [`Pass`]: what the algorithm computes with a
//! layer's weights, and the memory that it needs. A network is a list of such types, nested as `(first, (second, (…, End)))`.
//! The macro [`passes!`](crate::passes) writes this list from the description of a network; the traits here do the rest, by
//! recursion over the list.

pub mod conv2d;
pub mod linear;

use super::TOGETHER;
use super::loss::CrossEntropy;
use super::profile::Clock;
use super::simd::{Isa, LANES, Lanes};
use crate::adam::Coefficients;
use bytemuck::{Pod, Zeroable, must_cast_mut, must_cast_ref};
use lenet_core::ops::argmax;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The largest number of sizes that a layer's module computes for its types.
pub const SIZES: usize = 13;

/// The parameters of a layer.
pub struct Parameters<'a, P: Pass> {
    pub weight: &'a P::Weight,
    pub bias: &'a P::Bias,
    /// Made from the parameters by [`Pass::prepare`].
    pub prepared: &'a P::Prepared,
}

impl<P: Pass> Clone for Parameters<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Pass> Copy for Parameters<'_, P> {}

/// The weight and bias of a layer, mutably: parameters, or Adam's moments.
pub struct Slots<'a, P: Pass> {
    pub weight: &'a mut P::Weight,
    pub bias: &'a mut P::Bias,
}

/// The forward pass of a layer over `G` groups of images.
pub struct Forward<'a, P: Pass, const G: usize> {
    pub isa: Isa,
    pub params: Parameters<'a, P>,
    pub input: [&'a P::Input; G],
    /// The output, after pooling and activation; overwritten.
    pub out: [&'a mut P::Output; G],
    /// Overwritten if a backward pass follows.
    pub trace: [&'a mut P::Trace; G],
    /// Overwritten.
    pub scratch: &'a mut P::Scratch,
}

/// The backward pass of a layer over `G` groups of images.
pub struct Backward<'a, P: Pass, const G: usize> {
    pub isa: Isa,
    pub params: Parameters<'a, P>,
    /// The input of the forward pass.
    pub input: [&'a P::Input; G],
    /// The output of the forward pass.
    pub out: [&'a P::Output; G],
    /// The trace that the forward pass wrote.
    pub trace: [&'a P::Trace; G],
    /// The gradient of the output, after pooling and activation; zero in lanes without an image. May be overwritten.
    pub grad_out: [&'a mut P::Output; G],
    /// What the update needs; overwritten.
    pub kept: [&'a mut P::Kept; G],
    /// The gradient of the input, which the first layer does not compute; overwritten.
    pub grad_input: Option<[&'a mut P::GradInput; G]>,
    /// Overwritten.
    pub scratch: &'a mut P::Scratch,
}

/// An algorithm that computes a layer.
pub trait Pass: 'static {
    /// The weight.
    type Weight: Pod + Send + Sync;
    /// The bias.
    type Bias: Pod + Send + Sync;
    /// The input of a group: interleaved images, or the stored ones for some first layers.
    type Input: Sync;
    /// The output of a group: interleaved images.
    type Output: Pod + Send + Sync;
    /// The gradient of a group's input: interleaved images.
    type GradInput: Pod + Send + Sync;
    /// The weights in the layout of the kernels.
    type Prepared: Zeroable + Send + Sync;
    /// What the backward pass needs from the forward pass, other than the output.
    type Trace: Zeroable + Send + Sync;
    /// What the update needs from a group; kept until the end of the batch.
    type Kept: Zeroable + Send + Sync;
    /// Memory for the intermediate results of the passes.
    type Scratch: Zeroable + Send;

    /// Whether the algorithm reads stored pixels. `Input` is then [`Stored`](super::pixels::Stored).
    const STORED: bool = false;

    /// Converts a weight to the layout of the kernels.
    fn prepare(isa: Isa, weight: &Self::Weight, prepared: &mut Self::Prepared);

    /// Runs the forward pass. With `TRAIN`, a backward pass may follow.
    fn forward<const G: usize, const TRAIN: bool>(pass: Forward<'_, Self, G>)
    where
        Self: Sized;

    /// Runs the backward pass.
    fn backward<const G: usize>(pass: Backward<'_, Self, G>)
    where
        Self: Sized;

    /// Sums the gradient over the groups of a batch, then updates the parameters and the prepared weights.
    ///
    /// `kept` returns this layer's part of a group; `slots` holds the parameters, the first and the second moments.
    fn update<T: Sync>(
        batch: &Batch<'_, T>,
        kept: impl Fn(&T) -> &Self::Kept + Copy + Sync,
        slots: [Slots<'_, Self>; 3],
        prepared: &mut Self::Prepared,
    ) where
        Self: Sized;
}

/// The data that the update of every layer needs. `T` is the type of the data that is kept of a group.
pub struct Batch<'a, T> {
    pub(super) isa: Isa,
    pub(super) adam: &'a Coefficients,
    pub(super) groups: &'a [T],
    /// One for each thread of the pool.
    pub(super) clocks: &'a [Mutex<Clock>],
    /// The phase that the update is part of.
    pub(super) phase: usize,
}

impl<T> Batch<'_, T> {
    /// Runs a part of the update, and measures its time.
    pub(super) fn timed<R>(&self, work: impl FnOnce() -> R) -> R {
        let mut clock = of_this_thread(self.clocks);
        clock.start();
        let result = work();
        clock.lap(self.phase);
        result
    }
}

/// Locks the element that belongs to the calling thread of the pool.
pub(super) fn of_this_thread<T>(each: &[Mutex<T>]) -> MutexGuard<'_, T> {
    let thread = rayon::current_thread_index().unwrap_or(0);
    each[thread].lock().unwrap_or_else(PoisonError::into_inner)
}

/// One layer's part of something, and that of the layers after it.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub struct Link<A, B> {
    pub first: A,
    pub rest: B,
}

/// The memory that a thread needs for a layer.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct Memory<O, T, S> {
    out: [O; TOGETHER],
    grad_out: [O; TOGETHER],
    scratch: S,
    trace: [T; TOGETHER],
}

/// The results of a group after the last layer, which the update and the statistics need.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct Outcome {
    /// The loss of each image.
    pub(super) losses: Lanes,
    /// 1 for each image whose largest logit is that of its label.
    pub(super) correct: [u32; LANES],
}

/// The state of a training step, for groups that are computed together.
pub struct Step<'a> {
    pub(super) isa: Isa,
    /// The images' classes.
    pub(super) labels: &'a [u8],
    /// The factor by which the gradient of the loss is multiplied.
    pub(super) scale: f32,
    pub(super) clock: &'a mut Clock,
}

/// Layers that follow each other, and the loss.
pub trait Chain: 'static {
    /// The number of layers.
    const LAYERS: usize;
    /// Whether the first layer reads stored pixels.
    const STORED: bool;
    /// The input of the first layer.
    type Input: Sync;
    /// The gradient of the first layer's input.
    type GradInput: Pod + Send + Sync;
    /// The prepared weights of each layer.
    type Prepared: Zeroable + Send + Sync;
    /// The memory that a thread needs.
    type Memory: Zeroable + Send;
    /// What each layer keeps until the update.
    type Kept: Zeroable + Send + Sync;

    /// Prepares the weights. `params` holds the parameters of these layers.
    fn prepare(isa: Isa, params: &[f32], prepared: &mut Self::Prepared);

    /// Computes the logits of `G` groups and passes them to a function, one group after the other.
    fn logits<const G: usize>(
        isa: Isa,
        params: &[f32],
        prepared: &Self::Prepared,
        input: [&Self::Input; G],
        memory: &mut Self::Memory,
        each: &mut dyn FnMut(usize, &[Lanes]),
    );

    /// Runs the forward and backward pass of `G` groups. `layer` is the index of the first of these layers.
    fn train<const G: usize>(
        step: &mut Step<'_>,
        layer: usize,
        weights: (&[f32], &Self::Prepared),
        input: [&Self::Input; G],
        grad_input: Option<[&mut Self::GradInput; G]>,
        memory: &mut Self::Memory,
        kept: [&mut Self::Kept; G],
    );

    /// Updates the parameters and moments, then prepares the weights. The slices hold those of these layers.
    fn update<T: Sync>(
        batch: &Batch<'_, T>,
        kept: impl Fn(&T) -> &Self::Kept + Copy + Sync,
        slots: [&mut [f32]; 3],
        prepared: &mut Self::Prepared,
    );

    /// Returns the losses and hits of a group.
    fn outcome(kept: &Self::Kept) -> &Outcome;
}

/// Splits the weight and bias of the first layer off the parameters of several.
fn split<P: Pass>(params: &[f32]) -> ((&P::Weight, &P::Bias), &[f32]) {
    let (weight, rest) = params.split_at(size_of::<P::Weight>() / size_of::<f32>());
    let (bias, rest) = rest.split_at(size_of::<P::Bias>() / size_of::<f32>());
    let weight = &bytemuck::cast_slice(weight)[0];
    ((weight, &bytemuck::cast_slice(bias)[0]), rest)
}

/// Does the same as [`split`], mutably.
fn split_mut<P: Pass>(params: &mut [f32]) -> (Slots<'_, P>, &mut [f32]) {
    let (weight, rest) = params.split_at_mut(size_of::<P::Weight>() / size_of::<f32>());
    let (bias, rest) = rest.split_at_mut(size_of::<P::Bias>() / size_of::<f32>());
    let slots = Slots {
        weight: &mut bytemuck::cast_slice_mut(weight)[0],
        bias: &mut bytemuck::cast_slice_mut(bias)[0],
    };
    (slots, rest)
}

/// Returns the first `G` elements of an array with one for each group.
fn groups<T, const G: usize>(each: &[T; TOGETHER]) -> [&T; G] {
    let groups: &[T; G] = each.first_chunk().expect("no more groups than go together");
    groups.each_ref()
}

/// Returns the same as [`groups`], mutably.
fn groups_mut<T, const G: usize>(each: &mut [T; TOGETHER]) -> [&mut T; G] {
    let groups: &mut [T; G] = each
        .first_chunk_mut()
        .expect("no more groups than go together");
    groups.each_mut()
}

// The output of a layer is the input of the next: they share memory, in which a linear layer sees the maps of a convolution as
// one array.
impl<P: Pass, R: Chain<Input: Pod>> Chain for (P, R) {
    const LAYERS: usize = 1 + R::LAYERS;
    const STORED: bool = P::STORED;
    type Input = P::Input;
    type GradInput = P::GradInput;
    type Prepared = Link<P::Prepared, R::Prepared>;
    type Memory = Link<Memory<P::Output, P::Trace, P::Scratch>, R::Memory>;
    type Kept = Link<P::Kept, R::Kept>;

    fn prepare(isa: Isa, params: &[f32], prepared: &mut Self::Prepared) {
        let Link { first, rest } = prepared;
        let ((weight, _), params) = split::<P>(params);
        P::prepare(isa, weight, first);
        R::prepare(isa, params, rest);
    }

    fn logits<const G: usize>(
        isa: Isa,
        params: &[f32],
        prepared: &Self::Prepared,
        input: [&P::Input; G],
        memory: &mut Self::Memory,
        each: &mut dyn FnMut(usize, &[Lanes]),
    ) {
        let ((weight, bias), rest) = split::<P>(params);
        let params = Parameters {
            weight,
            bias,
            prepared: &prepared.first,
        };
        let Memory {
            out,
            trace,
            scratch,
            ..
        } = &mut memory.first;
        P::forward::<G, false>(Forward {
            isa,
            params,
            input,
            out: groups_mut(out),
            trace: groups_mut(trace),
            scratch,
        });
        let input = groups::<_, G>(out).map(must_cast_ref);
        R::logits(isa, rest, &prepared.rest, input, &mut memory.rest, each);
    }

    fn train<const G: usize>(
        step: &mut Step<'_>,
        layer: usize,
        (params, prepared): (&[f32], &Self::Prepared),
        input: [&P::Input; G],
        grad_input: Option<[&mut P::GradInput; G]>,
        memory: &mut Self::Memory,
        mut kept: [&mut Self::Kept; G],
    ) {
        let isa = step.isa;
        let ((weight, bias), rest) = split::<P>(params);
        let params = Parameters {
            weight,
            bias,
            prepared: &prepared.first,
        };
        let Memory {
            out,
            grad_out,
            scratch,
            trace,
        } = &mut memory.first;
        P::forward::<G, true>(Forward {
            isa,
            params,
            input,
            out: groups_mut(out),
            trace: groups_mut(trace),
            scratch,
        });
        step.clock.lap(super::profile::forward(layer));
        R::train(
            step,
            layer + 1,
            (rest, &prepared.rest),
            groups::<_, G>(out).map(must_cast_ref),
            Some(groups_mut::<_, G>(grad_out).map(must_cast_mut)),
            &mut memory.rest,
            kept.each_mut().map(|kept| &mut kept.rest),
        );
        P::backward(Backward {
            isa,
            params,
            input,
            out: groups(out),
            trace: groups(trace),
            grad_out: groups_mut(grad_out),
            kept: kept.map(|kept| &mut kept.first),
            grad_input,
            scratch,
        });
        step.clock
            .lap(super::profile::backward(layer, layer + Self::LAYERS));
    }

    fn update<T: Sync>(
        batch: &Batch<'_, T>,
        kept: impl Fn(&T) -> &Self::Kept + Copy + Sync,
        slots: [&mut [f32]; 3],
        prepared: &mut Self::Prepared,
    ) {
        let Link { first, rest } = prepared;
        let [(p, rest_p), (m, rest_m), (v, rest_v)] = slots.map(split_mut::<P>);
        rayon::join(
            || {
                R::update(
                    batch,
                    move |t| &kept(t).rest,
                    [rest_p, rest_m, rest_v],
                    rest,
                )
            },
            || P::update(batch, move |t| &kept(t).first, [p, m, v], first),
        );
    }

    fn outcome(kept: &Self::Kept) -> &Outcome {
        R::outcome(&kept.rest)
    }
}

/// The end of a chain: the loss, for `N` classes.
pub struct End<const N: usize>;

impl<const N: usize> Chain for End<N> {
    const LAYERS: usize = 0;
    const STORED: bool = false;
    type Input = [Lanes; N];
    type GradInput = [Lanes; N];
    type Prepared = ();
    type Memory = ();
    type Kept = Outcome;

    fn prepare(_: Isa, _: &[f32], (): &mut ()) {}

    fn logits<const G: usize>(
        _: Isa,
        _: &[f32],
        (): &(),
        input: [&[Lanes; N]; G],
        (): &mut (),
        each: &mut dyn FnMut(usize, &[Lanes]),
    ) {
        for (g, logits) in input.into_iter().enumerate() {
            each(g, logits);
        }
    }

    fn train<const G: usize>(
        step: &mut Step<'_>,
        layer: usize,
        _: (&[f32], &()),
        input: [&[Lanes; N]; G],
        grad_input: Option<[&mut [Lanes; N]; G]>,
        (): &mut (),
        kept: [&mut Outcome; G],
    ) {
        let labels = step.labels.chunks(LANES);
        let groups = input.into_iter().zip(grad_input.into_iter().flatten());
        for ((labels, (logits, grad_logits)), outcome) in labels.zip(groups).zip(kept) {
            outcome.losses = step.isa.run(CrossEntropy {
                logits,
                labels,
                scale: step.scale,
                grad_logits,
            });
            for (n, (correct, &label)) in outcome.correct.iter_mut().zip(labels).enumerate() {
                let class = argmax(&logits.map(|lanes| lanes[n]));
                *correct = u32::from(class == usize::from(label));
            }
        }
        step.clock.lap(super::profile::loss(layer));
    }

    fn update<T: Sync>(
        _: &Batch<'_, T>,
        _: impl Fn(&T) -> &Outcome + Copy + Sync,
        _: [&mut [f32]; 3],
        (): &mut (),
    ) {
    }

    fn outcome(kept: &Outcome) -> &Outcome {
        kept
    }
}
