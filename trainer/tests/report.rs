//! Tests `trainer report` and `trainer page`: that they show the results of a run, and that the page needs no other files.

#![cfg(feature = "program")]

mod place;

use place::{Place, TRAIN};
use sha2::{Digest, Sha256};

/// The files that the report adds to the folder of a run.
const OUTPUTS: [&str; 8] = [
    "confusion.png",
    "confusion.svg",
    "curves.png",
    "curves.svg",
    "filters.png",
    "filters.svg",
    "report.html",
    "samples.png",
];

#[test]
fn the_page_holds_the_figures_and_no_reference_to_anything_outside() {
    let place = Place::new();
    place.write("letters/classes.txt", b"a\nb\nc\nd\ne\nf & g\nh\ni\nj\nk\n");
    let out = place.good(&format!("{TRAIN} --out run --seed 5"));
    assert!(out.ends_with("report run/report.html\n"), "{out}");

    let page = place.text("run/report.html");
    // Scripts are checked separately, because base 85 may contain any sequence of characters.
    let mut scripts = page.split("<script");
    let mut markup = scripts.next().unwrap().to_owned();
    let mut code = String::new();
    for script in scripts {
        let (script, after) = script.split_once("</script>").unwrap();
        let (attributes, content) = script.split_once('>').unwrap();
        assert!(!attributes.contains("src"), "{attributes}");
        if attributes.contains("module") {
            code += content;
        }
        markup += after;
    }
    for outside in [
        "http:", "https:", "//", "<link", "@import", "url(", "<iframe", "<object",
    ] {
        assert!(!markup.contains(outside), "{outside}");
    }
    for outside in [
        "http",
        "import",
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "sendBeacon",
    ] {
        assert!(!code.contains(outside), "{outside}");
    }
    assert!(markup.contains("content=\"default-src 'none'; "));
    assert!(page.len() <= 530_000, "{} bytes", page.len());
    for source in page.split("src=\"").skip(1) {
        assert!(source.starts_with("data:image/png;base64,"));
    }
    assert_eq!(page.matches("<svg").count(), 3);

    // The numbers must be those of `evaluate` and of the files.
    let evaluated = place.good("evaluate run/lenet.weights --data letters");
    let accuracy: f64 = evaluated["test acc ".len()..][..6].parse().unwrap();
    let correct = evaluated.split(['(', ' ']).nth(4).unwrap();
    assert!(page.contains(&format!("<dd>{:.2}<small> %</small>", accuracy * 100.0)));
    assert!(page.contains(&format!("<dd>{correct}<small> of 30</small>")));
    for part in [
        "f &amp; g",
        "44,426",
        "6x12x12",
        "batch_size",
        "data.sha256",
        "shuffled",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for file in ["config.toml", "lenet.weights", "metrics.csv", "steps.csv"] {
        let sha256 = trainer::dataset::hex(&Sha256::digest(place.read(&format!("run/{file}"))));
        assert!(page.contains(&sha256), "{file}");
    }
    let curves = place.text("run/curves.svg");
    let last = place.text("run/metrics.csv");
    let loss: f64 = last
        .lines()
        .last()
        .unwrap()
        .split(',')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        curves.contains(&format!("train loss {loss:.3}")),
        "{curves}"
    );
}

/// Uses unusual and very long names, as folders may have them.
#[cfg(unix)]
#[test]
fn odd_names_of_classes_are_shown_as_they_are() {
    let place = Place::new();
    let names = [
        "\"<b>&amp;'",
        "naïve \u{6f22}\u{5b57} \u{1f600}",
        &"w".repeat(32),
    ];
    for (split, count) in [("train", 2), ("test", 1)] {
        for (class, name) in (0..).zip(names) {
            let folder = place.path(&format!("odd/{split}/{name}"));
            std::fs::create_dir_all(&folder).unwrap();
            for image in 0..count {
                let shade = [100 * count + 10 * class + image];
                let image = image::GrayImage::from_pixel(28, 28, shade.into());
                image
                    .save(folder.join(format!("{}.png", shade[0])))
                    .unwrap();
            }
        }
    }
    let shown = ["&quot;&lt;b&gt;&amp;amp;'", names[1], names[2]];
    let (code, _, _) = place.run("--data odd --batch-size 2 --epochs 1 --out run");
    assert_eq!(code, 0);
    let (page, svg) = (
        place.text("run/report.html"),
        place.text("run/confusion.svg"),
    );
    for (name, shown) in names.iter().zip(shown) {
        assert!(page.contains(shown), "{name}");
        assert!(place.good("summary run/lenet.weights").contains(name));
    }
    assert!(
        svg.contains(">&quot;&lt;b&gt;&amp;amp;'<") && svg.contains(">wwwwwwwwwww…<"),
        "{svg}"
    );
}

#[test]
fn writing_the_report_again_gives_the_same_bytes() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --out run"));
    let files = || OUTPUTS.map(|name| place.read(&format!("run/{name}")));
    let first = files();
    for name in OUTPUTS {
        std::fs::remove_file(place.path("run").join(name)).unwrap();
    }
    assert_eq!(place.good("report run"), "report run/report.html\n");
    assert!(files() == first);
    for (name, bytes) in OUTPUTS.iter().zip(first) {
        let (kind, start) = match name.rsplit_once('.').unwrap().1 {
            "png" => ("PNG", &b"\x89PNG\r\n\x1a\n"[..]),
            "svg" => ("SVG", &b"<svg xmlns="[..]),
            _ => ("HTML", &b"<!DOCTYPE html>"[..]),
        };
        assert!(bytes.starts_with(start), "{name} is no {kind}");
    }
}

