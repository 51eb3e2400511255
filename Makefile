# make serve   the server, in its own virtual environment, with the built-in model
# make serve-ray REPLICAS=2   the same as replicas on Ray Serve, at http://127.0.0.1:8000
# make test    the suite, real engine included
# make test-fast   what needs no engine and no minutes: under one of them
# make test-slow   what takes minutes or fetches packages: published templates, large vocabularies
# make test-ray   the tests of the replicas, which need Ray
# make check   formatter, linter, types
# make docs    the lists of docs/architecture.md and docs/files.md anew
# make families   the model families over their published templates, into docs/models.md
# make capacity   1 to 256 replicas simulated, into docs/scaling.md (some minutes)
# make bench   our time over that of vLLM's own server, in one run (half an hour)
# make lock    the pinned lists in requirements/ anew, from pyproject.toml

PYTHON ?= python3
VENV ?= .venv
MODEL ?= smollm2
HOST ?= 127.0.0.1
PORT ?= 8000
REPLICAS ?= 2
ARGS ?=
# Processes of tests that need no engine: one more than cores, since many tests wait for a clock.
JOBS ?= $(shell expr $$(nproc) + 1)

# Where the lock takes torch's +cpu build from; `--find-links DIR` where a wheel lies in a folder.
LOCK_TORCH ?= --torch-backend cpu
# `make lock UPGRADE=` pins what is new and leaves the rest as it is. The tests' list comes first:
# the server runs with the versions that its tests run with.
UPGRADE ?= --upgrade
LOCK = $(VENV)/bin/uv pip compile --quiet $(UPGRADE) --universal --no-header \
	--annotation-style line pyproject.toml --group checkout
LOCK_CPU = $(LOCK) --python-version 3.11 $(LOCK_TORCH) --override requirements/left-out.txt \
	--extra cpu --group builtin

# Ray's list is installed on top of another: it has what cpu.txt hasn't for every Python.
LOCK_REST = awk -F '==' 'NR == FNR { if (!/ ; /) there[$$1]; next } !($$1 in there)'

.PHONY: serve serve-ray test test-fast test-ray test-slow check docs families bench capacity format lock clean
.DELETE_ON_ERROR:

serve: $(VENV)/.runtime
	exec $(VENV)/bin/falsework serve $(MODEL) --host $(HOST) --port $(PORT) $(ARGS)

# Ray's proxies name the session of each request, by which it is routed.
serve-ray: export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH = falsework.server.replicas.proxy:middlewares
serve-ray: export RAY_USAGE_STATS_ENABLED = 0
serve-ray: $(VENV)/.ray
	exec $(VENV)/bin/serve run falsework.server.replicas.application:build \
		model=$(MODEL) replicas=$(REPLICAS) $(ARGS)

# Where ARGS select tests of one half alone, the other half's "no tests ran" (5) is no failure.
test: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -m "not engine and not slow" -n $(JOBS) --dist loadfile $(ARGS) \
		|| [ $$? -eq 5 ]
	$(VENV)/bin/python -m pytest -m "engine and not slow" $(ARGS) || [ $$? -eq 5 ]

test-slow: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -m slow $(ARGS)

test-fast: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -m "not engine and not slow" --ignore tests/e2e \
		-n $(JOBS) --dist loadfile $(ARGS)

test-ray: $(VENV)/.dev $(VENV)/.ray
	$(VENV)/bin/python -m pytest tests/replicas $(ARGS)

check: $(VENV)/.dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

docs: $(VENV)/.dev
	PYTHONPATH=tests $(VENV)/bin/python -m support.architecture

families: $(VENV)/.dev
	cd tests && PYTHONPATH=. ../$(VENV)/bin/python -m support.family_matrix --into ../docs/models.md $(ARGS)

bench: $(VENV)/.dev
	$(VENV)/bin/pip install --quiet matplotlib==3.11.2
	$(VENV)/bin/python bench/against_vllm.py --report docs/bench.md $(ARGS)

capacity: $(VENV)/.dev
	$(VENV)/bin/pip install --quiet matplotlib==3.11.2
	$(VENV)/bin/python bench/capacity.py --report docs/scaling.md $(ARGS)

format: $(VENV)/.dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

lock: $(VENV)/.dev
	$(VENV)/bin/pip install --quiet uv
	$(LOCK_CPU) --extra dev --output-file requirements/dev.txt
	$(LOCK_CPU) --constraint requirements/dev.txt --output-file requirements/cpu.txt
	$(LOCK) --python-version 3.12 --extra gpu --output-file requirements/gpu.txt
	$(LOCK_CPU) --extra ray --constraint requirements/dev.txt --output-file requirements/ray.txt
	$(LOCK_REST) requirements/cpu.txt requirements/ray.txt > $(VENV)/ray.txt
	mv $(VENV)/ray.txt requirements/ray.txt
	sed -i "/sys_platform == 'never'/d" requirements/cpu.txt requirements/dev.txt

clean:
	rm -rf $(VENV)

# Each stamp is newer than what it was made from, so a second `make` goes straight to its work.
$(VENV)/.runtime: requirements/install.sh requirements/cpu.txt pyproject.toml
	requirements/install.sh "$(PYTHON)" $(VENV) requirements/cpu.txt
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	requirements/install.sh "$(PYTHON)" $(VENV) requirements/dev.txt
	touch $@

$(VENV)/.ray: $(VENV)/.runtime requirements/ray.txt
	$(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps \
		--requirement requirements/ray.txt
	touch $@
