//! Tests with a user's own data: class folders of PNG and JPEG files, `trainer data`, `trainer predict`, and invalid inputs.

#![cfg(feature = "program")]

mod place;

use crc::{CRC_32_ISO_HDLC, Crc};
use flate2::{Compression, write::ZlibEncoder};
use image::{DynamicImage, GrayImage, ImageBuffer, Luma, Rgb};
use place::{Place, TRAIN};
use std::io::Write;

const CHECK: &str = "data check --data my";

/// Returns an image with a horizontal bar, whose height depends on the class. `bar` and `ground` are the brightness of the bar
/// and of the background.
fn bar(side: u32, class: u32, bar: u8, ground: u8) -> GrayImage {
    GrayImage::from_fn(side, side, |_, y| {
        Luma([if y * 28 / side / 4 == class + 1 {
            bar
        } else {
            ground
        }])
    })
}

/// Writes class folders in `my/train` and `my/test`: three classes with 8 training images and 2 test images each.
fn my(place: &Place) {
    for (split, images, brightest) in [("train", 8, 250), ("test", 2, 200)] {
        for (class, name) in (0..).zip(["ring", "star", "wave"]) {
            for image in 0..images {
                save(
                    place,
                    &format!("my/{split}/{name}/{image}.png"),
                    bar(28, class, brightest - image, 0).into(),
                );
            }
        }
    }
}

fn save(place: &Place, name: &str, image: DynamicImage) {
    let path = place.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save(path).unwrap();
}

/// Returns a place that contains `my`.
fn place() -> Place {
    let place = Place::new();
    my(&place);
    place
}

#[test]
fn class_folders_are_trained_on_tested_and_shown() {
    let place = place();
    let out = place.good(CHECK);
    for line in ["0 ring", "2 wave", "no problems found"] {
        assert!(out.contains(line), "{out}");
    }
    let cells: Vec<&str> = out.split_whitespace().collect();
    assert!(
        cells.windows(3).any(|cells| cells == ["all", "24", "6"]),
        "{out}"
    );

    let out = place.good("--data my --batch-size 8 --epochs 20 --lr 0.01 --out run");
    assert!(
        out.contains("data my: 24 training images, 6 test images\n"),
        "{out}"
    );
    // The table contains only the three classes that exist. A class that is never predicted has no precision.
    let table = place.good("evaluate run/lenet.weights --data my --confusion");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], " true \\ predicted  0  1  2  recall  precision");
    assert_eq!(lines.len(), 1 + 3 + 1, "{table}");
    assert!(
        !table.contains("NaN") && table.ends_with(" of 6)\n"),
        "{table}"
    );
    assert!(
        place
            .good("summary run/lenet.weights")
            .contains("classes        ring, star, wave\n")
    );
    assert_eq!(place.good("report run"), "report run/report.html\n");
    // The matrix has a column for each of the three classes that exist.
    assert_eq!(
        place
            .text("run/confusion.svg")
            .matches("rotate(-45)")
            .count(),
        3
    );

    let shown = "data show --data my --split test --per-class 2 --out sheet.png";
    assert_eq!(place.good(shown), "wrote sheet.png (6 images)\n");
    let sheet = image::open(place.path("sheet.png")).unwrap().into_luma8();
    // The bar of the first image is at row 4 of 28. A pixel of the image takes four units, and a unit two pixels.
    let (x, y) = (2 * 14 + 8 * 14, 2 * 34 + 8 * 5);
    assert_eq!((sheet[(x, y)].0, sheet[(x, y - 16)].0), ([200], [0]));
    place.refused(
        shown,
        1,
        "sheet.png: already exists and is not overwritten; choose another name or remove it",
    );
}