/// If a picture or the page cannot be written, the weights must exist, so that the report can be written later.
#[test]
fn a_failing_report_loses_no_weights() {
    let place = Place::new();
    let options = "--data letters --batch-size 32";
    place.good(&format!("{options} --epochs 2 --out whole"));
    place.good(&format!("{options} --epochs 1 --out run"));
    let before = place.read("run/lenet.weights");
    for name in OUTPUTS {
        let path = place.path("run").join(name);
        std::fs::remove_file(&path).unwrap();
        // A file cannot replace a folder that is not empty.
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("something"), []).unwrap();
        std::fs::copy(place.path("run/last.checkpoint"), place.path("checkpoint")).unwrap();
        let (code, out, err) = place.run("--resume run --epochs 2");
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("\nweights run/lenet.weights\n") && !out.contains("\nreport "));
        let start = format!("warning: no report: run/{name}: cannot be written: ");
        let end = ". The weights are written; make the report again with: trainer report run\n";
        assert!(err.starts_with(&start) && err.ends_with(end), "{err}");
        assert!(place.read("run/lenet.weights") == place.read("whole/lenet.weights"));
        std::fs::remove_dir_all(&path).unwrap();
        assert_eq!(place.good("report run"), "report run/report.html\n");
        // Start again after the first epoch.
        std::fs::rename(place.path("checkpoint"), place.path("run/last.checkpoint")).unwrap();
        place.write("run/lenet.weights", &before);
    }
}

#[test]
fn a_page_is_made_of_weights_with_or_without_a_data_set() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --out run"));
    let out = place.good("page run/lenet.weights --data letters --out page.html");
    let page = place.text("page.html");
    assert_eq!(out, format!("wrote page.html ({} bytes)\n", page.len()));
    let images = |page: &str| page.matches("{\"index\":").count();
    assert!(images(&page) > 0 && page.contains("id=\"live-weights-f32\""));
    // With other class names, the labels of the images mean nothing to the network.
    for name in place::FILES {
        std::fs::create_dir_all(place.path("named")).unwrap();
        std::fs::copy(
            place.path("letters").join(name),
            place.path("named").join(name),
        )
        .unwrap();
    }
    place.write("named/classes.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
    let (code, _, err) = place.run("page run/lenet.weights --data named --out other.html");
    assert_eq!(code, 0, "{err}");
    assert!(
        err.starts_with("note: named has other classes than the weights: "),
        "{err}"
    );
    assert_eq!(images(&place.text("other.html")), 0);
    // A data set that this network cannot use is an error only if it was named.
    std::fs::create_dir_all(place.path("data")).unwrap();
    std::fs::rename(place.path("named"), place.path("data/fashion-mnist")).unwrap();
    place.write(
        "data/fashion-mnist/train-images-idx3-ubyte",
        &place::idx(&[0x803, 96, 32, 32], vec![0; 96 * 32 * 32]),
    );
    let problem = "data/fashion-mnist/train-images-idx3-ubyte: images of 32x32 pixels; this network takes 28x28";
    let (code, _, err) = place.run("page run/lenet.weights --out without.html");
    let note = "the page has no test images to choose from; name a folder with --data";
    assert_eq!((code, err), (0, format!("note: {problem}: {note}\n")));
    assert_eq!(images(&place.text("without.html")), 0);
    place.refused(
        "page run/lenet.weights --data data/fashion-mnist --out refused.html",
        1,
        problem,
    );
    place.refused(
        "page run/lenet.weights --data letters --out page.html",
        1,
        "page.html: already exists and is not overwritten; choose another name or remove it",
    );
}

#[test]
fn a_folder_that_is_no_run_and_data_of_another_are_refused() {
    let place = Place::new();
    place.refused(
        "report nowhere",
        1,
        "nowhere/lenet.weights: cannot be read: No such file or directory (os error 2)",
    );
    // A run that was stopped in the first epoch.
    std::fs::create_dir(place.path("early")).unwrap();
    place.write("early/last.checkpoint", b"");
    place.refused(
        "report early",
        1,
        "early: no epoch is done yet; continue with: trainer train --resume early",
    );
    place.good(&format!("{TRAIN} --out run"));
    place.write("run/metrics.csv", b"<html>");
    place.refused(
        "report run",
        1,
        "run/metrics.csv: no epoch in it; expected a column `epoch` and a line an epoch",
    );
    let other = place.path("other");
    std::fs::create_dir(&other).unwrap();
    for name in place::FILES {
        std::fs::copy(place.path("letters").join(name), other.join(name)).unwrap();
    }
    place.write(
        "other/train-labels-idx1-ubyte",
        &place::idx(&[0x801, 96], [3; 96]),
    );
    let err = place.failed("report run --data other", 1);
    assert!(
        err.starts_with("error: other: not the data that run was trained on: SHA-256 "),
        "{err}"
    );
    assert!(err.ends_with("; name the folder with --data\n"), "{err}");

    place.write("run/config.toml", b"{");
    let err = place.failed("report run", 1);
    assert!(
        err.starts_with("error: run/config.toml: not the settings of a run: "),
        "{err}"
    );
}
