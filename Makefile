# Each target does its own set-up, once. PYTHON=python3.12 chooses another interpreter, VENV=dir another folder.

VENV ?= .venv
ifeq ($(OS),Windows_NT)
PYTHON ?= python
PY := $(VENV)/Scripts/python.exe
else
PYTHON ?= python3
PY := $(VENV)/bin/python
endif
READY := $(VENV)/.ready
TYPED := trainer cli nodes tools benchmarks
OUT ?= demo
# What `make demo` does beyond the two sets, and what QUICK=1 does in its place.
WHOLE := --downstream pre_post --study
FEW := --phantoms 60 --n 32 --cell-images 16
TESTS ?=
WORKERS ?= logical

.PHONY: help setup demo test proofs lint format bench cluster-demo experiments clean

help:
	@echo "make demo         the whole run on phantoms, into $(OUT)/   (QUICK=1: 60 phantoms, 32 images a condition: a sixth of the work)"
	@echo "make test         the tests, on all cores      (TESTS=tests/unit/test_files.py for some of them, WORKERS=1)"
	@echo "make proofs       the long tests, which make test leaves out: whole runs killed and changed, every form of an option"
	@echo "make lint         ruff and mypy"
	@echo "make format       let ruff rewrite the layout and the safe findings"
	@echo "make bench        timings, kept in benchmarks/"
	@echo "make cluster-demo two local Ray nodes draw, filter and measure 400 phantoms as one process does, a worker being killed"
	@echo "make experiments  the measurements at n >= 500 a cell; about three hours on two cores (DIFFUSIONCLEFT_REAL=dir: real faces too; SWEEP=1: more training recipes, an hour and more; FULL_SIZE=1: training at FLUX.1's full size, on a GPU of 80 GB)"
	@echo "make clean        remove the environment and the caches, nothing you made"

setup: $(READY)

# --no-compile: of 26,000 modules a tenth is imported, and is compiled then
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else 'Python 3.11 or newer is needed, this is %d.%d; run make PYTHON=python3.11' % v[:2])"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check -q --no-compile -c constraints.txt -e ".[dev]"
	$(PY) -c "import pathlib; pathlib.Path('$(READY)').write_text('')"

demo: $(READY)
	$(PY) -m diffusioncleft run --phantom --out $(OUT) $(if $(QUICK),$(FEW),$(WHOLE))

PYTEST := $(PY) -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(PYTEST) -m "not long" --durations 30 $(TESTS)

proofs: $(READY)
	$(PYTEST) -m long --durations 30 $(TESTS)

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	mkdir -p .mypy_cache/types && ln -sfn ../.. .mypy_cache/types/diffusioncleft
	MYPYPATH=.mypy_cache/types $(PY) -m mypy $(TYPED:%=-p diffusioncleft.%) $(patsubst scripts/%.py,-m %,$(wildcard scripts/*.py))

format: $(READY)
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

bench: $(READY)
	$(PY) -m benchmarks
	$(PY) -m benchmarks.phantom
	$(PY) -m benchmarks.measurements
	$(PY) -m benchmarks.measurement_scale
	$(PY) -m benchmarks.downstream
	$(PY) -m benchmarks.study_load
	$(PY) -m benchmarks.train_step
	$(PY) -m benchmarks.scale

cluster-demo: $(READY)
	$(PY) -m diffusioncleft.tools.cluster_demo --n 400

experiments: $(READY)
	$(PY) scripts/experiments.py
	$(PY) -m diffusioncleft.tools.memorisation
	$(PY) -m diffusioncleft.tools.evaluate_steps
	$(if $(SWEEP),$(PY) -m diffusioncleft.tools.recipe_sweep)
	$(PY) -m diffusioncleft.tools.downstream_coverage
	$(PY) -m diffusioncleft.tools.audit_coverage --out experiments/audit_coverage.json
	$(PY) -m diffusioncleft.tools.audit_planted $(if $(DIFFUSIONCLEFT_REAL),--real "$(DIFFUSIONCLEFT_REAL)") --out experiments/audit_planted.json
	$(PY) -m diffusioncleft.tools.memorising_loras --out experiments/audit_memorising.json
	$(PY) -m diffusioncleft.tools.study_coverage --out experiments/study_coverage.json
	$(PY) -m diffusioncleft.tools.study_kills --out experiments/study_kills.json
	$(PY) -m diffusioncleft.tools.cluster_kills --out experiments/cluster_kills.json
	$(if $(DIFFUSIONCLEFT_REAL),$(PY) -m diffusioncleft.tools.evaluate_eyes --out experiments/real_eyes.json)
	$(if $(FULL_SIZE),$(PY) -m diffusioncleft.tools.full_size --out experiments/full_size.json)

clean:
	$(PYTHON) -c "import shutil; [shutil.rmtree(d, ignore_errors=True) for d in ('$(VENV)', '.mypy_cache', '.ruff_cache', '.pytest_cache', 'build', 'dist')]"
