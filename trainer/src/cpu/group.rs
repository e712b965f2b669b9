//! Sixteen images through the network and back: the order of the kernels, and the memory between them.

use super::conv1::{self, POOL1, Pool1, Pool1Image, Turn, TurnWinners};
use super::conv2;
use super::linear::{Kept, Linear, Panels, turn};
use super::loss::CrossEntropy;
use super::pixels::Interleave;
use super::profile::{Clock, Phase};
use super::sigmoid::{Sigmoid, SigmoidGrad};
use super::simd::{Isa, LANES, Lanes};
use crate::dataset::{Augment, Split};
use crate::lenet::{FC1, FC2, FLAT, SIDE};
use crate::reference::StepSums;
use bytemuck::{Zeroable, zeroed_box};
use lenet_core::network::{CLASSES, Logits, Params, Pixels};
use lenet_core::ops::argmax;

/// The weights once more, as the kernels read them.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Prepared {
    pub conv1: conv1::Kernels,
    pub conv2: conv2::Kernels,
    // Turned, for the way back:
    pub fc1: [[f32; FC1]; FLAT],
    pub fc2: [[f32; FC2]; FC1],
    pub fc3: [[f32; CLASSES]; FC2],
}

impl Prepared {
    /// Of parameters.
    pub(super) fn new(isa: Isa, params: &Params) -> Box<Self> {
        let mut prepared: Box<Self> = zeroed_box();
        conv1::set_kernels(&params.conv1.weight, &mut prepared.conv1);
        conv2::set_kernels(&params.conv2.weight, &mut prepared.conv2);
        turn(isa, &params.fc1.weight, &mut prepared.fc1);
        turn(isa, &params.fc2.weight, &mut prepared.fc2);
        turn(isa, &params.fc3.weight, &mut prepared.fc3);
        prepared
    }
}

/// What the update of the weights needs of a group: kept for the whole batch.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Group {
    pub fc1: Kept<{ FLAT / LANES }, FC1>,
    pub fc2: Kept<{ FC1.div_ceil(LANES) }, FC2>,
    pub fc3: Kept<{ FC2.div_ceil(LANES) }, CLASSES>,
    pub conv1: conv1::Sums,
    pub conv2: conv2::Sums,
    /// The images' losses.
    losses: Lanes,
    /// 1 for each image whose largest logit was its label's.
    correct: [u32; LANES],
}

impl Group {
    /// Adds the losses of the first `images` images.
    pub(super) fn add_losses(&self, images: usize, sums: &mut StepSums) {
        for (&loss, &correct) in self.losses.iter().zip(&self.correct).take(images) {
            sums.add_image(loss, correct != 0);
        }
    }
}

/// Groups that go through the fully connected layers together, so that each weight is loaded once for both.
pub(super) const TOGETHER: usize = 2;

/// What a group's way back needs of its way forward.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
struct Activations {
    pixels: [Pixels; LANES],
    pool1: Pool1<Lanes>,
    winner1: Pool1<[u8; LANES]>,
    /// `(C2, POOL2_SIDE, POOL2_SIDE, LANES)`
    pool2: [Lanes; FLAT],
    winner2: [[u8; LANES]; FLAT],
    /// Followed by zeros up to a whole panel, as `fc2` is.
    fc1: [Lanes; FC1.next_multiple_of(LANES)],
    fc2: [Lanes; FC2.next_multiple_of(LANES)],
    logits: [Lanes; CLASSES],
    grad_pool2: [Lanes; FLAT],
}

impl Activations {
    /// Sets the pixels to those of so many images; places without an image repeat the last.
    fn set_pixels(&mut self, images: usize, of: impl Fn(usize) -> Pixels) {
        for (n, pixels) in self.pixels.iter_mut().enumerate() {
            *pixels = of(n.min(images - 1));
        }
    }
}

/// What the convolutions of a group keep on their way.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
struct Convolutions {
    /// `(SIDE, SIDE, LANES)`, as stored
    image: [[[u8; LANES]; SIDE]; SIDE],
    conv1: conv1::ForwardScratch,
    conv2: conv2::Scratch,
}

/// What a thread needs for a few groups at a time.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Scratch {
    groups: [Activations; TOGETHER],
    convolutions: Convolutions,
    grad_pool1: Pool1<Lanes>,
    // One image after the other:
    grad_pool1_images: [Pool1Image; LANES],
    winner1_images: [[u8; POOL1]; LANES],
    // Of one image at a time:
    conv1: conv1::GradScratch,
}

