//! Tests with data sets and pictures in the forms in which users have them: which are accepted, with which notes and warnings,
//! and which are rejected.

#![cfg(feature = "program")]

mod place;

use flate2::{Compression, write::GzEncoder};
use image::{DynamicImage, GrayImage, ImageBuffer, Luma, Rgb};
use place::{FILES, Place, TRAIN, idx, images, labels};
use std::fs;
use std::io::Write;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes a file and creates the folders above it.
fn write(place: &Place, name: &str, bytes: &[u8]) {
    let path = place.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Moves each of the [`FILES`] in `letters` to the path that `name` returns for it, and applies `change` to its content.
fn moved(name: impl Fn(&str) -> String, change: impl Fn(&[u8]) -> Vec<u8>) -> Place {
    let place = Place::new();
    for file in FILES {
        let bytes = place.read(&format!("letters/{file}"));
        write(&place, &name(file), &change(&bytes));
    }
    fs::remove_dir_all(place.path("letters")).unwrap();
    place
}

fn hash(out: &str) -> &str {
    let line = out.lines().find(|line| line.starts_with("sha256 "));
    line.unwrap_or_else(|| panic!("{out}"))
}

fn picture(bright: u8) -> DynamicImage {
    GrayImage::from_fn(28, 28, |x, y| {
        Luma([if x / 4 == y / 4 { bright } else { 0 }])
    })
    .into()
}

fn save(place: &Place, name: &str, image: &DynamicImage) {
    let path = place.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save(path).unwrap();
}

/// Writes class folders below `train` and `test`: three classes with four training and two test pictures each.
fn class_folders(place: &Place, train: &str, test: &str) {
    for (class, name) in ["ring", "star", "wave"].into_iter().enumerate() {
        for (folder, count, bright) in [(train, 4, 250), (test, 2, 150)] {
            for image in 0..count {
                let bright = bright - 10 * class as u8 - image;
                save(
                    place,
                    &format!("{folder}/{name}/{image}.png"),
                    &picture(bright),
                );
            }
        }
    }
}

/// Returns the cells in a row of the table that `data check` prints.
fn row<'a>(out: &'a str, class: &str) -> Vec<&'a str> {
    let rows = out.lines().map(|line| line.split_whitespace().collect());
    let mut rows = rows.filter(|row: &Vec<&str>| row.contains(&class));
    rows.next().unwrap_or_else(|| panic!("no {class} in {out}"))
}

/// Returns the lines after the table that `data check` prints.
fn remarks(out: &str) -> Vec<&str> {
    let lines = out.lines().skip_while(|line| !line.starts_with("sha256 "));
    lines.skip(1).collect()
}

#[test]
fn idx_files_are_found_under_all_common_names() {
    let plain = Place::new().good("data check --data letters");
    let same = |bytes: &[u8]| bytes.to_vec();
    let padded = |bytes: &[u8]| [gzip(bytes), vec![0; 512]].concat();
    let dotted = |file: &str| format!("my/{}", file.replace("-idx", ".idx"));
    let nested = |file: &str| format!("my/{file}/{file}");
    let upper = |file: &str| format!("my/{file}.GZ");
    let all_upper = |file: &str| format!("my/{}.GZ", file.to_uppercase());
    let test = |file: &str| format!("my/{}", file.replace("t10k", "test"));
    let unpacked = |file: &str| format!("my/{file}.gz");
    for place in [
        moved(dotted, same),
        moved(|file| format!("{}.gz", dotted(file)), gzip),
        moved(nested, same),
        moved(
            |file| format!("my/{}/{}", file.replace("-idx", ".idx"), file),
            same,
        ),
        moved(upper, gzip),
        moved(all_upper, gzip),
        moved(test, same),
        moved(upper, padded),
        // Some browsers decompress a file but keep its name.
        moved(unpacked, same),
    ] {
        let out = place.good("data check --data my");
        assert_eq!(hash(&out), hash(&plain));
        assert_eq!(remarks(&out), ["no problems found"]);
    }
}

#[test]
fn a_data_set_in_a_subfolder_is_found_with_a_note() {
    let same = |bytes: &[u8]| bytes.to_vec();
    for (folder, name) in [
        ("my/dataset", "dataset"),
        ("my/FashionMNIST/raw", "FashionMNIST"),
        ("my/a/b/c", "c"),
    ] {
        let place = moved(|file| format!("{folder}/{file}"), same);
        write(&place, "my/readme.md", b"hello");
        let out = place.good("data check --data my");
        assert!(
            out.starts_with(&format!("data {name} in {folder}\n")),
            "{out}"
        );
        assert_eq!(
            remarks(&out),
            [&format!("note: reading {folder}"), "no problems found"]
        );
        // The run has recorded the folder, and continues with it.
        let train = "--data my --batch-size 32 --epochs 1 --out run";
        let (code, _, err) = place.run(train);
        assert_eq!((code, err), (0, format!("note: reading {folder}\n")));
        let config = place.text("run/config.toml");
        assert!(
            config.contains(&format!("folder = \"{folder}\"")),
            "{config}"
        );
        assert_eq!(place.good("report run"), "report run/report.html\n");
        let (code, _, err) = place.run(&train.replace("run", "quiet --quiet"));
        assert_eq!((code, err.as_str()), (0, ""));
    }
    let place = moved(|file| format!("my/a/b/c/d/{file}"), same);
    place.refused(
        "data check --data my",
        1,
        "my: no data set found in it. It has 1 folder (a).\n\
         A data set is four IDX files (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, \
         t10k-labels-idx1-ubyte; gzipped or not), or class folders of PNG, JPEG, BMP or PNM files (train/NAME/* and \
         test/NAME/*, or NAME/* with --test-split), or tables (NAME_train.csv and NAME_test.csv with a label and the \
         pixels in each row)",
    );
}

