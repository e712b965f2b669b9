//! `--device cuda` and `auto`: what is said where CUDA is missing or fails, and a run on a stand-in for the driver
//! (tests/cuda-host/standin.cpp).

use super::{Place, TRAIN};
use std::path::Path;
use std::process::Command;

impl Place {
    /// Compiles a library into `folder`, under the driver's name.
    fn library(&self, folder: &str, options: &[&str], source: &Path) {
        std::fs::create_dir(self.path(folder)).unwrap();
        let output = Command::new("g++")
            .args([
                "-std=c++17",
                "-w",
                "-O1",
                "-ffp-contract=off",
                "-fPIC",
                "-shared",
            ])
            .args(options)
            .args(["-x", "c++"])
            .arg(source)
            .arg("-o")
            .arg(self.path(folder).join("libcuda.so"))
            .output()
            .expect("g++ starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The stand-in for the driver, in `standin`.
    fn standin(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .canonicalize()
            .unwrap();
        let host = root.join("tests/cuda-host");
        let kernels = format!(
            "-DSTEP_CU=\"{}\"",
            root.join("trainer/src/cuda/step.cu").display()
        );
        let header = host.join("cuda_host.hpp");
        let definitions = trainer::cuda::definitions()
            .into_iter()
            .map(|d| format!("-D{d}"));
        let options: Vec<String> = definitions
            .chain([kernels, "-include".to_owned(), header.display().to_string()])
            .collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.library("standin", &options, &host.join("standin.cpp"));
    }

    /// Trains with the libraries of `folder`, and a setting for the stand-in; returns exit code, output and errors.
    fn train(
        &self,
        folder: &str,
        (name, value): (&str, &str),
        options: &str,
    ) -> (i32, String, String) {
        let output = self
            .command(&format!("{TRAIN} --out run {options}"))
            .env("LD_LIBRARY_PATH", self.path(folder))
            .env(name, value)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().expect("not killed");
        (code, text(output.stdout), text(output.stderr))
    }

    /// `cuda` fails with exactly `cause` and `remedy` and leaves nothing; `auto` trains on the CPU, and says only why.
    fn without_gpu(&self, folder: &str, setting: (&str, &str), cause: &str, remedy: &str) {
        let before = self.list(".");
        assert_eq!(
            self.train(folder, setting, "--device cuda"),
            (1, String::new(), format!("error: {cause}. {remedy}\n"))
        );
        assert_eq!(self.list("."), before, "{cause}");
        let (code, out, err) = self.train(folder, setting, "--device auto");
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert_eq!(out.lines().next(), Some(&*format!("not on a GPU: {cause}")));
        assert!(out.contains("\ntraining on cpu ("), "{out}");
        std::fs::remove_dir_all(self.path("run")).unwrap();
    }
}

const NONE: (&str, &str) = ("STANDIN_FAIL", "");
const INSTALL: &str = "Install NVIDIA's driver, 525 or later, or train with --device cpu";

#[test]
#[ignore = "needs a machine without an NVIDIA driver"]
fn no_library() {
    let place = Place::new();
    place.without_gpu(
        "letters",
        NONE,
        "no CUDA driver: libcuda.so: cannot open shared object file: No such file or directory",
        INSTALL,
    );
}

/// As where there is none, on machines that have one, too.
#[test]
fn no_library_that_can_be_loaded() {
    let place = Place::new();
    std::fs::create_dir(place.path("empty")).unwrap();
    for name in ["cuda", "nvcuda"]
        .map(cudarc::get_lib_name_candidates)
        .concat()
    {
        place.write(&format!("empty/{name}"), &[]);
    }
    let cause = format!(
        "no CUDA driver: {}: file too short",
        place.path("empty/libcuda.so").display()
    );
    place.without_gpu("empty", NONE, &cause, INSTALL);
}

#[test]
#[ignore = "needs g++"]
fn a_library_of_that_name_that_is_not_the_drivers() {
    let place = Place::new();
    place.write("nothing.cpp", &[]);
    place.library("other", &[], &place.path("nothing.cpp"));
    let cause =
        "the CUDA library lacks cuCtxGetCurrent: it is not that of a driver for CUDA 12.0 or later";
    place.without_gpu("other", NONE, cause, INSTALL);
}

#[test]
#[ignore = "needs g++"]
fn a_stub_an_old_driver_no_device_no_memory() {
    let place = Place::new();
    place.standin();
    for (name, value, cause, remedy) in [
        (
            "STANDIN_FAIL",
            "cuDriverGetVersion 1 34",
            "CUDA: cannot ask the driver for its version: CUDA_ERROR_STUB_LIBRARY",
            "The library found is the toolkit's stub, not the driver's; take its folder out of LD_LIBRARY_PATH, or train \
             with --device cpu",
        ),
        (
            "STANDIN_VERSION",
            "11040",
            "the CUDA driver is too old: it supports CUDA 11.4, and 12.0 is needed",
            "Update NVIDIA's driver to 525 or later, or train with --device cpu",
        ),
        (
            "STANDIN_FAIL",
            "cuInit 1 100",
            "no CUDA device: the driver is there but finds no GPU",
            "nvidia-smi lists GPUs, CUDA_VISIBLE_DEVICES may hide them; or train with --device cpu",
        ),
        (
            "STANDIN_FAIL",
            "cuMemAllocAsync 1 2",
            "CUDA: cannot copy the images to the device, 75264 bytes: CUDA_ERROR_OUT_OF_MEMORY",
            "Other programs may hold the device's memory (nvidia-smi lists them); or try a smaller --batch-size, or \
             --device cpu",
        ),
    ] {
        place.without_gpu("standin", (name, value), cause, remedy);
    }
}

/// `auto` takes the device, the run leaves its files, and the same seed gives the same weights; where the device fails
/// half-way there is an error, and no file.
#[test]
#[ignore = "needs g++"]
fn a_run_on_the_device() {
    let place = Place::new();
    place.standin();
    let (code, out, err) = place.train("standin", NONE, "");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(
        out.contains("\ntraining on cuda (stand-in, sm_90)\n"),
        "{out}"
    );
    assert!(place.path("run/last.checkpoint").exists());
    std::fs::rename(place.path("run"), place.path("first")).unwrap();
    place.train("standin", NONE, "--device cuda");
    assert!(place.read("run/lenet.weights") == place.read("first/lenet.weights"));
    let evaluate = "evaluate run/lenet.weights --data letters";
    let output = place
        .command(&format!("{evaluate} --device cuda"))
        .env("LD_LIBRARY_PATH", place.path("standin"))
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        place.good(evaluate)
    );
    std::fs::remove_dir_all(place.path("run")).unwrap();

    // Five epochs are two and three.
    let on_device = |arguments: &str| {
        let mut command = place.command(arguments);
        command.env("LD_LIBRARY_PATH", place.path("standin"));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let options = "--data letters --batch-size 32 --device cuda";
    on_device(&format!("{options} --epochs 5 --out whole"));
    on_device(&format!("{options} --epochs 2 --out run"));
    let out = on_device("--resume run --epochs 5");
    let going_on = "\ntraining on cuda (stand-in, sm_90)\ngoing on after 2 epochs and 6 steps\n";
    assert!(out.contains(going_on), "{out}");
    for name in ["lenet.weights", "steps.csv"] {
        assert!(place.read(&format!("run/{name}")) == place.read(&format!("whole/{name}")));
    }
    for run in ["run", "whole"] {
        std::fs::remove_dir_all(place.path(run)).unwrap();
    }

    on_device(&format!("{TRAIN} --device cuda --out whole"));
    let before = place.list(".");
    for (failure, cause) in [
        (
            "cuLaunchKernel 3 719",
            "launch the kernel gradients: CUDA_ERROR_LAUNCH_FAILED",
        ),
        (
            "cuLaunchKernel 7 719",
            "launch the kernel logits: CUDA_ERROR_LAUNCH_FAILED",
        ),
        (
            "cuGraphLaunch 2 700",
            "launch an epoch: CUDA_ERROR_ILLEGAL_ADDRESS",
        ),
        (
            "cuMemAllocAsync 13 2",
            "allocate 1200 bytes for the logits: CUDA_ERROR_OUT_OF_MEMORY",
        ),
        (
            "cuStreamSynchronize 2 719",
            "finish a copy of the parameters: CUDA_ERROR_LAUNCH_FAILED",
        ),
    ] {
        let (code, _, err) = place.train("standin", ("STANDIN_FAIL", failure), "--device cuda");
        assert_eq!(code, 1, "{failure}: {err}");
        let start = format!("error: CUDA: cannot {cause}. ");
        assert!(
            err.starts_with(&start) && err.lines().count() == 1,
            "{failure}: {err}"
        );
        // A failure after an epoch leaves what can go on from there; one before leaves nothing.
        if place.path("run").exists() {
            on_device("--resume run");
            assert!(place.read("run/lenet.weights") == place.read("whole/lenet.weights"));
            std::fs::remove_dir_all(place.path("run")).unwrap();
        }
        assert_eq!(place.list("."), before, "{failure}");
    }
}
