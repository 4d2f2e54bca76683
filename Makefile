# Targets are visible lines of `uv run …` or a script; `make test` is what CI runs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(HOME)/.local/bin:$(PATH)
# Python keeps what it compiled, also where a container tells it not to: every process would compile all of it anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: demo
demo: setup ## Build what is missing, start a cluster and run the main job end to end; leaves it running
	uv run --frozen python scripts/demo.py

.PHONY: demo-down
demo-down: ## Take the demo's cluster down
	uv run --frozen python -m devcluster down --name demo

.PHONY: test
test: setup programs lint ## Build what is missing and pass the whole suite
	uv run --frozen pytest --numprocesses=2 --dist=loadfile

.PHONY: check
check: lint helm ## The quick loop: format, lint, types, imports, unit, golden and contract tests
	uv run --frozen pytest --numprocesses=2 --dist=loadfile -m 'not traffic' tests/contract tests/golden tests/unit

.PHONY: lint
lint: uv ## Format, lint, types, imports
	uv run --frozen ruff format --check .
	uv run --frozen ruff check .
	uv run --frozen mypy
	uv run --frozen lint-imports

.PHONY: format
format: uv ## Format the code and mend what the linter can
	uv run --frozen ruff format .
	uv run --frozen ruff check --fix .

.PHONY: reference
reference: uv helm ## Write what is generated: reference pages, and of the chart its CRDs, values table and install.yaml
	uv run --frozen python scripts/write_reference.py

.PHONY: bench
bench: setup ## Measure, print tables and keep them under docs/proof
	uv run --frozen python tests/perf/bench_devcluster.py
	uv run --frozen python tests/perf/bench_operator.py --large 10000
	uv run --frozen python tests/perf/sdk/bench_client.py
	uv run --frozen python tests/perf/sdk/bench_server.py

.PHONY: proof
proof: proof-sdk proof-operator ## Run rotations and faults in the full count (an hour and more), and keep figures under docs/proof

.PHONY: proof-sdk
proof-sdk: setup ## Rotate keys, certificates, bundles and directories under traffic, in the full count
	uv run --frozen pytest tests/unit/sdk -m proof --proof=rotation \
	  --rotations=1000 --rate=500 --bundles=100 --swaps=10000 --stream=120

.PHONY: proof-operator
proof-operator: setup programs ## Kill the operator, and take the API server away, in the full count
	set -o pipefail; uv run --frozen pytest -v --no-header --kills=50 --outage=120 \
	  tests/cluster/product/test_crashes.py tests/faults tests/e2e/test_outage.py | tee docs/proof/faults.txt

.PHONY: setup
setup: uv packages ## Install uv and, as root on Debian, the packages that a node needs
	uv sync --frozen

.PHONY: programs
programs: setup ## Build Kubernetes, etcd, containerd and the tools (some 20 minutes the first time on two cores)
	uv run --frozen python -m devcluster build --tools

.PHONY: helm
helm: uv ## Build what renders and tests the chart (some 4 minutes the first time on two cores)
	@for tool in helm helm3 helm-unittest; do uv run --frozen python -m devcluster tool "$$tool" >/dev/null; done

.PHONY: uv
uv: ## Install uv from the Python package index, if it is missing
	@command -v uv >/dev/null || scripts/install-uv

.PHONY: packages
packages: uv ## Install the Debian packages that a node needs, if this is root and they are missing
	@scripts/install-packages