/// From a layer's output, whose gradient `kept` has, back through its turned weight and the sigmoid before it. Keeps the
/// layer's input, which may be padded, for the update. Of each group: the input, what is kept, the gradient by the input.
fn linear_back<const G: usize, const PANELS: usize, const IN: usize, const OUT: usize>(
    isa: Isa,
    weight: &[[f32; OUT]; IN],
    mut groups: [(&[Lanes], &mut Kept<PANELS, OUT>, &mut [Lanes; IN]); G],
) {
    for (input, kept, _) in &mut groups {
        isa.run(Panels {
            input,
            out: &mut kept.panels,
        });
    }
    isa.run(Linear {
        weight,
        bias: &[0.0; IN],
        groups: groups
            .each_mut()
            .map(|(_, kept, grad_input)| (&kept.grad_out, &mut **grad_input)),
    });
    for (input, _, grad_input) in groups {
        isa.run(SigmoidGrad {
            out: &input[..IN],
            grad: grad_input,
        });
    }
}

/// Bytes that come from memory together.
const CACHE_LINE: usize = 64;

/// The images of the groups that go together.
pub(super) struct Images<'a> {
    pub train: &'a Split,
    /// How they are changed before they are seen, if they are.
    pub augment: Option<&'a Augment>,
    /// Sixteen for each group, fewer for the last.
    pub indices: &'a [usize],
}

impl Images<'_> {
    /// Reads a byte of each line of the cache that they fill, so that all are on their way before the first is used.
    fn touch(&self) {
        let images = self.train.images();
        let lines = self.indices.iter().flat_map(|&index| {
            bytemuck::bytes_of(&images[index])
                .iter()
                .step_by(CACHE_LINE)
        });
        std::hint::black_box(lines.fold(0, |sum, byte| sum ^ byte));
    }

    /// The pixels of one of them.
    fn pixels(&self, index: usize) -> Pixels {
        let stored = &self.train.images()[index];
        match self.augment {
            None => *stored,
            Some(augment) => augment.apply(index, stored),
        }
    }
}

/// The network that a group runs through.
#[derive(Clone, Copy)]
pub(super) struct Network<'a> {
    pub isa: Isa,
    pub params: &'a Params,
    pub prepared: &'a Prepared,
}

