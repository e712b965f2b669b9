//! Images with text below them: the most confident mistakes, and contact sheets.

use super::picture::{self, Picture, SCALE};
use lenet_core::network::{HEIGHT, Pixels, WIDTH};
use lenet_core::ops::argmax;
use lenet_core::ops::softmax;
use maud::html;
use resvg::tiny_skia::PremultipliedColorU8;

/// An image that was classified as a class other than its label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mistake {
    /// The index of the image in its split.
    pub index: usize,
    /// The image's label.
    pub label: usize,
    /// The class that was predicted.
    pub predicted: usize,
    /// The softmax probability of that class, in 0..=1.
    pub confidence: f32,
}

/// Returns the `count` mistakes with the highest confidence, highest first; of equal ones the first comes first.
pub fn mistakes<const N: usize>(logits: &[[f32; N]], labels: &[u8], count: usize) -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = logits
        .iter()
        .zip(labels)
        .enumerate()
        .filter_map(|(index, (logits, &label))| {
            let (label, predicted) = (usize::from(label), argmax(logits));
            let mut probabilities = *logits;
            softmax(logits, &mut probabilities);
            let confidence = probabilities[predicted];
            (label != predicted).then_some(Mistake {
                index,
                label,
                predicted,
                confidence,
            })
        })
        .collect();
    mistakes.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    mistakes.truncate(count);
    mistakes
}

/// An image on a sheet.
#[derive(Clone, Debug)]
pub struct Tile<'a> {
    /// The image.
    pub pixels: &'a Pixels,
    /// The text below it; the second line is emphasized.
    pub lines: Vec<String>,
}

/// The number of units that a pixel of an image takes on a sheet.
const ZOOM: u32 = 4;
/// The width and height of an image on a sheet.
const TILE: [u32; 2] = [WIDTH as u32 * ZOOM, HEIGHT as u32 * ZOOM];
const GAP: u32 = 14;
const LINE: u32 = 15;

/// Returns a PNG file with a title, and the images below it in rows of `columns`.
pub fn sheet(title: &str, tiles: &[Tile<'_>], columns: u32) -> Vec<u8> {
    let lines = tiles.iter().map(|tile| tile.lines.len()).max().unwrap_or(0) as u32;
    let row = TILE[1] + lines * LINE + GAP + 4;
    let place = |tile: usize| {
        let (x, y) = (tile as u32 % columns, tile as u32 / columns);
        (GAP + x * (TILE[0] + GAP), 34 + y * row)
    };
    let picture = Picture {
        title: title.to_owned(),
        width: GAP + columns * (TILE[0] + GAP),
        height: 34 + (tiles.len() as u32).div_ceil(columns) * row,
        body: html! {
            text x=(GAP) y="22" { (title) }
            @for (index, tile) in tiles.iter().enumerate() {
                @let (x, y) = place(index);
                @for (line, words) in (1..).zip(&tile.lines) {
                    text class=(if line == 2 { "alarm small" } else { "small" }) x=(x) y=(y + TILE[1] + line * LINE) {
                        (words)
                    }
                }
            }
        },
    };
    let mut canvas = picture.pixels();
    let (width, zoom) = (canvas.width() as usize, (ZOOM * SCALE) as usize);
    for (index, tile) in tiles.iter().enumerate() {
        let (left, top) = place(index);
        let pixels = picture::interleaved(tile.pixels);
        let canvas = canvas.pixels_mut();
        for (y, row) in pixels.iter().enumerate() {
            let start = ((top * SCALE) as usize + y * zoom) * width + (left * SCALE) as usize;
            for (x, &[red, green, blue]) in row.iter().enumerate() {
                let colour = PremultipliedColorU8::from_rgba(red, green, blue, 255);
                canvas[start + x * zoom..][..zoom].fill(colour.expect("opaque"));
            }
            for copy in 1..zoom {
                canvas.copy_within(start..start + WIDTH * zoom, start + copy * width);
            }
        }
    }
    picture::encode(&canvas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lenet_core::network::CHANNELS;

    #[test]
    fn the_surest_mistakes_come_first() {
        let mut logits = [[0.0; 10]; 5];
        for (logits, (class, logit)) in
            logits
                .iter_mut()
                .zip([(1, 3.0), (2, 5.0), (3, 9.0), (4, 1.0), (5, 5.0)])
        {
            logits[class] = logit;
        }
        let mistakes = mistakes(&logits, &[0, 0, 3, 0, 6], 3);
        let found: Vec<_> = mistakes
            .iter()
            .map(|m| (m.index, m.label, m.predicted))
            .collect();
        assert_eq!(found, [(1, 0, 2), (4, 6, 5), (0, 0, 1)]);
        assert!((mistakes[0].confidence - 148.413_16 / 157.413_16).abs() < 1e-6);
    }

    #[test]
    fn a_sheet_has_the_images_at_their_places() {
        let mut pixels = [[[10; WIDTH]; HEIGHT]; CHANNELS];
        for map in &mut pixels {
            map[0][0] = 200;
        }
        let tile = Tile {
            pixels: &pixels,
            lines: vec!["one".to_owned()],
        };
        let png = sheet("title", &[tile.clone(), tile.clone(), tile], 2);
        let image = image::load_from_memory(&png).unwrap().into_luma8();
        // The distances between tiles, in units of the sheet, of which each is two pixels of the picture.
        let (column, row) = (4 * WIDTH as u32 + 14, 4 * HEIGHT as u32 + 33);
        assert_eq!(
            image.dimensions(),
            (2 * (14 + 2 * column), 2 * (34 + 2 * row))
        );
        for (x, y) in [(28, 68), (28 + 2 * column, 68), (28, 68 + 2 * row)] {
            assert_eq!(
                [(0, 0), (7, 7), (8, 0)].map(|(dx, dy)| image[(x + dx, y + dy)].0),
                [[200], [200], [10]]
            );
        }
        assert_eq!(
            image[(28 + 2 * column, 68 + 2 * row)].0,
            [255],
            "no fourth tile"
        );
    }
}