#[test]
fn the_same_images_have_the_same_hash_in_both_forms() {
    let place = place();
    let mut images = Vec::new();
    let mut labels = Vec::new();
    for class in 0..3 {
        for image in 0..8 {
            images.extend(bar(28, class, 250 - image, 0).into_raw());
            labels.push(class as u8);
        }
    }
    let folder = place.path("idx");
    std::fs::create_dir(&folder).unwrap();
    for split in ["train", "t10k"] {
        place.write(
            &format!("idx/{split}-images-idx3-ubyte"),
            &place::idx(&[0x803, 24, 28, 28], images.clone()),
        );
        place.write(
            &format!("idx/{split}-labels-idx1-ubyte"),
            &place::idx(&[0x801, 24], labels.clone()),
        );
    }
    let hash = |folder: &str| {
        let out = place.good(&format!("data check --data {folder}"));
        let line = out
            .lines()
            .find(|line| line.starts_with("sha256 "))
            .unwrap();
        line.to_owned()
    };
    assert_eq!(hash("my"), hash("idx"));
}

#[test]
fn one_folder_is_split_the_same_way_each_time() {
    let place = place();
    std::fs::rename(place.path("my/train"), place.path("all")).unwrap();
    let check = "data check --data all --test-split 0.25";
    let out = place.good(check);
    let cells: Vec<&str> = out.split_whitespace().collect();
    for row in [["wave", "6", "2"], ["all", "18", "6"]] {
        assert!(cells.windows(3).any(|cells| cells == row), "{out}");
    }
    assert_eq!(place.good(check), out);
    let train = "--data all --test-split 0.25 --batch-size 6 --epochs 1 --out run";
    place.good(train);
    assert_eq!(place.good("report run"), "report run/report.html\n");

    place.refused(
        "data check --data all",
        2,
        "all has no folder train. Put the class folders into train and test, or say with --test-split F which share of \
         each class to test on",
    );
    std::fs::rename(place.path("all"), place.path("my/train")).unwrap();
    place.refused(
        "data check --data my --test-split 0.25",
        2,
        "my has test images of its own (my/test); --test-split is for data sets without them",
    );
    place.refused(
        "data check --data letters --test-split 0.25",
        2,
        "letters has test images of its own (t10k-images-idx3-ubyte); --test-split is for data sets without them",
    );
    place.refused(
        "data check --data letters --resize",
        2,
        "--resize is for pictures in class folders; letters has IDX files",
    );
    for share in ["0", "1", "nan"] {
        place.unusable(
            &format!("data check --data all --test-split {share}"),
            &format!("invalid value '{share}' for '--test-split <F>': must be above 0 and below 1"),
        );
    }
}

#[test]
fn suspicious_data_gives_warnings_and_no_error() {
    let place = Place::new();
    // The images are dark on white, the test image is also a training image, and one class has no test image.
    for (name, image) in [
        ("train/a/1", 0),
        ("train/a/2", 9),
        ("train/b/1", 5),
        ("test/a/1", 0),
    ] {
        save(
            &place,
            &format!("my/{name}.png"),
            bar(28, 2, image, 255).into(),
        );
    }
    let warnings = "warning: the borders of the images are bright (mean 236 of 255): dark on white? Fashion-MNIST is \
                    bright on black; --invert does so to pictures in class folders\n\
                    warning: 1 of 1 test images are training images too (the first: index 0); the test accuracy is too high\n\
                    warning: class b: no test image\n";
    let out = place.good(CHECK);
    assert!(out.ends_with(warnings), "{out}");
    let (code, _, err) = place.run("--data my --batch-size 3 --epochs 1 --out run");
    assert_eq!((code, err.as_str()), (0, warnings));
    let out = place.good(&format!("{CHECK} --invert"));
    assert!(!out.contains("bright"), "{out}");
}

