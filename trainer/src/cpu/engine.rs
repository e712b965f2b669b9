//! A network on the threads of a pool: steps of training, and logits.

use super::layer::{Batch, Chain, Step, of_this_thread};
use super::pixels::{Store, View};
use super::profile::{self, Clock};
use super::simd::{Isa, LANES};
use super::{Network, TOGETHER};
use crate::adam::{self, Coefficients};
use crate::backend::StepStats;
use crate::error::Error;
use crate::reference::StepSums;
use crate::threads;
use bytemuck::{Zeroable, zeroed_box, zeroed_vec};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a thread needs for a few groups at a time.
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

/// Returns what an image, given by its index in the data set and its pixels, is changed to.
pub type Change<'a, P> = dyn Fn(usize, &P) -> P + Sync + 'a;

/// The images of a batch.
pub struct Images<'a, P> {
    /// All images of the data set.
    pub stored: &'a [P],
    /// Their classes.
    pub labels: &'a [u8],
    /// How many images the batch has.
    pub count: usize,
    /// The index in the data set of an image of the batch.
    pub index: &'a (dyn Fn(usize) -> usize + Sync),
    /// How the image of an index is changed before it is seen, if it is.
    pub change: Option<&'a Change<'a, P>>,
}

/// A step's parameters with Adam's moments of them.
pub struct Slots<'a> {
    /// All parameters.
    pub params: &'a mut [f32],
    /// First moments.
    pub moment1: &'a mut [f32],
    /// Second moments.
    pub moment2: &'a mut [f32],
    /// The mean of the parameters, if there is one.
    pub mean: Option<&'a mut [f32]>,
}

/// Weights once more, as the kernels read them.
pub struct Weights<N: Network>(Box<Prepared<N>>);

impl<N: Network> Weights<N> {
    /// Prepares parameters.
    pub fn new(isa: Isa, params: &N::Params) -> Self {
        let mut prepared = zeroed_box();
        N::Layers::prepare(isa, flat::<N>(params), &mut prepared);
        Self(prepared)
    }
}

/// Returns all parameters as one run.
fn flat<N: Network>(params: &N::Params) -> &[f32] {
    bytemuck::cast_slice(std::slice::from_ref(params))
}

/// A network on the threads of a pool.
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
    /// Starts so many threads; 0 means one for each core.
    ///
    /// # Errors
    /// `Backend`: the system refuses the threads.
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

    /// Returns the pool.
    pub fn threads(&self) -> Arc<rayon::ThreadPool> {
        self.threads.clone()
    }

    /// Sets all clocks to zero, lets them run or stops them, and returns the time that the threads together spent in each
    /// phase until now.
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

    /// Runs one step, on a thread of the pool: the gradient of the mean loss of the batch, and Adam. `weights` are those of
    /// `slots`, before and after.
    pub fn step(
        &mut self,
        images: &Images<'_, N::Pixels>,
        weights: &mut Weights<N>,
        adam: &Coefficients,
        slots: Slots<'_>,
    ) -> StepStats {
        let used = images.count.div_ceil(LANES);
        if self.groups.len() < used {
            // They are overwritten, so that the old ones need not stay; and they may be too large for the stack.
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
        // A few groups together do the linear layers faster, unless threads would then have nothing to do.
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

    /// Computes the logits of images, one slice of them at a time, and hands each image's over with its index.
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

/// Bytes that come from memory together.
const CACHE_LINE: usize = 64;

/// The images of a batch that go together.
struct Part<'a, P> {
    images: &'a Images<'a, P>,
    first: usize,
    count: usize,
}

impl<P: bytemuck::Pod> Part<'_, P> {
    /// Reads a byte of each line of the cache that the images fill, so that all are on their way before the first is used.
    fn touch(&self) {
        let lines = (self.first..self.first + self.count).flat_map(|n| {
            let image = &self.images.stored[(self.images.index)(n)];
            bytemuck::bytes_of(image).iter().step_by(CACHE_LINE)
        });
        std::hint::black_box(lines.fold(0, |sum, byte| sum ^ byte));
    }

    /// Runs the images forward and backward: leaves in `groups` what the update needs.
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
