//! What is odd about a data set without being an error.

use super::Dataset;
use lenet_core::network::{CLASSES, HEIGHT, Pixels, WIDTH};
use std::collections::HashSet;

/// The most that a class may have of another's images before it is worth a word.
const LOPSIDED: usize = 10;

/// A sentence for each oddity: dark on white, test images that are training images too, classes without images,
/// with far fewer than others, or without a name.
pub fn warnings(data: &Dataset) -> Vec<String> {
    let mut warnings = Vec::new();
    let border = border_mean(data.train.images());
    if border > 127.0 {
        warnings.push(format!(
            "the borders of the images are bright (mean {border:.0} of 255): dark on white? Fashion-MNIST is bright on \
             black; --invert turns PNG and JPEG files"
        ));
    }
    let train: HashSet<&Pixels> = data.train.images().iter().collect();
    let test = data.test.images();
    let shared: Vec<usize> = (0..test.len())
        .filter(|&i| train.contains(&test[i]))
        .collect();
    if let Some(first) = shared.first() {
        warnings.push(format!(
            "{} of {} test images are training images too (the first: index {first}); the test accuracy flatters",
            shared.len(),
            test.len()
        ));
    }
    let named: Vec<usize> = (0..CLASSES)
        .filter(|&class| !data.classes[class].is_empty())
        .collect();
    let counts = counts(data);
    for &class in &named {
        for (count, split) in counts[class].into_iter().zip(["training", "test"]) {
            if count == 0 {
                warnings.push(format!("class {}: no {split} image", data.classes[class]));
            }
        }
    }
    for class in (0..CLASSES).filter(|class| !named.contains(class)) {
        if counts[class] != [0, 0] {
            warnings.push(format!(
                "class {class}: images but no name; predict does not name it"
            ));
        }
    }
    let filled = || named.iter().filter(|&&class| counts[class][0] > 0);
    if let (Some(&few), Some(&many)) = (
        filled().min_by_key(|&&c| counts[c][0]),
        filled().max_by_key(|&&c| counts[c][0]),
    ) && counts[many][0] > LOPSIDED * counts[few][0]
    {
        warnings.push(format!(
            "lopsided classes: {} has {} training images, {} has {}",
            data.classes[few], counts[few][0], data.classes[many], counts[many][0]
        ));
    }
    warnings
}

/// Training and test images of each class.
pub fn counts(data: &Dataset) -> [[usize; 2]; CLASSES] {
    let mut counts = [[0; 2]; CLASSES];
    for (split, labels) in [data.train.labels(), data.test.labels()]
        .into_iter()
        .enumerate()
    {
        for &label in labels {
            counts[usize::from(label)][split] += 1;
        }
    }
    counts
}

/// Mean grey value of the outermost pixels.
fn border_mean(images: &[Pixels]) -> f64 {
    let (mut sum, mut count) = (0_u64, 0_u64);
    for map in images.iter().flatten() {
        for (y, row) in map.iter().enumerate() {
            let inner = 1..WIDTH.saturating_sub(1);
            let whole_row = y == 0 || y + 1 == HEIGHT;
            for (x, &grey) in row.iter().enumerate() {
                if whole_row || !inner.contains(&x) {
                    (sum, count) = (sum + u64::from(grey), count + 1);
                }
            }
        }
    }
    sum as f64 / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{ReadOptions, Split};
    use lenet_core::network::CHANNELS;

    fn data(train: &[(u8, u8)], test: &[(u8, u8)]) -> Dataset {
        let split = |images: &[(u8, u8)]| {
            let pixels = images
                .iter()
                .flat_map(|&(grey, _)| [grey; size_of::<Pixels>()])
                .collect();
            Split::new(pixels, images.iter().map(|&(_, label)| label).collect())
        };
        Dataset {
            name: "letters".to_owned(),
            folder: "letters".into(),
            classes: ["a", "b", "", "", "", "", "", "", "", ""].map(str::to_owned),
            sha256: [0; 32],
            published: false,
            options: ReadOptions::default(),
            train: split(train),
            val: None,
            test: split(test),
        }
    }

    #[test]
    fn a_sound_set_gives_no_warning() {
        assert_eq!(
            warnings(&data(&[(1, 0), (2, 1)], &[(3, 0), (4, 1)])),
            [""; 0]
        );
    }

    #[test]
    fn each_oddity_has_its_sentence() {
        assert_eq!(
            warnings(&data(&[(200, 0), (210, 1)], &[(210, 0)])),
            [
                "the borders of the images are bright (mean 205 of 255): dark on white? Fashion-MNIST is bright on black; \
                 --invert turns PNG and JPEG files",
                "1 of 1 test images are training images too (the first: index 0); the test accuracy flatters",
                "class b: no test image",
            ]
        );
        let mut many: Vec<_> = (0..11).map(|grey| (grey, 0)).collect();
        let test = [(50, 0), (60, 1)];
        assert_eq!(
            warnings(&data(&many, &test)),
            ["class b: no training image"]
        );
        assert_eq!(
            warnings(&data(&[(1, 0), (2, 1), (3, 2)], &test)),
            ["class 2: images but no name; predict does not name it"]
        );
        many.push((20, 1));
        assert_eq!(
            warnings(&data(&many, &test)),
            ["lopsided classes: b has 1 training images, a has 11"]
        );
    }

    #[test]
    fn the_border_is_the_outermost_ring() {
        let mut image = [[[0; WIDTH]; HEIGHT]; CHANNELS];
        for map in &mut image {
            let inner = &mut map[1..HEIGHT - 1];
            inner.iter_mut().for_each(|row| row[1..WIDTH - 1].fill(255));
        }
        assert_eq!(border_mean(&[image]), 0.0);
        image[0][HEIGHT - 1][WIDTH - 1] = 108;
        let border = CHANNELS * 2 * (HEIGHT + WIDTH - 2);
        assert_eq!(border_mean(&[image]), 108.0 / border as f64);
    }
}
