//! Tests that a run that was stopped, killed or ran out of disk space, and was then continued, gives the same bytes as a run that
//! never stopped.

#![cfg(feature = "program")]

mod place;

use place::{LEARNT, Place, values};
use rand_chacha::rand_core::Rng;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use trainer::adam::{Adam, Schedule};
use trainer::backend::{Backend, State};
use trainer::checkpoint::Checkpoint;
use trainer::cpu::Cpu;
use trainer::dataset::{self, ReadOptions, generator};
use trainer::init::initial_params;
use trainer::reference::Reference;
use trainer::train::{Event, Plan, Progress, train};
use trainer::weights_file::WeightsFile;

/// Returns the numbers of an epoch without its time.
fn row(epoch: &trainer::train::Epoch) -> (u32, [u64; 3]) {
    let values = [epoch.train_loss, epoch.train_acc, epoch.held_out_acc];
    (epoch.epoch, values.map(f64::to_bits))
}

/// Asserts that two runs have the same files. Times are ignored, and so are paths in the settings and the checkpoint.
fn assert_same(place: &Place, run: &str, expected: &str) {
    let file = |run: &str, name: &str| place.text(&format!("{run}/{name}"));
    let metrics = |run| {
        let text = file(run, "metrics.csv");
        let without_time = text.lines().map(|line| line.rsplit_once(',').unwrap().0);
        without_time.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(metrics(run), metrics(expected), "{run}");
    assert!(
        file(run, "steps.csv") == file(expected, "steps.csv"),
        "{run}"
    );
    for name in ["lenet.weights", "best.weights"] {
        let weights = |run: &str| std::fs::read(place.path(run).join(name)).ok();
        assert!(weights(run) == weights(expected), "{run}: {name} differs");
    }
    let [found, expected] = [run, expected].map(|run| checkpoint(place, run));
    assert!(found.state == expected.state, "{run}: state differs");
    assert_same_progress(&found.progress, &expected.progress, run);
}

/// Asserts that two checkpoints have the same progress, except for times.
fn assert_same_progress(found: &Progress, expected: &Progress, run: &str) {
    let rows = |progress: &Progress| progress.epochs.iter().map(row).collect::<Vec<_>>();
    assert_eq!(rows(found), rows(expected), "{run}");
    assert!(found.losses == expected.losses, "{run}: losses differ");
    assert!(found.best == expected.best, "{run}: the best differ");
}

/// All options with which the learning rate does not depend on the number of epochs.
const VARIANTS: &str =
    "--weight-decay 0.1 --augment --average 4 --val-split 0.25 --patience 100000";

fn checkpoint(place: &Place, run: &str) -> Checkpoint {
    Checkpoint::load(&place.path(run).join("last.checkpoint")).unwrap()
}

#[test]
fn two_epochs_and_then_three_equal_five() {
    let place = Place::new();
    for (run, device) in [
        ("cpu", "cpu"),
        ("reference", "reference --average 4"),
        ("variants", &format!("cpu --threads 2 {VARIANTS}")),
    ] {
        let options = format!("--data letters --batch-size 32 --seed 3 --device {device}");
        place.good(&format!("{options} --epochs 5 --out whole-{run}"));
        place.good(&format!("{options} --epochs 2 --out {run}"));
        let out = place.good(&format!("train --resume {run} --epochs 5 --threads 1"));
        assert!(
            out.contains("\ngoing on after 2 epochs and 6 steps\nepoch 3, "),
            "{out}"
        );
        assert_same(&place, run, &format!("whole-{run}"));
        assert!(
            place
                .text(&format!("{run}/config.toml"))
                .contains("epochs = 5")
        );
    }
}

/// `--max-steps` ends a run anywhere, also within an epoch, and the run is continued with a larger number.
#[test]
fn steps_in_several_runs_equal_steps_in_one_run() {
    let place = Place::new();
    for (variant, options) in [("plain", "--device reference"), ("variants", VARIANTS)] {
        let train = format!("--data letters --batch-size 32 --seed 3 --epochs 4 {options}");
        let whole = format!("{variant}-whole");
        place.good(&format!("{train} --out {whole} --max-steps 11"));
        for first in [1, 3, 4, 8] {
            let run = format!("{variant}-{first}");
            place.good(&format!("{train} --max-steps {first} --out {run}"));
            place.refused(
                &format!("--resume {run}"),
                2,
                &format!(
                    "{} epochs, {first} steps, are already done, and {first} steps were requested; continue with a larger \
                     --max-steps",
                    first / 3
                ),
            );
            // Stop the run a second time.
            place.good(&format!("--resume {run} --max-steps 10"));
            place.good(&format!("--resume {run} --max-steps 11"));
            assert_same(&place, &run, &whole);
        }
        // A limit equal to the total number of steps must have no effect.
        place.good(&format!("--resume {whole} --max-steps 12"));
        place.good(&format!("{train} --out {variant}-unlimited"));
        assert_eq!(
            place.text(&format!("{whole}/steps.csv")),
            place.text(&format!("{variant}-unlimited/steps.csv"))
        );
    }
}

/// Stops after every step in turn, on both backends, and continues from the checkpoint, with all options, and also if patience
/// ends the run.
#[test]
fn a_run_can_be_stopped_after_any_step() {
    let place = Place::new();
    // Take the settings of a real run, so that a checkpoint can be written.
    place.good("--data letters --batch-size 32 --epochs 3 --val-split 0.25 --out run");
    let config = checkpoint(&place, "run").config;
    let mut data = dataset::open(Some(&place.path("letters")), ReadOptions::default()).unwrap();
    data.hold_out(0.25, 0).unwrap();
    let variants = Plan {
        epochs: 3,
        batch_size: 32,
        seed: 1,
        shuffle: true,
        max_steps: None,
        augment: true,
        patience: None,
    };
    let adam = Adam {
        weight_decay: 0.1,
        schedule: Schedule::Cosine { steps: 9 },
        average: Some(4),
        ..Adam::default()
    };
    // The learning rate is so small that nothing more is learnt: the first epoch remains the best, and the third is the last.
    place.good(&format!("{LEARNT} --out learnt"));
    let learnt = WeightsFile::load(&place.path("learnt/lenet.weights")).unwrap();
    let patient = Plan {
        epochs: 50,
        augment: false,
        patience: Some(2),
        ..variants
    };
    let slow = Adam {
        lr: 1e-12,
        ..Adam::default()
    };
    type Make<'a> = &'a dyn Fn(State, Adam) -> Box<dyn Backend + 'a>;
    let cpu: Make<'_> = &|state, adam| Box::new(Cpu::new(&data.train, state, adam, 2).unwrap());
    let reference: Make<'_> = &|state, adam| Box::new(Reference::new(&data.train, state, adam));
    let (fresh, learnt) = (initial_params(1), Box::new(*learnt.weights().params));
    for (backend, plan, adam, params) in [
        (cpu, variants, adam, &fresh),
        (reference, variants, adam, &fresh),
        (cpu, patient, slow, &learnt),
    ] {
        let run = |state: State, mut progress: Progress, stop_at: Option<usize>| {
            let mut backend = backend(state, adam);
            let mut left = stop_at;
            let end = train(&mut *backend, &data, &plan, &mut progress, &mut |event| {
                if let (Event::Step { .. }, Some(left)) = (event, &mut left) {
                    *left -= 1;
                    if *left == 0 {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            });
            assert_eq!(end.unwrap().is_break(), stop_at.is_some());
            (backend.state().unwrap(), progress)
        };
        let start = || State::new(params.clone());
        let (expected, expected_progress) = run(start(), Progress::default(), None);
        assert_eq!(expected.step, 9);
        for stop_at in 1..=9 {
            let (state, progress) = run(start(), Progress::default(), Some(stop_at));
            assert_eq!(
                (state.step, progress.losses.len()),
                (stop_at as u64, stop_at)
            );
            let path = place.path("stopped");
            Checkpoint::save(&path, &config, &state, &progress).unwrap();
            let read = Checkpoint::load(&path).unwrap();
            assert!(read.state == state && read.progress == progress);
            let (state, progress) = run(read.state, read.progress, None);
            let stop = format!("stopped after {stop_at}");
            assert!(state == expected, "{stop}");
            assert_same_progress(&progress, &expected_progress, &stop);
        }
    }
}

/// Starts a run that does not end by itself.
#[cfg(unix)]
fn endless(place: &Place, arguments: &str) -> Child {
    place
        .with_signals(&["--default-signal"], arguments)
        .args(["--epochs", "100000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for(path: &Path) {
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a signal, named without `SIG`.
fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let kill = Command::new("kill").args(["-s", name, &id]).status();
    assert!(kill.unwrap().success());
}

/// Continues the stopped `run` to the end of the next epoch, and compares it with a run that never stopped.
fn finish_and_compare(place: &Place, run: &str, options: &str) -> usize {
    let epochs = checkpoint(place, run).progress.epochs.len() + 1;
    place.good(&format!("--resume {run} --epochs {epochs}"));
    place.good(&format!("{options} --out whole --epochs {epochs}"));
    assert_same(place, run, "whole");
    epochs
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_the_run_goes_on() {
    let place = Place::new();
    let options = &format!("--data letters --batch-size 1 --seed 2 {VARIANTS}");
    // Stop three times: once in the first epoch or later, then at arbitrary moments.
    let mut stopped_within = 0;
    for (round, arguments) in [
        &format!("{options} --out run"),
        "--resume run",
        "--resume run",
    ]
    .iter()
    .enumerate()
    {
        let child = endless(&place, arguments);
        match round {
            0 => wait_for(&place.path("run/last.checkpoint")),
            _ => std::thread::sleep(Duration::from_millis(300)),
        }
        signal(&child, "INT");
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        let Checkpoint { progress, .. } = checkpoint(&place, "run");
        let (epoch, batch) = (progress.epochs.len() + 1, progress.partial.steps);
        assert_eq!(output.status.code(), Some(130), "{err}");
        assert_eq!(
            err,
            format!(
                "error: stopped in epoch {epoch} after batch {batch}; continue with: trainer train --resume run\n"
            )
        );
        stopped_within += usize::from(batch < 72);
        assert_eq!(
            place.text("run/steps.csv").lines().count(),
            1 + progress.losses.len()
        );
    }
    println!("{stopped_within} of 3 stops fell within an epoch");
    finish_and_compare(&place, "run", options);
}

/// A signal is ignored under `nohup`, or in the background of a shell script. The other signals must still stop the training.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_inherited_as_ignored_stays_ignored() {
    let place = Place::new();
    for (ignored, other) in [("HUP", "TERM"), ("INT", "HUP"), ("TERM", "INT")] {
        let options = [
            &*format!("--ignore-signal={ignored}"),
            &*format!("--default-signal={other}"),
        ];
        let mut child = place
            .with_signals(
                &options,
                &format!("--data letters --batch-size 32 --epochs 100000 --out {ignored}"),
            )
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(&place.path(&format!("{ignored}/last.checkpoint")));
        signal(&child, ignored);
        // A training that receives a signal stops after the current step.
        let epochs = || checkpoint(&place, ignored).progress.epochs.len();
        let before = epochs();
        while epochs() < before + 5 {
            assert!(child.try_wait().unwrap().is_none(), "{ignored} ended it");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child, other);
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{ignored}: {err}");
        assert!(err.starts_with("error: stopped in epoch "), "{err}");
    }
}

/// A closed output stops the training like Ctrl-C, after the first step. If the error stream is closed too, only the exit code
/// reports it.
#[cfg(unix)]
#[test]
fn a_training_whose_output_is_closed_saves_and_goes_on() {
    let place = Place::new();
    let options = "--data letters --batch-size 32";
    let train = format!("{options} --epochs 2 --out run");
    let said = "warning: standard output: cannot be written: Broken pipe (os error 32)\n\
                error: stopped in epoch 1 after batch 1; continue with: trainer train --resume run\n";
    assert_eq!(place.unread(&train), (Some(130), said.to_owned()));
    let (_, output) = std::io::pipe().unwrap();
    let errors = output.try_clone().unwrap();
    let mut resume = place.process("--resume run --log-format json");
    let status = resume.stdout(output).stderr(errors).status().unwrap();
    assert_eq!(status.code(), Some(130));
    assert_eq!(checkpoint(&place, "run").state.step, 2);
    finish_and_compare(&place, "run", options);
}

/// A folder belongs to the first training until that training ends.
#[cfg(unix)]
#[test]
fn two_trainings_cannot_use_the_same_folder() {
    let place = Place::new();
    let options = "--data letters --batch-size 32";
    let train = format!("{options} --out run");
    let mut first = endless(&place, &train);
    // The output must be read until the end, because a training that cannot print stops.
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("epoch 1,")));
    let id = first.id();
    for arguments in [&train, "--resume run --epochs 7"] {
        place.refused(
            arguments,
            1,
            &format!(
                "run: another training (process {id}) is writing into this folder; wait until it has ended, or choose \
                 another folder"
            ),
        );
    }
    assert!(first.try_wait().unwrap().is_none());
    first.kill().unwrap();
    first.wait().unwrap();
    finish_and_compare(&place, "run", options);
    assert!(!place.list("run").contains(&".lock".to_owned()));
}

/// Most of these runs begin in the same second.
#[test]
fn runs_started_together_write_to_different_folders() {
    let place = Place::new();
    let runs = [1, 2, 3].map(|epochs| {
        let train = format!("--data letters --batch-size 32 --epochs {epochs}");
        let mut run = place.process(&train);
        run.stdout(Stdio::piped()).stderr(Stdio::null());
        run.spawn().unwrap()
    });
    let mut folders = Vec::new();
    for (epochs, run) in (1..).zip(runs) {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success());
        let out = String::from_utf8(output.stdout).unwrap();
        let path = out.lines().find_map(|line| line.strip_prefix("weights "));
        let path = path.unwrap().strip_suffix("/lenet.weights").unwrap();
        assert_eq!(checkpoint(&place, path).progress.epochs.len(), epochs);
        folders.push(path.strip_prefix("runs/").unwrap().to_owned());
    }
    folders.sort();
    assert_eq!(place.list("runs"), folders);
    folders.dedup();
    assert_eq!(folders.len(), 3);
}

/// Kills a run at random moments, also while it writes files. Each time, the last complete checkpoint must be readable.
#[cfg(unix)]
#[test]
fn a_killed_run_leaves_its_last_checkpoint() {
    const KILLS: usize = 40;
    let place = Place::new();
    let options = "--data letters --batch-size 32 --seed 4";
    let mut rng = generator(4, 0);
    let (mut partial, mut steps) = (0, 0);
    for kill in 0..KILLS {
        let mut child = match kill {
            0 => endless(&place, &format!("{options} --out run")),
            _ => endless(&place, "--resume run"),
        };
        // The pipe must stay open until the end, because a training that cannot print stops.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Usually wait until it trains and writes, where an epoch takes some milliseconds; otherwise kill it while it starts.
        if kill == 0 || rng.next_u32() >> 29 > 0 {
            assert!(lines.any(|line| line.unwrap().starts_with("epoch ")));
        }
        std::thread::sleep(Duration::from_micros(u64::from(rng.next_u32() % 30_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let Checkpoint { progress, .. } = checkpoint(&place, "run");
        assert!(progress.losses.len() >= steps, "the checkpoint went back");
        steps = progress.losses.len();
        let left = place.list("run");
        partial += usize::from(left.iter().any(|name| name.ends_with(".partial")));
    }
    println!(
        "{KILLS} kills, {KILLS} checkpoints read; {partial} kills in the middle of a file; {steps} steps"
    );
    finish_and_compare(&place, "run", options);
    let left = place.list("run");
    assert!(
        !left.iter().any(|name| name.ends_with(".partial")),
        "{left:?}"
    );
}

#[cfg(unix)]
#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_full_disk_leaves_the_last_checkpoint() {
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0).status();
        }
    }
    let mount = |options: &str, path: &Path| {
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(path);
        assert!(command.status().unwrap().success(), "{command:?}");
    };
    let place = Place::new();
    let disk = place.path("disk");
    std::fs::create_dir(&disk).unwrap();
    // A checkpoint and the weights take 720 KiB. A second checkpoint next to the first one does not fit.
    mount("size=1100k", &disk);
    let mounted = Mounted(&disk);
    let options = "--data letters --batch-size 32 --seed 6";
    let (code, _, err) = place.run(&format!("{options} --epochs 100000 --out disk/run"));
    assert_eq!(code, 1, "{err}");
    assert_eq!(
        err,
        "error: disk/run/last.checkpoint: cannot be written: No space left on device (os error 28)\n"
    );
    assert_eq!(checkpoint(&place, "disk/run").progress.epochs.len(), 1);

    // With space for little more than two checkpoints, a later epoch fails, at any of its files.
    mount("remount,size=1260k", &disk);
    let (code, _, err) = place.run("--resume disk/run --epochs 100000");
    assert_eq!(code, 1, "{err}");
    assert!(
        err.ends_with("cannot be written: No space left on device (os error 28)\n"),
        "{err}"
    );
    let epochs = checkpoint(&place, "disk/run").progress.epochs.len();
    assert!(epochs > 1, "{epochs}");
    println!("out of space in epoch 2 and again in epoch {}", epochs + 1);

    mount("remount,size=32m", &disk);
    finish_and_compare(&place, "disk/run", options);
    drop(mounted);
}

#[test]
fn a_run_continues_only_with_its_own_settings() {
    let place = Place::new();
    place.good("--data letters --batch-size 32 --epochs 2 --out run");
    let before = place.read("run/last.checkpoint");
    place.refused(
        "--resume run --epochs 4 --lr 0.01 --seed 9 --order sequential --device reference --batch-size 16 \
         --init some.weights --average 3",
        2,
        "run: a run can only continue with the settings that it was started with:\
         \n  average: none in the run, 3 here\
         \n  batch_size: 32 in the run, 16 here\
         \n  device: \"cpu\" in the run, \"reference\" here\
         \n  init: none in the run, \"some.weights\" here\
         \n  lr: 0.001 in the run, 0.01 here\
         \n  order: \"shuffled\" in the run, \"sequential\" here\
         \n  seed: 0 in the run, 9 here\
         \nLeave them out, or start a new run",
    );
    let done = "2 epochs, 6 steps, are already done, and";
    let more = "steps were requested; continue with";
    place.refused("--resume run", 2, &format!("{done} 6 {more} more --epochs"));
    place.refused(
        "--resume run --epochs 1",
        2,
        &format!("{done} 3 {more} more --epochs"),
    );
    for (options, steps, remedy) in [
        ("--epochs 4 --max-steps 5", 5, "a larger --max-steps"),
        ("--epochs 4 --max-steps 6", 6, "a larger --max-steps"),
        ("--max-steps 6", 6, "more --epochs and a larger --max-steps"),
        ("--max-steps 7", 6, "more --epochs"),
    ] {
        let sentence = format!("{done} {steps} {more} {remedy}");
        place.refused(&format!("--resume run {options}"), 2, &sentence);
    }
    place.unusable(
        "--resume run --out other",
        "the argument '--resume <RUN>' cannot be used with '--out <DIR>'",
    );
    // With a cosine schedule, the number of epochs must not change.
    place.good("--data letters --batch-size 32 --epochs 2 --out falling --lr-schedule cosine");
    place.refused(
        "--resume falling --epochs 4",
        2,
        "falling: a run can only continue with the settings that it was started with:\
         \n  epochs: 2 in the run, 4 here\nLeave them out, or start a new run",
    );
    // The same settings with another number of threads, and with the same data in another place.
    std::fs::rename(place.path("letters"), place.path("moved")).unwrap();
    let err = place.failed("--resume run --epochs 3", 1);
    assert!(
        err.contains("/letters: no such folder; name the one of the data set with --data DIR"),
        "{err}"
    );
    assert!(place.read("run/last.checkpoint") == before);
    place.good("--resume run --epochs 3 --lr 0.001 --threads 1 --data moved");
}

#[test]
fn a_run_does_not_continue_with_other_data() {
    let place = Place::new();
    place.good("--data letters --batch-size 32 --epochs 1 --out run");
    let mut labels = place.read("letters/train-labels-idx1-ubyte");
    labels[8] ^= 1;
    place.write("letters/train-labels-idx1-ubyte", &labels);
    let err = place.failed("--resume run --epochs 2", 2);
    assert!(
        err.contains("\n  data: \"96 training images, SHA-256 "),
        "{err}"
    );
    assert!(!err.contains("\n  test data: "), "{err}");
    labels[8] ^= 1;
    place.write("letters/train-labels-idx1-ubyte", &labels);
    let mut images = place.read("letters/t10k-images-idx3-ubyte");
    images[5000] ^= 1;
    place.write("letters/t10k-images-idx3-ubyte", &images);
    let err = place.failed("--resume run --epochs 2", 2);
    assert!(
        err.contains("\n  test data: \"30 test images, SHA-256 "),
        "{err}"
    );
    assert!(!err.contains("\n  data: "), "{err}");
    images[5000] ^= 1;
    place.write("letters/t10k-images-idx3-ubyte", &images);
    place.write("letters/classes.txt", b"j\ni\nh\ng\nf\ne\nd\nc\nb\na\n");
    let err = place.failed("--resume run --epochs 2", 2);
    let numbers = r#"["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]"#;
    let names = r#"["j", "i", "h", "g", "f", "e", "d", "c", "b", "a"]"#;
    assert!(
        err.contains(&format!(
            "started with:\n  classes: {numbers} in the run, {names} here\n"
        )),
        "{err}"
    );
}

/// A run records where its data is and how to read it, and finds it from another working directory too.
#[test]
fn a_run_finds_its_data_again() {
    let place = Place::new();
    std::fs::create_dir(place.path("below")).unwrap();
    std::fs::rename(place.path("letters"), place.path("fashion-mnist")).unwrap();
    place.good("--data fashion-mnist --allow-modified --batch-size 32 --epochs 1 --out below/run");
    let from = |folder: &str, arguments: &str| {
        let mut command = place.process(arguments);
        let output = command.current_dir(place.path(folder)).output().unwrap();
        let (code, _, err) = place::outcome(output);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments}");
    };
    // The folder that the environment variable names is not that of the run.
    let mut command = place.process("--resume run --epochs 2");
    command
        .current_dir(place.path("below"))
        .env("LENET_DATA", "elsewhere");
    let (code, _, err) = place::outcome(command.output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
    from("below", "report run");
    // If everything is moved together, the data is still at the same relative path.
    std::fs::create_dir(place.path("moved")).unwrap();
    for name in ["fashion-mnist", "below"] {
        std::fs::rename(place.path(name), place.path("moved").join(name)).unwrap();
    }
    from("moved", "--resume below/run --epochs 3");
    assert_eq!(
        checkpoint(&place, "moved/below/run").progress.epochs.len(),
        3
    );
}

#[test]
fn a_bad_checkpoint_is_named_with_the_remedy() {
    let place = Place::new();
    place.good("--data letters --batch-size 32 --epochs 1 --out run");
    let good = place.read("run/last.checkpoint");
    let remedy = "copy it again from where it came, or train again: lenet.weights beside it serves as --init";
    for (bytes, problem) in [
        (&good[..20_000], format!("damaged: incomplete metadata, file not fully covered; {remedy}")),
        (
            &place.read("run/lenet.weights")[..],
            "not a checkpoint (starts with [4c, 4e, 45, 54]); expected the folder of a run that has last.checkpoint"
                .to_owned(),
        ),
        (
            b"LNCK\x01",
            "the checkpoint of an earlier release, this program reads \"lenet checkpoint 4\"; continue with the release that \
             wrote it"
                .to_owned(),
        ),
    ] {
        place.write("run/last.checkpoint", bytes);
        place.refused("--resume run --epochs 2", 1, &format!("run/last.checkpoint: {problem}"));
    }
    let mut bytes = good.clone();
    bytes[20_000] ^= 1;
    place.write("run/last.checkpoint", &bytes);
    let err = place.failed("--resume run --epochs 2", 1);
    assert!(
        err.starts_with("error: run/last.checkpoint: damaged: checksum ")
            && err.ends_with(&format!("; {remedy}\n")),
        "{err}"
    );
    // Another program has written impossible settings, with the right checksum. The numbers of steps fit to a batch size of one.
    place.good("--data letters --batch-size 1 --epochs 1 --out crafted");
    let path = place.path("crafted/last.checkpoint");
    let mut crafted = checkpoint(&place, "crafted");
    crafted.config.settings.batch_size = 0;
    Checkpoint::save(&path, &crafted.config, &crafted.state, &crafted.progress).unwrap();
    place.refused(
        "--resume crafted --epochs 2",
        1,
        &format!("crafted/last.checkpoint: damaged: its batch size is 0; {remedy}"),
    );
    place.refused(
        "--resume nowhere",
        1,
        "nowhere/last.checkpoint: cannot be read: No such file or directory (os error 2)",
    );
}

/// If the training diverges in a later epoch, the previous checkpoint must remain, and the message must name it.
#[test]
fn a_run_that_diverges_later_keeps_its_checkpoint() {
    let place = Place::new();
    place.good("--data letters --batch-size 32 --epochs 1 --out run");
    let mut stopped = checkpoint(&place, "run");
    values(&mut stopped.state.params, "fc3_weight").fill(3e38);
    values(&mut stopped.state.params, "fc3_weight")[..84].fill(-3e38);
    let path = place.path("run/last.checkpoint");
    Checkpoint::save(&path, &stopped.config, &stopped.state, &stopped.progress).unwrap();
    let err = place.failed("--resume run --epochs 2", 1);
    assert!(
        err.starts_with("error: epoch 2, batch 1: loss is ")
            && err.ends_with("(it is 0.001). Last good checkpoint: run/last.checkpoint\n"),
        "{err}"
    );
}
