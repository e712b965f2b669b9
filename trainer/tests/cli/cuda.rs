//! Tests `--device cuda` and `auto`, `--devices`, and `bench --device cuda`: the errors if CUDA or NCCL is missing or fails, and
//! runs with stand-ins for the driver and for NCCL (tests/cuda-host).

use super::{Place, TRAIN, figures};
use crate::place::outcome;
use std::path::Path;
use std::process::Command;

impl Place {
    /// Compiles a library into `folder`.
    fn library(&self, folder: &str, name: &str, options: &[&str], source: &Path) {
        std::fs::create_dir_all(self.path(folder)).unwrap();
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
            .arg(self.path(folder).join(name))
            .output()
            .expect("g++ starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Compiles the stand-in for the driver into `standin`.
    fn standin(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .canonicalize()
            .unwrap();
        let host = root.join("tests/cuda-host");
        let source = trainer::cuda::Layout::of::<lenet_core::network::Net>().source();
        let source = format!("namespace network {{\n{source}\n}}\n");
        self.write("standin.cu", source.as_bytes());
        let kernels = format!("-DSTEP_CU=\"{}\"", self.path("standin.cu").display());
        let header = host.join("cuda_host.hpp");
        let options = [&kernels, "-include", header.to_str().unwrap()];
        self.library("standin", "libcuda.so", &options, &host.join("standin.cpp"));
    }

    /// Compiles the stand-in for NCCL into the same folder.
    fn standin_nccl(&self) {
        let driver = self.path("standin/libcuda.so");
        let options = ["-Wl,--no-as-needed", driver.to_str().unwrap()];
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cuda-host/standin_nccl.cpp");
        self.library("standin", "libnccl.so.2", &options, &source);
    }

    /// Runs the program with a stand-in that has `devices` devices. Returns the exit code, the output and the errors.
    fn on_devices(&self, devices: u32, arguments: &str) -> (i32, String, String) {
        let output = self
            .command(arguments)
            .env("LD_LIBRARY_PATH", self.path("standin"))
            .env("STANDIN_DEVICES", devices.to_string())
            .output()
            .unwrap();
        outcome(output)
    }

    /// Trains with the libraries in `folder` and a setting for the stand-in. Returns the exit code, the output and the errors.
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
        outcome(output)
    }

    /// Checks that `--device cuda` fails with exactly `cause` and `remedy` and leaves no files, and that `--device auto` trains
    /// on the CPU and states only the cause.
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

/// Simulates a machine without a driver, also on machines that have one.
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
    place.library("other", "libcuda.so", &[], &place.path("nothing.cpp"));
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
            "cuInit 1 802",
            "CUDA: cannot start the driver: CUDA_ERROR_SYSTEM_NOT_READY",
            "GPUs behind an NVSwitch need NVIDIA's fabric manager: start it (systemctl start nvidia-fabricmanager; its \
             version must be the driver's), or train with --device cpu",
        ),
        (
            "STANDIN_FAIL",
            "cuInit 1 803",
            "CUDA: cannot start the driver: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
            "The driver's library and its kernel module have different versions, as after an update: reboot, or train \
             with --device cpu",
        ),
        (
            "STANDIN_FAIL",
            "cuModuleLoadData 1 221",
            "CUDA: cannot load the kernels: CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
            "The driver lacks its compiler, libnvidia-ptxjitcompiler.so.1: install the driver's package that has it \
             (Debian: libnvidia-ptxjitcompiler1; in a container let the NVIDIA toolkit add the capability compute), or \
             train with --device cpu",
        ),
        (
            "STANDIN_FAIL",
            "cuModuleLoadData 1 222",
            "CUDA: cannot load the kernels: CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
            "The driver is older than the kernels: update NVIDIA's driver to 525 or later, and where NVRTC compiled them to one \
             as new as NVRTC; or train with --device cpu",
        ),
        (
            "STANDIN_SHARED",
            "46000",
            "the network lenet is too large for the CUDA kernels: a block needs 46752 bytes of shared memory, and stand-in, \
             sm_90 has 46000",
            "Train with --device cpu, or make the layers before the last smaller",
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

/// `auto` must use the device, the run must write its files, and the same seed must give the same weights. If the device fails
/// during the training, there must be an error and no files.
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

    // Two epochs and then three give the same result as five, with all options.
    let on_device = |arguments: &str| {
        let mut command = place.command(arguments);
        command.env("LD_LIBRARY_PATH", place.path("standin"));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let options =
        "--data letters --batch-size 32 --device cuda --average 4 --augment --weight-decay 0.1";
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
        // After a failure in a later epoch, the run can be continued. A failure in the first epoch leaves no files.
        if place.path("run").exists() {
            on_device("--resume run");
            assert!(place.read("run/lenet.weights") == place.read("whole/lenet.weights"));
            std::fs::remove_dir_all(place.path("run")).unwrap();
        }
        assert_eq!(place.list("."), before, "{failure}");
    }
}

/// Checks the errors of `--devices`: it does not fit the device, there are too few devices, NCCL is missing, or is another
/// library. No files may be left.
#[test]
#[ignore = "needs g++"]
fn unavailable_devices_are_an_error() {
    let place = Place::new();
    let usage =
        "--devices counts GPUs: leave it out with the device cpu, or train with --device cuda";
    place.refused(&format!("{TRAIN} --device cpu --devices 2"), 2, usage);
    place.unusable(
        &format!("{TRAIN} --devices 0"),
        "invalid value '0' for '--devices <N>': 0 is not in 1..=64",
    );
    place.refused(
        "bench --data letters --devices 2",
        2,
        "--devices counts GPUs: it needs --device cuda",
    );

    place.standin();
    let before = place.list(".");
    let refused = |devices, sentence: String| {
        for device in ["", "--device cuda", "--device auto"] {
            let arguments = format!("{TRAIN} --out run --devices 2 {device}");
            let expected = (1, String::new(), format!("error: {sentence}\n"));
            assert_eq!(place.on_devices(devices, &arguments), expected);
            assert_eq!(place.list("."), before);
        }
    };
    refused(
        1,
        "--devices 2, and the driver finds 1: stand-in, sm_90. nvidia-smi lists GPUs, CUDA_VISIBLE_DEVICES may hide some; \
         or ask for fewer"
            .to_owned(),
    );
    let install = "Install NCCL 2 (Debian, Ubuntu: libnccl2; PyPI: nvidia-nccl-cu12, its folder lib in LD_LIBRARY_PATH), or \
                   train with --devices 1";
    for name in ["libnccl.so.2", "libnccl.so"] {
        place.write(&format!("standin/{name}"), &[]);
    }
    refused(
        2,
        format!(
            "no NCCL, which adds up the devices' gradients (looked for libnccl.so.2 and libnccl.so): {}: file too short. \
             {install}",
            place.path("standin/libnccl.so.2").display()
        ),
    );
    std::fs::remove_file(place.path("standin/libnccl.so.2")).unwrap();
    place.write("standin/nothing.cpp", &[]);
    place.library(
        "standin",
        "libnccl.so.2",
        &[],
        &place.path("standin/nothing.cpp"),
    );
    refused(
        2,
        format!("the library found as NCCL lacks ncclGetVersion. {install}"),
    );
}

/// Trains on two devices and on three. A second run must give the same bits, a run can be continued, but not with another number
/// of devices. The last batch of an epoch has only one image.
#[test]
#[ignore = "needs g++"]
fn a_run_on_several_devices() {
    let place = Place::new();
    place.standin();
    place.standin_nccl();
    let good = |arguments: &str| {
        let (code, out, err) = place.on_devices(3, arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out
    };
    let options = "--data letters --batch-size 19 --average 4";
    for devices in [2, 3] {
        let names = vec!["stand-in, sm_90"; devices].join("; ");
        let run = format!("run{devices}");
        let out = good(&format!(
            "{options} --epochs 1 --out {run} --devices {devices}"
        ));
        assert!(
            out.contains(&format!("\ntraining on cuda ({names})\n")),
            "{out}"
        );
        assert!(
            place
                .text(&format!("{run}/config.toml"))
                .contains(&format!("\ndevices = {devices}\n"))
        );
        good(&format!("--resume {run} --epochs 3"));
        good(&format!(
            "{options} --epochs 3 --out whole{devices} --device cuda --devices {devices}"
        ));
        for name in ["lenet.weights", "steps.csv"] {
            assert!(
                place.read(&format!("{run}/{name}"))
                    == place.read(&format!("whole{devices}/{name}"))
            );
        }
    }
    let (code, _, err) = place.on_devices(3, "--resume run2 --epochs 4 --devices 3");
    assert_eq!(code, 2);
    assert!(err.contains("\n  devices: 2 in the run, 3 here\n"), "{err}");
    let summary = place.good("summary run2/lenet.weights");
    assert!(summary.contains(", on 2 GPUs"), "{summary}");

    let failed = place
        .command(&format!("{TRAIN} --out failed --devices 2"))
        .env("LD_LIBRARY_PATH", place.path("standin"))
        .env("STANDIN_DEVICES", "2")
        .env("STANDIN_FAIL", "ncclAllReduce 4 1")
        .output()
        .unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&failed.stderr),
        "error: NCCL: ncclAllReduce: ncclUnhandledCudaError. NCCL_DEBUG=INFO in the environment makes NCCL tell more; or \
         train with --devices 1\n"
    );
    assert!(!place.path("failed").exists());
    let table = good("doctor --data letters");
    assert!(table.contains(" NCCL          ok  NCCL 2.22.3"), "{table}");
}

