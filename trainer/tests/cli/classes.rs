//! Tests with weights and data whose classes have other numbers or other names.

use crate::place::{Place, idx, labels, outcome};

/// Copies `letters` to another folder, with other class names and with labels renumbered by `number`.
pub fn other(place: &Place, folder: &str, names: &[&str], number: impl Fn(u8) -> u8) {
    std::fs::create_dir(place.path(folder)).unwrap();
    for (name, count) in [("train", 96), ("t10k", 30)] {
        let images = format!("{name}-images-idx3-ubyte");
        std::fs::copy(
            place.path("letters").join(&images),
            place.path(folder).join(&images),
        )
        .unwrap();
        let labels = labels(count);
        let labels = labels[8..].iter().map(|&label| number(label));
        place.write(
            &format!("{folder}/{name}-labels-idx1-ubyte"),
            &idx(&[0x801, count], labels.collect::<Vec<u8>>()),
        );
    }
    if !names.is_empty() {
        let names = names.join("\n") + "\n";
        place.write(&format!("{folder}/classes.txt"), names.as_bytes());
    }
}

pub const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
pub const REVERSED: [&str; 10] = ["j", "i", "h", "g", "f", "e", "d", "c", "b", "a"];
const FROM_ONE: [&str; 10] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];

/// Options with which every class is learnt.
pub const LEARN: &str = "--batch-size 8 --lr 0.003 --epochs 20";

/// Runs the program, which must succeed and print this message, and returns the output.
fn said(place: &Place, arguments: &str, says: &str) -> String {
    let (code, out, err) = outcome(place.command(arguments).output().unwrap());
    assert_eq!((code, err.as_str()), (0, says), "{arguments}");
    out
}

#[test]
fn classes_with_other_numbers_are_matched_by_name() {
    let place = Place::new();
    other(&place, "named", &NAMES, |label| label);
    other(&place, "moved", &REVERSED, |label| 9 - label);
    place.good(&format!("{LEARN} --data named --out run"));
    let expected = place.good("evaluate run/lenet.weights --data named --confusion");
    let accuracy: f64 = expected
        .split_whitespace()
        .rev()
        .nth(3)
        .unwrap()
        .parse()
        .unwrap();
    assert!(accuracy > 0.9, "{expected}");

    let says = "note: run/lenet.weights has its classes in another order than moved: they are matched by their names\n";
    for device in ["core", "cpu", "reference"] {
        let evaluate = format!("evaluate run/lenet.weights --data moved --device {device}");
        assert_eq!(
            said(&place, &format!("{evaluate} --confusion"), says),
            expected
        );
        // If classes are matched by number, at most the two classes in the middle are right.
        let wrong = place.good(&format!("{evaluate} --ignore-class-names"));
        assert_eq!(wrong, "test acc 0.0000 (0 of 30)\n");
    }

    // The parameters are assigned to the outputs with the same names. The learning rate is so small that nothing else changes.
    let init = "--init run/lenet.weights --batch-size 32 --epochs 1 --lr 1e-12";
    said(&place, &format!("--data moved {init} --out again"), says);
    let again = place.good("evaluate again/lenet.weights --data moved");
    assert!(expected.ends_with(&again), "{again}");

    let says = "note: again/lenet.weights has its classes in another order than run/lenet.weights: its outputs are compared \
                by their names\n";
    let compare = "compare run/lenet.weights again/lenet.weights --data named --tolerance 1e-6";
    let out = said(&place, compare, says);
    assert!(out.contains("\n0 of 30 images change class\n"), "{out}");
}

