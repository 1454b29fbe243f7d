# The doors of the project: demo, test, check, build. PYTHON and BUILD may be given.
VENV ?= .venv
PYTHON ?= $(VENV)/bin/python
BUILD ?= build/dev

.PHONY: build
build:  ## compile the native core in place, for work on it
	$(PYTHON) -m cmake -S . -B $(BUILD) -G Ninja -DPython_EXECUTABLE="$$($(PYTHON) -c 'import sys; print(sys.executable)')" -DOCTAVO_IN_PLACE=ON
	$(PYTHON) -m cmake --build $(BUILD)
