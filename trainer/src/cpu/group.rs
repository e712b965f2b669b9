//! Sixteen images through the network and back: the order of the kernels, and the memory between them.

use super::conv_pool_sigmoid::{ConvPoolSigmoid, kernel_rows};
use super::conv2d::{
    Conv1GradParams, Conv2GradBias, Conv2GradInput, Conv2GradWeight, Entries, KernelRows, POOL1,
    Rows, Sort, Sums, Table, Turn, TurnBack, WINDOWS, write_table,
};
use super::linear::{GradInput, Kept, Linear, Panel, Panels};
use super::loss::CrossEntropy;
use super::pixels::Interleave;
use super::profile::{Clock, Phase};
use super::sigmoid::{Sigmoid, SigmoidGrad};
use super::simd::{Isa, LANES, Lanes};
use crate::dataset::{Augment, Split};
use crate::reference::StepSums;
use bytemuck::Zeroable;
use lenet_core::arch::{
    C1, C2, CLASSES, FC1, FC2, FLAT, K, Logits, POOL1_SIDE, Params, Pixels, SIDE,
};
use lenet_core::network::argmax;

/// The weights of the convolutions in the layouts of their kernels.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Prepared {
    table: Table,
    conv2: [[[f32; K * C1]; C2]; K],
    conv1: [[[f32; K]; C1]; K],
}

impl Prepared {
    /// Lays out the weights of `params`.
    pub(super) fn update(
        &mut self,
        conv1_weight: &[[[[f32; K]; K]; 1]; C1],
        conv2_weight: &[[[[f32; K]; K]; C1]; C2],
    ) {
        kernel_rows(conv1_weight, &mut self.conv1);
        kernel_rows(conv2_weight, &mut self.conv2);
        write_table(conv2_weight, &mut self.table);
    }
}

/// What the update of the weights needs of a group: kept for the whole batch.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Group {
    pub fc1: Kept<{ FLAT / LANES }, FC1>,
    pub fc2: Kept<{ FC1.div_ceil(LANES) }, FC2>,
    pub fc3: Kept<{ FC2.div_ceil(LANES) }, CLASSES>,
    pub convolutions: Sums,
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

/// What a thread needs for one group at a time.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Scratch {
    /// `(SIDE, SIDE, 1, LANES)`
    image: [[[Lanes; 1]; SIDE]; SIDE],
    /// `(POOL1_SIDE, POOL1_SIDE, C1, LANES)`
    pool1: [[[Lanes; C1]; POOL1_SIDE]; POOL1_SIDE],
    winner1: [[u8; LANES]; POOL1],
    /// `(C2, POOL2_SIDE, POOL2_SIDE, LANES)`
    pool2: [Lanes; FLAT],
    winner2: [[u8; LANES]; FLAT],
    /// Followed by zeros up to a whole panel, as `fc2` is.
    fc1: [Lanes; FC1.next_multiple_of(LANES)],
    fc2: [Lanes; FC2.next_multiple_of(LANES)],
    logits: [Lanes; CLASSES],
    grad_pool2: [Lanes; FLAT],
    // One image after the other:
    grad_pool2_images: [Panel; C2],
    winner2_images: [[[u8; WINDOWS]; LANES]; C2],
    entries2: [Entries; LANES],
    pool1_images: [Rows; LANES],
    grad_pool1_images: [Rows; LANES],
    // Of one image at a time:
    kernel_rows: KernelRows,
    /// As `pool1`.
    grad_pool1: [Lanes; POOL1],
}

/// From a layer's output, whose gradient `kept` has, back through its weight and the sigmoid before it. Keeps the layer's
/// `input`, which may be padded, for the update.
fn linear_back<const PANELS: usize, const IN: usize, const OUT: usize>(
    isa: Isa,
    input: &[Lanes],
    weight: &[[f32; IN]; OUT],
    kept: &mut Kept<PANELS, OUT>,
    grad_input: &mut [Lanes; IN],
) {
    isa.run(Panels {
        input,
        out: &mut kept.panels,
    });
    isa.run(GradInput {
        weight,
        grad_out: &kept.grad_out,
        grad_input,
    });
    isa.run(SigmoidGrad {
        out: &input[..IN],
        grad: grad_input,
    });
}

/// The images of a group.
pub(super) struct Images<'a> {
    pub train: &'a Split,
    /// How they are changed before they are seen, if they are.
    pub augment: Option<&'a Augment>,
    /// Up to sixteen.
    pub indices: &'a [usize],
}

/// The network that a group runs through.
#[derive(Clone, Copy)]
pub(super) struct Network<'a> {
    pub isa: Isa,
    pub params: &'a Params,
    pub prepared: &'a Prepared,
}

