//! The obvious backend: plain loops, one image at a time, one thread. Slow, and the oracle for the fast ones.
//!
//! Its forward pass is `lenet_core::network::forward`; the gradients stand here, one file an op.

mod conv2d;
mod linear;
mod max_pool2d;
mod sigmoid;

pub use conv2d::{conv2d_grad_input, conv2d_grad_params};
pub use linear::{linear_grad_input, linear_grad_params};
pub use max_pool2d::max_pool2d_grad;
pub use sigmoid::sigmoid_grad;

use crate::adam::{self, Adam};
use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::{Augment, Split};
use crate::error::Error;
use crate::loss::{CrossEntropy, cross_entropy};
use bytemuck::zeroed_box;
use lenet_core::arch::{
    C1, C2, CONV1_SIDE, CONV2_SIDE, FC1, FC2, FLAT, Image, Logits, POOL1_SIDE, POOL2_SIDE, Params,
    Pixels, image,
};
use lenet_core::network::{Activations, forward};
use lenet_core::ops::conv2d;
use std::ops::ControlFlow;

/// Adds the gradient of one image's loss by the parameters to `grads`, and returns its loss.
///
/// `scale` multiplies the loss whose gradient is taken: `1 / batch size` for a mean over the batch.
pub fn image_gradient(
    params: &Params,
    image: &Image,
    label: u8,
    scale: f32,
    grads: &mut Params,
) -> CrossEntropy {
    let mut act = Activations::new();
    let logits = forward(params, image, &mut act);
    let loss = cross_entropy(logits, label);
    let grad_logits = loss.grad_logits.map(|grad| grad * scale);

    let mut grad_fc2 = [0.0; FC2];
    linear_grad_params(
        &act.fc2,
        &grad_logits,
        &mut grads.fc3_weight,
        &mut grads.fc3_bias,
    );
    linear_grad_input(&params.fc3_weight, &grad_logits, &mut grad_fc2);
    sigmoid_grad(&act.fc2, &mut grad_fc2);

    let mut grad_fc1 = [0.0; FC1];
    linear_grad_params(
        &act.fc1,
        &grad_fc2,
        &mut grads.fc2_weight,
        &mut grads.fc2_bias,
    );
    linear_grad_input(&params.fc2_weight, &grad_fc2, &mut grad_fc1);
    sigmoid_grad(&act.fc1, &mut grad_fc1);

    let flat: &[f32; FLAT] = bytemuck::must_cast_ref(&act.pool2);
    let mut grad_pool2 = [[[0.0; POOL2_SIDE]; POOL2_SIDE]; C2];
    linear_grad_params(flat, &grad_fc1, &mut grads.fc1_weight, &mut grads.fc1_bias);
    linear_grad_input(
        &params.fc1_weight,
        &grad_fc1,
        bytemuck::must_cast_mut(&mut grad_pool2),
    );
    sigmoid_grad(
        flat,
        bytemuck::must_cast_mut::<_, [f32; FLAT]>(&mut grad_pool2),
    );

    // The forward pass stores no convolution output: compute it again to see which element won each window.
    let mut conv2 = [[[0.0; CONV2_SIDE]; CONV2_SIDE]; C2];
    let mut grad_conv2 = [[[0.0; CONV2_SIDE]; CONV2_SIDE]; C2];
    conv2d(
        &act.pool1,
        &params.conv2_weight,
        &params.conv2_bias,
        &mut conv2,
    );
    max_pool2d_grad(&conv2, &grad_pool2, &mut grad_conv2);
    conv2d_grad_params(
        &act.pool1,
        &grad_conv2,
        &mut grads.conv2_weight,
        &mut grads.conv2_bias,
    );

    let mut grad_pool1 = [[[0.0; POOL1_SIDE]; POOL1_SIDE]; C1];
    conv2d_grad_input(&params.conv2_weight, &grad_conv2, &mut grad_pool1);
    sigmoid_grad(
        bytemuck::must_cast_ref::<_, [f32; C1 * POOL1_SIDE * POOL1_SIDE]>(&act.pool1),
        bytemuck::must_cast_mut(&mut grad_pool1),
    );

    let mut conv1 = [[[0.0; CONV1_SIDE]; CONV1_SIDE]; C1];
    let mut grad_conv1 = [[[0.0; CONV1_SIDE]; CONV1_SIDE]; C1];
    conv2d(image, &params.conv1_weight, &params.conv1_bias, &mut conv1);
    max_pool2d_grad(&conv1, &grad_pool1, &mut grad_conv1);
    conv2d_grad_params(
        image,
        &grad_conv1,
        &mut grads.conv1_weight,
        &mut grads.conv1_bias,
    );
    loss
}

