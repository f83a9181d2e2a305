"""No crate may need a newer Rust than Cargo.toml promises:  cargo metadata --locked --format-version 1 | python3 .ci/msrv.py"""

import json
import sys

crates = json.load(sys.stdin)["packages"]


def number(version):
    return [int(part) for part in (version.split(".") + ["0", "0"])[:3]]


ours = next(crate for crate in crates if crate["name"] == "redweir")["rust_version"]
newer = [
    f"{crate['name']} {crate['version']} needs Rust {crate['rust_version']}, and Cargo.toml promises {ours}"
    for crate in crates
    if crate["rust_version"] and number(crate["rust_version"]) > number(ours)
]
said = sum(1 for crate in crates if crate["rust_version"])
if said < 100:
    newer.append(f"saw only {said} crates that say which Rust they need")
if newer:
    sys.exit("\n".join(newer))
print(f"Rust {ours} is enough for all {said} crates that say which they need.")