impl Network<'_> {
    /// The forward pass: leaves all activations in `scratch`.
    fn forward(&self, images: [&Pixels; LANES], scratch: &mut Scratch, clock: &mut Clock) {
        let Self {
            isa,
            params,
            prepared,
        } = *self;
        isa.run(Interleave {
            images,
            out: &mut scratch.image,
        });
        clock.lap(Phase::Data);
        isa.run(ConvPoolSigmoid {
            input: &scratch.image,
            weight: &prepared.conv1,
            bias: &params.conv1_bias,
            out: bytemuck::must_cast_mut::<_, [Lanes; POOL1]>(&mut scratch.pool1),
            winner: &mut scratch.winner1,
            channels_first: false,
        });
        clock.lap(Phase::Conv1);
        isa.run(ConvPoolSigmoid {
            input: &scratch.pool1,
            weight: &prepared.conv2,
            bias: &params.conv2_bias,
            out: &mut scratch.pool2,
            winner: &mut scratch.winner2,
            channels_first: true,
        });
        clock.lap(Phase::Conv2);
        let fc1: &mut [Lanes; FC1] = scratch.fc1.first_chunk_mut().expect("padded");
        isa.run(Linear {
            input: &scratch.pool2,
            weight: &params.fc1_weight,
            bias: &params.fc1_bias,
            out: fc1,
        });
        isa.run(Sigmoid(fc1));
        let fc2: &mut [Lanes; FC2] = scratch.fc2.first_chunk_mut().expect("padded");
        isa.run(Linear {
            input: fc1,
            weight: &params.fc2_weight,
            bias: &params.fc2_bias,
            out: fc2,
        });
        isa.run(Sigmoid(fc2));
        isa.run(Linear {
            input: fc2,
            weight: &params.fc3_weight,
            bias: &params.fc3_bias,
            out: &mut scratch.logits,
        });
        clock.lap(Phase::Linear);
    }

    /// The logits of up to sixteen images.
    pub(super) fn logits(&self, images: &[Pixels], out: &mut [Logits], scratch: &mut Scratch) {
        let last = images.len() - 1;
        let sixteen = std::array::from_fn(|n| &images[n.min(last)]);
        self.forward(sixteen, scratch, &mut Clock::stopped());
        for (n, out) in out.iter_mut().enumerate() {
            *out = scratch.logits.map(|lanes| lanes[n]);
        }
    }

    /// Up to sixteen images forward and back: leaves in `group` what the update needs. `scale` as for the reference.
    pub(super) fn gradient(
        &self,
        images: &Images<'_>,
        scale: f32,
        group: &mut Group,
        scratch: &mut Scratch,
        clock: &mut Clock,
    ) {
        let Self {
            isa,
            params,
            prepared,
        } = *self;
        let &Images {
            train,
            augment,
            indices,
        } = images;
        clock.start();
        let mut labels = [0; LANES];
        for (label, &index) in labels.iter_mut().zip(indices) {
            *label = train.labels()[index];
        }
        let labels = &labels[..indices.len()];
        let last = indices.len() - 1;
        let stored: [&Pixels; LANES] =
            std::array::from_fn(|n| &train.images()[indices[n.min(last)]]);
        let augmented: [Pixels; LANES];
        let images = match augment {
            None => stored,
            Some(augment) => {
                augmented = std::array::from_fn(|n| augment.apply(indices[n.min(last)], stored[n]));
                augmented.each_ref()
            }
        };
        self.forward(images, scratch, clock);

        group.losses = isa.run(CrossEntropy {
            logits: &scratch.logits,
            labels,
            scale,
            grad_logits: &mut group.fc3.grad_out,
        });
        for (n, (correct, &label)) in group.correct.iter_mut().zip(labels).enumerate() {
            let class = argmax(&scratch.logits.map(|lanes| lanes[n]));
            *correct = u32::from(class == usize::from(label));
        }

        let (fc1, fc2, fc3) = (&mut group.fc1, &mut group.fc2, &mut group.fc3);
        linear_back(
            isa,
            &scratch.fc2,
            &params.fc3_weight,
            fc3,
            &mut fc2.grad_out,
        );
        linear_back(
            isa,
            &scratch.fc1,
            &params.fc2_weight,
            fc2,
            &mut fc1.grad_out,
        );
        let grad_pool2 = &mut scratch.grad_pool2;
        linear_back(isa, &scratch.pool2, &params.fc1_weight, fc1, grad_pool2);
        clock.lap(Phase::LinearGradInput);

        let sums = &mut group.convolutions;
        *sums = Sums::zeroed();
        isa.run(Conv2GradBias {
            grad: &scratch.grad_pool2,
            sums: &mut sums.conv2_bias,
        });
        isa.run(Sort {
            grad: &scratch.grad_pool2,
            winner: &scratch.winner2,
            entries: &mut scratch.entries2,
            grad_images: &mut scratch.grad_pool2_images,
            winner_images: &mut scratch.winner2_images,
        });
        isa.run(Turn {
            pool1: bytemuck::must_cast_ref(&scratch.pool1),
            out: &mut scratch.pool1_images,
        });
        clock.lap(Phase::Turn);
        for (n, pool1) in scratch.pool1_images[..indices.len()].iter().enumerate() {
            isa.run(Conv2GradWeight {
                pool1,
                grad: &scratch.grad_pool2_images,
                winner: &scratch.winner2_images,
                image: n,
                rows: &mut scratch.kernel_rows,
                sums,
            });
        }
        clock.lap(Phase::Conv2GradWeight);
        let (grad_pool1, rest) = scratch.grad_pool1_images.split_at_mut(indices.len());
        rest.fill(Rows::zeroed());
        isa.run(Conv2GradInput {
            table: &prepared.table,
            entries: &scratch.entries2[..indices.len()],
            grad_input: grad_pool1,
        });
        isa.run(TurnBack {
            images: &scratch.grad_pool1_images,
            out: &mut scratch.grad_pool1,
        });
        isa.run(SigmoidGrad {
            out: bytemuck::must_cast_ref::<_, [Lanes; POOL1]>(&scratch.pool1),
            grad: &mut scratch.grad_pool1,
        });
        clock.lap(Phase::Conv2GradInput);
        isa.run(Conv1GradParams {
            image: &scratch.image,
            grad: &scratch.grad_pool1,
            winner: &scratch.winner1,
            sums,
        });
        clock.lap(Phase::Conv1GradParams);
    }
}