#[test]
fn several_data_sets_are_listed_instead_of_choosing_one() {
    let place = Place::new();
    for folder in ["my/MNIST/raw", "my/FashionMNIST/raw"] {
        for file in FILES {
            let bytes = place.read(&format!("letters/{file}"));
            write(&place, &format!("{folder}/{file}"), &bytes);
        }
    }
    place.refused(
        "data check --data my",
        1,
        "my: several data sets are there; name one of them:\n  --data my/FashionMNIST/raw (IDX files)\n  \
         --data my/MNIST/raw (IDX files)",
    );
    place.good("data check --data my/MNIST/raw");

    // EMNIST's archive has several data sets in one folder. The prefix of the names selects one.
    let place = Place::new();
    for family in ["emnist-digits", "emnist-mnist"] {
        for file in FILES {
            let bytes = place.read(&format!("letters/{file}"));
            let file = file.replace("t10k", "test");
            write(&place, &format!("gzip/{family}-{file}.gz"), &gzip(&bytes));
        }
    }
    place.refused(
        "data check --data gzip",
        1,
        "gzip: several data sets are there; name one of them:\n  --data gzip/emnist-digits (IDX files)\n  \
         --data gzip/emnist-mnist (IDX files)",
    );
    let out = place.good("data check --data gzip/emnist-digits");
    assert!(
        out.starts_with("data emnist-digits in gzip/emnist-digits\n"),
        "{out}"
    );
    place.refused(
        "data check --data gzip/emnist",
        1,
        "gzip/emnist: no such folder; name the one of the data set with --data DIR",
    );
}

/// Compares the original images with transposed ones that have labels from 1 and EMNIST's file names.
#[test]
fn emnist_is_transposed_and_its_labels_counted_from_0() {
    let place = Place::new();
    let mut upright = images(96);
    for (i, byte) in upright[16..].iter_mut().enumerate() {
        *byte = byte.wrapping_add((i % 28) as u8); // Makes each image differ from its transpose.
    }
    let mut transposed = upright.clone();
    for (image, source) in transposed[16..]
        .chunks_mut(784)
        .zip(upright[16..].chunks(784))
    {
        (0..784).for_each(|at| image[at % 28 * 28 + at / 28] = source[at]);
    }
    let shifted = |count| {
        let mut file = labels(count);
        file[8..].iter_mut().for_each(|label| *label += 1);
        file
    };
    write(&place, "plain/train-images-idx3-ubyte", &upright);
    write(&place, "plain/train-labels-idx1-ubyte", &labels(96));
    for (file, bytes) in [
        ("train-images-idx3-ubyte", &transposed),
        ("train-labels-idx1-ubyte", &shifted(96)),
        ("test-images-idx3-ubyte", &images(30)),
        ("test-labels-idx1-ubyte", &shifted(30)),
    ] {
        write(
            &place,
            &format!("my/emnist-letters-{file}.gz"),
            &gzip(bytes),
        );
        if file.starts_with("test") {
            let bytes = if file.contains("labels") {
                &labels(30)
            } else {
                bytes
            };
            write(&place, &format!("plain/{file}"), bytes);
        }
    }
    let out = place.good("data check --data my");
    assert!(
        out.starts_with("data emnist-letters in my/emnist-letters\n"),
        "{out}"
    );
    assert_eq!(
        remarks(&out),
        [
            "note: the labels count from 1: each is shifted by one, so that they count from 0",
            "note: EMNIST stores its images transposed: they are transposed back",
            "no problems found",
        ]
    );
    assert_eq!(row(&out, "A"), ["0", "A", "10", "3"]);
    assert_eq!(hash(&out), hash(&place.good("data check --data plain")));

    // The mapping in the same folder names the classes.
    let mapping: String = (0..26)
        .map(|i| format!("{} {} {}\n", i + 1, 97 + i, 65 + i))
        .collect();
    write(&place, "my/emnist-letters-mapping.txt", mapping.as_bytes());
    let out = place.good("data check --data my");
    assert_eq!(row(&out, "j"), ["9", "j", "9", "3"]);

    // More letters than this network has classes.
    let mut all = shifted(96);
    all[8 + 30..].iter_mut().for_each(|label| *label += 16);
    write(
        &place,
        "my/emnist-letters-train-labels-idx1-ubyte.gz",
        &gzip(&all),
    );
    place.refused(
        "data check --data my",
        1,
        "my/emnist-letters-train-labels-idx1-ubyte.gz: label 17 at index 30; this network has 10 classes, 1 to 10. 65 \
         more are too large, up to 26: it takes a program that is built for a network with so many classes",
    );
}

