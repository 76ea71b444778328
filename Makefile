# `make demo` and `make test` work on a fresh machine; both are quick the second time.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types install clean

demo: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN)/actioncast demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: $(STAMP)
	$(RUN)/mypy

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV): some minutes the first time."
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --progress-bar on --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo dist build
