PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ULTRA := .venv-ultralytics
PACKAGE := .venv-package
OTHER := .venv-other
OTHER_PYTHON = $(PYTHON)
GROUP := dev
EXTRAS := [openvino,litert]
LOCK := $(CURDIR)/requirements/lock.txt
UV := .venv-uv/bin/uv
# with pip in it, for those who use the environment; INSTALL needs the Python of one
VENV_OF = $(UV) venv --quiet --seed --allow-existing --python $(PYTHON)
INSTALL := $(UV) pip install --quiet --python
# every environment takes its packages, and what builds them, in the versions of the lock file
export PIP_CONSTRAINT := $(LOCK)
export PIP_BUILD_CONSTRAINT := $(LOCK)
export UV_CONSTRAINT := $(LOCK)
export UV_BUILD_CONSTRAINT := $(LOCK)
# the certificates that this machine trusts, a proxy's among them; the Python that is here
export UV_SYSTEM_CERTS := 1
export UV_PYTHON_DOWNLOADS := never
# as images of containers set it: then every process would compile all that it imports
unexport PYTHONDONTWRITEBYTECODE
REAL := $(or $(MASKPRISM_REAL_DATA),../shared)

.PHONY: setup lock check check-viewer viewer static space test coverage test-docs test-studies test-browser test-python \
	setup-other test-minimum test-ultralytics \
	package release-check site walk fuzz fuzz-decoder mutants bench docs clean

setup: $(VENV)/done

# what fills the environments: each package is downloaded once and stands on the disk once for all of them
$(UV): requirements/lock.txt
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --quiet uv
	touch $@

$(VENV)/done: $(UV) pyproject.toml requirements/lock.txt
	$(VENV_OF) $(VENV)
	$(INSTALL) $(BIN)/python --editable ".$(EXTRAS)" --group $(GROUP)
	touch $@

# what pyproject.toml needs, for every Python and system; versions change with ARGS=--upgrade alone
lock: $(UV)
	UV_CONSTRAINT= UV_BUILD_CONSTRAINT= $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 \
		--all-extras --group dev --group parity --group mutants --group package --group build --no-annotate \
		--custom-compile-command "make lock" -o requirements/lock.txt $(ARGS)

# one thread of BLAS for each process; a file of tests stays in one process, which makes its fixtures once
PYTEST := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile
BASE := $(PYTEST) -m "not browser and not docs and not real and not study"
TESTS := tests

test: setup
	$(BASE) $(ARGS) $(TESTS)

# the code in the documentation and in the notebook: pages do not wait for each other
test-docs: setup
	$(PYTEST) -m docs --dist worksteal tests/project

# what takes long: statistical proofs, crashes at every moment, damaged files by the thousand, real models and images
test-studies: setup
	$(PYTEST) -m "study or real" --ignore tests/parity $(TESTS)

coverage: setup
	mkdir -p build
	$(PYTEST) -m "not browser and not docs" --cov --cov-report=term:skip-covered --cov-report=html $(TESTS)

test-browser: setup
	$(BIN)/python -m pytest -m browser tests/browser -n logical --maxprocesses 4 --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

viewer/node_modules/done: viewer/package-lock.json
	cd viewer && npm ci --no-audit --no-fund --loglevel error
	touch $@

viewer: viewer/node_modules/done
	PYTHONPATH=src $(BIN)/python utils/make_drop_tables.py
	cd viewer && npm run --silent build

static: setup viewer/node_modules/done
	$(BIN)/python utils/make_static.py build/static

# build/space: a static Space with that page, ready to be pushed
space: static
	rm -rf build/space && cp -r build/static build/space && cp spaces/README.md build/space/

check-viewer: viewer/node_modules/done
	cd viewer && npm run --silent check

$(ULTRA)/done: $(UV) pyproject.toml requirements/lock.txt
	$(VENV_OF) $(ULTRA)
	$(INSTALL) $(ULTRA)/bin/python --editable ".[ultralytics,openvino,tune,ray,transformers,atlas,umap,notebook,labels,serve]" --group parity
	touch $@

# the longest files first, so that the processes end at about the same time
LONGEST := $(addprefix tests/parity/test_,real_weights.py exports.py random_networks.py validation_ap.py)
test-ultralytics: $(ULTRA)/done
	OMP_NUM_THREADS=1 $(ULTRA)/bin/python -m pytest $(LONGEST) tests/tables/test_ray.py tests/cli/test_ray_commands.py \
		tests/tables/test_s3.py $(filter-out $(LONGEST),$(wildcard tests/parity/test_*.py)) tests/tables/test_search.py \
		tests/integrations/test_exports.py::test_ray_gives_the_same tests/integrations/test_interchange.py \
		tests/analysis/test_atlas.py::test_umap_keeps_neighbours_together \
		-n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# With another Python: make test-python PYTHON=python3.13. What may differ is syntax, the standard library, the compiled
