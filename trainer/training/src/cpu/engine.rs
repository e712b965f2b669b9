//! The engine: runs a network's training steps and computes its logits on a thread pool.

use super::layer::{Batch, Chain, Step, of_this_thread};
use super::pixels::{Store, View};
use super::profile::{self, Clock};
use super::simd::{Isa, LANES};
use super::{Network, TOGETHER};
use crate::adam::{self, Coefficients};
use crate::backend::Error;
use crate::backend::StepStats;
use crate::reference::StepSums;
use crate::threads;
use bytemuck::{Zeroable, zeroed_box, zeroed_vec};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The memory that a thread needs for the groups that it computes together.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
struct Memory<S, L> {
    images: [S; TOGETHER],
    layers: L,
}

type Layers<N> = <N as Network>::Layers;
type Prepared<N> = <Layers<N> as Chain>::Prepared;
type Kept<N> = <Layers<N> as Chain>::Kept;
type MemoryOf<N> = Memory<<N as Network>::Stored, <Layers<N> as Chain>::Memory>;

/// A function that changes an image, given its index in the data set and its pixels.
pub type Change<'a, P> = dyn Fn(usize, &P) -> P + Sync + 'a;

/// The images of a batch.
pub struct Images<'a, P> {
    /// All images of the data set.
    pub stored: &'a [P],
    /// Their classes.
    pub labels: &'a [u8],
    /// The number of images in the batch.
    pub count: usize,
    /// Returns the index in the data set of an image of the batch.
    pub index: &'a (dyn Fn(usize) -> usize + Sync),
    /// The change applied to each image before the forward pass, if any.
    pub change: Option<&'a Change<'a, P>>,
}

/// The parameters that a step updates, with Adam's moments.
pub struct Slots<'a> {
    /// All parameters.
    pub params: &'a mut [f32],
    /// First moments.
    pub moment1: &'a mut [f32],
    /// Second moments.
    pub moment2: &'a mut [f32],
    /// The running mean of the parameters, if there is one.
    pub mean: Option<&'a mut [f32]>,
}

/// The weights in the layouts that the kernels read.
pub struct Weights<N: Network>(Box<Prepared<N>>);

impl<N: Network> Weights<N> {
    /// Converts parameters to the layouts of the kernels.
    pub fn new(isa: Isa, params: &N::Params) -> Self {
        let mut prepared = zeroed_box();
        N::Layers::prepare(isa, flat::<N>(params), &mut prepared);
        Self(prepared)
    }
}

/// Returns all parameters as one slice.
fn flat<N: Network>(params: &N::Params) -> &[f32] {
    bytemuck::cast_slice(std::slice::from_ref(params))
}

/// Runs a network on a thread pool.
pub struct Engine<N: Network> {
    isa: Isa,
    threads: Arc<rayon::ThreadPool>,
    /// One for each group of the largest batch so far.
    groups: Vec<Kept<N>>,
    /// One for each thread.
    memory: Vec<Mutex<Box<MemoryOf<N>>>>,
    /// One for each thread.
    clocks: Vec<Mutex<Clock>>,
}

impl<N: Network> Engine<N> {
    /// Starts `threads` threads; 0 means one per core.
    ///
    /// # Errors
    /// `Backend`: the system cannot start the threads.
    pub fn new(isa: Isa, threads: usize) -> Result<Self, Error> {
        let threads = threads::pool(threads)?;
        let each = 0..threads.current_num_threads();
        Ok(Self {
            isa,
            groups: Vec::new(),
            memory: each.clone().map(|_| Mutex::new(zeroed_box())).collect(),
            clocks: each
                .map(|_| Mutex::new(Clock::new(N::Layers::LAYERS, false)))
                .collect(),
            threads: Arc::new(threads),
        })
    }

    /// Returns the instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Returns the thread pool.
    pub fn threads(&self) -> Arc<rayon::ThreadPool> {
        self.threads.clone()
    }

    /// Resets all clocks, starts or stops them, and returns the time spent in each phase until now, summed over the threads.
    pub fn set_clocks(&mut self, running: bool) -> Vec<Duration> {
        let mut sums = vec![Duration::ZERO; 1 + profile::update(N::Layers::LAYERS)];
        for clock in &mut self.clocks {
            let clock = clock.get_mut().unwrap_or_else(PoisonError::into_inner);
            for (sum, time) in sums.iter_mut().zip(clock.times()) {
                *sum += *time;
            }
            *clock = Clock::new(N::Layers::LAYERS, running);
        }
        sums
    }

