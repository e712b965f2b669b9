//! Finds where two computations of the same values differ.

use lenet_core::network::{LAYERS, Logits};

/// The first value that differs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The name of the layer.
    pub layer: &'static str,
    /// The index in the layer's output.
    pub element: usize,
    /// The host's value.
    pub host: f32,
    /// The board's value.
    pub board: f32,
}

/// Returns the first element of the first layer in which `board` differs from the host by a bit. Both hold the outputs of the
/// layers in the order of [`LAYERS`].
pub fn first_difference(host: &[Vec<f32>], board: &[Vec<f32>]) -> Option<Difference> {
    for ((layer, host), board) in LAYERS.iter().zip(host).zip(board) {
        for (element, (&host, &board)) in host.iter().zip(board).enumerate() {
            if host.to_bits() != board.to_bits() {
                return Some(Difference {
                    layer: layer.name,
                    element,
                    host,
                    board,
                });
            }
        }
    }
    None
}

/// Returns the distance between two floats in ulps: 0 if they are equal, 1 for neighbours; `None` if one is NaN.
pub fn ulps(a: f32, b: f32) -> Option<u32> {
    // The position of a float in ascending order; those below zero count downwards.
    let place = |value: f32| {
        let magnitude = i64::from(value.to_bits() & 0x7fff_ffff);
        if value.is_sign_negative() {
            -magnitude
        } else {
            magnitude
        }
    };
    (!a.is_nan() && !b.is_nan()).then(|| (place(a) - place(b)).unsigned_abs() as u32)
}

/// Returns the indices of the images whose logits differ by a bit.
pub fn differing(host: &[Logits], board: &[Logits]) -> Vec<usize> {
    let bits = |logits: &Logits| logits.map(f32::to_bits);
    host.iter()
        .zip(board)
        .enumerate()
        .filter(|(_, (host, board))| bits(host) != bits(board))
        .map(|(index, _)| index)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lenet_core::network::CLASSES;

    #[test]
    fn neighbours_are_one_ulp_apart() {
        let next = |value: f32| f32::from_bits(value.to_bits() + 1);
        assert_eq!(ulps(1.0, next(1.0)), Some(1));
        assert_eq!(ulps(next(next(-0.5)), -0.5), Some(2));
        assert_eq!(ulps(f32::from_bits(1), -f32::from_bits(1)), Some(2));
        assert_eq!(ulps(0.0, -0.0), Some(0));
        assert_eq!(ulps(f32::MIN, f32::MAX), Some(2 * 0x7f7f_ffff));
        assert_eq!(ulps(f32::NAN, 1.0), None);
    }

    #[test]
    fn the_first_difference_is_in_the_first_layer_that_has_one() {
        let host = LAYERS.map(|layer| vec![0.0; layer.output_len()]);
        let mut board = host.clone();
        assert_eq!(first_difference(&host, &board), None);
        let last = LAYERS.len() - 1;
        board[last][CLASSES - 1] = 1.0;
        // A network may have only one layer.
        let layer = last.min(1);
        let element = LAYERS[layer].output_len() / 2;
        board[layer][element] = -0.0;
        let difference = Difference {
            layer: LAYERS[layer].name,
            element,
            host: 0.0,
            board: -0.0,
        };
        assert_eq!(first_difference(&host, &board), Some(difference));
    }

    #[test]
    fn zeros_of_different_sign_differ() {
        let mut board = [[0.0; CLASSES]; 3];
        board[1][CLASSES - 1] = -0.0;
        assert_eq!(differing(&[[0.0; CLASSES]; 3], &board), [1]);
    }
}
