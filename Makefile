# The doors of the project. `make demo` and `make test` need python3 >= 3.11, make and nothing else.
# To work on the core with another interpreter, or a sanitizer (it replaces the core in src):
#   make build PYTHON=... BUILD=build/tsan CMAKE_FLAGS=-DOCTAVO_SANITIZE=thread
PYTHON3 ?= python3
VENV ?= .venv
PYTHON ?= $(VENV)/bin/python
BUILD ?= build/$(shell $(PYTHON) -c "import sys; print(sys.implementation.cache_tag)")
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check

# What a compiled core depends on; Python sources are used in place and need no new install.
CORE = pyproject.toml CMakeLists.txt $(wildcard cmake/* build_backend/*.py csrc/* csrc/*/*)

.PHONY: demo test check build check-kernels perf docs/api.md test-builds test-zig test-newest test-tiles test-sanitized cross-aarch64 clean

demo: $(VENV)/.installed  ## fetch SmolLM2 and let it answer
	$(BIN)/octavo pull smollm2
	$(BIN)/octavo run smollm2 "Lionel Messi is a" --raw --max-tokens 48 --temperature 0
	$(BIN)/octavo run smollm2 "Why is the sky blue?" --max-tokens 96 --temperature 0

# Without bytecode each worker rewrites all tests and each program that a test starts compiles octavo.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.dev  ## every test but those that build the core
	$(PYTHON) -m pytest -n auto --dist worksteal -m "not builds and not zig and not newest and not cross"

check: $(VENV)/.dev  ## lint, format, types, layers
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(dir $(PYTHON))clang-format --dry-run -Werror $$(find csrc -name '*.h' -o -name '*.cpp')
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q tests/layering

build:  ## compile the core in place, for work on it; PYTHON must have cmake, ninja, nanobind
	$(PYTHON) -m cmake -S . -B $(BUILD) -G Ninja -DOCTAVO_IN_PLACE=ON $(CMAKE_FLAGS) \
	  -DPython_EXECUTABLE="$$($(PYTHON) -c 'import sys; print(sys.executable)')"
	$(PYTHON) -m cmake --build $(BUILD)

check-kernels: $(VENV)/.dev  ## count what the micro-kernels of the build in BUILD spill and call
	$(PYTHON) -m benchmarks.spills $(BUILD)

perf: $(VENV)/.dev  ## each kernel's share of the machine's limit against the one recorded for this CPU
	$(PYTHON) -m benchmarks.perf

docs/api.md: $(VENV)/.dev  ## write the page of the server's API from its tables
	$(PYTHON) -m docs.make_api

test-builds: $(VENV)/.dev  ## a wheel and an sdist, and the recipes of CONTRIBUTING, built (minutes)
	$(PYTHON) -m pytest -m builds tests/packaging tests/recipes

test-zig: $(VENV)/.dev  ## build and import the core where no compiler is to be found (minutes)
	$(PYTHON) -m pytest -m zig tests/packaging

test-newest: $(VENV)/.dev  ## build for the newest Python there is, and see programs end (minutes)
	$(PYTHON) -m pytest -m newest tests/packaging

test-tiles: $(VENV)/.dev  ## programs and exactness on AMX's tiles in plain code (minutes; needs AVX-512)
	OCTAVO_ISA=amx_plain $(PYTHON) -m pytest -n auto --dist worksteal tests/exactness tests/program

test-sanitized: $(VENV)/.dev  ## kernels, programs and exactness under ASan and UBSan (minutes; needs g++)
	PYTHON=$(PYTHON) .ci/test-sanitized

cross-aarch64: $(VENV)/.dev  ## build the core for aarch64 with zig (minutes)
	$(PIP) install -q "$$($(PYTHON) -c 'import sys; sys.path.insert(0, "build_backend"); \
	  import octavo_compiler; print(octavo_compiler.ZIG_REQUIREMENT)')"
	$(PYTHON) -m pytest -m cross tests/packaging

clean:
	rm -rf build dist src/octavo/kernels/_native*.so $(VENV)/.installed $(VENV)/.dev

$(BIN)/python:
	@$(PYTHON3) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("octavo needs Python 3.11 or newer: make PYTHON3=python3.12 ...")'
	$(PYTHON3) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The build tools stay in the environment, so that later builds compile only what changed.
$(VENV)/.installed: $(BIN)/python $(CORE)
	@echo "== installing the build tools into $(VENV)"
	$(PIP) install -q "scikit-build-core>=0.10" "nanobind>=2.4" "cmake>=3.21" ninja \
	  $$($(BIN)/python build_backend/octavo_compiler.py)
	@echo "== building octavo (the first time takes a minute or two) and installing what it needs"
	$(PIP) install -q --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "== installing the test tools into $(VENV)"
	$(PIP) install -q --no-build-isolation -e ".[dev]"
	@touch $@
