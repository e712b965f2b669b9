//! Pictures of the kernels of the convolutions.

use super::picture::Picture;
use lenet_core::network::{LAYERS, Params, TENSORS};
use lenet_core::plan::{Kind, Layer};
use maud::{Markup, html};

/// The number of colour steps from zero to the largest weight.
const LEVELS: usize = 24;
/// The side length of a weight in units, for a layer with few kernels and for one with many.
const SIDES: [usize; 2] = [13, 5];
/// The largest number of kernels in a row for which a layer has few kernels.
const FEW: usize = 12;
/// The largest number of kernels in a row; the others go into further rows.
const COLUMNS: usize = 32;
const GAP: usize = 4;
const LEFT: usize = 8;
/// The height of a line of text above the kernels.
const HEAD: usize = 36;

/// A kernel and its place: left, top, and the weights in row order.
type Placed<'a> = (usize, usize, &'a [f32]);

/// Draws the kernels of each convolution, with a column per output map and a row per input map, if there are several. Red is
/// positive, blue is negative, and the strongest colour is the layer's largest weight. Without convolutions there is no
/// picture.
pub fn filters(params: &Params) -> Picture {
    let mut top = 0;
    let mut width = 0;
    let mut body = Vec::new();
    for (index, layer) in LAYERS.iter().enumerate() {
        if layer.kind != Kind::Conv2d {
            continue;
        }
        let weight = &TENSORS[2 * index];
        let values = &params.as_flat()[weight.offset..][..weight.len()];
        let (markup, size) = convolution(layer, values, top);
        body.push(markup);
        width = size.0.max(width);
        top += size.1;
    }
    Picture {
        title: "The kernels of the convolutions".to_owned(),
        width: width.max(200) as u32,
        height: (top + GAP) as u32,
        body: html! { @for markup in body { (markup) } },
    }
}

/// Draws a layer's kernels below `top`. Also returns the width and the height that they take.
fn convolution(layer: &Layer, weight: &[f32], top: usize) -> (Markup, (usize, usize)) {
    let (maps, channels, k) = (layer.output[0], layer.input[0], layer.kernel);
    let few = channels == 1 && maps <= FEW;
    let side = SIDES[usize::from(!few)];
    let pitch = k * side + if few { 2 * GAP } else { GAP };
    let columns = maps.min(COLUMNS);
    let bands = maps.div_ceil(COLUMNS);
    let band = channels * pitch + if bands > 1 { 2 * GAP } else { 0 };
    let kernels = weight.chunks(k * k).enumerate().map(|(n, kernel)| {
        let (map, channel) = (n / channels, n % channels);
        let y = top + HEAD + map / COLUMNS * band + channel * pitch;
        (LEFT + map % COLUMNS * pitch, y, kernel)
    });
    let name = layer.name;
    let text = match channels {
        1 => format!("{name}: {maps} kernels"),
        _ => format!("{name}: {maps} kernels, one per column, over its {channels} input channels"),
    };
    let markup = html! {
        text x=(LEFT) y=(top + HEAD - 14) { (text) }
        (drawn(kernels, k, side))
    };
    (
        markup,
        (2 * LEFT + columns * pitch - GAP, HEAD + bands * band),
    )
}

/// Draws kernels at their places. All weights of one colour are a single path, whose lines are as wide as they are long,
/// because rectangles would double the size of the file.
fn drawn<'a>(kernels: impl Iterator<Item = Placed<'a>> + Clone, k: usize, side: usize) -> Markup {
    let largest = kernels
        .clone()
        .flat_map(|(.., kernel)| kernel)
        .fold(f32::MIN_POSITIVE, |largest, weight| {
            largest.max(weight.abs())
        });
    let mut paths = vec![String::new(); 2 * LEVELS + 1];
    for (left, top, kernel) in kernels.clone() {
        for (n, weight) in kernel.iter().enumerate() {
            let level = (weight / largest * LEVELS as f32).round() as isize;
            let (x, y) = (left + n % k * side, top + n / k * side);
            paths[(level + LEVELS as isize) as usize] += &format!("M{x} {y}h{side}");
        }
    }
    let (weight, side) = (side, k * side);
    let frame = |(left, top, _)| format!("M{left} {top}h{side}v{side}h-{side}z");
    let frames: String = kernels.map(frame).collect();
    html! {
        @for (level, path) in (-(LEVELS as isize)..).zip(&paths) {
            @if level != 0 && !path.is_empty() {
                path class=(if level > 0 { "positive" } else { "negative" }) d=(path) stroke-width=(weight)
                    transform={ "translate(0 " (weight as f64 / 2.0) ")" } stroke-opacity=(format!("{:.3}", level.unsigned_abs() as f64 / LEVELS as f64)) {}
            }
        }
        path class="grid" d=(frames) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_its_frame_and_every_weight_its_square() {
        let convolutions = LAYERS.iter().filter(|layer| layer.kind == Kind::Conv2d);
        let count = |layer: &Layer| layer.output[0] * layer.input[0];
        let kernels: usize = convolutions.clone().map(count).sum();
        let weights: usize = convolutions.map(Layer::weight_len).sum();
        let svg = filters(&crate::init::initial_params(0)).svg();
        let frames = svg.split("class=\"grid\" d=\"").skip(1);
        let count = |path: &str| path.split('"').next().unwrap().matches('z').count();
        assert_eq!(frames.map(count).sum::<usize>(), kernels);
        // The class of a path with squares is `positive` or `negative`.
        let paths = svg.split("tive\" d=\"").skip(1);
        let count = |path: &str| path.split('"').next().unwrap().matches('M').count();
        let squares: usize = paths.map(count).sum();
        // Weights close to zero are not drawn.
        assert!(
            squares * 10 >= weights * 9 && squares <= weights,
            "{squares}"
        );
    }

    #[test]
    fn weights_that_are_all_zero_draw_frames_only() {
        let params: Box<Params> = bytemuck::zeroed_box();
        let svg = filters(&params).svg();
        let has_kernels = LAYERS.iter().any(|layer| layer.kind == Kind::Conv2d);
        assert_eq!(svg.contains("<path class=\"grid\""), has_kernels);
        assert!(!svg.contains("tive\""), "{svg}");
    }
}
