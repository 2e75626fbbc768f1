# Every target makes its own virtual environment first; nothing else is needed than
# Python 3.11 or newer with pip.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# CI runs the slow tests, too: make test MARKS="not gpu"
MARKS ?= not slow and not gpu
PYTEST_ARGS ?=
# CI builds the site without running the short examples: -D plot_gallery=0
DOCS_ARGS ?=
# Tests wait for files, locks and processes some of the time, so there is one worker more
# than cores, up to 4. WORKERS=0 runs the tests in pytest's own process.
WORKERS ?= $(shell $(PYTHON) -c "import os; print(os.cpu_count() + 1)")
PYTEST = -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal

.PHONY: help install demo test coverage test-gpu test-lowest lint format docs bench bench-quick bench-tuning clean

help:
	@echo "make demo         grid search over deep features of real images, with a picture"
	@echo "make test         the quick tests (MARKS='not gpu' adds the slow ones)"
	@echo "make coverage     the same, and which lines they do not run"
	@echo "make test-gpu     the tests that need a CUDA device"
	@echo "make test-lowest  the tests against the oldest versions that are supported"
	@echo "make lint         ruff, the import rules of pyproject.toml, and mypy"
	@echo "make docs         the site, in docs/_build/html"
	@echo "make bench        the benchmark, side by side with what people use today"
	@echo "make bench-quick  its short form: fails where a ratio is 20 % above the stored one"
	@echo "make bench-tuning the same for fine-tuning; needs CIFAR-10 as a file"
	@echo "make clean        remove the virtual environments and outputs"

# torch and torchvision come from one index in one command: a '+cpu' build of the one
# beside the registry's build of the other fails at import.
$(VENV)/.stamp-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	touch $@

# What lint, docs, demo and test need, in one run: for CI. Most of the files are never
# imported, so they are not compiled.
INSTALLER ?= pip install --disable-pip-version-check --no-compile
install:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m $(INSTALLER) --quiet -e '.[lint,docs,demo,test]'
	touch $(addprefix $(VENV)/.stamp-,lint docs demo test)

demo: $(VENV)/.stamp-demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.stamp-test
	$(BIN)/python $(PYTEST) -m "$(MARKS)" $(PYTEST_ARGS)

coverage: $(VENV)/.stamp-test
	$(BIN)/python $(PYTEST) -m "$(MARKS)" --cov $(PYTEST_ARGS)

test-gpu: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

test-lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
		-c .ci/lowest.txt -e '.[test]'
	.venv-lowest/bin/python $(PYTEST) -m "$(MARKS)" $(PYTEST_ARGS)

lint: $(VENV)/.stamp-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.stamp-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.stamp-docs
	rm -rf docs/_build docs/api docs/gallery docs/sg_execution_times.rst
	$(BIN)/python -m sphinx -W --keep-going -n -q $(DOCS_ARGS) docs docs/_build/html

bench: $(VENV)/.stamp-bench
	$(BIN)/python benchmarks/extraction.py

bench-quick: $(VENV)/.stamp-test
	$(BIN)/python benchmarks/ratios.py

bench-tuning: $(VENV)/.stamp-bench
	$(BIN)/python benchmarks/fine_tuning.py

clean:
	rm -rf .venv .venv-lowest demo_output bench_output build *.egg-info \
		docs/_build docs/api docs/gallery docs/sg_execution_times.rst