    /// Runs one step: computes the gradient of the batch's mean loss and applies Adam. The caller is a thread of the pool.
    /// `weights` must match `slots.params` before the call, and does so after it.
    pub fn step(
        &mut self,
        images: &Images<'_, N::Pixels>,
        weights: &mut Weights<N>,
        adam: &Coefficients,
        slots: Slots<'_>,
    ) -> StepStats {
        let used = images.count.div_ceil(LANES);
        if self.groups.len() < used {
            // The groups are overwritten, so their old values need not be copied. They may be too large for the stack.
            self.groups = zeroed_vec(used);
        }
        let Self {
            isa,
            groups,
            memory,
            clocks,
            threads: _,
        } = self;
        let (isa, groups) = (*isa, &mut groups[..used]);
        // Linear layers are faster for several groups together, unless that would leave threads without work.
        let together = (used / memory.len()).clamp(1, TOGETHER);
        groups
            .par_chunks_mut(together)
            .enumerate()
            .with_max_len(1)
            .for_each(|(chunk, groups)| {
                let first = chunk * together * LANES;
                let count = (groups.len() * LANES).min(images.count - first);
                let mut memory = of_this_thread(memory);
                let mut clock = of_this_thread(clocks);
                let part = Part {
                    images,
                    first,
                    count,
                };
                let network = (&*slots.params, &*weights.0);
                match groups {
                    [group] => part.train::<N, 1>(isa, network, [group], &mut memory, &mut clock),
                    [group0, group1] => {
                        part.train::<N, 2>(isa, network, [group0, group1], &mut memory, &mut clock)
                    }
                    _ => unreachable!("one group or two"),
                }
            });
        let Slots {
            params,
            moment1,
            moment2,
            mean,
        } = slots;
        let batch = Batch {
            isa,
            adam,
            groups,
            clocks,
            phase: profile::update(N::Layers::LAYERS),
        };
        N::Layers::update(
            &batch,
            |group| group,
            [&mut *params, moment1, moment2],
            &mut weights.0,
        );
        if let Some(mean) = mean {
            batch.timed(|| adam::average(adam, params, mean));
        }
        let mut sums = StepSums::default();
        for (g, group) in groups.iter().enumerate() {
            let outcome = N::Layers::outcome(group);
            let outcomes = outcome.losses.iter().zip(&outcome.correct);
            for (&loss, &correct) in outcomes.take(images.count - g * LANES) {
                sums.add_image(loss, correct != 0);
            }
        }
        sums.stats()
    }

    /// Computes the logits of images and passes those of each image to `write`, with its element of `out`.
    pub fn logits<T: Send>(
        &self,
        params: &N::Params,
        weights: &Weights<N>,
        images: &[N::Pixels],
        out: &mut [T],
        write: impl Fn(&mut T, &mut dyn Iterator<Item = f32>) + Sync,
    ) {
        let Self {
            isa,
            threads,
            memory,
            ..
        } = self;
        let params = flat::<N>(params);
        threads.install(|| {
            images
                .par_chunks(TOGETHER * LANES)
                .zip(out.par_chunks_mut(TOGETHER * LANES))
                .for_each(|(images, out)| {
                    let memory = &mut **of_this_thread(memory);
                    let with_lanes = const { !<N::Layers as Chain>::STORED };
                    for (images, stored) in images.chunks(LANES).zip(&mut memory.images) {
                        stored.set(*isa, images.len(), with_lanes, |n| images[n]);
                    }
                    let mut each = |g: usize, logits: &[[f32; LANES]]| {
                        for (n, out) in out.iter_mut().skip(g * LANES).take(LANES).enumerate() {
                            write(out, &mut logits.iter().map(|lanes| lanes[n]));
                        }
                    };
                    let Memory {
                        images: stored,
                        layers,
                    } = memory;
                    if images.len() <= LANES {
                        let input = [stored[0].view()];
                        N::Layers::logits::<1>(*isa, params, &weights.0, input, layers, &mut each);
                    } else {
                        let input = stored.each_ref().map(View::view);
                        N::Layers::logits(*isa, params, &weights.0, input, layers, &mut each);
                    }
                });
        });
    }
}

/// The number of bytes in a cache line.
const CACHE_LINE: usize = 64;

/// The images of a batch that one thread computes together.
struct Part<'a, P> {
    images: &'a Images<'a, P>,
    first: usize,
    count: usize,
}

impl<P: bytemuck::Pod> Part<'_, P> {
    /// Reads one byte of each cache line of the images, so that all loads from memory have begun before the first value is
    /// used.
    fn touch(&self) {
        let lines = (self.first..self.first + self.count).flat_map(|n| {
            let image = &self.images.stored[(self.images.index)(n)];
            bytemuck::bytes_of(image).iter().step_by(CACHE_LINE)
        });
        std::hint::black_box(lines.fold(0, |sum, byte| sum ^ byte));
    }

    /// Runs the forward and the backward pass of the images, and leaves in `groups` what the update needs.
    fn train<N: Network<Pixels = P>, const G: usize>(
        &self,
        isa: Isa,
        network: (&[f32], &Prepared<N>),
        groups: [&mut Kept<N>; G],
        memory: &mut MemoryOf<N>,
        clock: &mut Clock,
    ) {
        clock.start();
        self.touch();
        let Memory { images, layers } = memory;
        let stored: &mut [_; G] = images.first_chunk_mut().expect("at most TOGETHER");
        let mut labels = [0; TOGETHER * LANES];
        for (n, label) in labels[..self.count].iter_mut().enumerate() {
            *label = self.images.labels[(self.images.index)(self.first + n)];
        }
        for (g, stored) in stored.iter_mut().enumerate() {
            let first = self.first + g * LANES;
            let count = LANES.min(self.first + self.count - first);
            let with_lanes = const { !<N::Layers as Chain>::STORED };
            stored.set(isa, count, with_lanes, |n| {
                let index = (self.images.index)(first + n);
                let stored = &self.images.stored[index];
                match self.images.change {
                    None => *stored,
                    Some(change) => change(index, stored),
                }
            });
        }
        clock.lap(profile::DATA);
        let mut step = Step {
            isa,
            labels: &labels[..self.count],
            scale: 1.0 / self.images.count as f32,
            clock,
        };
        let input = stored.each_ref().map(View::view);
        N::Layers::train(&mut step, 0, network, input, None, layers, groups);
    }
}
