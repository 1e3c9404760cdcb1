# Every target makes the environment it needs first. `make` lists the targets.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env report run reproduce verify lab doctor setup diff diff-web test check faults bench lock clean

# As typed: make would expand a dollar sign in them, and the shell a quote.
export LABKIT_NB := $(value NB)
export LABKIT_P := $(value P)
export LABKIT_F := $(value F)
export LABKIT_RERUN := $(value RERUN)
export LABKIT_BASE := $(value BASE)
export LABKIT_RUN_NAME := $(value RUN)
unexport NB P F RERUN BASE RUN
export PYTHON CONDA

IN_ENV := @sh scripts/environment.sh

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

env: ## make or update the environment: .conda-env where mamba or conda is found, else .venv (PYTHON=, CONDA=no)
	$(IN_ENV)

report: ## write reports/: [NB=notebooks/x.ipynb] [P="EPOCHS=3 NOTE='two words'"] [F=params.yaml] [RERUN=stale]
	$(IN_ENV) python -m labkit.cli.make report

run: ## execute one notebook: NB=notebooks/x.ipynb [P="EPOCHS=3"] [F=params.yaml]
	$(IN_ENV) python -m labkit.cli.make run

reproduce: ## make a run again and judge whether it came to the same: RUN=reports/x.html, or a run's name
	$(IN_ENV) sh -c 'exec labkit reproduce -- "$${LABKIT_RUN_NAME:-last}"'

verify: ## make the runs of all reports again; the exit status says whether each came to the same, for a nightly job
	$(IN_ENV) labkit verify

lab: ## JupyterLab on this machine's loopback with a token: [ARGS="--no-browser --port 8889"]
	$(IN_ENV) jupyter lab --ServerApp.ip=127.0.0.1 $(ARGS)

doctor: ## check the environment and say what is off
	$(IN_ENV) labkit doctor

setup: ## teach git here about notebooks; install the kernels that start warm; print the line for the PATH
	$(IN_ENV) sh -c 'labkit kernels install >&2; exec labkit setup'

diff: ## what changed in notebooks since this branch left another: [BASE=main]
	$(IN_ENV) sh -c 'exec labkit diff -- "$${LABKIT_BASE:-main}"'

diff-web: ## the same in the browser: [BASE=main]
	$(IN_ENV) sh -c 'exec labkit diff --web -- "$${LABKIT_BASE:-main}"'

test: ## run all tests, slow and browser ones too: [ARGS="-k lock"]
	$(IN_ENV) python -m pytest -n 2 --dist loadfile -m "not faults" $(ARGS)

check: ## lint, formatting, types, structure and hygiene of notebooks
	$(IN_ENV) ruff check .
	$(IN_ENV) ruff format --check .
	$(IN_ENV) mypy
	$(IN_ENV) labkit check

faults: ## kill runs at random for minutes
	$(IN_ENV) python -m pytest -m faults $(ARGS)

bench: ## run the benchmarks
	@set -e; for name in checkpoint listing log loop peers report reproduce run sweep warm; do \
		echo "== $$name"; sh scripts/environment.sh python "benchmarks/$$name.py"; done

lock: ## resolve pyproject.toml anew into requirements.lock
	@sh scripts/environment.sh --bare scripts/lock.py

clean: ## remove caches and reports/, never runs/
	rm -rf reports build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . \( -path ./.git -o -path ./.venv -o -path ./.conda-env -o -path ./runs \) -prune \
		-o -type d -name __pycache__ -prune -exec rm -rf {} +
