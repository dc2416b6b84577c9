PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ULTRA := .venv-ultralytics
SITE := .venv-site
PACKAGE := .venv-package
OTHER := .venv-other
REAL := $(or $(MASKPRISM_REAL_DATA),../shared)

.PHONY: setup check check-viewer viewer static test test-browser test-python test-ultralytics package site fuzz fuzz-decoder mutants bench docs clean

setup: $(VENV)/done

$(VENV)/done: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[openvino,litert]" --group dev
	touch $@

# a thread of BLAS for each of the processes: more wait for one another
test: setup
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not browser" -n logical --maxprocesses 8 --dist worksteal

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
	cd viewer && npm run --silent build

static: viewer/node_modules/done
	cd viewer && npm run --silent static -- ../build/static

check-viewer: viewer/node_modules/done
	cd viewer && npm run --silent check

$(ULTRA)/done: pyproject.toml
	$(PYTHON) -m venv $(ULTRA)
	$(ULTRA)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(ULTRA)/bin/python -m pip install --quiet --editable ".[ultralytics,openvino,tune,ray,transformers,atlas,umap]" \
		"moto[server]" onnxslim supervision polars duckdb datasets pycocotools hypothesis pytest pytest-timeout pytest-xdist
	touch $@

test-ultralytics: $(ULTRA)/done
	OMP_NUM_THREADS=1 $(ULTRA)/bin/python -m pytest tests/parity tests/tables/test_s3.py tests/integrations/test_interchange.py tests/tables/test_search.py \
		tests/analysis/test_atlas.py::test_umap_keeps_neighbours_together -n logical --maxprocesses 8 --dist worksteal
	$(ULTRA)/bin/python -m pytest tests/tables/test_ray.py  # a cluster of its own, for all processors

# the base tests with another Python: make test-python PYTHON=python3.13
test-python:
	$(MAKE) --no-print-directory test VENV=$(OTHER)

# built from the source distribution, and used by a typed program that knows nothing but the wheel
package:
	rm -rf dist $(PACKAGE)
	$(PYTHON) -m venv $(PACKAGE)
	$(PACKAGE)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(PACKAGE)/bin/python -m pip install --quiet --group package
	$(PACKAGE)/bin/python -m build --outdir dist . > /dev/null
	$(PACKAGE)/bin/python utils/check_package.py dist
	$(PACKAGE)/bin/python -m pip install --quiet dist/*.whl
	cd tests/consumer && ../../$(PACKAGE)/bin/mypy --config-file= --strict use_the_package.py
	cd dist && ../$(PACKAGE)/bin/python ../tests/consumer/use_the_package.py used && ../$(PACKAGE)/bin/maskprism info sample

$(SITE)/done: pyproject.toml
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(SITE)/bin/python -m pip install --quiet --group site
	touch $@

site: $(SITE)/done
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict

fuzz: setup
	PYTHONPATH=tests $(BIN)/python -m fuzz.run $(ARGS)

# the decoder in C, compiled with AddressSanitizer and UBSan
fuzz-decoder:
	$(PYTHON) utils/fuzz_decoder.py $(ARGS)

$(VENV)/mutants: $(VENV)/done
	$(BIN)/python -m pip install --quiet --group mutants
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

clean:
	rm -rf $(VENV) $(OTHER) $(ULTRA) $(SITE) $(PACKAGE) viewer/node_modules build dist site
