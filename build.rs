//! `REDWEIR_MUTANTS=1 cargo test …` builds the deliberate bugs of `src/mutant.rs` in, asleep until one is named. Never
//! in a release build.

fn main() {
    println!("cargo:rerun-if-env-changed=REDWEIR_MUTANTS");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("REDWEIR_MUTANTS").is_none() {
        return;
    }
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    assert!(!release, "REDWEIR_MUTANTS is set for a release build");
    println!("cargo:rustc-cfg=mutants");
}