/// Labels from 1 to 10 must be shifted, because a network with ten classes has labels from 0 to 9. Labels from 1 to 9 may be
/// correct.
#[test]
fn labels_from_1_are_shifted_if_necessary() {
    let place = Place::new();
    for (split, count) in [("train", 96), ("t10k", 30)] {
        let mut file = labels(count);
        file[8..].iter_mut().for_each(|label| *label += 1);
        place.write(&format!("letters/{split}-labels-idx1-ubyte"), &file);
    }
    let out = place.good("data check --data letters");
    assert_eq!(row(&out, "all"), ["all", "96", "30"]);
    assert!(out.contains(" 9 10 "), "{out}");
    assert_eq!(
        remarks(&out),
        [
            "note: the labels count from 1: each is shifted by one, so that they count from 0",
            "no problems found"
        ]
    );
    for (split, count) in [("train", 96), ("t10k", 30)] {
        let mut file = labels(count);
        file[8..]
            .iter_mut()
            .for_each(|label| *label = (*label).max(1));
        place.write(&format!("letters/{split}-labels-idx1-ubyte"), &file);
    }
    let out = place.good("data check --data letters");
    assert_eq!(
        remarks(&out),
        [
            "warning: class 0: no training image",
            "warning: class 0: no test image"
        ]
    );
}

#[test]
fn files_for_the_same_purpose_must_have_the_same_content() {
    let place = Place::new();
    let plain = place.good("data check --data letters");
    let copy = |place: &Place, name: &str, bytes: &[u8]| {
        write(place, &format!("letters/{name}"), bytes);
    };
    let bytes = place.read(&format!("letters/{}", FILES[0]));
    copy(&place, "train-images-idx3-ubyte.gz", &gzip(&bytes));
    copy(&place, "train-images.idx3-ubyte", &bytes);
    assert_eq!(place.good("data check --data letters"), plain);

    let other = gzip(&images(96).iter().map(|byte| byte / 2).collect::<Vec<u8>>());
    for name in ["train-images-idx3-ubyte.gz", "train-images-idx3-ubyte.GZ"] {
        let place = Place::new();
        copy(&place, name, &other);
        place.refused(
            "data check --data letters",
            1,
            &format!(
                "letters/{name}: not the content of letters/train-images-idx3-ubyte, uncompressed, though either could be \
                 read; remove the wrong one"
            ),
        );
    }
}

/// Returns a table of the images in `letters`, optionally with a header and with labels.
fn table(place: &Place, split: &str, header: bool, label: bool) -> Vec<u8> {
    let images = place.read(&format!("letters/{split}-images-idx3-ubyte"));
    let labels = place.read(&format!("letters/{split}-labels-idx1-ubyte"));
    let mut text = String::new();
    let line = |first: &str, rest: Vec<String>| match label {
        true => format!("{first},{}\n", rest.join(",")),
        false => format!("{}\n", rest.join(",")),
    };
    if header {
        text += &line("label", (1..=784).map(|i| format!("pixel{i}")).collect());
    }
    for (image, label) in images[16..].chunks(784).zip(&labels[8..]) {
        text += &line(
            &label.to_string(),
            image.iter().map(u8::to_string).collect(),
        );
    }
    text.into_bytes()
}

#[test]
fn kaggles_tables_are_read() {
    let place = Place::new();
    let plain = place.good("data check --data letters");
    let train = table(&place, "train", true, true);
    let test = table(&place, "t10k", true, true);
    write(&place, "kaggle/fashion-mnist_train.csv", &train);
    write(&place, "kaggle/fashion-mnist_test.csv", &test);
    write(
        &place,
        "mnist/mnist_train.csv.gz",
        &gzip(&table(&place, "train", false, true)),
    );
    write(
        &place,
        "mnist/mnist_test.csv.gz",
        &gzip(&table(&place, "t10k", false, true)),
    );
    write(
        &place,
        "bom/train.csv",
        &[b"\xef\xbb\xbf", &train[..]].concat(),
    );
    write(&place, "bom/val.csv", &test);
    write(&place, "bom/sample_submission.csv", b"ImageId,Label\n1,0\n");
    for (folder, name, notes) in [
        ("kaggle", "fashion-mnist", vec![]),
        ("mnist", "mnist", vec![]),
        (
            "bom",
            "bom",
            vec!["note: no table test: bom/val.csv is used for tests"],
        ),
    ] {
        let out = place.good(&format!("data check --data {folder}"));
        assert!(
            out.starts_with(&format!("data {name} in {folder}")),
            "{out}"
        );
        assert_eq!(hash(&out), hash(&plain));
        assert_eq!(remarks(&out), [notes, vec!["no problems found"]].concat());
    }
    let out = place.good("--data kaggle --batch-size 32 --epochs 1 --out run");
    assert!(
        out.contains("data fashion-mnist: 96 training images, 30 test images\n"),
        "{out}"
    );
    assert_eq!(place.good("report run"), "report run/report.html\n");

    // The test tables of Kaggle's competitions have no labels. A single table can be split.
    write(&place, "digits/train.csv", &train);
    write(
        &place,
        "digits/test.csv",
        &table(&place, "t10k", true, false),
    );
    place.refused(
        "data check --data digits",
        2,
        "digits/test.csv: no column of labels, so it cannot be used for tests; say with --test-split F which share \
         of each class to test on",
    );
    let out = place.good("data check --data digits --test-split 0.25");
    assert_eq!(row(&out, "all"), ["all", "70", "26"]);
    // The images of a class are identical, which gives a warning too.
    assert_eq!(
        remarks(&out)[0],
        "warning: digits/test.csv: ignored, because it has no column of labels"
    );
    write(&place, "single/A_Z Handwritten Data.csv", &train);
    place.refused(
        "data check --data single",
        2,
        "single/a-z-handwritten-data has no table of test images beside single/A_Z Handwritten Data.csv; say with \
         --test-split F which share of each class to test on",
    );
    let out = place.good("data check --data single --test-split 0.25");
    assert_eq!(row(&out, "all"), ["all", "70", "26"]);
    place.refused(
        "data check --data kaggle --test-split 0.25",
        2,
        "kaggle/fashion-mnist has test images of its own (kaggle/fashion-mnist_test.csv); --test-split is for data sets \
         without them",
    );
    place.refused(
        "data check --data kaggle --invert",
        2,
        "--invert is for pictures in class folders; kaggle/fashion-mnist has tables",
    );

    let text = String::from_utf8(train).unwrap();
    let at = text.find("\n0,").unwrap();
    let broken = format!("{}\n0,0.5{}", &text[..at], &text[at + 4..]);
    write(&place, "digits/train.csv", broken.as_bytes());
    place.refused(
        "data check --data digits",
        1,
        "digits/train.csv: line 2, column 2: \"0.5\"; expected a whole number from 0 to 255",
    );
}

