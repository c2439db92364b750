# Everything that a fresh checkout needs is made here; see CONTRIBUTING.md.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/certbot-renewal-report
PYTHON ?= python3
VENV := $(CACHE)/venv
MUTATION := $(CACHE)/venv-mutation
PYTEST := $(VENV)/bin/python -m pytest -q

.PHONY: check docs lint test demo pictures bench scale simulation faults mutants servers pythons

check: lint  # under a minute: lint, and the tests that need no server
	WITHOUT_SERVERS=1 $(PYTEST) -n 4 --dist load --maxschedchunk 1

lint: $(VENV)/ready docs
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/ready  # the manual as a site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict --site-dir $(CACHE)/site

test: $(VENV)/ready servers pythons lint  # everything, on the real servers
	$(PYTEST) -rs -n 6 --dist loadfile --no-loadscope-reorder  # a module shares its servers

demo: $(VENV)/ready
	$(PYTHON) -m tools.servers.build influxd-1.8 kapacitor pebble
	$(VENV)/bin/python -m tools.demo

pictures: $(VENV)/ready  # of the README
	$(PYTHON) -m tools.servers.build influxd-1.8 chromium
	$(VENV)/bin/python -m tools.pictures

bench: $(VENV)/ready
	$(PYTHON) -m tools.servers.build influxd-1.8 influxd-1.12 influxd-2 kapacitor vault haproxy sshd ssh chromium victoria-metrics
	$(VENV)/bin/python -m tools.benchmarks.hook
	$(VENV)/bin/python -m tools.benchmarks.deliver
	$(VENV)/bin/python -m tools.benchmarks.alerts
	$(VENV)/bin/python -m tools.benchmarks.board

simulation: $(VENV)/ready
	$(PYTHON) -m tools.servers.build influxd-1.12 influxd-2 victoria-metrics
	$(VENV)/bin/python -m tools.simulation.simulate

faults: $(VENV)/ready  # the long form; SEED=… repeats a run
	$(PYTHON) -m tools.servers.build influxd-1.12 influxd-2
	$(VENV)/bin/python -m tools.faults.trials $(addprefix --seed ,$(SEED))
	FAULTS_EXAMPLES=5000 $(VENV)/bin/python -m pytest -q tests/test_interrupted_*.py tests/test_faulty_disks.py tests/test_report_properties.py tests/test_odd_input.py
	$(PYTHON) -m tools.servers.build vault haproxy nginx sshd ssh
	RENEWALS=20 $(VENV)/bin/python -m pytest -q -rP tests/test_target_haproxy.py tests/test_deliver.py

ONLY ?= *
mutants: $(MUTATION)/ready  # of the report hook, in a copy; ONLY='*[37]': a fifth of them, by the last digit
	$(PYTHON) -m tools.servers.build influxd-1.12
	rm -rf $(CACHE)/mutants && mkdir $(CACHE)/mutants
	git ls-files -z | xargs -0 cp --parents -t $(CACHE)/mutants
	cd $(CACHE)/mutants && FAULTS_EXAMPLES=20 TMPDIR=/dev/shm $(MUTATION)/bin/mutmut run --max-children 1 '$(ONLY)'
	cd $(CACHE)/mutants && $(MUTATION)/bin/mutmut results

scale: $(VENV)/ready
	$(PYTHON) -m tools.servers.build influxd-1.8 influxd-1.12 influxd-2 kapacitor telegraf victoria-metrics vmalert prometheus-alertmanager
	$(VENV)/bin/python -m tools.benchmarks.scale

servers:  # if one cannot be built, its tests are skipped; in CI they fail
	-$(PYTHON) -m tools.servers.build

pythons:
	$(PYTHON) -m tools.servers.pythons

$(MUTATION)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(MUTATION)
	$(MUTATION)/bin/pip install --quiet '.[test,mutation]'
	$(MUTATION)/bin/pip uninstall --quiet --yes certbot-renewal-report
	touch $@

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet '.[test]'
	$(VENV)/bin/pip uninstall --quiet --yes certbot-renewal-report  # the tests use the checkout
	touch $@
