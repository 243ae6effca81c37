# `make demo` and `make test` each do all that they need; `make help` names the rest.

# The targets share one target/ folder, and cargo parallelises by itself.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup build install uninstall demo paper-tables test test-interop gpu-check bench bench-busy bench-data bench-eval bench-generate bench-train fuzz fmt lint clean distclean

# Recipes start where this file lies, also under `make -f` and where the path holds spaces.
export AF2_ROOT := $(shell cd -P "$$(dirname "$$(echo '$(MAKEFILE_LIST)' | sed 's/^ *//')")" && pwd)
HERE := cd "$${AF2_ROOT:?}" &&
# cargo would look for the job server of `make -j` and warn that it is closed.
CARGO := env -u MAKEFLAGS -u MFLAGS cargo

help: ## this list
	@$(HERE) sed -n 's/^\([a-z-]*\):[^#]*## /\1 /p' Makefile | while read -r name what; do printf '  make %-14s %s\n' "$$name" "$$what"; done

setup: ## check the tools, install libtorch into .venv (CUDA=1 or CUDA=0 to choose the set)
	@$(HERE) scripts/setup.sh

build: setup ## compile ./target/release/af2
	@$(HERE) $(CARGO) build --release --locked

install: build ## put af2 and its completions into PREFIX (/usr/local), where PATH finds it
	@$(HERE) PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install.sh

uninstall: ## take it away again
	@$(HERE) PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install.sh --remove

demo: build ## the main job on a small corpus made on the spot (ARGS='...' goes to af2 demo)
	@$(HERE) $(CARGO) run --release --locked --quiet -- demo $(ARGS)

paper-tables: build ## the paper's tables of results with what was measured here (experiments/paper-tables.md)
	@$(HERE) $(CARGO) run --release --locked --quiet -- tables --markdown experiments/paper-tables.md $(ARGS)

# One profile for everything, so that torch's C++ half is compiled once.
test: setup ## all tests (ARGS='...' goes to cargo test)
	@$(HERE) bash tests/setup.sh
	@$(HERE) $(CARGO) test --release --locked $(ARGS)

test-interop: setup ## real PyTorch and transformers read what we write, and the other way round (5 GB, kept outside)
	@$(HERE) bash tests/interop/run.sh $(ARGS)

gpu-check: build ## a GPU's numbers, memory, kernels and speed: 20 minutes, a report to send back (ARGS='--python PATH')
	@$(HERE) $(CARGO) run --release --locked --quiet -- gpu-check $(ARGS)

bench: build ## how fast checkpoints load, beside the disk and Python's loaders
	@$(HERE) $(CARGO) bench --locked --quiet --bench checkpoint

bench-data: setup ## windows per second from disk to mel, beside the reference's work in Python (5 GB, kept outside)
	@$(HERE) bash benches/peers/run.sh

bench-eval: setup ## a million answers, captions and resamples scored, a judge's calls, what controls cost, beside Python's tools (0.9 GB, kept outside; ARGS='items', '--no-peer')
	@$(HERE) bash benches/peers/beside.sh eval $(ARGS)
	@$(HERE) $(CARGO) bench --locked --quiet --bench llm
	@$(HERE) $(CARGO) bench --locked --quiet --bench controls

bench-train: setup ## a training step's time and memory, beside PyTorch and transformers (5 GB, kept outside; ARGS='tiny', '--full-size')
	@$(HERE) bash benches/peers/beside.sh train $(ARGS)

bench-generate: setup ## a token's time beside the bound and the reference's loop, and what sharing wins (5 GB, kept outside; ARGS='mid fp32')
	@$(HERE) bash benches/peers/beside.sh generate $(ARGS)

bench-busy: setup ## training and answers beside another program on the cores (ARGS='tiny train', 'af2-0.5b answer')
	@$(HERE) $(CARGO) bench --locked --quiet --bench busy -- $(ARGS)

fuzz: setup ## feed the checkpoint readers with garbage (SECONDS_EACH=600; needs cargo-fuzz and a nightly toolchain)
	@$(HERE) bash fuzz/run.sh

fmt: ## format the Rust code
	@$(HERE) $(CARGO) fmt

lint: setup ## formatting and clippy, as the CI wants them
	@$(HERE) for tool in fmt clippy; do cargo $$tool --version >/dev/null 2>&1 || { echo "lint: cargo $$tool is missing: rustup component add rustfmt clippy" >&2; exit 1; }; done
	@$(HERE) $(CARGO) fmt --check
	@$(HERE) $(CARGO) clippy --release --all-targets --locked -- -D warnings

clean: ## remove what was compiled
	@$(HERE) $(CARGO) clean

distclean: clean ## remove libtorch and .venv too; runs and checkpoints stay
	@$(HERE) rm -rf .venv .torch
