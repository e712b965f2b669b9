//! Tests training: what it prints, which files it writes, and what its options change.

use crate::place::{AT_CHANCE, FILES, LEARNT, Place, TRAIN, idx};

#[test]
fn a_run_prints_lines_like_the_course_and_writes_its_files() {
    let place = Place::new();
    let out = place.good(&format!("{TRAIN} --out run --seed 5 --threads 2"));
    assert!(
        out.contains("data letters: 96 training images, 30 test images\ntraining on cpu"),
        "{out}"
    );
    for epoch in 1..=2 {
        let start = format!("epoch {epoch}, ");
        let line = out.lines().find(|line| line.starts_with(&start)).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let [
            _,
            _,
            "loss",
            loss,
            "train",
            "acc",
            train,
            "test",
            "acc",
            test,
            "time",
            time,
            "sec",
        ] = words[..]
        else {
            panic!("{line}");
        };
        for (number, decimals) in [(loss, 4), (train, 3), (test, 3)] {
            let number = number.strip_suffix(',').unwrap();
            assert!(number.parse::<f64>().unwrap() >= 0.0, "{line}");
            assert_eq!(
                number.split('.').nth(1).map(str::len),
                Some(decimals),
                "{line}"
            );
        }
        assert_eq!(time.split('.').nth(1).map(str::len), Some(1), "{line}");
    }
    assert!(
        out.contains("\nweights run/lenet.weights\nsha256 of the parameters "),
        "{out}"
    );

    assert_eq!(
        place.list("run"),
        [
            "config.toml",
            "confusion.png",
            "confusion.svg",
            "curves.png",
            "curves.svg",
            "filters.png",
            "filters.svg",
            "last.checkpoint",
            "lenet.weights",
            "metrics.csv",
            "report.html",
            "samples.png",
            "steps.csv",
        ]
    );
    let metrics = place.text("run/metrics.csv");
    assert_eq!(
        metrics.lines().next(),
        Some("epoch,train_loss,train_acc,test_acc,seconds")
    );
    assert_eq!(metrics.lines().count(), 1 + 2);
    let steps = place.text("run/steps.csv");
    assert_eq!(steps.lines().next(), Some("step,loss"));
    assert_eq!(steps.lines().count(), 1 + 2 * 3);
    let config = place.text("run/config.toml");
    for setting in [
        "epochs = 2",
        "batch_size = 32",
        "lr = 0.001",
        "seed = 5",
        "order = \"shuffled\"",
    ] {
        assert!(config.contains(setting), "{setting} in {config}");
    }
}

#[test]
fn the_default_folder_is_named_after_date_and_seed() {
    let place = Place::new();
    place.good(&format!("train {TRAIN} --max-steps 1 --seed 12"));
    let runs = place.list("runs");
    let [run] = runs.as_slice() else {
        panic!("{runs:?}")
    };
    let shape: String = run
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "00000000-000000-seed00");
    assert!(run.ends_with("-seed12"), "{run}");
}

#[test]
fn the_same_seed_gives_the_same_weights_for_any_threads() {
    let place = Place::new();
    for (run, options) in [
        ("a", "--threads 1"),
        ("b", "--threads 7"),
        ("c", "--threads 1 --seed 1"),
    ] {
        place.good(&format!("{TRAIN} --out {run} {options}"));
    }
    assert!(place.read("a/lenet.weights") == place.read("b/lenet.weights"));
    assert!(place.read("a/lenet.weights") != place.read("c/lenet.weights"));
}

#[test]
fn max_steps_counts_across_epochs_for_every_device_and_order() {
    let place = Place::new();
    for (run, options) in [
        ("a", "--device reference --order sequential"),
        ("b", "--device cpu --order shuffled"),
        ("c", "--device auto"),
    ] {
        let out = place.good(&format!("{TRAIN} --max-steps 4 --out {run} {options}"));
        assert!(out.contains("\nepoch 2, "), "{out}");
        assert_eq!(
            place.text(&format!("{run}/steps.csv")).lines().count(),
            1 + 4,
            "{run}"
        );
    }
}

#[test]
fn a_validation_split_selects_the_epoch_and_the_test_images_are_used_once() {
    let place = Place::new();
    place.good(&format!("{LEARNT} --out learnt"));
    // The learning rate is so small that nothing more is learnt, so the first epoch remains the best.
    let options =
        "--data letters --batch-size 32 --val-split 0.25 --lr 1e-12 --init learnt/lenet.weights";
    let out = place.good(&format!("{options} --epochs 50 --patience 3 --out run"));
    assert!(
        out.contains("\ndata letters: 72 training images, 24 validation images, 30 test images\n"),
        "{out}"
    );
    let epochs = |word: &str| out.lines().filter(|line| line.contains(word)).count();
    assert_eq!((epochs(", val acc "), epochs("test acc ")), (4, 1), "{out}");
    assert!(out.contains("\nbest epoch 1: val acc "), "{out}");
    assert!(out.contains("\nweights run/lenet.weights\n"), "{out}");
    let metrics = place.text("run/metrics.csv");
    assert!(metrics.starts_with("epoch,train_loss,train_acc,val_acc,seconds\n1,"));
    assert_eq!(metrics.lines().count(), 1 + 4);
    assert_eq!(place.text("run/steps.csv").lines().count(), 1 + 4 * 3);
    // The best parameters are those after the first epoch.
    place.good(&format!("{options} --epochs 1 --out first"));
    assert!(place.read("run/best.weights") == place.read("first/best.weights"));
    let about = place.good("summary run/best.weights");
    for part in [
        ", best epoch on 0.25 held out for validation",
        "epochs         1\n",
    ] {
        assert!(about.contains(part), "{part} in {about}");
    }
    assert!(place.read("run/lenet.weights") == place.read("run/best.weights"));
    place.refused(
        "--resume run --epochs 60",
        2,
        "ended after 4 epochs by --patience; continue with a larger one",
    );
    // With more patience, the run continues as if it had had this patience from the start.
    let out = place.good("--resume run --epochs 60 --patience 5");
    assert!(
        out.contains("\nepoch 5, ") && out.contains("\nepoch 6, ") && !out.contains("\nepoch 7, ")
    );
    assert!(place.text("run/config.toml").contains("patience = 5\n"));
    // The largest patience never ends.
    let out = place.good("--resume run --epochs 7 --patience 4294967295");
    assert!(out.contains("\nepoch 7, "), "{out}");
}