impl Network<'_> {
    /// The pixels through the convolutions. `WINNER`: for the way back too.
    fn convolve<const WINNER: bool>(
        &self,
        act: &mut Activations,
        scratch: &mut Convolutions,
        clock: &mut Clock,
    ) {
        let Self {
            isa,
            params,
            prepared,
        } = *self;
        isa.run(Interleave {
            images: &act.pixels,
            out: &mut scratch.image,
        });
        clock.lap(Phase::Data);
        isa.run(conv1::Forward::<WINNER> {
            image: &scratch.image,
            kernels: &prepared.conv1,
            bias: &params.conv1.bias,
            out: &mut act.pool1,
            winner: &mut act.winner1,
            scratch: &mut scratch.conv1,
        });
        clock.lap(Phase::Conv1);
        isa.run(conv2::Forward::<WINNER> {
            input: &act.pool1,
            kernels: &prepared.conv2,
            bias: &params.conv2.bias,
            out: &mut act.pool2,
            winner: &mut act.winner2,
            scratch: &mut scratch.conv2,
        });
        clock.lap(Phase::Conv2);
    }

    /// Through the fully connected layers.
    fn connect<const G: usize>(&self, mut groups: [&mut Activations; G], clock: &mut Clock) {
        let Self { isa, params, .. } = *self;
        isa.run(Linear {
            weight: &params.fc1.weight,
            bias: &params.fc1.bias,
            groups: groups
                .each_mut()
                .map(|act| (&act.pool2, act.fc1.first_chunk_mut().expect("padded"))),
        });
        for act in &mut groups {
            isa.run(Sigmoid(&mut act.fc1[..FC1]));
        }
        isa.run(Linear {
            weight: &params.fc2.weight,
            bias: &params.fc2.bias,
            groups: groups.each_mut().map(|act| {
                let fc1: &[Lanes; FC1] = act.fc1.first_chunk().expect("padded");
                (fc1, act.fc2.first_chunk_mut().expect("padded"))
            }),
        });
        for act in &mut groups {
            isa.run(Sigmoid(&mut act.fc2[..FC2]));
        }
        isa.run(Linear {
            weight: &params.fc3.weight,
            bias: &params.fc3.bias,
            groups: groups.each_mut().map(|act| {
                let fc2: &[Lanes; FC2] = act.fc2.first_chunk().expect("padded");
                (fc2, &mut act.logits)
            }),
        });
        clock.lap(Phase::Linear);
    }

    /// The logits of up to as many images as go together.
    pub(super) fn logits(&self, images: &[Pixels], out: &mut [Logits], scratch: &mut Scratch) {
        let clock = &mut Clock::stopped();
        let chunks = images.chunks(LANES);
        for (images, act) in chunks.zip(&mut scratch.groups) {
            act.set_pixels(images.len(), |n| images[n]);
            self.convolve::<false>(act, &mut scratch.convolutions, clock);
        }
        match &mut scratch.groups {
            [first, _] if images.len() <= LANES => self.connect([first], clock),
            groups => self.connect(groups.each_mut(), clock),
        }
        for (n, out) in out.iter_mut().enumerate() {
            *out = scratch.groups[n / LANES]
                .logits
                .map(|lanes| lanes[n % LANES]);
        }
    }

    /// The images of up to as many groups as go together forward and back: leaves in `groups` what the update needs.
    /// `scale` as for the reference.
    pub(super) fn gradient(
        &self,
        images: &Images<'_>,
        scale: f32,
        groups: &mut [Group],
        scratch: &mut Scratch,
        clock: &mut Clock,
    ) {
        clock.start();
        images.touch();
        let chunks = images.indices.chunks(LANES);
        for (indices, act) in chunks.clone().zip(&mut scratch.groups) {
            act.set_pixels(indices.len(), |n| images.pixels(indices[n]));
            self.convolve::<true>(act, &mut scratch.convolutions, clock);
        }
        match (&mut scratch.groups, &mut *groups) {
            ([act, _], [group]) => self.there_and_back(images, scale, [(act, group)], clock),
            ([act0, act1], [group0, group1]) => {
                let groups = [(act0, group0), (act1, group1)];
                self.there_and_back(images, scale, groups, clock);
            }
            _ => unreachable!("one group or two"),
        }
        for (g, (indices, group)) in chunks.zip(groups).enumerate() {
            self.convolve_back(g, indices.len(), group, scratch, clock);
        }
    }

    /// Forward through the fully connected layers, and back from the loss to pool2.
    fn there_and_back<const G: usize>(
        &self,
        images: &Images<'_>,
        scale: f32,
        mut groups: [(&mut Activations, &mut Group); G],
        clock: &mut Clock,
    ) {
        let Self { isa, prepared, .. } = *self;
        self.connect(groups.each_mut().map(|(act, _)| &mut **act), clock);
        for (indices, (act, group)) in images.indices.chunks(LANES).zip(&mut groups) {
            let mut labels = [0; LANES];
            for (label, &index) in labels.iter_mut().zip(indices) {
                *label = images.train.labels()[index];
            }
            let labels = &labels[..indices.len()];
            group.losses = isa.run(CrossEntropy {
                logits: &act.logits,
                labels,
                scale,
                grad_logits: &mut group.fc3.grad_out,
            });
            for (n, (correct, &label)) in group.correct.iter_mut().zip(labels).enumerate() {
                let class = argmax(&act.logits.map(|lanes| lanes[n]));
                *correct = u32::from(class == usize::from(label));
            }
        }
        let fc3 = groups.each_mut().map(|(act, group)| {
            let fc2 = group.fc2.grad_out.first_chunk_mut().expect("all outputs");
            (&act.fc2[..], &mut group.fc3, fc2)
        });
        linear_back(isa, &prepared.fc3, fc3);
        let fc2 = groups.each_mut().map(|(act, group)| {
            let fc1 = group.fc1.grad_out.first_chunk_mut().expect("all outputs");
            (&act.fc1[..], &mut group.fc2, fc1)
        });
        linear_back(isa, &prepared.fc2, fc2);
        let fc1 = groups
            .each_mut()
            .map(|(act, group)| (&act.pool2[..], &mut group.fc1, &mut act.grad_pool2));
        linear_back(isa, &prepared.fc1, fc1);
        clock.lap(Phase::LinearGradInput);
    }

    /// Back through the convolutions, for so many images of the group `g` of those that go together.
    fn convolve_back(
        &self,
        g: usize,
        images: usize,
        group: &mut Group,
        scratch: &mut Scratch,
        clock: &mut Clock,
    ) {
        let Self { isa, prepared, .. } = *self;
        let act = &scratch.groups[g];
        group.conv2 = conv2::Sums::zeroed();
        isa.run(conv2::Backward {
            input: &act.pool1,
            kernels: &prepared.conv2,
            grad: &act.grad_pool2,
            winner: &act.winner2,
            sums: &mut group.conv2,
            grad_input: &mut scratch.grad_pool1,
            scratch: &mut scratch.convolutions.conv2,
        });
        clock.lap(Phase::Conv2Grad);
        let sums = &mut group.conv1;
        *sums = conv1::Sums::zeroed();
        isa.run(conv1::GradBias {
            out: &act.pool1,
            grad: &mut scratch.grad_pool1,
            sums: &mut sums.bias,
        });
        clock.lap(Phase::Conv1Grad);
        isa.run(Turn {
            lanes: bytemuck::must_cast_ref(&scratch.grad_pool1),
            images: &mut scratch.grad_pool1_images,
        });
        isa.run(TurnWinners {
            lanes: bytemuck::must_cast_ref(&act.winner1),
            images: &mut scratch.winner1_images,
        });
        clock.lap(Phase::Turn);
        for n in 0..images {
            isa.run(conv1::GradWeight {
                pixels: &act.pixels[n],
                winner: &scratch.winner1_images[n],
                grad: &scratch.grad_pool1_images[n],
                scratch: &mut scratch.conv1,
                sums,
            });
        }
        clock.lap(Phase::Conv1Grad);
    }
}
