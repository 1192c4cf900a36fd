# make run    install the package and run the main job: train with each loss, print the table
# make test   install the development tools and run every check
# make bench  time the package against the original's loop, bare products, and PyTorch's MNIST example
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --constraint constraints.txt

.PHONY: run test bench notebooks readme bundle pins clean

run: .venv/core
	$(BIN)/mnist-ce compare

# A worker per core runs the notebooks, so each keeps to one thread.
test: .venv/dev
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test
	$(BIN)/python -m pytest

bench: .venv/dev
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/ensemble.py
	$(BIN)/python benchmarks/digits.py

# Export the library, run every notebook and store its outputs, then render the README.
notebooks: .venv/dev
	$(BIN)/nbdev-export
	$(BIN)/jupyter execute --inplace nbs/*.ipynb nbs/reference/*.ipynb
	$(BIN)/nbdev-clean
	$(BIN)/python nbs/readme.py

readme: .venv/dev
	$(BIN)/python nbs/readme.py

# make bundle IDX=folder   rebuild the bundled data from MNIST's four IDX files
bundle: .venv/core
	$(BIN)/python -c "from mnist_ce.data import write_bundle; write_bundle('$(IDX)')"

# Pin the newest versions that fit together, for every Python from 3.10 on.
pins:
	uv pip compile --universal --python-version 3.10 --extra dev --upgrade setup.py --no-annotate --no-header -o constraints.txt

# Without build isolation the pinned setuptools builds the package.
.venv/core: settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) setuptools
	$(PIP) --no-build-isolation --editable .
	touch $@

.venv/dev: .venv/core
	$(PIP) --no-build-isolation --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist runs *.egg-info
