# `make sweep` and `make test` set up what they need; a second call does no set-up work.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS :=
comma := ,
INSTALLED := .venv/.installed$(EXTRAS)
# The pre-release that tests/hydra_plugins/test_next.py runs a sweep with; it stands beside the environment.
NEXT := hydra-core==1.4.0rc3 omegaconf==2.4.1rc1
COMPILE = $(BIN)/python -m compileall -qq -j 0 -x 'site-packages/.*/tests?/' .venv/lib .venv/next src > /dev/null

.PHONY: help setup sweep ui test test-next faults bench upgrade
.DEFAULT_GOAL := setup

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED)  ## install Lockstep and all it needs in .venv; EXTRAS=cluster adds Dask, EXTRAS=notebook Jupyter

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lockstep needs Python 3.11 or later; name one with PYTHON=")'
	@echo "Setting up .venv: torch, MLflow and the rest; this takes some minutes, once."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev$(if $(EXTRAS),$(comma)$(EXTRAS))]'
	$(BIN)/pip install --quiet --no-compile --no-deps --target .venv/next $(NEXT)
	@$(COMPILE) || true  # as pip, which would do it on one core, and their tests too: what fails is left out
	@touch $@

sweep: setup  ## train four perceptrons on MNIST
	$(BIN)/python run.py -m model.hidden_dim1=128,256 optim.lr=1e-2,1e-3

ui: setup  ## serve the results in MLflow's UI; PORT=5001 says where
	@$(BIN)/python -m lockstep ui $(if $(PORT),--port $(PORT))

# The tests' files get a folder of their own, removed when they pass: pytest's holds those of earlier runs, and what one
# that was cut off left there made a later run fail. Each of the processes that the tests start would compile Lockstep
# anew where PYTHONDONTWRITEBYTECODE is set, as in many containers.
test: export PYTHONDONTWRITEBYTECODE =
test: setup  ## lint, run the tests, of which one checks types: what a change must pass
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@folder=$$(mktemp -d) && $(BIN)/pytest -n 5 --dist loadfile --no-loadscope-reorder --basetemp=$$folder/tests && \
	  { rm -rf $$folder || true; }  # else it is kept, to be looked at

test-next: setup  ## run what touches Hydra with its newest pre-release
	$(BIN)/pip install --quiet --no-deps --pre --upgrade --target .venv/next hydra-core omegaconf
	PYTHONPATH=.venv/next $(BIN)/pytest tests/config tests/hydra_plugins tests/cli tests/search/test_space.py

faults: setup  ## the long tests of faults: 200 kills, 100 damaged files and the rest
	$(BIN)/pytest -m faults --faults --kills 200 -s

bench: setup  ## measure speed against other tools, and renew benchmarks/RESULTS.md; QUICK=1 prints the main figures
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks

# On the oldest Python: the newest versions that it can install also install on later ones. The file is written
# only if the tests pass. It leaves out torch, and what torch alone brings, so that each machine gets its own build.
upgrade:  ## install the newest versions, run the tests, and renew constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "constraints.txt is renewed with Python 3.11; name one with PYTHON=")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $(INSTALLED)
	$(MAKE) test
	echo "# Written by \`make upgrade\`: the versions that the tests last passed with." > constraints.txt
	$(BIN)/pip freeze --exclude-editable | grep -Ev '^(torch|torchvision|triton|nvidia-.*|cuda-.*|sympy|mpmath|networkx|fsspec|setuptools)==' >> constraints.txt
	@touch $(INSTALLED)
