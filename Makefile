# `make sweep` and `make test` set up whatever they need; a second call does no set-up work.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: setup sweep test faults ui bench
.DEFAULT_GOAL := setup

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lockstep needs Python 3.11 or later; name one with PYTHON=")'
	@echo "Setting up .venv: torch, MLflow and the rest; this takes some minutes, once."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

sweep: setup
	$(BIN)/python run.py -m model.hidden_dim1=128,256 optim.lr=1e-2,1e-3

# Many tests wait for processes: so more than one a core. In the order of their names, as those that take
# longest come early then; by the number of tests in a file, tests/recovery/test_faults.py would be the last.
test: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

faults: setup
	$(BIN)/pytest tests/recovery/test_faults.py tests/search/test_trials.py --faults --kills 50 -s

ui: setup
	$(BIN)/mlflow ui --backend-store-uri sqlite:///$(CURDIR)/outputs/mlflow.db --host 127.0.0.1

bench: setup
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks
