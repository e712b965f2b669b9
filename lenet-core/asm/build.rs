//! Detects whether the target has the DSP instructions, because `cfg(target_feature = "dsp")` is never true on stable Rust.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(dsp, armv8m)");
    let target = std::env::var("TARGET").unwrap_or_default();
    // Every Cortex-M4 and M7 has them. So has every Cortex-M33 with a floating-point unit that this project supports.
    if target.starts_with("thumbv8m") {
        println!("cargo::rustc-cfg=armv8m");
    }
    if target.starts_with("thumbv7em") || target == "thumbv8m.main-none-eabihf" {
        println!("cargo::rustc-cfg=dsp");
    }
}
