//! Compares the gradients of the reference backend with central differences of the oracle in f64, for every network.
//!
//! Central differences are wrong where the loss has a kink: if the maximum of a pooling window or the sign of a ReLU's input
//! changes between the two points. So the inputs are chosen to avoid such places.

use lenet_core::image::grey;
use lenet_core::layer::{Activation, Pool};
use lenet_test_support::fixtures::{Fixture, unzipped};
use lenet_test_support::for_each_network;
use lenet_test_support::generate::{Kind, array};
use lenet_test_support::networks::{Case, lenet};
use lenet_test_support::oracle::{Net, smallest_gap, widen};
use lenet_test_support::tolerance::{self, DIFFERENCES, GRADIENT};
use ndarray::ArrayView3;
use rayon::prelude::*;

/// The required distance from a kink. Changing a parameter by [`STEP`] changes an output of a convolution by less than four times
/// that.
const GAP: f64 = 4.0 * STEP;
const STEP: f64 = 1e-5;

/// The largest number of elements of a tensor that are compared.
const SAMPLE: usize = 80;

fn view<'a>(net: &Net<'_>, image: &'a [f64]) -> ArrayView3<'a, f64> {
    let (layer, ..) = net.layers().next().unwrap();
    let [c, h, w] = layer.input;
    ArrayView3::from_shape((c, h, w), image).unwrap()
}

/// Returns whether no pooling window is near a tie and no input of a ReLU is near 0.
fn is_smooth(net: &Net<'_>, image: &[f64]) -> bool {
    let outputs = net.forward(view(net, image));
    net.layers().zip(outputs).all(|((layer, ..), output)| {
        let tied = match layer.pool {
            // If a ReLU makes both values zero, a tie of the sums has no effect.
            Pool::Max(n) => smallest_gap(output.sums.view(), n) <= GAP,
            _ => false,
        };
        let kinked =
            layer.activation == Activation::Relu && output.sums.iter().any(|x| x.abs() <= GAP);
        !tied && !kinked
    })
}

/// Compares all elements of small tensors, and a sample of those of large ones, with central differences of the loss.
fn assert_gradient<N: Case>(params: &N::Params, image: &N::Image, label: u8, what: &str) {
    let mut grads: Box<N::Params> = bytemuck::zeroed_box();
    let loss = N::gradient(params, image, label, 1.0, &mut grads);
    let (flat, pixels, grads) = (widen(params), widen(image), widen(&*grads));
    let at = |flat: &[f64]| {
        let net = Net::new(N::LAYERS, flat);
        net.loss(view(&net, &pixels), label)
    };
    assert!(
        (f64::from(loss) - at(&flat)).abs() < tolerance::LOSS,
        "{what}"
    );

    for tensor in N::TENSORS {
        let range = tensor.offset..tensor.offset + tensor.len();
        let largest = grads[range.clone()]
            .iter()
            .fold(0.0f64, |a, b| a.max(b.abs()));
        // A prime, so that the sample is spread over the rows and columns.
        let stride = [1, 2, 3, 5, 7, 11, 17, 29, 53, 101, 251, 503, 1009, 2003]
            .into_iter()
            .find(|stride| tensor.len() / stride <= SAMPLE)
            .unwrap_or(5003);
        let error = range
            .into_par_iter()
            .skip(usize::from(label) % stride)
            .step_by(stride)
            .map_init(
                || flat.clone(),
                |x, i| {
                    let mut moved = |by: f64| {
                        x[i] = flat[i] + by;
                        let loss = at(x);
                        x[i] = flat[i];
                        loss
                    };
                    let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                    (grads[i] - expected).abs()
                },
            )
            .reduce(|| 0.0, f64::max);
        assert!(
            error <= (GRADIENT + DIFFERENCES) * largest + 1e-10,
            "{what}, {}: {error:e}, its largest is {largest:e}",
            tensor.name
        );
    }
}

fn random_case<N: Case>() {
    let classes = N::LAYERS[N::LAYERS.len() - 1].output[0];
    for seed in 1..3 {
        let mut params = array::<N::Params>(Kind::Random, seed);
        let values: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *params));
        values.iter_mut().for_each(|p| *p *= 0.2);
        let flat = widen(&*params);
        let net = Net::new(N::LAYERS, &flat);
        let found = (0..2_000)
            .into_par_iter()
            .map(|seed| (seed, array::<N::Image>(Kind::Random, seed)))
            .find_first(|(_, image)| is_smooth(&net, &widen(&**image)));
        let (image_seed, image) = found.unwrap_or_else(|| panic!("{}: no smooth image", N::NAME));
        let what = format!("{}, parameters {seed}, image {image_seed}", N::NAME);
        assert_gradient::<N>(&params, &image, (seed as usize % classes) as u8, &what);
    }
}

#[test]
fn gradients_agree_with_central_differences_for_every_network() {
    for_each_network!(random_case);
}

#[test]
fn gradients_agree_with_central_differences_for_real_images_and_pytorchs_weights() {
    // Because of the constant background, many windows of the first pooling have equal maxima. These come from equal patches and
    // stay equal, so the loss has no kink there.
    let params = Fixture::open("initial").parameters("");
    let net = Net::new(&lenet::LAYERS, &params);
    let values: Vec<f32> = params.iter().map(|&p| p as f32).collect();
    let images = unzipped("train-images-idx3-ubyte");
    let labels = unzipped("train-labels-idx1-ubyte");
    let images: &[lenet::Pixels] = bytemuck::cast_slice(&images[16..]);
    let (index, image) = images
        .iter()
        .map(grey)
        .enumerate()
        .find(|(_, image)| is_smooth(&net, &widen(image)))
        .unwrap();
    assert_gradient::<lenet::Net>(
        bytemuck::from_bytes(bytemuck::cast_slice(&values)),
        &image,
        labels[8 + index],
        &format!("training image {index}"),
    );
}
