# Two commands: `make demo` and `make test`. Both set up .venv first and are quick when run again.

PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet
DONE = .venv/installed

.PHONY: demo test check setup clean

demo: setup
	.venv/bin/d3codec demo -o demo

test: setup
	.venv/bin/ruff check d3codec tests benchmarks
	.venv/bin/ruff format --check --quiet d3codec tests benchmarks
	.venv/bin/mypy d3codec
	.venv/bin/python -m pytest -n 2 -q --cov=d3codec --cov-report=term:skip-covered --cov-fail-under=90

setup: $(DONE)

# torch comes first and alone: the CPU build where the package index has it, else the index's own build.
$(DONE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up .venv: downloads about 400 MB and takes 2 GB on disk (torch as CPU build is 190 MB of it; where the index has only the CUDA build, about 3 GB more)."
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@$(PIP) install "torch==2.13.0+cpu" -c constraints.txt 2>/dev/null || $(PIP) install torch -c constraints.txt
	@$(PIP) install -e ".[demo,dev]" -c constraints.txt
	@touch $(DONE)

clean:
	rm -rf .venv demo dist build
