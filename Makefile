# Everything runs in a virtual environment of its own, made on first use from the exact versions in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
PACKAGES := $(wildcard kernel/pyproject.toml plugins/*/pyproject.toml)
SERVED := kernel[uvloop] plugins/transport_http plugins/protocol_kserve_v2 plugins/scheduler_dynamic \
  plugins/scheduler_sequence plugins/scheduler_ensemble plugins/cache_local plugins/memory_system \
  plugins/exporter_prometheus plugins/exporter_opentelemetry plugins/backend_onnx[cpu] plugins/backend_python
# The tests also speak HTTP/2, HTTP/3, the native gRPC server, Redis, and CUDA and TensorRT as far as that goes without a GPU.
DEVELOPED := $(subst transport_http,transport_http[http3],$(subst kserve_v2,kserve_v2[native],\
  $(subst exporter_prometheus,exporter_prometheus[gpu],$(SERVED)))) plugins/cache_redis plugins/new \
  plugins/memory_cuda plugins/backend_tf[cpu] plugins/backend_torch[cpu,torchserve] plugins/backend_trt[rtx,lean-cu13]
EXAMPLES := examples/model_repository
# Most tests wait for a server to start, so two processes run them, a file of tests in one of both.
WORKERS := -n 2 --dist loadfile
SOURCES := conftest.py kernel plugins tests bench examples tools docs

.PHONY: serve test test-slow lint format bench docs wheels clean

## Build the example models and serve them.
serve: $(VENV)/served
	$(BIN)/python examples/build_repository.py --only light --output $(EXAMPLES)
	@printf '%s\n' '' 'When the models are ready, try from another terminal:' \
	  '  $(BIN)/trivet models list' \
	  '  $(BIN)/trivet infer text_reader -i examples/samples/text_line.png' \
	  '  $(BIN)/trivet infer file_identifier -i examples/samples/china.jpg' \
	  '  $(BIN)/python examples/clients/read_page.py examples/samples/text_page.png' \
	  '  $(BIN)/python examples/clients/detect_speech.py examples/samples/Front_Center.wav' ''
	$(BIN)/trivet serve $(EXAMPLES)

## Run every test but the slow ones.
test: $(VENV)/developed
	@tools/install_debian_packages.sh
	$(BIN)/python examples/build_repository.py --only all --output $(EXAMPLES)
	TRIVET_REAL_TRITON="$(CURDIR)/tools/real_triton.py" $(BIN)/python -m pytest -m "not slow" $(WORKERS) $(PYTEST)

## Run the tests that take minutes.
test-slow: $(VENV)/developed
	$(BIN)/python examples/build_repository.py --only all --output $(EXAMPLES)
	TRIVET_REAL_TRITON="$(CURDIR)/tools/real_triton.py" $(BIN)/python -m pytest -m slow --timeout 1800 $(PYTEST)

## Style, types, who imports whom, links.
lint: $(VENV)/developed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_links.py

format: $(VENV)/developed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

## Measure; see docs/benchmarks.md.
bench: $(VENV)/developed
	$(BIN)/python examples/build_repository.py --only all --output $(EXAMPLES)
	$(BIN)/python -m bench

docs: $(VENV)/developed
	$(BIN)/mkdocs build --strict

wheels: $(VENV)/developed
	for package in . $(dir $(PACKAGES)); do $(BIN)/python -m build --wheel --no-isolation --outdir dist $$package || exit 1; done

clean:
	rm -rf $(VENV) dist build site $(EXAMPLES) examples/.cache examples/samples

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --disable-pip-version-check install -q -U "pip>=25.1"

$(VENV)/served: $(BIN)/python pyproject.toml constraints.txt $(PACKAGES)
	$(PIP) $(foreach package,$(SERVED),-e "./$(package)") --group examples
	touch $@

$(VENV)/developed: $(BIN)/python pyproject.toml constraints.txt $(PACKAGES)
	$(PIP) $(foreach package,$(DEVELOPED),-e "./$(package)") --group examples --group dev
	touch $@
