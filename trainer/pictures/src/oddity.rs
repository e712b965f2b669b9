//! Checks the values of single images for problems, for any network.

use crate::Shape;

/// The mean grey value of the border above which an image is probably dark on white.
const BRIGHT: f64 = 127.0;

/// The probable reason for an image without content.
pub const INVISIBLE: &str = ": black shows where a picture is transparent; if it is drawn in black, --invert makes that white";

/// Returns a sentence for each problem of an image to be classified.
pub fn warnings(values: &[u8], shape: Shape) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(border) = bright_border(values, shape) {
        // An integer, because the code that formats floating-point numbers would be a tenth of the WebAssembly module.
        let border = border.round_ties_even() as u8;
        warnings.push(format!(
            "the border is bright (mean {border} of 255): dark on white? If the network was trained on bright on \
             black, as Fashion-MNIST is, --invert makes the picture so"
        ));
    }
    if is_blank(values) {
        let value = values[0];
        warnings.push(format!("the value is {value} everywhere{INVISIBLE}"));
    }
    warnings
}

/// Returns whether all values are the same.
pub fn is_blank(values: &[u8]) -> bool {
    values.iter().all(|value| *value == values[0])
}

/// Returns the mean value of the images' borders if it is so bright that the images may be dark on white. Colour images are
/// not checked: the border of a photograph may be a bright sky.
pub fn bright_border(images: &[u8], shape: Shape) -> Option<f64> {
    let mean = border_mean(images, shape);
    (shape.channels == 1 && mean > BRIGHT).then_some(mean)
}

/// Returns the mean value of the outermost pixels.
pub fn border_mean(images: &[u8], shape: Shape) -> f64 {
    let (mut sum, mut count) = (0, 0_u64);
    for plane in images.chunks_exact(shape.area()) {
        for (y, row) in plane.chunks_exact(shape.width).enumerate() {
            let is_end = y == 0 || y == shape.height - 1;
            let step = if is_end { 1 } else { (shape.width - 1).max(1) };
            for value in row.iter().step_by(step) {
                sum += u64::from(*value);
                count += 1;
            }
        }
    }
    sum as f64 / count as f64
}
