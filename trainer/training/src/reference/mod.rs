//! The reference backend: plain loops, one image at a time, one thread. It is slow; the fast backends are tested against it.
//!
//! Its forward pass is that of `lenet_core`. The gradients are here, one file per kind of layer;
//! [`gradient!`](crate::gradient!) calls them in the order that a description needs.

pub mod conv2d;
pub mod linear;

use crate::adam::{self, Adam};
use crate::backend::Error;
use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::{Augment, Split};
use crate::loss::CrossEntropy;
use bytemuck::zeroed_box;
use lenet_core::image::write_grey;
use lenet_core::network::{Activations, Image, Logits, Params, Pixels, forward};
use std::ops::ControlFlow;

/// Defines `image_gradient` for the network of a description, whose items must be in scope.
#[macro_export]
macro_rules! gradient {
    (
        name: $name:literal,
        input: $input:expr,
        $( $layer:ident: $kind:ident { $($spec:tt)* } ),* $(,)?
    ) => {
        /// Adds the gradient of one image's loss with respect to the parameters to `grads`, and returns the image's loss.
        ///
        /// The gradient is that of `scale` times the loss; `scale` is `1 / batch size` for a mean over the batch.
        pub fn image_gradient(
            params: &Params,
            image: &Image,
            label: u8,
            scale: f32,
            grads: &mut Params,
        ) -> $crate::loss::CrossEntropy<CLASSES> {
            use $crate::bytemuck::{must_cast_ref, zeroed_box};
            let mut act: Box<Activations> = zeroed_box();
            let loss = $crate::loss::cross_entropy(forward(params, image, &mut act), label);
            let grad = &loss.grad_logits.map(|grad| grad * scale);
            // Binds the input of each layer to the layer's name.
            let x = image;
            $(
                let $layer: &$layer::Input = must_cast_ref(x);
                let x = &act.$layer;
            )*
            let _ = x;
            $crate::reversed! { $({
                let mut grad_input: Box<$layer::Input> = zeroed_box();
                $crate::reference::$kind::backward(
                    $layer::This,
                    $layer,
                    &params.$layer.weight,
                    &params.$layer.bias,
                    &act.$layer,
                    must_cast_ref(grad),
                    &mut grads.$layer.weight,
                    &mut grads.$layer.bias,
                    &mut grad_input,
                );
                let grad = &*grad_input;
            })* }
            let _ = grad;
            loss
        }
    };
}

/// Emits statements in reverse order: `reversed! { { a; } { b; } }` is `b; a;`. Their variables stay in scope.
#[macro_export]
macro_rules! reversed {
    (@ [] $($done:tt)*) => { $($done)* };
    (@ [{ $($first:tt)* } $($rest:tt)*] $($done:tt)*) => {
        $crate::reversed! { @ [$($rest)*] $($first)* $($done)* }
    };
    ($({ $($statements:tt)* })*) => { $crate::reversed! { @ [$({ $($statements)* })*] } };
}

mod selected {
    use lenet_core::network::*;
    lenet_core::description!(crate::gradient);
}

pub use selected::image_gradient;

/// Adds up the losses and hits of images into [`StepStats`].
#[derive(Clone, Copy, Debug, Default)]
pub struct StepSums {
    loss: f64,
    correct: u32,
    images: u32,
}

impl StepSums {
    /// Adds an image.
    pub fn add<const CLASSES: usize>(&mut self, image: &CrossEntropy<CLASSES>) {
        self.add_image(image.loss, image.correct);
    }

    /// Adds an image, given its loss and whether it was a hit.
    pub fn add_image(&mut self, loss: f32, correct: bool) {
        self.loss += f64::from(loss);
        self.correct += u32::from(correct);
        self.images += 1;
    }

    /// Returns the statistics of the step, with the mean loss.
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

/// The reference backend.
pub struct Reference<'a> {
    train: &'a Split,
    state: State,
    adam: Adam,
}

impl<'a> Reference<'a> {
    /// Continues from `state` with the images of `train`.
    pub fn new(train: &'a Split, state: State, adam: Adam) -> Self {
        let state = state.for_training(&adam);
        Self { train, state, adam }
    }

    /// Returns the gradient of a batch's mean loss, summed over the images in order, and the batch's statistics.
    pub fn gradient(
        &self,
        batch: impl ExactSizeIterator<Item = usize>,
        augment: Option<&Augment>,
    ) -> (Box<Params>, StepStats) {
        let mut grads: Box<Params> = zeroed_box();
        let mut sums = StepSums::default();
        let scale = 1.0 / batch.len() as f32;
        let mut image: Box<Image> = zeroed_box();
        for index in batch {
            let (pixels, label) = (&self.train.images()[index], self.train.labels()[index]);
            let augmented = augment.map(|augment| augment.apply(index, pixels));
            let pixels = augmented.as_ref().unwrap_or(pixels);
            write_grey(pixels, &mut image);
            sums.add(&image_gradient(
                &self.state.params,
                &image,
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
        let (mut act, mut image): (Box<Activations>, Box<Image>) = (zeroed_box(), zeroed_box());
        for (pixels, out) in images.iter().zip(out) {
            write_grey(pixels, &mut image);
            *out = *forward(self.state.result(), &image, &mut act);
        }
        Ok(())
    }

    fn state(&self) -> Result<State, Error> {
        Ok(self.state.clone())
    }
}