#[test]
#[ignore = "needs g++"]
fn bench_on_devices_prints_every_figure() {
    let place = Place::new();
    place.standin();
    place.standin_nccl();
    let bench = "bench --data letters --batch-size 36 --epochs 1 --device cuda";
    let (code, table, err) = place.on_devices(1, bench);
    assert_eq!((code, err.as_str()), (0, ""), "{table}");
    for part in [
        "cuda (stand-in, sm_90), medians; letters\n",
        "epoch, by the device's clock",
        "epoch, by the host's clock",
        "evaluation, with the copies",
        "a step, the mean of 3: ",
    ] {
        assert!(table.contains(part), "{part} in {table}");
    }
    for devices in [1, 2] {
        let (code, json, err) = place.on_devices(2, &format!("{bench} --devices {devices} --json"));
        assert_eq!((code, err.as_str()), (0, ""), "{json}");
        let json = figures(
            &json,
            &[
                ("devices", devices),
                ("batch_size", 36),
                ("steps", 3),
                ("images", 96),
                ("evaluation_images", 30),
            ],
            &[
                "step_ms",
                "epoch_ms",
                "epoch_host_ms",
                "images_per_s",
                "gflops",
                "evaluation_ms",
            ],
        );
        assert!(
            json["epoch_ms"].as_f64() < json["epoch_host_ms"].as_f64(),
            "{json}"
        );
    }
    let (code, out, err) = place.on_devices(1, &format!("{bench} --devices 2"));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.starts_with("error: --devices 2, and the driver finds 1"),
        "{err}"
    );
}
