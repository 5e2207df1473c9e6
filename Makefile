# The commands of this repository. Each does its own set-up on a fresh machine that has Rust and a
# C compiler. Everything is built in one profile, so that the C libraries build once.

.DEFAULT_GOAL := help
.PHONY: help demo test check fmt lint bench torture oracle fuzz docs

# Where cargo puts what it builds; a variable of the environment wins over the clone's own folder.
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

help: ## What can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: ## The whole path with 100,000 devices, 2,000 of them live, and a verdict; takes a minute
	cargo run --release --locked -p carillon -- demo --devices 100000 --clients 2000 --seconds 30

test: ## All tests, with servers of their own: MariaDB, Kafka's protocol, S3's
	./scripts/install-test-deps.sh
	cargo build --release --locked -p carillon
	@if cargo nextest --version >/dev/null 2>&1 || cargo install cargo-nextest --locked; then \
		runner="nextest run"; \
	else \
		echo "make: cargo-nextest cannot be installed, falling back to cargo test" >&2; runner=test; \
	fi; \
	set -x; CARILLON_BIN="$(TARGET)/release/carillon" cargo $$runner --release --locked --workspace

check: ## Exactly what CI runs: format, lints, tests
	./.ci/run

fmt: ## Format all code
	cargo fmt --all

lint: ## Clippy over everything, warnings are errors
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

bench: ## One benchmark, as in make bench BENCH=write; without a name, which there are
	./scripts/install-test-deps.sh
	cargo build --release --locked -p carillon -p carillon-tests
	@CARILLON_BIN="$(TARGET)/release/carillon" "$(TARGET)/release/bench" $(BENCH)

# Each trial is a module of the test that is called torture.
TRIALS := $(filter-out main,$(basename $(notdir $(wildcard tests/tests/torture/*.rs))))

torture: ## One promise under faults for long, as in make torture NAME=write; ROUNDS=n instead of 500 a store
	$(if $(filter $(NAME),$(TRIALS)),,$(error NAME is one of: $(TRIALS)))
	./scripts/install-test-deps.sh
	cargo build --release --locked -p carillon
	CARILLON_BIN="$(TARGET)/release/carillon" CARILLON_TORTURE_ROUNDS="$(or $(ROUNDS),500)" \
		cargo test --release --locked -p carillon-tests --test torture -- --nocapture '$(NAME)::'

oracle: ## Random expressions, asked in every way of both stores, as in make oracle N=20000 SEED=1
	./scripts/install-test-deps.sh
	cargo build --release --locked -p carillon-tests --bin oracle
	@"$(TARGET)/release/oracle" $(or $(N),20000) $(or $(SEED),1)

fuzz: ## Each fuzz target of the language for so long, as in make fuzz SECONDS=30
	./scripts/fuzz.sh $(or $(SECONDS),30)

docs: ## Write the pages that are made from code: docs/configuration.md
	UPDATE_EXPECT=1 cargo test --release --locked -p carillon the_page_of_the_manual_is_current