#[test]
fn classes_that_the_weights_do_not_know_are_named() {
    let place = Place::new();
    other(&place, "named", &NAMES, |label| label);
    other(&place, "from-one", &FROM_ONE, |label| label);
    other(&place, "strange", &["a", "x", "c", "y"], |label| label % 4);
    other(&place, "few", &["c", "a"], |label| label % 2);
    place.good(&format!("{LEARN} --data from-one --out from-one-run"));
    let expected = place.good("evaluate from-one-run/lenet.weights --data from-one");
    let remedy = "Give both the same names (folders or classes.txt), or take label n for output n with --ignore-class-names";

    // Labels from 0 without names have the names 0 to 9, most of which are names of other classes in the weights.
    place.refused(
        "evaluate from-one-run/lenet.weights --data letters",
        1,
        &format!(
            "from-one-run/lenet.weights: does not know these classes of letters: 0; it knows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10. \
             {remedy}"
        ),
    );
    let ignored = "--ignore-class-names";
    let out = place.good(&format!(
        "evaluate from-one-run/lenet.weights --data letters {ignored}"
    ));
    assert_eq!(out, expected);

    place.good(&format!("{LEARN} --data named --out run"));
    let knows = "it knows a, b, c, d, e, f, g, h, i, j";
    for command in [
        "evaluate run/lenet.weights",
        "device evaluate --port none --weights run/lenet.weights",
    ] {
        place.refused(
            &format!("{command} --data strange"),
            1,
            &format!(
                "run/lenet.weights: does not know these classes of strange: x, y; {knows}. {remedy}"
            ),
        );
    }
    // `import` compares the data only if it evaluates.
    place.good("export run/lenet.weights --format safetensors --out run.safetensors");
    place.good(&format!(
        "import run.safetensors --out imported.weights --data strange {ignored}"
    ));
    place.unusable(
        &format!("import run.safetensors --out again.weights {ignored}"),
        "the following required arguments were not provided:",
    );
    // The data may have fewer classes than the weights.
    let says = "note: run/lenet.weights has its classes in another order than few: they are matched by their names\n";
    said(&place, "evaluate run/lenet.weights --data few", says);

    // Training continues from the classes that the weights know.
    said(
        &place,
        "--data strange --init run/lenet.weights --batch-size 32 --max-steps 1 --out new",
        &format!(
            "warning: run/lenet.weights does not know these classes of strange: x, y; {knows}. The outputs of classes that it \
             knows begin as they are in the file, the others as those of other classes\n"
        ),
    );
    let out = said(
        &place,
        "compare run/lenet.weights from-one-run/lenet.weights --data named",
        "warning: from-one-run/lenet.weights does not know these classes of run/lenet.weights: a, b, c, d, e, f, g, h, i, j; \
         output n is compared with output n\n",
    );
    // The training differs only in the names.
    assert!(out.ends_with("\nequal bit for bit\n"), "{out}");
}

#[test]
fn numbers_instead_of_names_give_a_warning_unless_the_weights_have_no_names() {
    let place = Place::new();
    other(&place, "named", &NAMES, |label| label);
    place.good(&format!("{LEARN} --data letters --out run"));
    let expected = place.good("evaluate run/lenet.weights --data letters");
    let numbers = "warning: the classes of named or of run/lenet.weights have only numbers for names, and so cannot be compared";
    let out = said(
        &place,
        "evaluate run/lenet.weights --data named",
        &format!("{numbers}; label n stands for output n\n"),
    );
    assert_eq!(out, expected);
    said(
        &place,
        "--data named --init run/lenet.weights --batch-size 32 --max-steps 1 --out new",
        &format!("{numbers}; output n begins as label n\n"),
    );
    // Parameters from another program have no class names.
    place.good("export run/lenet.weights --format safetensors --out net.safetensors");
    place.good("import net.safetensors --out imported.weights");
    for weights in ["net.safetensors", "imported.weights"] {
        assert_eq!(
            place.good(&format!("evaluate {weights} --data named")),
            expected
        );
    }
}

#[test]
fn a_report_keeps_the_names_of_its_run() {
    let place = Place::new();
    other(&place, "named", &NAMES, |label| label);
    place.good("--data named --batch-size 32 --epochs 1 --out run");
    let page = place.text("run/report.html");
    place.write("named/classes.txt", REVERSED.join("\n").as_bytes());
    let says = "warning: named has other names for its classes than the run: j, i, h, g, f, e, d, c, b, a in place of a, b, c, \
                d, e, f, g, h, i, j; the report keeps the run's\n";
    let (code, _, err) = place.run("report run");
    assert_eq!(code, 0, "{err}");
    assert!(err.ends_with(&says["warning: named".len()..]), "{err}");
    assert!(place.text("run/report.html") == page);
}