#[test]
fn idx_files_without_test_images_can_be_split() {
    let place = Place::new();
    for file in &FILES[2..] {
        fs::remove_file(place.path(&format!("letters/{file}"))).unwrap();
    }
    place.refused(
        "data check --data letters",
        1,
        "letters: no t10k-images-idx3-ubyte, gzipped or not. The folder has 2 files (train-images-idx3-ubyte, \
         train-labels-idx1-ubyte). A data set is four IDX files: train-images-idx3-ubyte, train-labels-idx1-ubyte, \
         t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (or the first two with --test-split)",
    );
    let out = place.good("data check --data letters --test-split 0.25");
    assert_eq!(row(&out, "all"), ["all", "70", "26"]);
    // A continued run and its report use the same images.
    let (code, _, err) =
        place.run("--data letters --test-split 0.25 --batch-size 32 --epochs 1 --out run");
    assert_eq!(code, 0, "{err}");
    assert_eq!(place.good("report run"), "report run/report.html\n");
}

#[test]
fn folders_of_training_and_test_images_have_many_names() {
    let mut hashes = Vec::new();
    for (train, test) in [
        ("my/train", "my/test"),
        ("my/Train", "my/Test"),
        ("my/training", "my/testing"),
        ("my/training_set/training_set", "my/test_set/test_set"),
        ("my/seg_train/seg_train", "my/seg_test/seg_test"),
        ("my/Final_Training/Images", "my/Final_Test/Images"),
    ] {
        let place = Place::new();
        class_folders(&place, train, test);
        write(&place, "my/README.md", b"hello");
        let out = place.good("data check --data my");
        assert_eq!(row(&out, "all"), ["all", "12", "6"]);
        assert_eq!(row(&out, "ring"), ["0", "ring", "4", "2"]);
        assert_eq!(remarks(&out), ["no problems found"]);
        hashes.push(hash(&out).to_owned());
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1);

    // The given folder is one level above the data set, next to files that archivers of other systems add.
    let place = Place::new();
    class_folders(&place, "my/shapes/train", "my/shapes/test");
    write(
        &place,
        "my/__MACOSX/shapes/train/ring/._0.png",
        b"\0\x05\x16\x07",
    );
    let out = place.good("data check --data my");
    assert_eq!(
        remarks(&out),
        ["note: reading my/shapes", "no problems found"]
    );
    // The given folder is one level below that of the data set.
    place.refused(
        "data check --data my/shapes/train",
        2,
        "my/shapes/train has no folder train. Put the class folders into train and test, or say with --test-split F which \
         share of each class to test on. Or name the folder above: --data my/shapes",
    );
}

#[test]
fn validation_folders_are_used_for_tests_or_left_out_with_a_warning() {
    let place = Place::new();
    class_folders(&place, "my/train", "my/val");
    let out = place.good("data check --data my");
    assert_eq!(row(&out, "all"), ["all", "12", "6"]);
    assert_eq!(
        remarks(&out),
        [
            "note: no folder test: my/val is used for tests",
            "no problems found"
        ]
    );
    class_folders(&place, "my/train", "my/test");
    for (split, count) in [("train", 96), ("val", 30)] {
        let name = |what: &str| format!("idx/{split}-{what}-ubyte");
        let bytes = images(count)
            .into_iter()
            .map(|byte| byte.min(200 + count as u8 % 50));
        write(&place, &name("images-idx3"), &bytes.collect::<Vec<u8>>());
        write(&place, &name("labels-idx1"), &labels(count));
    }
    let out = place.good("data check --data idx");
    assert_eq!(
        remarks(&out),
        [
            "note: no t10k-images-idx3-ubyte: idx/val-images-idx3-ubyte is used for tests",
            "no problems found"
        ]
    );
    place.write("letters/val-images-idx3-ubyte", &images(9));
    let out = place.good("data check --data letters");
    assert_eq!(
        remarks(&out),
        [
            "warning: letters/val-images-idx3-ubyte: ignored; to validate, --val-split holds out a share of the training \
          images"
        ]
    );
    let out = place.good("data check --data my");
    let left_out = "warning: my/val is ignored: my/train is used for training, my/test for tests; to validate, --val-split holds \
                    out a share of the training images";
    assert_eq!(remarks(&out), [left_out]);
    let (code, _, err) = place.run("--data my --max-steps 1 --out run");
    assert_eq!((code, err), (0, format!("{left_out}\n")));
}

