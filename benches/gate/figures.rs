//! The figures that are checked in: how many instructions a request may take.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::Context as _;
use serde::Deserialize;

use crate::cases;
use crate::rig::root;

/// Where they are, below the root of the package.
pub(crate) const FILE: &str = "benches/instructions.toml";
/// How far a count may be off, of the figure: what repeats, other processors and small changes need.
const MARGIN: f64 = 0.03;

/// How many times as far with another compiler than the figures were counted with.
const OTHER_TOOLCHAIN: f64 = 3.0;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    margin: f64,
    toolchain: String,
    instructions: BTreeMap<String, f64>,
}

/// What a count says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Same,
    /// The figure should be lowered.
    Lower,
    Higher,
    Unknown,
}

impl Figures {
    pub(crate) fn read() -> anyhow::Result<Self> {
        let text = fs::read_to_string(root().join(FILE)).with_context(|| format!("no {FILE}"))?;
        let mut figures: Self = toml::from_str(&text).with_context(|| FILE.to_owned())?;
        if figures.toolchain != toolchain() {
            figures.margin *= OTHER_TOOLCHAIN;
        }
        Ok(figures)
    }

    pub(crate) fn judge(&self, name: &str, count: f64) -> Verdict {
        match self.instructions.get(name) {
            None => Verdict::Unknown,
            Some(figure) if count > figure * (1.0 + self.margin(name)) => Verdict::Higher,
            Some(figure) if count < figure * (1.0 - self.margin(name)) => Verdict::Lower,
            Some(_) => Verdict::Same,
        }
    }

    /// The thread that follows the stream also asks servers how they are, by the clock.
    fn margin(&self, name: &str) -> f64 {
        if name.ends_with(cases::STREAM) { 2.0 * self.margin } else { self.margin }
    }

    /// The verdict in words.
    pub(crate) fn compared(&self, name: &str, count: f64) -> String {
        let Some(figure) = self.instructions.get(name) else { return "has no figure".to_owned() };
        let change = format!("{:+.1} % of {figure}", (count / figure - 1.0) * 100.0);
        match self.judge(name, count) {
            Verdict::Higher => format!("{change}: TOO MANY"),
            Verdict::Lower => format!("{change}: fewer, lower the figure"),
            Verdict::Same | Verdict::Unknown => change,
        }
    }

    /// Figures of what is no longer counted.
    pub(crate) fn not_in(&self, counted: &[(String, f64)]) -> Vec<&str> {
        let names = self.instructions.keys().map(String::as_str);
        names.filter(|name| counted.iter().all(|(other, _)| other != name)).collect()
    }

    pub(crate) fn tolerance(&self) -> String {
        format!("{:.0} %", self.margin * 100.0)
    }

    pub(crate) fn toolchains(&self) -> String {
        format!("figures: {}, here: {}", self.toolchain, toolchain())
    }
}

/// Writes the file anew.
pub(crate) fn write(counted: &[(String, f64)]) -> anyhow::Result<()> {
    let mut text = format!(
        "# Instructions per request, in user space, as `make gate` counts them; written by `make gate UPDATE=1`. \
         A count that is\n# more than `margin` above its figure fails the gate, or three times that with another compiler. \
         \"stream\" is the\n# thread that follows the replication stream; twice the margin.\nmargin = {MARGIN}\ntoolchain = \"{}\"\n\n[instructions]\n",
        toolchain()
    );
    for (name, count) in counted {
        writeln!(text, "\"{name}\" = {count:.0}")?;
    }
    fs::write(root().join(FILE), text).with_context(|| format!("cannot write {FILE}"))
}

fn toolchain() -> String {
    let version = Command::new("rustc").arg("--version").output();
    let said = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.unwrap_or_default()
}
