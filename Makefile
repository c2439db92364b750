# Everything that a fresh checkout needs happens in here; see the README.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/certbot-renewal-report
PYTHON ?= python3
VENV := $(CACHE)/venv

.PHONY: test demo bench simulation servers pythons lint

test: $(VENV)/ready servers pythons lint
	$(VENV)/bin/python -m pytest -q -rs -n 4 --dist worksteal

demo: $(VENV)/ready
	$(PYTHON) tools/build_servers.py influxd-1.8 kapacitor pebble
	$(VENV)/bin/python tools/demo.py

bench: $(VENV)/ready
	$(PYTHON) tools/build_servers.py influxd-1.8 influxd-1.12 influxd-2 kapacitor
	$(VENV)/bin/python tools/bench.py
	$(VENV)/bin/python tools/bench_alerts.py

simulation: $(VENV)/ready
	$(PYTHON) tools/build_servers.py influxd-1.12 influxd-2
	PYTHONPATH=. $(VENV)/bin/python tools/simulate.py

servers:  # without them their tests are skipped, and fail in CI
	-$(PYTHON) tools/build_servers.py

pythons:
	$(PYTHON) tools/pythons.py

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet '.[test]'
	$(VENV)/bin/pip uninstall --quiet --yes certbot-renewal-report  # the tests use the checkout
	touch $@
