VENV ?= .venv
PY = $(VENV)/bin/python
EXTRAS ?= dev,fast,noise,plots,quality,quantised,quantum-train
JOBS ?= 2

.PHONY: install develop test lint demo contract torchquantum clean

# Installs the tested versions; on a machine with a GPU, install torch for it into $(VENV) first.
install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg constraints.txt pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet -c constraints.txt torch==2.13.0
	$(PY) -m pip install --quiet -c constraints.txt -e ".[fast,plots]"
	touch $@

# All extras, so that no test is left out for the want of one.
develop: $(VENV)/.developed

$(VENV)/.developed: $(VENV)/.installed
	$(PY) -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

# JOBS processes of one thread each; the tests of a file share fixtures that take long.
test: develop
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile

lint: develop
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

demo: install
	HF_HUB_OFFLINE=1 $(PY) -m qpa_hf.demo

# The PEFT contract on every supported version of peft, each in an environment of its own.
contract:
	bash .ci/contract

# TorchQuantum, the paper's simulator, which needs an environment of its own.
torchquantum: VENV = .venv-torchquantum
torchquantum:
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet -c constraints.txt torch==2.13.0
	$(PY) -m pip install --quiet -r benchmarks/torchquantum/requirements.txt -e ".[fast,plots]"
	$(PY) -m pip install --quiet --no-deps -r benchmarks/torchquantum/no_deps.txt
	$(PY) benchmarks/torchquantum/torchvision_stand_in.py

clean:
	rm -rf $(VENV) build dist *.egg-info demo_output
