# Every command of this project in one place; `make` alone lists them. README.md names the plain command behind each.
# Only Python 3.11+ and make are needed: whatever uses packages makes .venv first, once (miniserve/setup_env.py).

# The Python that makes .venv; the first one of these that is new enough (or the one you name: make setup PYTHON=...).
PYTHON ?=
PYTHONS = $(if $(PYTHON),$(PYTHON),python3 python3.11 python3.12 python3.13 python3.14 python)
# Everything else runs in .venv, by relative path: a folder with spaces in its name is no trouble.
PY = .venv/bin/python
# Options passed on: make demo ARGS='--help', make test ARGS='-k scheduler'
ARGS ?=
# How notebooks run: cells by the Python of .venv; deprecations inside Jupyter are not our failures
NBVAL = --nbval-lax --nbval-current-env --nbval-cell-timeout=60 -o filterwarnings=default
# Where torch comes from, if not from pip's usual index (README.md, "Linux without a GPU")
TORCH_INDEX ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check lab notebooks bench clean

help: ## list these targets
	@echo "make <target>   (ARGS='...' passes options on)"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)$$/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'

setup: ## make .venv and install everything into it (once, some minutes; later runs are instant)
	@found=""; \
	for python in $(PYTHONS); do \
	  version=$$("$$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue; \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    exec "$$python" -m miniserve.setup_env --torch-index '$(TORCH_INDEX)'; \
	  fi; \
	  found="$$found $$python ($$version)"; \
	done; \
	echo "miniserve needs Python 3.11 or newer; found:$${found:- no Python that runs}." >&2; \
	echo "Install one (Debian 12 or Ubuntu 24.04: sudo apt install python3 python3-venv; macOS: brew install python@3.11)," >&2; \
	echo "or name it: make setup PYTHON=/path/to/python3.11" >&2; \
	exit 2

demo: setup ## start the whole stack and a load until Ctrl-C; page: http://127.0.0.1:8000/ (first run: 98 MB)
	@echo "[demo] starting the replicas, a gateway and a load; the first run also fetches the model (98 MB)" >&2
	@$(PY) -m miniserve $(ARGS)

test: setup ## run everything that must pass: the tests, `make notebooks` and `make check`, two at a time
	@echo "[test] the tests that gate a change; some minutes on 2 cores, no network"
	@$(PY) tests/gate.py $(ARGS)

test-all: setup ## run the tests with their full counts and record them in data/results/
	@echo "[test-all] every test with its full counts; much longer than make test (its record says how long)"
	@$(PY) -m pytest -p full_record -m "full or not full" $(ARGS)

check: setup ## ruff, its formatter, mypy --strict, and notebooks against their sources (a minute the first time)
	@echo "[check] ruff, ruff format, mypy, notebooks: about a minute the first time, seconds after that"
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m miniserve course build --check

lab: setup ## open the chapters in JupyterLab
	@$(PY) -m jupyterlab --notebook-dir=chapters --LabApp.default_url=/lab/tree/start_here.ipynb $(ARGS)

notebooks: setup ## run every notebook: solved ones are right, untouched ones say NOT TRIED, key results are as stored
	@echo "[notebooks] running every notebook of the course; some minutes on 2 cores"
	@$(PY) -m pytest -p notebook_states $(NBVAL) chapters solutions $(ARGS)

bench: setup ## measure this machine's engine
	@echo "[bench] measuring; ARGS='--help' lists what can be measured" >&2
	@$(PY) -m miniserve bench $(ARGS)

clean: ## remove caches and build outputs; .venv and downloaded models stay
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name .venv -prune -o -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "[clean] removed caches and build outputs; to remove the environment too: rm -r .venv"
