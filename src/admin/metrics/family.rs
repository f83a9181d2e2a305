//! One metric with its series, in Prometheus' text format.

use std::fmt::Write as _;

/// One metric that is written by ourselves.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
}

impl Family {
    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "gauge" }
    }

    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "counter" }
    }

    /// Writes its series, each by its labels (`a="b",c="d"`, or none) and its value.
    pub(super) fn write(&self, page: &mut String, series: impl IntoIterator<Item = (String, f64)>) {
        let Self { name, help, kind } = self;
        // Writing to a `String` cannot fail.
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in series {
            let _ = match labels.as_str() {
                "" => writeln!(page, "{name} {value}"),
                labels => writeln!(page, "{name}{{{labels}}} {value}"),
            };
        }
    }
}

/// Yes or no, as a gauge.
pub(super) const fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}
