# Every chore of the house. On a fresh machine only Python 3.11 or newer and make are needed:
# `make demo` and `make test` set up the rest by themselves, in .venv.

BIN := .venv/bin
STAMP := .venv/.installed
PYTHONS := python3.13 python3.12 python3.11 python3

.PHONY: help install demo test lint format bench clean

help:
	@echo "make demo     make a night-sky clip, find what moves in it, say where the report is"
	@echo "make test     every check: lint, types, layers, tests"
	@echo "make lint     the checks without the tests"
	@echo "make format   let ruff lay out the code"
	@echo "make bench    the benchmark: this program and its peers in one table"
	@echo "make install  only set up .venv, with every extra and the tools of development"
	@echo "make clean    remove what the other chores made, .venv included"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  fit='import sys; sys.exit(sys.version_info < (3, 11))'; old=; bare=; python=; \
	  for name in $(PYTHONS); do \
	    if ! $$name -c "$$fit" >/dev/null 2>&1; then \
	      old="$$old$${old:+, }$$($$name --version 2>/dev/null || echo "no $$name")"; \
	    elif ! $$name -c 'import venv, ensurepip' >/dev/null 2>&1; then bare=$$name; \
	    else python=$$name; break; fi; \
	  done; \
	  if [ -z "$$python" ] && [ -n "$$bare" ]; then \
	    echo "error: $$bare cannot make environments; on Debian or Ubuntu type: apt install $$bare-venv" >&2; exit 2; \
	  elif [ -z "$$python" ]; then \
	    echo "error: Python 3.11 or newer is needed, found: $$old; install it and try again" >&2; exit 2; \
	  fi; \
	  echo "making .venv with $$($$python --version)"; $$python -m venv --clear .venv; }
	@echo "installing into .venv; the first time this fetches PyTorch, which takes some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: install
	@$(BIN)/warte sky demo --out demo --force

test: lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/python -m benchmarks sky

clean:
	rm -rf .venv build dist demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