#[test]
fn image_files_that_do_not_fit_are_refused_by_name() {
    let wanted = "; this network takes 28x28, and --resize scales to that";
    let colour = DynamicImage::from(ImageBuffer::from_pixel(32, 30, Rgb([9u8, 9, 9])));
    for (name, image, problem) in [
        (
            "x.png",
            Some(colour.clone()),
            format!("a PNG of 32x30 pixels{wanted}"),
        ),
        (
            "x.jpg",
            Some(colour),
            format!("a JPEG of 32x30 pixels{wanted}"),
        ),
        (
            "x.jpeg",
            None,
            "no PNG, JPEG, BMP or PNM file (starts with \"hello\")".to_owned(),
        ),
    ] {
        let place = place();
        let file = format!("my/train/ring/{name}");
        match image {
            Some(image) => save(&place, &file, image),
            None => place.write(&file, b"hello"),
        }
        place.refused(CHECK, 1, &format!("{file}: {problem}"));
        place.good("train --data letters --batch-size 32 --max-steps 1 --out run");
        place.refused(
            &format!("predict run/lenet.weights {file}"),
            1,
            &format!("{file}: {problem}"),
        );
        if name != "x.jpeg" {
            place.good(&format!("{CHECK} --resize"));
            place.good(&format!("predict run/lenet.weights {file} --resize"));
        }
    }
    let place = place();
    let whole = place.read("my/test/wave/1.png");
    place.write("my/test/wave/1.png", &whole[..whole.len() / 2]);
    let err = place.failed(CHECK, 1);
    assert!(
        err.starts_with("error: my/test/wave/1.png: broken PNG: "),
        "{err}"
    );
    place.write("my/test/wave/1.png", b"");
    place.refused(
        CHECK,
        1,
        "my/test/wave/1.png: empty; expected a PNG, JPEG, BMP or PNM file",
    );
}

/// Returns the image as a PNG with Adam7 interlacing, which the `image` crate cannot write.
fn interlaced(image: &GrayImage) -> Vec<u8> {
    let mut rows = Vec::new();
    for (x, y, dx, dy) in [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ] {
        for y in (y..image.height()).step_by(dy) {
            rows.push(0); // No filter.
            rows.extend((x..image.width()).step_by(dx).map(|x| image[(x, y)].0[0]));
        }
    }
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&rows).unwrap();
    let mut header = [image.width(), image.height()]
        .map(u32::to_be_bytes)
        .concat();
    header.extend([8, 0, 0, 0, 1]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, content) in [
        (b"IHDR", header),
        (b"IDAT", packed.finish().unwrap()),
        (b"IEND", vec![]),
    ] {
        file.extend((content.len() as u32).to_be_bytes());
        let chunk = [&kind[..], &content].concat();
        file.extend(&chunk);
        file.extend(
            Crc::<u32>::new(&CRC_32_ISO_HDLC)
                .checksum(&chunk)
                .to_be_bytes(),
        );
    }
    file
}

#[test]
fn interlaced_files_are_read_like_others() {
    let place = place();
    let plain = place.good(CHECK);
    let file = "my/test/wave/1.png";
    let image = image::open(place.path(file)).unwrap().into_luma8();
    place.write(file, &interlaced(&image));
    assert_eq!(place.good(CHECK), plain);
}

#[test]
fn colour_and_sixteen_bits_are_read() {
    let place = place();
    let grey = bar(28, 0, 77, 0);
    let colour: DynamicImage = DynamicImage::from(grey.clone()).to_rgb8().into();
    save(&place, "my/train/ring/x.png", colour);
    let deep: DynamicImage = DynamicImage::from(bar(28, 0, 78, 0)).to_luma16().into();
    save(&place, "my/train/ring/y.png", deep);
    let out = place.good(CHECK);
    let cells: Vec<&str> = out.split_whitespace().collect();
    assert!(
        cells.windows(3).any(|cells| cells == ["ring", "10", "2"]),
        "{out}"
    );
}

