//! The kernels of both convolutions.

use super::picture::Picture;
use lenet_core::arch::{C1, C2, K, Params};
use maud::{Markup, html};

/// Steps of colour from nothing to the largest weight.
const LEVELS: usize = 24;
/// Side of a weight of conv1, in units.
const LARGE: usize = 13;
/// Side of a weight of conv2, in units.
const SMALL: usize = 5;
const GAP: usize = 4;
const LEFT: usize = 8;
/// Kernel to kernel.
const PITCH: usize = K * SMALL + GAP;
const TOP_CONV2: usize = 36 + K * LARGE + 42;

/// Draws conv1's kernels in a row, and below them conv2's: a column an output map, a row an input map. Red adds, blue
/// subtracts, the strongest colour is the layer's largest weight.
pub fn filters(params: &Params) -> Picture {
    let conv1 = (0..C1).map(|o| (LEFT + o * (K * LARGE + 8), 36, &params.conv1_weight[o][0]));
    let conv2 = (0..C2).flat_map(|o| {
        let at = move |i: usize| (LEFT + o * PITCH, TOP_CONV2 + i * PITCH);
        (0..C1).map(move |i| (at(i).0, at(i).1, &params.conv2_weight[o][i]))
    });
    Picture {
        title: "The kernels of both convolutions".to_owned(),
        width: (2 * LEFT + C2 * PITCH - GAP) as u32,
        height: (TOP_CONV2 + C1 * PITCH + 4) as u32,
        body: html! {
            text x=(LEFT) y="22" { "conv1: " (C1) " kernels" }
            (kernels(conv1, LARGE))
            text x=(LEFT) y=(TOP_CONV2 - 14) {
                "conv2: " (C2) " kernels, one a column, over the " (C1) " maps of pool1"
            }
            (kernels(conv2, SMALL))
        },
    }
}

/// Kernels at their places. All weights of one colour are one path: a rectangle each would make the file large.
fn kernels<'a>(
    kernels: impl Iterator<Item = (usize, usize, &'a [[f32; K]; K])> + Clone,
    side: usize,
) -> Markup {
    let largest = kernels
        .clone()
        .flat_map(|(.., kernel)| kernel.as_flattened())
        .fold(f32::MIN_POSITIVE, |largest, weight| {
            largest.max(weight.abs())
        });
    let mut paths = vec![String::new(); 2 * LEVELS + 1];
    for (left, top, kernel) in kernels.clone() {
        for (row, weights) in kernel.iter().enumerate() {
            for (column, weight) in weights.iter().enumerate() {
                let level = (weight / largest * LEVELS as f32).round() as isize;
                let (x, y) = (left + column * side, top + row * side);
                paths[(level + LEVELS as isize) as usize] +=
                    &format!("M{x} {y}h{side}v{side}h-{side}z");
            }
        }
    }
    html! {
        @for (level, path) in (-(LEVELS as isize)..).zip(&paths) {
            @if level != 0 && !path.is_empty() {
                path class=(if level > 0 { "positive" } else { "negative" }) d=(path)
                    fill-opacity=(format!("{:.3}", level.unsigned_abs() as f64 / LEVELS as f64)) {}
            }
        }
        @for (left, top, _) in kernels {
            rect class="grid" x=(left) y=(top) width=(K * side) height=(K * side) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[test]
    fn every_kernel_has_its_frame_and_every_weight_its_square() {
        let svg = filters(&crate::init::initial_params(0)).svg();
        assert_eq!(svg.matches("class=\"grid\"").count(), C1 + C1 * C2);
        let squares = svg.matches("h13v13h-13z").count() + svg.matches("h5v5h-5z").count();
        let drawn = (C1 + C1 * C2) * K * K;
        // Those next to nothing are not drawn.
        assert!(squares > drawn * 9 / 10 && squares <= drawn, "{squares}");
    }

    #[test]
    fn weights_that_are_all_zero_draw_frames_only() {
        let params: Box<Params> = Box::new(Params::zeroed());
        assert!(!filters(&params).svg().contains("<path"));
    }
}
