SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Where MINIRT_VENV is set, a complete environment is there already (in the VM), and setup has nothing to do.
VENV ?= $(or $(MINIRT_VENV),.venv)
PYTEST := $(VENV)/bin/python -m pytest
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=MINIRT_REQUIRE,MINIRT_VENV PYTHONDONTWRITEBYTECODE=1)
# In the VM, which is slow, only what needs it.
MARK ?= $(if $(MINIRT_VENV),vm,root or vm)
ARGS ?=
WITH_SYSTEMD := tests/contract/oci/test_systemd.py tests/integration/cgroups/test_systemd.py tests/integration/service

.PHONY: help setup setup-test demo check test test-unit test-root test-vm test-systemd bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

ifdef MINIRT_VENV
setup setup-test:
else
setup: ## install Debian's packages that minirt needs and this machine lacks, and make .venv
	@tools/debian-packages run
	@$(MAKE) --no-print-directory --silent $(VENV)/.complete

setup-test: setup ## install the packages that the tests need too: docker, containerd, podman, crun, runc, QEMU, …
	@tools/debian-packages test

$(VENV)/.complete: pyproject.toml setup.py minirt/linux/_build.py minirt/linux/execute.c minirt/launcher.py minirt/archive.py tools/make-venv
	@tools/make-venv $(VENV)
	@touch $@
endif

demo: setup ## make an image from Debian's busybox and run examples/hello.yaml, a pod of two containers
	@tools/demo $(VENV)/bin/minirt

check: setup ## lint, format, types, the import law, and what `minirt --help` costs
	$(VENV)/bin/ruff check . vm/run
	$(VENV)/bin/ruff format --check . vm/run
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --strict vm/*.py
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/python tools/import_time.py

test: setup-test check ## everything: the checks, every test this kernel can run, and in the VM what needs cgroup v2
	@tools/test-everything

test-unit: setup ## the tests that need neither root nor a peer: under ten seconds
	$(PYTEST) tests/unit $(ARGS)

test-root: setup-test ## the tests that need root (MARK='vm' for another choice, ARGS for more options)
	$(AS_ROOT) $(PYTEST) -m '$(MARK)' $(ARGS)

test-vm: setup-test ## in the VM, the tests that need cgroup v2 controllers
	MINIRT_REQUIRE=cgroup2 vm/run make --no-print-directory test-root MARK=vm ARGS='$(ARGS)'

test-systemd: setup-test ## in the VM with systemd as PID 1, the tests that ask it
	MINIRT_REQUIRE=cgroup2 vm/run --systemd make --no-print-directory test-root MARK='root or vm' ARGS='$(WITH_SYSTEMD) $(ARGS)'

bench: setup-test ## minirt beside crun, docker and podman, as ratios
	for command in minirt minirt-oci; do $(VENV)/bin/python -m minirt.launcher $$command $(VENV)/bin/$$command; done
	$(AS_ROOT) $(VENV)/bin/python -m tests.bench $(ARGS)

clean: ## remove what was built here; the VM's disk in ~/.cache/minirt stays
	rm -rf .venv build minirt.egg-info .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	rm -f minirt/linux/_native.c minirt/linux/_native*.so minirt/linux/_native.o
	find . -name __pycache__ -prune -exec rm -rf {} +
