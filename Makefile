# Two commands do everything: `make up` and `make test`. Both set this checkout up first; a second time that takes no time.
STACK ?= local
PYTHON ?= python3

.PHONY: up down cluster cluster-down test lint setup control-plane object-storage lock proto

up: setup
	@$(PYTHON) -m tools.object_storage --stack $(STACK)
	@. .fusion/env && fusion up --stack $(STACK)

down: setup
	@. .fusion/env && fusion down --stack $(STACK)

# A Kubernetes control plane on this machine, with Kueue, JobSet and Karpenter, for stacks with `kubernetes:context: fusion-local`.
cluster: setup
	@$(PYTHON) -m tools.control_plane --all
	@. .fusion/env && fusion cluster up

cluster-down: setup
	@. .fusion/env && fusion cluster down

test: setup control-plane object-storage lint
	@. .fusion/env && pytest -n auto --dist loadfile

lint: setup
	@. .fusion/env && ruff check . && ruff format --check --quiet . && mypy

setup:
	@$(PYTHON) tools/setup.py

control-plane: setup
	@$(PYTHON) -m tools.control_plane

# The bucket server of the local Google Cloud; tests, and programs with `gcp:project: fusion-local`, need it.
object-storage: setup
	@$(PYTHON) -m tools.object_storage

lock:
	@bash tools/lock.sh

# The gRPC messages of the Open Inference Protocol, from its .proto.
proto: setup
	@. .fusion/env && python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. workloads/serving/rpc/*.proto
