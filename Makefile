# make train [CONFIG=pinn/finite_well] [ARGS="model.V0=35 seed=1"]   sets up .venv, trains, tests, leaves pictures
# make test [ARGS="-k registry"]                                     sets up .venv, checks and tests everything
# make oldest PYTHON=python3.10 [ARGS=tests]                         what versions can break, or all, with the oldest
#                                                                    versions that pyproject.toml allows
#
# PYTHON   the interpreter to make .venv with (3.10 to 3.13)
# PIP_ARGS further arguments for pip, such as an index that has CPU builds of torch:
#          make train PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
CONFIG ?= kat/digits
ARGS ?=
PIP_ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := .venv-oldest

.PHONY: train test check oldest setup clean
.DEFAULT_GOAL := train

train: $(READY)
	@$(BIN)/python -m zoo.train config=$(CONFIG) $(ARGS)

test: check
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What versions can break: configs compose, every one builds and trains two steps, runs resume, processes start together,
# weights load, files are read, operations agree with their references.
OLDEST_TESTS := $(addprefix tests/,test_config.py test_registry.py test_pretrained.py \
  $(addprefix test_uniformity.py::,test_a_config_trains_or_says_where_its_data_come_from test_a_model_is_whole \
    test_weights_say_what_they_do_and_are_tested) \
  $(addprefix engine/test_resume.py::,test_interrupted_anywhere test_interrupted_twice_with_workers \
    test_steps_are_given_instead_of_epochs test_checkpoint_with_code_is_not_run) \
  engine/test_components.py engine/test_launch.py data robustness ops/test_points.py ops/test_rational_op.py)

oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest -n 2 --dist worksteal $(or $(ARGS),$(OLDEST_TESTS))

# On PyPI the oldest torch is there with CUDA only, some 5 GB; uv fetches them in two or three minutes.
$(OLDEST)/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST) --resolution lowest-direct $(PIP_ARGS) \
	  -r pyproject.toml --extra dev
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST) --no-deps -e .
	@touch $@

setup: $(READY)

# The stamp is written last, so that a set-up that failed half-way is taken up again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "zoo needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Give make PYTHON=python3.11"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build dist .pytest_cache .ruff_cache .mypy_cache
