# A fresh machine needs Python ≥ 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
DONE := .venv/.installed
OUT ?= results
DEVICE ?= cuda
# One thread for each process. Bytecode is kept even where PYTHONDONTWRITEBYTECODE is set: tests start many processes.
TESTING := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=

.PHONY: install quickstart test test-slow check audit bench gpu-check format clean

install: $(DONE)

$(DONE): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: expected Python >= 3.11, got " + sys.version.split()[0] + ". Set PYTHON=python3.11 or newer.")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv: torch and MLflow are several GB, so this takes some minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(DONE)

quickstart: install
	$(BIN)/harness run --grid experiments/quickstart.yaml --out $(OUT)
	$(BIN)/harness report --experiment quickstart --from $(OUT) --attach
	@echo "browse the runs: $(BIN)/harness ui --out $(OUT)"

test: install
	$(TESTING) $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: install
	$(TESTING) $(BIN)/python -m pytest -m slow

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) audit
	$(MAKE) test

audit: install
	$(BIN)/python .ci/audit.py

bench: install
	for name in step optimizers costs functional scaling orchestration status sweep start report coverage stopping; do $(BIN)/python benchmarks/$$name.py || exit; done

# Installs nothing, and needs no MLflow: for a machine with a GPU, PYTHON is the one that has torch.
gpu-check:
	@$(PYTHON) -c 'import sys, importlib.util as util; sys.exit(util.find_spec("torch") is None and "gpu-check: expected a Python with torch, got " + sys.executable + ". Set PYTHON=.venv/bin/python.")'
	PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(PYTHON) benchmarks/gpu.py --device $(DEVICE)

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info