#[test]
fn a_class_may_be_called_train() {
    let place = Place::new();
    class_folders(&place, "my", "other");
    save(&place, "my/train/0.png", &picture(99));
    save(&place, "my/train/1.png", &picture(98));
    let out = place.good("data check --data my --test-split 0.25");
    assert_eq!(row(&out, "train"), ["2", "train", "1", "1"]);
}

/// The folder of a run contains pictures too, and is often next to the data.
#[test]
fn the_folder_of_a_run_is_no_data() {
    let place = Place::new();
    class_folders(&place, "apart/train", "apart/test");
    class_folders(&place, "flat", "other");
    for (folder, options) in [
        ("letters", ""),
        ("apart", ""),
        ("flat", " --test-split 0.25"),
    ] {
        let check = format!("data check --data {folder}{options}");
        let before = place.good(&check);
        for run in ["run", "runs/one", "runs/two"] {
            place.good(&format!(
                "--data {folder}{options} --max-steps 1 --out {folder}/{run}"
            ));
            if run == "run" {
                let out = place.good(&check);
                assert_eq!(
                    (hash(&out), row(&out, "all")),
                    (hash(&before), row(&before, "all"))
                );
                let warning = "warning: ignored, because they are not pictures in class folders: 1 run (the first: flat/run)";
                assert_eq!(
                    remarks(&out).last() == Some(&warning),
                    folder == "flat",
                    "{out}"
                );
                fs::remove_dir_all(place.path(&format!("{folder}/run"))).unwrap();
            }
            if folder == "flat" {
                break;
            }
        }
        if folder != "flat" {
            assert_eq!(place.good(&check), before);
        }
    }
}

#[test]
fn pictures_without_class_folders_are_named() {
    let place = Place::new();
    class_folders(&place, "my/Train", "other");
    save(&place, "my/Test/0.png", &picture(200));
    place.refused(
        "data check --data my",
        2,
        "my/Test: pictures without class folders, so that their classes are not known. Put them into a folder for each \
         class, or say with --test-split F which share of each class to test on",
    );
    let out = place.good("data check --data my --test-split 0.25");
    assert_eq!(
        remarks(&out),
        ["warning: my/Test: ignored, because its pictures are not in class folders"]
    );

    // The layout of the archive of the German traffic signs.
    fs::rename(place.path("my/Train"), place.path("my/Training")).unwrap();
    fs::create_dir(place.path("my/Final_Test")).unwrap();
    fs::rename(place.path("my/Test"), place.path("my/Final_Test/Images")).unwrap();
    let out = place.good("data check --data my --test-split 0.25");
    assert_eq!(
        remarks(&out),
        ["warning: my/Final_Test/Images: ignored, because its pictures are not in class folders"]
    );

    let place = Place::new();
    save(&place, "my/train/cat.0.png", &picture(200));
    save(&place, "my/train/dog.0.png", &picture(200));
    place.refused(
        "data check --data my",
        1,
        "my: my/train has pictures, but no class folders: the class of each is not known. Put them into a folder for each \
         class",
    );
    let place = Place::new();
    class_folders(&place, "my/train", "other");
    place.refused(
        "data check --data my",
        2,
        "my has no folder test. Put class folders into it, or say with --test-split F which share of each class to test \
         on",
    );
    let out = place.good("data check --data my --test-split 0.25");
    assert_eq!(row(&out, "all"), ["all", "9", "3"]);
    let place = Place::new();
    class_folders(&place, "other", "my/test");
    place.refused(
        "data check --data my",
        1,
        "my: my/test is there, but no folder train; expected train/NAME/* and test/NAME/*",
    );
}

#[cfg(unix)]
#[test]
fn files_that_are_not_pictures_are_left_out_and_counted_once() {
    let place = Place::new();
    class_folders(&place, "my/train", "my/test");
    let clean = place.good("data check --data my");
    let fifo = |name: &str| {
        let made = std::process::Command::new("mkfifo")
            .arg(place.path(name))
            .status();
        assert!(made.unwrap().success());
    };
    for name in [
        "my/train/ring/Thumbs.db",
        "my/train/star/Thumbs.db",
        "my/train/ring/desktop.ini",
        "my/train/ring/notes.txt",
        "my/train/ring/.DS_Store",
        "my/train/ring/._0.png",
        "my/train/ring/more/9.png",
        "my/train/index.csv",
        "my/test/__MACOSX/ring/._0.png",
        "my/test/ring/LICENSE",
    ] {
        write(&place, name, b"hello");
    }
    fifo("my/train/ring/pipe.png");
    std::os::unix::fs::symlink("nowhere.png", place.path("my/test/wave/9.png")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", place.path("my/test/wave/8.png")).unwrap();
    let left_out = "warning: ignored, because they are not pictures in class folders: 1 .csv file, 1 .txt file, 2 Thumbs.db, 1 \
                    __MACOSX, 1 dangling link, 1 desktop.ini, 1 device, 1 file, 1 folder, 1 named pipe (the first: \
                    my/test/__MACOSX)";
    let out = place.good("data check --data my");
    assert_eq!(remarks(&out), [left_out]);
    assert_eq!(hash(&out), hash(&clean));
    let (code, _, err) = place.run("--data my --max-steps 1 --out run");
    assert_eq!((code, err), (0, format!("{left_out}\n")));

    // A picture is recognised by its content even if its name has no extension.
    fs::rename(
        place.path("my/train/ring/0.png"),
        place.path("my/train/ring/0"),
    )
    .unwrap();
    assert_eq!(place.good("data check --data my"), out);

    // A named pipe instead of an IDX file.
    fs::remove_file(place.path("letters/t10k-labels-idx1-ubyte")).unwrap();
    fifo("letters/t10k-labels-idx1-ubyte");
    let err = place.failed("data check --data letters", 1);
    let start = "error: letters: no t10k-labels-idx1-ubyte, gzipped or not. The folder has 3 files (t10k-images-idx3-ubyte, \
                 train-images-idx3-ubyte, train-labels-idx1-ubyte), 1 named pipe. ";
    assert!(err.starts_with(start), "{err}");
}

#[test]
fn an_empty_class_folder_is_called_empty() {
    let place = Place::new();
    class_folders(&place, "my/train", "my/test");
    for folder in ["my/train/moon", "my/test/moon", "my/test/sun"] {
        fs::create_dir_all(place.path(folder)).unwrap();
    }
    write(&place, "my/test/sun/scan.webp", b"RIFF....WEBP");
    let out = place.good("data check --data my");
    assert_eq!(row(&out, "moon"), ["0", "moon", "0", "0"]);
    assert_eq!(
        remarks(&out),
        [
            "warning: my/train/moon: no picture in this class folder",
            "warning: my/test/moon: no picture in this class folder",
            "warning: my/test/sun: no picture in this class folder",
            "warning: ignored, because they are not pictures in class folders: 1 .webp file (the first: my/test/sun/scan.webp)",
        ]
    );
    let place = Place::new();
    for class in ["ring", "star"] {
        write(&place, &format!("my/train/{class}/0.gif"), b"GIF89a");
        fs::create_dir_all(place.path(&format!("my/test/{class}"))).unwrap();
    }
    place.refused(
        "data check --data my",
        1,
        "my/train: no picture in its class folders (ring, star) (what is there instead: 2 .gif files)",
    );
}

#[test]
fn a_name_in_two_unicode_forms_is_one_class() {
    let (composed, decomposed) = ("M\u{fc}tze", "Mu\u{308}tze");
    let place = Place::new();
    for (folder, image) in [
        (format!("train/{composed}"), 0),
        (format!("train/{decomposed}"), 1),
        (format!("test/{decomposed}"), 2),
        ("train/bag".to_owned(), 3),
        ("test/bag".to_owned(), 4),
    ] {
        save(
            &place,
            &format!("my/{folder}/{image}.png"),
            &picture(200 + image),
        );
    }
    let out = place.good("data check --data my");
    assert_eq!(row(&out, composed), ["0", composed, "2", "1"]);
    assert_eq!(remarks(&out), ["no problems found"]);
    // The names in a weights file must be the same on every system.
    place.write(
        "letters/classes.txt",
        format!("{decomposed}\n1\n2\n3\n4\n5\n6\n7\n8\n9\n").as_bytes(),
    );
    let out = place.good("data check --data letters");
    assert_eq!(row(&out, composed), ["0", composed, "10", "3"]);
}

#[test]
fn lists_of_names_are_read_as_editors_write_them_or_rejected() {
    let place = Place::new();
    let names = "shirt\r\nshoe\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n8\r\n9\r\n";
    let utf16: Vec<u8> = format!("\u{feff}{names}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for bytes in [
        names.as_bytes().to_vec(),
        format!("\u{feff}{names}\r\n").into_bytes(),
        utf16,
    ] {
        place.write("letters/classes.txt", &bytes);
        let out = place.good("data check --data letters");
        assert_eq!(row(&out, "shirt"), ["0", "shirt", "10", "3"]);
    }
    for (names, problem) in [
        (
            "shirt\n\nshoe\n",
            "line 2 is blank; expected one name per line, in the order of the labels",
        ),
        (
            "shirt\nshoe\nshirt\n",
            "lines 1 and 3 have the same name, shirt; expected another name for each class",
        ),
        (
            "shirt\nshoe\n",
            "2 names, but there are labels up to 9; expected a name for each class",
        ),
    ] {
        place.write("letters/classes.txt", names.as_bytes());
        let sentence = format!("letters/classes.txt: {problem}");
        place.refused("data check --data letters", 1, &sentence);
        place.refused(&format!("{TRAIN} --out run"), 1, &sentence);
    }
}

#[test]
fn files_in_place_of_a_data_set_are_named() {
    let place = Place::new();
    write(&place, "my/mnist.npz", b"PK\x03\x04");
    write(&place, "my/archive.zip", b"PK\x03\x04");
    write(&place, "my/readme.md", b"hello");
    fs::create_dir(place.path("my/code")).unwrap();
    let err = place.failed("data check --data my", 1);
    let start = "error: my: no data set found in it. It has 1 folder (code), 3 files (archive.zip, mnist.npz, readme.md).\n\
                 archive.zip is a ZIP archive: unpack it.\n\
                 mnist.npz is a NumPy file: write its images and labels as IDX files or as class folders of PNG files.\n\
                 A data set is four IDX files (";
    assert!(err.starts_with(start), "{err}");
    let err = place.failed("data check --data my/code", 1);
    assert!(
        err.starts_with("error: my/code: no data set found in it. It has nothing.\n"),
        "{err}"
    );
    place.refused(
        "data check --data my/mnist.npz",
        1,
        "my/mnist.npz: mnist.npz is a NumPy file: write its images and labels as IDX files or as class folders of PNG \
         files, and name the folder",
    );
    place.refused(
        "data check --data letters/train-images-idx3-ubyte",
        1,
        "letters/train-images-idx3-ubyte: a file; name its folder",
    );
    place.refused(
        "data check --data no/where",
        1,
        "no/where: no such folder; name the one of the data set with --data DIR",
    );
    place.write(
        "letters/train-images-idx3-ubyte",
        b"version https://git-lfs.github.com/spec/v1\n",
    );
    place.refused(
        "data check --data letters",
        1,
        "letters/train-images-idx3-ubyte: neither gzip nor IDX (starts with \"version https://\", a Git LFS pointer; fetch \
         the file with git lfs pull)",
    );
}

#[test]
fn an_empty_environment_variable_counts_as_unset() {
    let place = Place::new();
    let check = |value: &str, arguments: &str| {
        let output = place
            .command(arguments)
            .env("LENET_DATA", value)
            .output()
            .unwrap();
        place::outcome(output)
    };
    let (code, out, err) = check("", "data check");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("data fashion-mnist in "), "{out}");
    let (_, out, _) = check("letters", "data check");
    assert!(out.starts_with("data letters in letters\n"), "{out}");
    // A run continues with its own data, whatever the environment variable names.
    let (code, _, err) = check("", &format!("{TRAIN} --out run"));
    assert_eq!((code, err.as_str()), (0, ""));
    let (code, _, err) = check("nowhere", "--resume run --epochs 3");
    assert_eq!((code, err.as_str()), (0, ""));
    let output = place
        .command(&format!("{TRAIN} --out other"))
        .env("LENET_ISA", "")
        .output();
    assert_eq!(place::outcome(output.unwrap()).0, 0);
    // An empty path on the command line is an error.
    let output = place.command("data check --data").arg("").output().unwrap();
    let (code, _, err) = place::outcome(output);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn a_batch_has_at_most_all_images() {
    let place = Place::new();
    let out = place.good("--data letters --epochs 1 --out a");
    let note =
        "batch size 96: there are 96 training images, fewer than the default batch size of 256\n";
    assert!(
        out.starts_with(note) || out.contains(&format!("\n{note}")),
        "{out}"
    );
    assert!(place.text("a/config.toml").contains("batch_size = 96"));
    // A larger batch size on the command line gives one batch with all images, as in PyTorch.
    let out = place.good("--data letters --epochs 1 --batch-size 1000 --out b");
    let note = "--batch-size 1000 is more than the 96 training images: each epoch is one step with all of them\n";
    assert!(out.contains(note), "{out}");
    let params = |run: &str| {
        let file =
            trainer::weights_file::WeightsFile::load(&place.path(&format!("{run}/lenet.weights")));
        *file.unwrap().weights().params
    };
    assert!(params("a") == params("b"));
    assert_eq!(place.text("b/steps.csv").lines().count(), 1 + 1);
    for run in ["a", "b"] {
        place.good(&format!("--resume {run} --epochs 2"));
        assert_eq!(
            place.text(&format!("{run}/steps.csv")).lines().count(),
            1 + 2
        );
    }
    assert!(params("a") == params("b"));
    let out = place.good("--data letters --epochs 1 --val-split 0.25 --out c");
    assert!(
        out.contains("batch size 72: there are 72 training images"),
        "{out}"
    );
    let (code, _, err) = place.run("bench --data letters --epochs 1 --json");
    assert_eq!((code, err.lines().count()), (0, 1), "{err}");
}

#[test]
fn predict_warns_about_suspicious_pictures() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    let mut dark_on_white = picture(255).into_luma8();
    dark_on_white
        .iter_mut()
        .for_each(|value| *value = 255 - *value);
    save(&place, "paper.png", &dark_on_white.into());
    let drawn = ImageBuffer::from_fn(28, 28, |x, y| {
        image::LumaA([0u8, if x / 4 == y / 4 { 255 } else { 0 }])
    });
    save(&place, "drawn.png", &drawn.into());
    let colour = ImageBuffer::from_fn(28, 28, |x, y| {
        Rgb([0, if x / 4 == y / 4 { 200u8 } else { 0 }, 0])
    });
    save(&place, "colour.png", &colour.into());
    for (picture, said) in [
        (
            "paper.png",
            "warning: paper.png: the border is bright (mean 222 of 255): dark on white? If the network was trained on \
             bright on black, as Fashion-MNIST is, --invert makes the picture so\n",
        ),
        (
            "drawn.png",
            "warning: drawn.png: the value is 0 everywhere: black shows where a picture is transparent; if it is drawn in \
             black, --invert makes that white\n",
        ),
        (
            "colour.png",
            "note: colour.png: the colours are converted to grey\n",
        ),
    ] {
        let predict = format!("predict run/lenet.weights {picture}");
        let (code, out, err) = place.run(&predict);
        assert_eq!((code, err.as_str()), (0, said));
        let (_, json, err) = place.run(&format!("{predict} --json"));
        assert_eq!(err, said);
        assert!(json.starts_with('['), "{json}");
        if picture != "colour.png" {
            let (_, inverted, err) = place.run(&format!("{predict} --invert"));
            assert_eq!(err, "");
            assert_ne!(inverted, out);
        }
    }
    // `predict` prints the warnings of `data check` too, if it takes an image from the data set.
    let mut bright = images(30);
    bright[16..]
        .iter_mut()
        .for_each(|value| *value = 255 - *value);
    for split in ["train", "t10k"] {
        write(
            &place,
            &format!("bright/{split}-images-idx3-ubyte"),
            &bright,
        );
        write(
            &place,
            &format!("bright/{split}-labels-idx1-ubyte"),
            &labels(30),
        );
    }
    let (code, _, err) = place.run("predict run/lenet.weights --index 3 --data bright");
    assert_eq!(code, 0, "{err}");
    assert!(
        err.starts_with("warning: the borders of the images are bright"),
        "{err}"
    );
}

