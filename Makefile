PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ULTRA := .venv-ultralytics
REAL := $(or $(MASKPRISM_REAL_DATA),../shared)

.PHONY: setup check test test-ultralytics bench docs clean

setup: $(VENV)/done

$(VENV)/done: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[openvino,litert]" --group dev
	touch $@

test: setup
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(ULTRA)/done: pyproject.toml
	$(PYTHON) -m venv $(ULTRA)
	$(ULTRA)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(ULTRA)/bin/python -m pip install --quiet --editable ".[ultralytics,openvino]" onnx onnxslim hypothesis pytest pytest-timeout
	touch $@

test-ultralytics: $(ULTRA)/done
	$(ULTRA)/bin/python -m pytest tests/parity

bench: setup $(ULTRA)/done
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/prototype_grid.py
	$(BIN)/python benchmarks/original_commands.py
	$(BIN)/python benchmarks/basis.py
	$(ULTRA)/bin/python benchmarks/extract_throughput.py --bf16 \
		--model $(REAL)/models/yolov8n-seg.onnx --images $(REAL)/datasets/coco128-seg/images
	$(ULTRA)/bin/python benchmarks/runtime_disagreement.py
	$(ULTRA)/bin/python benchmarks/compare.py

docs: setup
	$(BIN)/python utils/make_docs.py

clean:
	rm -rf $(VENV) $(ULTRA) build dist
