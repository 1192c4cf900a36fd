# make run    install the package and run the main job: train with each loss, print the table
# make test   install the development tools and run every check
#             PYTHON=python3.12 names another Python than python3; CPU=1 takes PyTorch without
#             CUDA, from an index that has it and that PIP_EXTRA_INDEX_URL names
# make bench  time the package against the original's loop, bare products, busy neighbors, and
#             PyTorch's MNIST example; make bench-peers: against JAX, and
#             the doctor against other tools
# make studies   the runs behind the lessons that are too many for a lesson
# make torture   damaged files, kills, full disks, hostile functions, many times over
# make figures   the lessons' figures, the chart, questions and answers as files, into runs/handouts
# make docs   the course, the reference and the API as a site, into runs/site
# make test-browser   open and run every lesson in a headless Chromium, and read the site there
# make address REPOSITORY=owner/name   write the project's place on GitHub wherever it is needed
# make audit   write the bill of materials, look up known vulnerabilities of the pins
# make mutants   break the library on purpose, and see which of its tests notice
PYTHON ?= python3
# Threads of torch's that spin while they wait are several times slower beside a busy program.
export OMP_WAIT_POLICY ?= PASSIVE
BIN := .venv/bin
PIP := $(BIN)/python -m pip install
# The pins of torch and torchvision in a file of constraints, as builds without CUDA.
CPU_PINS = $(shell sed -nE 's/^(torch|torchvision)==([0-9.]+).*/\1==\2+cpu/p' $(1))
PINS := uv pip compile setup.py --universal --python-version 3.10 --upgrade --no-annotate \
	--custom-compile-command "make pins"

.PHONY: run test test-lowest bench bench-peers bench-tests studies torture audit mutants notebooks figures docs test-browser readme address bundle pins clean

run: .venv/core
	$(BIN)/mnist-ce compare

# A worker per core, so each notebook keeps to one thread.
test: .venv/dev
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test
	$(BIN)/python -m pytest -n auto

# The lowest versions that settings.ini states, best with PYTHON=python3.10, the oldest there is.
# They warn of their own age.
test-lowest: .venv-lowest/core
	.venv-lowest/bin/python -m pytest -W ignore::DeprecationWarning

bench: .venv/dev
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/ensemble.py
	$(BIN)/python benchmarks/busy.py
	$(BIN)/python benchmarks/digits.py

# JAX and other doctors of training in an environment of their own; make bench-tests: the time of
# make test, alone and beside others
bench-peers: .venv/dev .venv-peers/core
	$(BIN)/python benchmarks/peers.py .venv-peers/bin/python
	$(BIN)/python benchmarks/doctor.py .venv-peers/bin/python

bench-tests: .venv/dev
	$(BIN)/python benchmarks/busy.py tests

# What the lessons load: runs that are too many for a lesson.
studies: .venv/dev
	$(BIN)/python benchmarks/seeds.py
	$(BIN)/python benchmarks/rates.py
	$(BIN)/python benchmarks/published.py
	$(BIN)/python benchmarks/faults.py
	$(BIN)/python benchmarks/optimum.py
	$(BIN)/python benchmarks/photos.py

torture: .venv/dev
	$(BIN)/python benchmarks/torture.py

# Break the library on purpose, a change at a time, and see which of its tests notice.
mutants: .venv/dev .venv/mutmut
	$(BIN)/python benchmarks/mutants.py

