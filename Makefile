# Commands for users: `make demo`, `make test`, `make test-all`, `make arm64`, `make sample`, `make validate`, `make docs`.
# Each sets up .venv by itself and is quick the second time.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
OLDEST_ONNXRUNTIME := 1.19.2

.PHONY: demo test test-all lint arm64 sample validate docs clean

demo: $(VENV)/installed
	$(BIN)/python -m tools.demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'

# also what `test` leaves out: real networks from end to end, processes, random graphs, the emulated machine
test-all: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# the emulated ARM64 machine that counts instructions; needs Debian 12 on x86-64, gcc, and root for the package qemu-user
arm64: $(VENV)/installed
	$(BIN)/python -m tools.arm64.setup

# the sample in C, for this machine and for the emulated one; needs Debian, and root for the compiler
sample: $(VENV)/installed
	$(BIN)/python -m tools.demo.c build/c --arm64

# DATA: labelled test images, CALIB: images to calibrate on, LIMIT: how many to classify; all optional
validate: $(VENV)/installed
	$(BIN)/python -m runtime_tests.validate \
		$(if $(DATA),--data '$(DATA)') $(if $(CALIB),--calib '$(CALIB)') $(if $(LIMIT),--limit $(LIMIT))

# the documentation as a site, in build/site; a link that leads nowhere is an error
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --config-file tools/docs/mkdocs.yml

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the stamp is written last, so that an interrupted installation is done again
$(VENV)/installed: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[models,plots,cluster]' --group dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(VENV)/oldest-onnxruntime onnxruntime==$(OLDEST_ONNXRUNTIME)
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
