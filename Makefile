PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
JOBS ?= 2
# uv stands in the environment, and has a name of its own for a directory of wheels.
UV = PATH="$(abspath $(VENV))/bin:$$PATH" UV_FIND_LINKS="$${UV_FIND_LINKS-$$PIP_FIND_LINKS}"

.PHONY: install develop test lint docs notebooks demo contract torchquantum install-check package matrix matrix-quick clients clean

# Installs the tested versions, and keeps the torch that is there: .ci/install.py says how it chooses one.
install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg constraints.txt pyproject.toml
	@$(PYTHON) .ci/install.py $(VENV) demo
	@touch $@

# All extras, so that no test is left out for the want of one.
develop: $(VENV)/.developed

$(VENV)/.developed: $(VENV)/.installed
	@$(PYTHON) .ci/install.py $(VENV) develop
	@touch $@

# JOBS processes of one thread each; the tests of a file share fixtures that take long.
test: develop
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile $(PYTEST_FLAGS)

lint: develop
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) .ci/layers.py

# The site, into build/site; a link or a name that leads nowhere is an error. Nothing is fetched.
docs: develop
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet

# The notebooks of the examples, run anew, with their outputs: `make notebooks NAMES=circuit` for one of them.
notebooks: develop
	OMP_NUM_THREADS=1 $(PY) .ci/notebooks.py $(NAMES)

demo: install
	HF_HUB_OFFLINE=1 $(PY) -m qpa_hf.demo

# The PEFT contract on every supported version of peft, each in an environment of its own.
contract:
	bash .ci/contract

# TorchQuantum, the paper's simulator, which needs an environment of its own.
torchquantum:
	@$(PYTHON) .ci/install.py .venv-torchquantum torchquantum
	.venv-torchquantum/bin/python benchmarks/torchquantum/torchvision_stand_in.py

# Every line that installs, and every extra, resolved as on a machine whose pip has no configuration.
install-check:
	@$(PYTHON) .ci/install_check.py

# The wheel, built from the source distribution, in an environment without this tree: the demo in short.
package: develop
	rm -rf dist
	$(PY) -m build --outdir dist
	$(PY) -m twine check --strict dist/*
	@$(PYTHON) .ci/install.py $(VENV)/package package
	cd $(VENV) && HF_HUB_OFFLINE=1 package/bin/python -m qpa_hf.demo --steps 8 --rounds 1 --fresh

clean:
	rm -rf $(VENV) build dist *.egg-info demo_output

# The demo, the contract and the core tests on each set of versions that setup.cfg allows, on each Python that is there:
# a night. Goes on where it was stopped, and writes docs/versions.md.
matrix: develop
	$(UV) $(PYTHON) -m benchmarks.versions

# Both ends of all ranges but torch's, in short: some minutes on a machine that does nothing else.
matrix-quick: develop
	$(UV) $(PYTHON) -m benchmarks.versions --quick

# QPA in the tools that people use, with LoRA beside it, each in an environment of its own: half an hour. Goes on where
# it was stopped, and writes docs/clients.md.
clients: develop
	$(UV) $(PY) -m benchmarks.clients
