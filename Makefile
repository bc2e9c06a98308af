# Each target works on a fresh machine by itself: it sets up what it needs.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
MINUTES ?= 8
PARTS ?= 1,2,3,4

.PHONY: run figures test torture bench gpu format setup clean help

run: $(INSTALLED)  ## both studies and recorded opponents on digits, two arms each, then the figures
	$(PY) experiments/sequential_tasks.py with quick
	$(PY) experiments/sequential_tasks.py with quick stream.name=fakes
	$(PY) experiments/gan_probe.py with quick
	$(PY) experiments/figures.py

figures: $(INSTALLED)  ## figures from results/runs and results/reference; LIVE=1: unfinished runs, too
	$(PY) experiments/figures.py $(if $(filter-out 0,$(LIVE)),--live)

test: $(INSTALLED)  ## lint, format check and all tests
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	OMP_NUM_THREADS=1 $(PY) -m pytest -n logical --dist worksteal

torture: $(INSTALLED)  ## 50 kills at random moments, 500 bad command lines as processes
	$(PY) tests/torture.py

bench: $(INSTALLED)  ## what is claimed of speed, measured; best on an idle machine
	$(PY) experiments/bench.py

# A GPU is borrowed for minutes, on a machine without a network: nothing is installed, and where
# there is no .venv the Python on PATH has to do.
gpu:  ## all that needs a GPU, into OUT, from IMAGES (else digits); REHEARSE=1: on a CPU, small
	PYTHONPATH="$(CURDIR):$$PYTHONPATH" "$(or $(wildcard $(PY)),$(PYTHON))" \
	  -m experiments.benchmarks.gpu --out "$(OUT)" --minutes "$(MINUTES)" --parts "$(PARTS)" \
	  --images "$(IMAGES)" $(if $(filter-out 0,$(REHEARSE)),--rehearse)

format: $(INSTALLED)  ## let ruff mend and format the code
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

setup: $(INSTALLED)  ## .venv with everything in requirements.txt

# The marker is written last: an install that broke off is taken up again. It holds the folder: the
# packages are installed in place, so a moved or copied folder installs anew.
ifneq "$(shell cat $(INSTALLED) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(INSTALLED)
endif
$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is missing or older than 3.11; set PYTHON=python3.11 or later"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: $(PYTHON) lacks venv; install it (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check --progress-bar off -r requirements.txt
	@echo "$(CURDIR)" > $@

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "By themselves, each with --help and an example ($(PY) SCRIPT --help):"
	@awk 'FNR == 1 {gsub(/"""/, ""); printf "%-36s %s\n", FILENAME, $$0}' experiments/[a-z]*.py

clean:  ## remove the environment and what it drew; stored runs stay
	rm -rf $(VENV) results/figures results/report.html *.egg-info