#[test]
fn truncated_pictures_are_rejected_by_every_command() {
    let place = Place::new();
    class_folders(&place, "my/train", "my/test");
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    for name in ["x.jpg", "x.png", "x.bmp", "x.pgm"] {
        let file = format!("my/train/ring/{name}");
        save(&place, &file, &picture(200));
        place.good("data check --data my");
        let whole = place.read(&file);
        place.write(&file, &whole[..whole.len() * 2 / 3]);
        for command in [
            "data check --data my".to_owned(),
            format!("predict run/lenet.weights {file}"),
        ] {
            let err = place.failed(&command, 1);
            assert!(err.starts_with(&format!("error: {file}: ")), "{err}");
            assert!(err.contains("truncated") || err.contains("broken"), "{err}");
        }
        fs::remove_file(place.path(&file)).unwrap();
    }
    // One warning states the number of images concerned.
    for image in 0..3 {
        let file = format!("my/train/ring/{image}.png");
        let whole = place.read(&file);
        place.write(&file, &whole[..whole.len() / 2]);
    }
    let err = place.failed("data check --data my", 1);
    assert!(
        err.starts_with("error: my/train/ring/0.png: broken PNG: "),
        "{err}"
    );
    assert!(
        err.ends_with(" (2 more of these files cannot be read either)\n"),
        "{err}"
    );
}

