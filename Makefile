# make run | test | coverage | quick | faults | clients | containers | matrix | lint | docs. Each makes .venv first when it is missing or requirements.txt has changed.
PYTHON ?= python3
ARGS ?=
# Without bytecode each worker of the tests, and each process that they start, would compile the project and its tests.
unexport PYTHONDONTWRITEBYTECODE
# Four workers on two cores (tests/selection.py). One keeps what modules share, and takes tests from another when it has none left.
PARALLEL := -n auto --dist worksteal
# Alone, experiments with time limits get a core for each worker; `auto` is twice as many.
EXPERIMENTS := -n $(shell getconf _NPROCESSORS_ONLN) --dist worksteal
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/requirements-installed
DOCS := $(VENV)/docs
DOCS_READY := $(DOCS)/requirements-installed
PROSE := $(VENV)/prose
PROSE_READY := $(PROSE)/requirements-installed
# What must not contain the phrases of .ci/dialect.txt.
PLAIN := README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md Makefile noxfile.py .github .ci bench deploy docs sentinel_project sessions_sticky tests
CLIENTS := $(VENV)/clients
CLIENTS_READY := $(CLIENTS)/requirements-installed

# Tests keep their data and metrics apart from those of `make run`.
TEST_DATA := $(CURDIR)/var/tests
test coverage quick faults clients: export SENTINEL_DATA_DIR := $(TEST_DATA)

.PHONY: run test coverage quick faults clients containers matrix lint docs clean-test-data

run: $(READY)
	@exec $(BIN)/python manage.py run --demo $(ARGS)

clean-test-data:
	@rm -rf $(TEST_DATA)

test: $(READY) clean-test-data
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# The same, and each line and branch of the app must be run. Measuring takes half as long again, so that experiments,
# which run nothing of the app that other tests do not, are not measured. Of one part: make test ARGS="--cov tests/docs"
coverage: $(READY) clean-test-data
	$(BIN)/python -m pytest $(PARALLEL) --cov --ignore tests/browser --ignore tests/faults $(ARGS)
	$(BIN)/python -m pytest $(EXPERIMENTS) $(ARGS) tests/browser tests/faults

quick: $(READY) clean-test-data
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(ARGS)

faults: $(READY) clean-test-data
	SOAK_SECONDS=180 $(BIN)/python -m pytest $(EXPERIMENTS) --faults-report docs/faults.md $(ARGS) tests/faults

# Real clients against the gateway; they have a .venv of their own, with the Node programs in it.
clients: $(READY) $(CLIENTS_READY) clean-test-data
	$(BIN)/python -m pytest $(PARALLEL) -m clients $(ARGS) tests/clients

# The image of the Dockerfile, built on a Debian base without a container engine; as root, with buildah and debootstrap.
containers: $(READY)
	$(BIN)/python -m pytest -m containers $(ARGS) tests/containers

# Python x Django x redis-py x server; `.venv/bin/python -m nox` runs the corners.
matrix: $(READY)
	$(BIN)/python -m nox -s matrix $(ARGS)

lint: $(READY) $(PROSE_READY)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/python -c "from importlinter.cli import lint_imports_command; lint_imports_command()"
	$(PROSE)/bin/python -m codespell_lib $(PLAIN)

# The documentation, as build/docs; what builds it has a .venv of its own.
docs: $(DOCS_READY)
	$(DOCS)/bin/python -m zensical build --strict $(ARGS)
	$(DOCS)/bin/python docs/offline.py build/docs

# Programs of the .venv run by `python -m`: their own first lines hold a path that is wrong once the folder is moved.
$(READY): requirements.txt
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed: make PYTHON=python3.13 ...')"
	@echo "Installing requirements.txt into $(VENV), once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(DOCS_READY): docs/requirements.txt
	@echo "Installing docs/requirements.txt into $(DOCS), once"
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@touch $@

$(PROSE_READY): .ci/requirements.txt
	@echo "Installing .ci/requirements.txt into $(PROSE), once"
	@$(PYTHON) -m venv $(PROSE)
	@$(PROSE)/bin/python -m pip install --quiet --disable-pip-version-check -r .ci/requirements.txt
	@touch $@

$(CLIENTS_READY): tests/clients/requirements.txt tests/clients/package.json
	@echo "Installing tests/clients/requirements.txt and tests/clients/package.json into $(CLIENTS), once"
	@$(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	@cp tests/clients/package.json $(CLIENTS)
	@cd $(CLIENTS) && npm install --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@