#[test]
fn folders_that_are_no_classes_are_refused_by_name() {
    let place = place();
    save(&place, "my/test/moon/0.png", bar(28, 0, 1, 0).into());
    place.refused(
        CHECK,
        1,
        "my/test/moon: a class that my/train does not have; it has ring, star, wave",
    );
    std::fs::remove_dir_all(place.path("my/test")).unwrap();
    place.refused(
        CHECK,
        2,
        "my has no folder test. Put class folders into it, or say with --test-split F which share of each class to test \
         on",
    );

    std::fs::create_dir(place.path("my/test")).unwrap();
    for class in 0..8 {
        std::fs::create_dir(place.path(&format!("my/train/{class}"))).unwrap();
    }
    place.refused(
        CHECK,
        1,
        "my/train: 11 class folders (0, 1, 2, 3, 4, 5, 6, 7, ring, star, wave); this network has 10 classes",
    );
    std::fs::remove_dir_all(place.path("my/train")).unwrap();
    std::fs::create_dir(place.path("my/train")).unwrap();
    std::fs::create_dir_all(place.path("my/test/ring")).unwrap();
    place.refused(
        CHECK,
        1,
        "my/train: no class folder in it; expected a folder of pictures for each class",
    );
    std::fs::create_dir_all(place.path("my/train/ring")).unwrap();
    place.refused(CHECK, 1, "my/train: no picture in its class folders (ring)");
    let long = "x".repeat(33);
    let control = "a control character; the name of a class has none";
    for (name, rule) in [
        (
            long.as_str(),
            "a name of 33 bytes; the name of a class has at most 32",
        ),
        ("two\nlines", control),
        ("\u{1b}[31m", control),
    ] {
        let folder = format!("my/train/{name}");
        std::fs::create_dir(place.path(&folder)).unwrap();
        place.refused(CHECK, 1, &format!("{folder}: {rule}"));
        std::fs::remove_dir(place.path(&folder)).unwrap();
    }
    place.write("letters/classes.txt", b"a\tb");
    place.refused(
        "data check --data letters",
        1,
        "letters/classes.txt: line 1: a control character; the name of a class has none",
    );
}

#[test]
fn predict_names_the_three_most_likely_classes() {
    let place = place();
    place.good("--data my --batch-size 8 --epochs 20 --lr 0.01 --out run");
    let file = "my/test/star/0.png";
    let out = place.good(&format!(
        "predict run/lenet.weights {file} --index 5 --data my"
    ));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        (lines.len(), lines[0], lines[18]),
        (2 * 18, file, "test image 5, wave")
    );
    // Rows 8 to 11 of the image are bright, which are lines 4 and 5 of the characters.
    assert_eq!(
        (lines[4], lines[5], lines[6], lines[7]),
        (
            "",
            "#######".repeat(4).as_str(),
            "#######".repeat(4).as_str(),
            ""
        )
    );
    let mut above = f64::INFINITY;
    for line in &lines[15..18] {
        let (per_cent, class) = line.split_once(" % ").unwrap();
        let per_cent: f64 = per_cent.trim().parse().unwrap();
        assert!(per_cent <= above && !class.contains(' '), "{out}");
        above = per_cent;
    }

    let json = place.good(&format!(
        "predict run/lenet.weights {file} --index 5 --data my --json"
    ));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json[0]["file"], &json[1]["index"], &json[1]["label"]),
        (&file.into(), &5.into(), &"wave".into())
    );
    let first = format!("{} % {}", "", json[0]["top"][0]["class"].as_str().unwrap());
    assert!(lines[15].ends_with(&first), "{first} in {out}");
    assert_eq!(json[0]["top"].as_array().unwrap().len(), 3);

    place.refused(
        "predict run/lenet.weights --index 6 --data my",
        2,
        "--index 6: the test set of my has images 0 to 5",
    );
    place.refused(
        "predict run/lenet.weights none.png",
        1,
        "none.png: cannot be read: No such file or directory (os error 2)",
    );
    place.unusable(
        "predict run/lenet.weights",
        "the following required arguments were not provided:",
    );
}

#[test]
fn predict_agrees_with_evaluate_on_the_test_set() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --out run"));
    let indices: String = (0..30).map(|index| format!(" --index {index}")).collect();
    let json = place.good(&format!(
        "predict run/lenet.weights --data letters --json{indices}"
    ));
    let json: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let right = json
        .iter()
        .filter(|image| image["top"][0]["class"] == image["label"])
        .count();
    let out = place.good("evaluate run/lenet.weights --data letters");
    assert!(out.contains(&format!("({right} of 30)")), "{right}: {out}");
}
