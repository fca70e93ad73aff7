# One command for each thing a newcomer or CI wants; `make` lists them. All but `bench` share Cargo's
# dev profile, so that little is built twice.
.PHONY: help setup-build setup-test setup-bench setup-instructions demo test lint bench instructions load soak openapi compose-test

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: setup-build ## a node and a gateway on the bundled chain, until Ctrl-C
	cargo run -- demo

test: setup-test ## every test
	cargo test

lint: setup-build ## formatting and clippy, warnings denied
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

bench: setup-bench ## the tables of docs/benchmarks.md
	cargo bench

instructions: setup-instructions ## instruction counts of ten operations against their bounds (WRITE=1, PROFILE=release)
	WRITE_BOUNDS=$(WRITE) cargo test $(if $(filter release,$(PROFILE)),--release) --test instructions

load: setup-test ## the tests that measure times, judged: the machine must be idle
	JUDGE_TIMES=1 cargo test --test overload --test faults --test sync_figures --test http_limits --test peer_limits --test events --test scale --test gateway --test p2p --test store --test soak --test explorer_browser -- --nocapture

soak: setup-test ## an hour of mining nodes, restarts and reorganisations, watched
	SOAK_SECONDS=3600 cargo test --test soak -- --nocapture

openapi: setup-build ## write openapi/openapi.json from the code
	cargo run --quiet -- openapi > openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json

compose-test: ## docker-compose.yml, built and run; skipped where no Docker engine answers
	tests/compose/run.sh

setup-build setup-test setup-bench setup-instructions: setup-%:
	@scripts/setup.sh $*
