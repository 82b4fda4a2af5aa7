# Two commands do everything: `make up` and `make test`. Both set this checkout up first; a second time that takes no time.
STACK ?= local
PYTHON ?= python3

.PHONY: up down test lint setup lock

up: setup
	@. .fusion/env && fusion up --stack $(STACK)

down: setup
	@. .fusion/env && fusion down --stack $(STACK)

test: setup lint
	@. .fusion/env && pytest -n auto --dist loadfile

lint: setup
	@. .fusion/env && ruff check . && ruff format --check --quiet . && mypy

setup:
	@$(PYTHON) tools/setup.py

lock:
	@bash tools/lock.sh