#[test]
fn colour_in_class_folders_gives_a_note() {
    let place = Place::new();
    class_folders(&place, "my/train", "my/test");
    let colour = ImageBuffer::from_fn(28, 28, |x, y| Rgb([x as u8, y as u8, 90]));
    save(&place, "my/train/ring/x.ppm", &colour.clone().into());
    save(&place, "my/test/ring/x.bmp", &colour.into());
    let out = place.good("data check --data my");
    assert_eq!(
        remarks(&out),
        [
            "note: 2 of 20 pictures have colour; they are converted to grey, as this network has one channel",
            "warning: 1 of 7 test images are training images too (the first: index 2); the test accuracy is too high",
        ]
    );
}

/// The four dimensions are images, channels, rows and columns.
#[test]
fn idx_files_with_a_dimension_for_channels_are_read_if_they_fit() {
    let place = Place::new();
    let plain = place.good("data check --data letters");
    let pixels = images(96)[16..].to_vec();
    place.write(
        "letters/train-images-idx3-ubyte",
        &idx(&[0x804, 96, 1, 28, 28], pixels),
    );
    let out = place.good("data check --data letters");
    assert_eq!(row(&out, "all"), row(&plain, "all"));
    for (dimensions, found) in [
        (
            [3, 28, 28],
            "28x28 pixels in 3 channels; this network takes 28x28",
        ),
        (
            [28, 28, 1],
            "28x1 pixels in 28 channels; this network takes 28x28; the channels come before the rows: (N, C, H, W)",
        ),
    ] {
        let [channels, height, width] = dimensions;
        let header = [0x804, 1, channels, height, width];
        let bytes = vec![0; (channels * height * width) as usize];
        place.write("letters/train-images-idx3-ubyte", &idx(&header, bytes));
        place.refused(
            "data check --data letters",
            1,
            &format!("letters/train-images-idx3-ubyte: images of {found}"),
        );
    }
}
