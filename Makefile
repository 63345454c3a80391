# `make demo` and `make test` set up everything that they need in .venv; neither needs root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check chaos hostile-broker hostile parts fuzz fuzz-coverage clean

demo: $(VENV)/.demo
	$(BIN)/fedmq demo

test: check
	$(BIN)/python -m pytest

# The long form of the tests in tests/chaos: about a quarter of an hour.
chaos: $(VENV)/.dev
	CHAOS=long $(BIN)/python -m pytest -s tests/chaos

# The long form of the attack of a hostile broker, and every check of signatures left out once: about six minutes.
hostile-broker: $(VENV)/.dev
	HOSTILE=long $(BIN)/python -m pytest tests/hostile_broker

# The long form of the tests of models in parts: 1,000 versions, 20 deaths of the aggregator, and a link of 100 kB/s.
parts: $(VENV)/.dev
	PARTS=long $(BIN)/python -m pytest tests/system/test_parts.py

# Ten million hostile inputs for both sides, and a million and a half more for the codecs: about 40 minutes of one core.
# `make fuzz FUZZ="--inputs 100000 --seed 7"` for less; what breaks something is in runs/fuzz, and how to see it again is said.
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz $(FUZZ)
	$(BIN)/python -m tests.fuzz.codecs

# The same targets led by the code that they reach: about half an hour. atheris exists for some Pythons and Linux only.
fuzz-coverage: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet atheris==3.0.0
	set -e; for target in messages aggregator aggregator-signed device device-signed broker; do \
		$(BIN)/python -m tests.fuzz.coverage $$target --inputs 200000; done

# A hostile device beside a provisioned federation, three seeds with and without: about seven minutes.
hostile: $(VENV)/.dev
	$(BIN)/python benchmarks/hostile_client.py --json

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Pinned, so that everyone runs the same. Where the default index has a CUDA build of it, which is gigabytes, point
# PIP_INDEX_URL to PyTorch's CPU index for this step.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch, about 200 MB, which takes some minutes"
	$(BIN)/python -m pip install --quiet torch==2.13.0
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
