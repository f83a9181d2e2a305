//! Deliberate bugs for the tests to catch: `REDWEIR_MUTANT=name cargo test …` sets `cfg(mutant = "name")` for this
//! crate alone. Never in a release build.

fn main() {
    println!("cargo:rerun-if-env-changed=REDWEIR_MUTANT");
    println!("cargo:rerun-if-changed=build.rs");
    let Ok(name) = std::env::var("REDWEIR_MUTANT") else { return };
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    assert!(!release, "REDWEIR_MUTANT is set for a release build");
    println!("cargo:rustc-cfg=mutant=\"{name}\"");
}
