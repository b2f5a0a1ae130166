# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
RECIPE ?= recipes/embedded
RUN ?= runs/$(notdir $(patsubst %/,%,$(RECIPE)))
ITER ?= 1
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo iter test test-exact lint host test-host clean

demo: $(VENV)/.installed ## one iteration of AgentPRM on generated households, on a CPU
	$(BIN)/prm-gym iter 1 --recipe recipes/embedded --run runs/demo

iter: $(VENV)/.installed ## make iter ITER=2 RECIPE=recipes/embedded [HOST=trl|open-instruct] [RUN=runs/embedded]
	$(BIN)/prm-gym iter $(ITER) --recipe $(RECIPE) --run $(RUN) $(if $(HOST),--host $(HOST))

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest -m "not slow"

test-exact: $(VENV)/.installed ## the exact engine against stock alfworld, at length
	$(BIN)/python -m pytest -m slow tests/envs

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean: ## removes the environment and the caches, never a run
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