#[test]
fn patience_does_not_count_epochs_before_anything_is_learnt() {
    let place = Place::new();
    let flat = "--data letters --batch-size 32 --val-split 0.25 --lr 1e-12 --epochs 9 --patience 2";
    let output = place.command(&format!("{flat} --out flat")).output();
    let output = output.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|s| String::from_utf8(s).unwrap());
    assert!(out.contains("\nepoch 9, "), "{out}");
    assert!(err.starts_with(AT_CHANCE), "{err}");
}

#[test]
fn quiet_prints_nothing_and_json_prints_one_object_per_line() {
    let place = Place::new();
    assert_eq!(place.good(&format!("{TRAIN} --quiet --out quiet")), "");
    // Without a terminal, there is neither a progress bar nor curves.
    let text = place.good(&format!("{TRAIN} --out text"));
    assert!(
        !text.contains(['\u{1b}', '\r']) && !text.contains("by epoch"),
        "{text}"
    );
    let out = place.good(&format!(
        "{TRAIN} --log-format json --val-split 0.25 --device cpu --out run"
    ));
    let objects: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let events: Vec<&str> = objects
        .iter()
        .map(|o| o["event"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["start", "epoch", "epoch", "end"]);
    assert_eq!(objects[0]["run"], "run");
    assert_eq!(objects[0]["config"]["batch_size"], 32);
    assert_eq!(objects[0]["config"]["data"]["train"], 72);
    assert_eq!(objects[2]["epoch"], 2);
    assert!(objects[2]["val_acc"].is_number() && objects[2]["test_acc"].is_null());
    let [first, second] = [1, 2].map(|epoch| objects[epoch]["val_acc"].as_f64().unwrap());
    assert_eq!(objects[3]["best_epoch"], if second > first { 2 } else { 1 });
    let (correct, accuracy) = (&objects[3]["correct"], &objects[3]["test_acc"]);
    assert_eq!(correct.as_f64().unwrap() / 30.0, accuracy.as_f64().unwrap());
    assert_eq!(objects[3]["weights"], "run/lenet.weights");
}

#[test]
fn a_network_that_has_learnt_nothing_gives_a_warning() {
    let place = Place::new();
    let helps = "; try more --epochs or a smaller --batch-size\n";
    for (options, at_chance) in [(TRAIN, true), (LEARNT, false)] {
        for form in ["", "--quiet", "--log-format json"] {
            let mut command = place.command(&format!("{options} {form} --out run"));
            let output = command.output().unwrap();
            let [out, err] = [output.stdout, output.stderr].map(|s| String::from_utf8(s).unwrap());
            match at_chance {
                true => assert!(err.starts_with(AT_CHANCE) && err.ends_with(helps), "{err}"),
                false => assert_eq!(err, ""),
            }
            let told = out.contains(&format!("\"at_chance\":{at_chance}"));
            assert_eq!(told, form.ends_with("json"), "{out}");
            std::fs::remove_dir_all(place.path("run")).unwrap();
        }
    }
}

#[test]
fn training_on_a_single_class_gives_a_warning_and_no_advice() {
    let place = Place::new();
    for (file, count) in [(FILES[1], 96), (FILES[3], 30)] {
        let labels = idx(&[0x801, count], vec![3; count as usize]);
        place.write(&format!("letters/{file}"), &labels);
    }
    let (code, _, err) = place.run(&format!("{TRAIN} --out run"));
    let warning = "warning: all training images are of class 3, so there is nothing to learn: add images of other classes\n";
    assert!(code == 0 && err.ends_with(warning), "{err}");
}

#[test]
fn options_change_the_weights_and_are_recorded_in_the_file() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --out plain"));
    for (option, told) in [
        (
            "--lr-schedule cosine",
            ", cosine learning rate over 2 epochs",
        ),
        ("--weight-decay 0.5", ", weight decay 0.5"),
        ("--augment", ", shifted and mirrored images"),
        ("--average 2", ", mean over about the last 2 steps"),
    ] {
        place.good(&format!("{TRAIN} {option} --out run"));
        assert!(
            place.read("run/lenet.weights") != place.read("plain/lenet.weights"),
            "{option}"
        );
        let about = place.good("summary run/lenet.weights");
        assert!(about.contains(told), "{option}: {about}");
        std::fs::remove_dir_all(place.path("run")).unwrap();
    }
}