# decoder, files, processes and the command line; numbers are those of NumPy, so that properties are tried a few times,
# and runtimes of models are left to the other environments. All base tests with it: TESTS=tests ARGS=
test-python: TESTS = tests/_common tests/core tests/io tests/tables tests/project/test_public_api.py \
	$(foreach name,cli command_line habits out predict process,tests/cli/test_$(name).py)
test-python: ARGS = --hypothesis-profile=few
test-python: setup-other
	$(OTHER)/bin/python -m compileall -q src
	$(MAKE) --no-print-directory test VENV=$(OTHER) GROUP=test EXTRAS= TESTS="$(TESTS)" ARGS="$(ARGS)"

setup-other:
	$(MAKE) --no-print-directory setup VENV=$(OTHER) GROUP=test EXTRAS= PYTHON=$(OTHER_PYTHON)

# the lowest versions that pyproject.toml allows
test-minimum: $(UV)
	$(VENV_OF) .venv-minimum
	UV_CONSTRAINT= $(INSTALL) .venv-minimum/bin/python --resolution lowest-direct . --group test
	OMP_NUM_THREADS=1 .venv-minimum/bin/python -m pytest -n logical --dist loadfile tests/core tests/io tests/models

# built from the source distribution, and used by a typed program that knows nothing but the wheel
package: setup
	rm -rf dist $(PACKAGE)
	$(UV) build --quiet --out-dir dist
	$(BIN)/python utils/check_package.py dist
	$(VENV_OF) $(PACKAGE)
	$(INSTALL) $(PACKAGE)/bin/python dist/*.whl --group package
	cd tests/consumer && ../../$(PACKAGE)/bin/mypy --config-file= --strict use_the_package.py
	cd dist && ../$(PACKAGE)/bin/python ../tests/consumer/use_the_package.py used && ../$(PACKAGE)/bin/maskprism info sample

# what is uploaded: its metadata, and both commands of the first screen, with the wheel in a bare environment
release-check:
	rm -rf dist .venv-release
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet build twine
	.venv-release/bin/python -m build --outdir dist . > /dev/null
	.venv-release/bin/twine check --strict dist/*
	rm -rf .venv-release && $(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet dist/*.whl
	cd dist && ../.venv-release/bin/maskprism demo --overwrite && ../.venv-release/bin/maskprism diagnose \
		maskprism-demo/scenes/data.yaml --model sample --out report --overwrite
	$(MAKE) --no-print-directory test

# every command and code block of README and docs, on real images and a real checkpoint
walk: $(ULTRA)/done
	MASKPRISM_REAL_DATA=$(REAL) $(ULTRA)/bin/python utils/walk.py $(ARGS)

site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fuzz: setup
	PYTHONPATH=tests $(BIN)/python -m fuzz.run $(ARGS)

# the decoder in C, compiled with AddressSanitizer and UBSan
fuzz-decoder:
	$(PYTHON) utils/fuzz_decoder.py $(ARGS)

$(VENV)/mutants: $(VENV)/done
	$(INSTALL) $(BIN)/python --group mutants
	touch $@

mutants: $(VENV)/mutants
	$(BIN)/mutmut run

bench: setup $(ULTRA)/done
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/prototype_grid.py
	$(BIN)/python benchmarks/attribution.py
	$(BIN)/python benchmarks/error_budget.py
	$(BIN)/python benchmarks/viewer/repaint.py
	$(BIN)/python benchmarks/server.py
	$(BIN)/python benchmarks/original_commands.py
	$(BIN)/python benchmarks/basis.py
	$(BIN)/python benchmarks/diagnose.py
	$(BIN)/python benchmarks/reduce.py
	$(BIN)/python benchmarks/tune.py
	$(BIN)/python benchmarks/coco_json.py --megabytes 100
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/atlas.py $(if $(shell command -v chromium),--chromium $(shell command -v chromium))
	$(BIN)/python benchmarks/long_extraction.py --count 5000 --images $(REAL)/images
	$(ULTRA)/bin/python benchmarks/extract_throughput.py --bf16 \
		--model $(REAL)/models/yolov8n-seg.onnx --images $(REAL)/datasets/coco128-seg/images
	MASKPRISM_REAL_DATA=$(REAL) $(ULTRA)/bin/python benchmarks/decode.py
	$(ULTRA)/bin/python benchmarks/runtime_disagreement.py
	$(ULTRA)/bin/python benchmarks/compare.py

docs: setup
	$(BIN)/python utils/make_docs.py
	$(BIN)/python utils/picture_pages.py
	$(BIN)/python utils/symptom_pictures.py

clean:
	rm -rf .venv-uv $(VENV) $(OTHER) $(ULTRA) $(PACKAGE) .venv-minimum .venv-release viewer/node_modules build dist site
