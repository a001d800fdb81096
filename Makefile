# Nothing but git, make and python3 is needed: every target builds .venv first.
PYTHON ?= python3
BIN = .venv/bin
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: setup demo test test-fast test-integration browser slurm check generate bench docs clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/installed
	$(BIN)/ribcage demo --out demo

# The working day: what is quick, in less than 90 seconds.
test-fast: .venv/installed
	$(PYTEST) -m "not slow and not integration"

# Everything but what needs a browser, a server of its own or a whole journey.
test: .venv/installed
	$(PYTEST) -m "not integration"

test-integration: .venv/installed .venv/extras browser slurm .venv/skypilot/installed .venv/s3rver/installed
	CI=true $(PYTEST) -m integration

.venv/extras: .venv/installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[mlflow,wandb,ray,gs]'
	@touch $@

# SkyPilot, which checks cluster/skypilot.yaml, needs other versions of some packages than Ribcage.
.venv/skypilot/installed: .venv/installed
	$(BIN)/uv venv --quiet --clear .venv/skypilot
	$(BIN)/uv pip install --quiet --python .venv/skypilot/bin/python skypilot
	@touch $@

# A second S3 server; where there is no npm, its test is skipped.
.venv/s3rver/installed: .venv/installed
	@mkdir -p .venv/s3rver
	@npm install --silent --no-audit --no-fund --prefix .venv/s3rver s3rver@3.7.1 || \
	  echo "s3rver cannot be installed here: npm is missing or offline"
	@touch $@

# The tests of the viewer need a browser; it is installed where there is none.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  { echo "Installing Chromium for the tests of the viewer …"; $(AS_ROOT) sh -c '$(INSTALL) chromium' >/dev/null; } || \
	  { echo "Chromium cannot be installed here. As root: apt-get install chromium"; exit 1; }

# The tests of cluster/slurm.sbatch need SLURM; where it cannot be installed or run, they are skipped.
slurm:
	@command -v slurmctld >/dev/null || \
	  { echo "Installing SLURM for the tests of the job script …"; \
	    $(AS_ROOT) sh -c '$(INSTALL) slurmctld slurmd slurm-client munge iproute2' >/dev/null; } || \
	  echo "SLURM cannot be installed here. As root: apt-get install slurmctld slurmd slurm-client munge iproute2"

AS_ROOT = $(shell [ "$$(id -u)" -eq 0 ] || echo sudo -n)
INSTALL = export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && apt-get install -y -qq --no-install-recommends

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(GENERATED)

# Tables of the README, the stub for editors, the options that help pages show of methods and datasets.
generate: .venv/installed
	RIBCAGE_WRITE=1 $(GENERATED)

GENERATED = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m generated tests/test_stub.py tests/test_readme.py tests/test_help_pages.py

bench: .venv/installed
	$(BIN)/python benchmarks/data.py

docs: .venv/installed
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv demo site .pytest_cache .ruff_cache .mypy_cache
