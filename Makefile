# Every target that a person needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install test lint data clean

help: ## This list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 18

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@

install: $(VENV)/.installed ## The environment in .venv, with what the tests need

test: install ## The whole test suite
	$(BIN)/python -m pytest -n 2

lint: install ## Linter and type checker
	$(BIN)/ruff check .
	$(BIN)/mypy

data: install ## Fetch MNIST and Fashion-MNIST, check and cache them
	$(BIN)/python -m vaegan_jax.data mnist fashion_mnist

clean: ## Remove the environment, caches and runs
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
