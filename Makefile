# A fresh machine needs Python >= 3.11 and make; every target builds what it needs in .venv by itself.
#
#   make PYTHON=python3.12 test               use another interpreter (rebuilds .venv with it)
#   make PYTHON=python3.12 VENV=.venv312 test keep a second environment next to the first
#   make test ARGS='-k matrix -x'             pass arguments to pytest

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

bin := $(VENV)/bin
pip_install := $(bin)/python -m pip install -qq --disable-pip-version-check

# $(made) says for which checkout and interpreter the environment was made. It is absent while packages are being
# installed, so an interrupted or failed installation is started again from nothing.
made := $(VENV)/.made
runtime := $(VENV)/.runtime
development := $(VENV)/.development
owner := $(CURDIR) $(PYTHON)

# Out of date when moved, copied, made by another interpreter, or when its interpreter is gone.
ifneq ($(shell $(bin)/python -IS -c pass 2>/dev/null && cat $(made) 2>/dev/null),$(owner))
.PHONY: $(made) $(runtime) $(development)
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(runtime) ## run the climbing game and print what was learned
	$(bin)/inference-marl run climbing --inspect

.PHONY: test
test: $(development) ## the fast tests
	$(bin)/pytest -n auto --dist worksteal $(ARGS)

.PHONY: test-slow
test-slow: $(development) ## the statistical reproductions and long runs
	$(bin)/pytest -m slow -n auto --dist worksteal $(ARGS)

.PHONY: tutorial
tutorial: $(development) ## run the tutorial notebook and keep what it shows
	$(bin)/python tests/test_tutorial.py

.PHONY: lint
lint: $(development) ## ruff: rules and formatting
	$(bin)/ruff check
	$(bin)/ruff format --check

.PHONY: format
format: $(development) ## ruff: fix what can be fixed
	$(bin)/ruff check --fix
	$(bin)/ruff format

.PHONY: types
types: $(development) ## mypy, strict
	$(bin)/mypy

.PHONY: bench
bench: $(runtime) ## measure speed
	$(bin)/python experiments/bench.py $(ARGS)
	$(bin)/python experiments/bench_lola.py $(ARGS)
	$(bin)/python experiments/bench_actor_critics.py $(ARGS)
	$(bin)/python experiments/bench_stein.py $(ARGS)
	$(bin)/python experiments/bench_opponents.py $(ARGS)
	$(bin)/python experiments/bench_worlds.py $(ARGS)

# BenchMARL and torchrl move fast: two versions that work together, kept out of the project's own environment.
peer := $(VENV)-peer

.PHONY: bench-peer
bench-peer: $(peer)/.made ## measure MADDPG's speed beside BenchMARL's
	$(peer)/bin/python experiments/bench_peer.py $(ARGS)

$(peer)/.made: pyproject.toml constraints.txt
	@$(require_python)
	@echo "Installing BenchMARL into $(peer)"
	@$(PYTHON) -m venv --clear $(peer)
	@$(peer)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[vmas]' \
		benchmarl==1.5.2 torchrl==0.11.1
	@touch $@

.PHONY: build
build: $(development) ## sdist and wheel in dist/
	rm -rf build dist
	$(bin)/python -m build --no-isolation

# Everything moves to its newest version except torch, whose pin is edited by hand: a bare requirement may pull a
# different build of it and gigabytes of libraries with it.
.PHONY: constraints
constraints: ## refresh constraints.txt to the newest versions
	@$(require_python)
	$(PYTHON) -m venv --clear $(VENV)-constraints
	grep '^torch==' constraints.txt > $(VENV)-constraints/torch.txt
	$(VENV)-constraints/bin/python -m pip install --quiet --disable-pip-version-check \
		-c $(VENV)-constraints/torch.txt -e '.[test,dev,envs,vmas]'
	{ grep '^#' constraints.txt; \
	  $(VENV)-constraints/bin/python -m pip freeze --all --exclude-editable --exclude pip \
	  | sed -E -e '/^(nvidia|cuda|triton)/d' -e 's/\+.*//'; } > $(VENV)-constraints/new.txt
	mv $(VENV)-constraints/new.txt constraints.txt
	rm -rf $(VENV)-constraints

.PHONY: clean
clean: ## remove the environment, builds and caches; runs/ stays
	rm -rf $(VENV) $(peer) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define require_python
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "Python >= 3.11 is needed, and '$(PYTHON)' is not that. Name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	exit 1; }
endef

define require_links
test -d inference_marl/models || { \
	echo "inference_marl/models is no link to a folder: git made no symbolic links here. Let it make them, and try again:" \
	"git config core.symlinks true && git checkout -- inference_marl/models inference_marl/guides" \
	"inference_marl/experiments (see docs/platforms.md)" >&2; \
	exit 1; }
endef

$(made):
	@$(require_python)
	@$(require_links)
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@echo '$(owner)' > $@

$(runtime): pyproject.toml constraints.txt | $(made)
	@echo "Installing inference-marl into $(VENV) (the first time brings PyTorch: some minutes)"
	@rm $(made)
	@$(pip_install) -c constraints.txt -e .
	@echo '$(owner)' > $(made)
	@touch $@

$(development): pyproject.toml constraints.txt | $(made)
	@echo "Installing inference-marl and its tools into $(VENV) (the first time brings PyTorch: some minutes)"
	@rm $(made)
	@$(pip_install) -c constraints.txt -e '.[test,dev]'
	@echo '$(owner)' > $(made)
	@touch $(runtime) $@
