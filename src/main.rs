//! The `redweir` command.

fn main() {}