# Export the library, run every notebook and store its outputs, then render the README.
notebooks: .venv/dev
	$(BIN)/nbdev-export
	$(BIN)/python nbs/execute.py nbs/*.ipynb nbs/reference/*.ipynb
	$(BIN)/nbdev-clean
	$(BIN)/python nbs/readme.py

# What a teacher hands out, from the lessons; any Python can do it, nothing has to be installed.
figures:
	$(PYTHON) nbs/handouts.py runs/handouts

# The site, from the notebooks as they are stored; only the lessons' widgets are drawn anew, in every
# position, when their notebook has changed.
docs: .venv/dev .venv-docs/core
	$(BIN)/python docs/widgets.py runs/site-static/widgets
	mkdir -p runs/site-static/mathjax
	cp .venv-docs/npm/node_modules/mathjax/es5/tex-svg.js runs/site-static/mathjax
	.venv-docs/bin/python docs/pages.py runs/site-static/widgets runs/site-source
	SITE_STATIC=$(CURDIR)/runs/site-static .venv-docs/bin/sphinx-build -q -W --keep-going -c docs \
		-d runs/site-doctrees runs/site-source runs/site
	$(BIN)/jupyter nbconvert --log-level WARN --to markdown --output '{notebook_name}.html' \
		--output-dir runs/site/reference runs/site-source/reference/*.ipynb # for nbdev's docstrings
	@echo "the site is in runs/site: open runs/site/index.html"

# Every lesson opened and run in JupyterLab in a headless Chromium, the system's, or CHROMIUM=path;
# then the site, read as a phone, a keyboard and a screen reader do.
test-browser: .venv-browser/core docs
	.venv-browser/bin/python tests/browser.py $(BIN)/python $(CHROMIUM)
	.venv-browser/bin/python tests/browse_site.py runs/site \
		.venv-docs/npm/node_modules/axe-core/axe.min.js $(CHROMIUM)

readme: .venv/dev
	$(BIN)/python nbs/readme.py

# Addresses, badges, and a first cell that fetches the course in Colab: see nbs/address.py.
address: .venv/dev
	$(BIN)/python nbs/address.py $(REPOSITORY)
	$(BIN)/nbdev-export
	$(BIN)/python nbs/readme.py

# make bundle IDX=folder   rebuild the bundled data from MNIST's four IDX files
bundle: .venv/core
	$(BIN)/python -c "from mnist_ce.data import write_bundle; write_bundle('$(IDX)')"

# Pin the newest versions that fit together, for every Python from 3.10 on, and the lowest.
pins:
	$(PINS) --extra dev -o constraints/dev.txt
	$(PINS) --constraint constraints/dev.txt -o constraints/core.txt
	$(PINS) --resolution lowest-direct -o constraints/lowest.txt

# What the package brings along: a bill of materials of the pins, and known holes in them, which
# needs pypi.org.
audit: .venv-audit/core
	.venv-audit/bin/cyclonedx-py requirements constraints/core.txt --output-reproducible \
		--output-file constraints/sbom.json
	.venv-audit/bin/pip-audit --no-deps --disable-pip --requirement constraints/core.txt

define NEW_VENV
@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	{ echo "$(PYTHON) is not Python 3.10 or newer with venv and ensurepip: install them" \
	"(Debian, Ubuntu: apt install python3-venv), or name another: make PYTHON=python3.12"; \
	exit 1; } >&2
$(PYTHON) -m venv $(@D)
endef

# Without build isolation the pinned setuptools builds the package.
.venv/core: settings.ini setup.py pyproject.toml constraints/core.txt
	$(NEW_VENV)
	$(PIP) --constraint constraints/core.txt setuptools
	$(if $(CPU),$(PIP) --no-deps $(call CPU_PINS,constraints/core.txt))
	$(PIP) --constraint constraints/core.txt --no-build-isolation --editable .
	touch $@

.venv/dev: .venv/core constraints/dev.txt
	$(if $(CPU),$(PIP) --no-deps $(call CPU_PINS,constraints/dev.txt))
	$(PIP) --constraint constraints/dev.txt --no-build-isolation --editable '.[dev]'
	touch $@

.venv/mutmut: .venv/dev
	$(PIP) --constraint constraints/dev.txt mutmut==3.8.1
	touch $@

.venv-lowest/core: settings.ini setup.py pyproject.toml constraints/lowest.txt
	$(NEW_VENV)
	.venv-lowest/bin/python -m pip install --constraint constraints/lowest.txt --editable . \
		pytest hypothesis pandas
	touch $@

# With the torch, numpy and scipy that we are measured with.
.venv-peers/core: constraints/peers.txt constraints/core.txt
	$(NEW_VENV)
	$(if $(CPU),.venv-peers/bin/python -m pip install --no-deps $(call CPU_PINS,constraints/core.txt))
	.venv-peers/bin/python -m pip install --requirement constraints/peers.txt \
		--constraint constraints/core.txt
	touch $@

.venv-audit/core: constraints/core.txt
	$(NEW_VENV)
	.venv-audit/bin/python -m pip install pip-audit cyclonedx-bom
	touch $@

# Sphinx, its theme, and what reads notebooks and modules for it; from npm what sets formulas and
# what tests the site.
.venv-docs/core: constraints/docs.txt docs/package-lock.json
	@command -v npm >/dev/null || { echo "no npm found: install Node.js, which brings it" >&2; exit 1; }
	$(NEW_VENV)
	.venv-docs/bin/python -m pip install --requirement constraints/docs.txt
	mkdir -p .venv-docs/npm
	cp docs/package.json docs/package-lock.json .venv-docs/npm
	npm ci --prefix .venv-docs/npm
	touch $@

.venv-browser/core: .venv/dev
	$(NEW_VENV)
	.venv-browser/bin/python -m pip install playwright==1.65.2
	touch $@

clean:
	rm -rf .venv .venv-lowest .venv-peers .venv-audit .venv-browser .venv-docs build dist runs .mutants *.egg-info
