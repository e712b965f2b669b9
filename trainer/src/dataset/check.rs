//! Checks a data set for problems that are not errors.

use super::Dataset;
use super::shape::{SHAPE, bytes};
use lenet_core::network::{CLASSES, Pixels};
use lenet_pictures::oddity::{self, INVISIBLE, bright_border};

/// The ratio between the images of the largest and of a smaller class above which there is a warning.
const LOPSIDED: usize = 10;

/// Returns a sentence for each problem: those of [`Dataset::warnings`]; then images that are dark on white, images without
/// content, test images that are also training images, classes with no images, with far fewer than others, or without a name,
/// and training images of only one class.
pub fn warnings(data: &Dataset) -> Vec<String> {
    let mut warnings = data.warnings.clone();
    if let Some(border) = bright_border(bytes(data.train.images()), SHAPE) {
        warnings.push(format!(
            "the borders of the images are bright (mean {border:.0} of 255): dark on white? Fashion-MNIST is bright on \
             black; --invert does so to pictures in class folders"
        ));
    }
    for (split, name) in [(&data.train, "training"), (&data.test, "test")] {
        let mut blank = (0..split.len()).filter(|&index| is_blank(&split.images()[index]));
        if let Some(first) = blank.next() {
            warnings.push(format!(
                "{} of {} {name} images have the same value everywhere (the first: index {first}){INVISIBLE}",
                1 + blank.count(),
                split.len(),
            ));
        }
    }
    let shared = data.test.shared_with(&data.train);
    if let Some(first) = shared.first() {
        warnings.push(format!(
            "{} of {} test images are training images too (the first: index {first}); the test accuracy is too high",
            shared.len(),
            data.test.len()
        ));
    }
    let named: Vec<usize> = (0..CLASSES)
        .filter(|&class| !data.classes[class].is_empty())
        .collect();
    let counts = counts(data);
    for &class in &named {
        for (split, name) in ["training", "test"].into_iter().enumerate() {
            if counts[class][split] == 0 && !data.empty_folders.contains(&(class, split)) {
                warnings.push(format!("class {}: no {name} image", data.classes[class]));
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
            "unbalanced classes: {} has {} training images, {} has {}",
            data.classes[few], counts[few][0], data.classes[many], counts[many][0]
        ));
    }
    let mut trained = (0..CLASSES).filter(|&class| counts[class][0] > 0);
    if let (Some(only), None) = (trained.next(), trained.next()) {
        let name = match data.classes[only].as_str() {
            "" => &only.to_string(),
            name => name,
        };
        warnings.push(format!(
            "all training images are of class {name}, so there is nothing to learn: add images of other classes"
        ));
    }
    warnings
}

/// Returns the number of training and test images of each class.
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

/// Returns a sentence for each problem of a single picture to be classified.
pub fn image_warnings(image: &Pixels) -> Vec<String> {
    oddity::warnings(bytes(std::slice::from_ref(image)), SHAPE)
}

/// Returns whether all values are the same.
fn is_blank(image: &Pixels) -> bool {
    oddity::is_blank(bytes(std::slice::from_ref(image)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Split;
    use lenet_pictures::Shape;
    use lenet_pictures::oddity::border_mean;
    use std::collections::BTreeSet;

    /// Returns an image with one grey value, except for a corner.
    fn image(grey: u8) -> Vec<u8> {
        let mut image = vec![grey; SHAPE.len()];
        image[0] ^= 1;
        image
    }

    fn data(train: &[(u8, u8)], test: &[(u8, u8)]) -> Dataset {
        let split = |images: &[(u8, u8)]| {
            let pixels = images.iter().flat_map(|&(grey, _)| image(grey)).collect();
            Split::new(pixels, images.iter().map(|&(_, label)| label).collect())
        };
        let mut classes = [const { String::new() }; CLASSES];
        classes[..2].clone_from_slice(&["a", "b"].map(str::to_owned));
        Dataset::new("letters", classes, split(train), split(test))
    }

    #[test]
    fn a_sound_set_gives_no_warning() {
        assert_eq!(
            warnings(&data(&[(1, 0), (2, 1)], &[(3, 0), (4, 1)])),
            [""; 0]
        );
    }

    #[test]
    fn each_problem_has_its_own_warning() {
        let mut expected = vec![
            "the borders of the images are bright (mean 205 of 255): dark on white? Fashion-MNIST is bright on black; \
             --invert does so to pictures in class folders",
            "1 of 1 test images are training images too (the first: index 0); the test accuracy is too high",
            "class b: no test image",
        ];
        if SHAPE.channels > 1 {
            // The borders of colour images are not checked.
            expected.remove(0);
        }
        assert_eq!(
            warnings(&data(&[(200, 0), (210, 1)], &[(210, 0)])),
            expected
        );
        let mut many: Vec<_> = (0..11).map(|grey| (grey, 0)).collect();
        let test = [(50, 0), (60, 1)];
        assert_eq!(
            warnings(&data(&many, &test)),
            [
                "class b: no training image",
                "all training images are of class a, so there is nothing to learn: add images of other classes"
            ]
        );
        let mut unnamed = data(&[(1, 1)], &[(2, 1)]);
        unnamed.classes = [const { String::new() }; CLASSES];
        assert_eq!(
            warnings(&unnamed).last().unwrap(),
            "all training images are of class 1, so there is nothing to learn: add images of other classes"
        );
        if CLASSES > 2 {
            assert_eq!(
                warnings(&data(&[(1, 0), (2, 1), (3, 2)], &test)),
                ["class 2: images but no name; predict does not name it"]
            );
        }
        many.push((20, 1));
        assert_eq!(
            warnings(&data(&many, &test)),
            ["unbalanced classes: b has 1 training images, a has 11"]
        );
    }

    #[test]
    fn warnings_about_files_come_first_and_are_not_repeated() {
        let mut data = data(&[(1, 0)], &[(2, 0)]);
        data.warnings = vec!["b: no picture in this class folder".to_owned()];
        data.empty_folders = BTreeSet::from([(1, 0)]);
        assert_eq!(
            warnings(&data),
            [
                "b: no picture in this class folder",
                "class b: no test image",
                "all training images are of class a, so there is nothing to learn: add images of other classes"
            ]
        );
    }

    #[test]
    fn the_border_is_the_outermost_ring() {
        let shape = Shape {
            channels: 2,
            height: 3,
            width: 4,
        };
        let mut image = vec![0; shape.len()];
        image[5..7].fill(255);
        assert_eq!(border_mean(&image, shape), 0.0);
        (image[4], image[12 + 11]) = (100, 20);
        assert_eq!(border_mean(&image, shape), 6.0);
    }

    #[test]
    fn a_picture_without_content_gives_a_warning() {
        let of = |values: Vec<u8>| image_warnings(&crate::dataset::shape::image(&values));
        let mut values = vec![0; SHAPE.len()];
        assert_eq!(of(values.clone()).len(), 1);
        values[SHAPE.width + 1] = 255;
        assert_eq!(of(values), [""; 0]);
        let both = of(vec![255; SHAPE.len()]);
        let (blank, border) = both.split_last().unwrap();
        assert!(
            blank.starts_with("the value is 255 everywhere: "),
            "{both:?}"
        );
        // The borders of colour images are not checked.
        assert_eq!(border.len(), usize::from(SHAPE.channels == 1), "{both:?}");
        assert!(
            border
                .iter()
                .all(|sentence| sentence.starts_with("the border is bright (mean 255 of 255)")),
            "{both:?}"
        );
    }
}