/// Adds up losses and hits of images into [`StepStats`].
#[derive(Clone, Copy, Debug, Default)]
pub struct StepSums {
    loss: f64,
    correct: u32,
    images: u32,
}

impl StepSums {
    /// Adds an image.
    pub fn add(&mut self, image: &CrossEntropy) {
        self.add_image(image.loss, image.correct);
    }

    /// Adds an image by its loss and whether it was a hit.
    pub fn add_image(&mut self, loss: f32, correct: bool) {
        self.loss += f64::from(loss);
        self.correct += u32::from(correct);
        self.images += 1;
    }

    /// Adds the sums of other images.
    pub fn merge(&mut self, other: &Self) {
        self.loss += other.loss;
        self.correct += other.correct;
        self.images += other.images;
    }

    /// The statistics of the step, with the mean loss.
    pub fn stats(&self) -> StepStats {
        let Self {
            loss,
            correct,
            images,
        } = *self;
        StepStats {
            loss: (loss / f64::from(images)) as f32,
            correct,
            images,
        }
    }
}

/// The backend.
pub struct Reference<'a> {
    train: &'a Split,
    state: State,
    adam: Adam,
}

impl<'a> Reference<'a> {
    /// Goes on from `state` with the images of `train`.
    pub fn new(train: &'a Split, state: State, adam: Adam) -> Self {
        let state = state.for_training(&adam);
        Self { train, state, adam }
    }

    /// The gradient of a batch's mean loss, images added in order, and its statistics.
    pub fn gradient(
        &self,
        batch: impl ExactSizeIterator<Item = usize>,
        augment: Option<&Augment>,
    ) -> (Box<Params>, StepStats) {
        let mut grads: Box<Params> = zeroed_box();
        let mut sums = StepSums::default();
        let scale = 1.0 / batch.len() as f32;
        for index in batch {
            let (pixels, label) = (&self.train.images()[index], self.train.labels()[index]);
            let augmented = augment.map(|augment| augment.apply(index, pixels));
            let pixels = augmented.as_ref().unwrap_or(pixels);
            sums.add(&image_gradient(
                &self.state.params,
                &image(pixels),
                label,
                scale,
                &mut grads,
            ));
        }
        (grads, sums.stats())
    }
}

impl Backend for Reference<'_> {
    fn describe(&self) -> String {
        "reference (plain loops, 1 thread)".to_owned()
    }

    fn train(
        &mut self,
        batches: &Batches,
        on_step: &mut (dyn FnMut(StepStats) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        for index in batches.range.clone() {
            let (grads, stats) = self.gradient(batches.batch(index), batches.augment.as_ref());
            let State {
                params,
                moment1,
                moment2,
                step,
                mean,
            } = &mut self.state;
            *step += 1;
            let c = &self.adam.coefficients(*step);
            adam::update(
                c,
                params.as_flat_mut(),
                grads.as_flat(),
                moment1.as_flat_mut(),
                moment2.as_flat_mut(),
            );
            if let Some(mean) = mean {
                adam::average(c, params.as_flat(), mean.as_flat_mut());
            }
            if on_step(stats).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn logits(&mut self, images: &[Pixels], out: &mut [Logits]) -> Result<(), Error> {
        let mut act = Activations::new();
        for (pixels, out) in images.iter().zip(out) {
            *out = *forward(self.state.result(), &image(pixels), &mut act);
        }
        Ok(())
    }

    fn state(&self) -> Result<State, Error> {
        Ok(self.state.clone())
    }
}
