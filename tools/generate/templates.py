#!/usr/bin/env python3
"""Puts the queries of flux/ into the TICKscripts of kapacitor/templates/.

    python3 -m tools.generate.templates

So a dashboard shows what an alert judged. A script renewal_X.tick or certificate_X.tick has the
query X.flux; OTHER_NAMES has the exceptions. The parameters bucket, measurement, silence and crit
are taken from the vars of the script.
"""

from __future__ import annotations

import re
from pathlib import Path

from tools import ROOT
from tools.generate.queries import TEXT_PARAMETER, read_query

TEMPLATES = ROOT / "kapacitor" / "templates"

# The scripts that are not called as their queries: names to names of queries.
OTHER_NAMES = {"host_silent": "silent_hosts", "dry_run_failed": "dry_runs"}

# Matches the query in a script: what is between |queryFlux(''' and '''), each on a line of its own.
SCRIPT_QUERY = re.compile(r"(?<=\|queryFlux\('''\n).*?(?='''\)\n)", re.DOTALL)

# Matches a threshold at the top of a query: crit = 1.0
THRESHOLD = re.compile(r"^(?P<name>silence|crit) = [\d.]+$", re.MULTILINE)


def query_name(script: Path) -> str:
    """Return the name of the query of a script."""
    name = script.stem.removeprefix("renewal_").removeprefix("certificate_")
    return OTHER_NAMES.get(name, name)


def text_from_var(match: re.Match[str]) -> str:
    """Return a text parameter, taken from the script's var: bucket = "''' + bucket + '''"."""
    return f"{match['name']} = \"''' + {match['name']} + '''\""


def number_from_var(match: re.Match[str]) -> str:
    """Return a threshold, taken from the script's var: crit = ''' + string(crit) + '''."""
    return f"{match['name']} = ''' + string({match['name']}) + '''"


def with_query(script: Path) -> str:
    """Return the text of a TICKscript with its query as it is in flux/ now."""
    query = read_query(query_name(script)) + "\n"
    query = TEXT_PARAMETER.sub(text_from_var, query)
    query = THRESHOLD.sub(number_from_var, query)
    return SCRIPT_QUERY.sub(lambda _: query, script.read_text(), count=1)


if __name__ == "__main__":
    for path in sorted(TEMPLATES.glob("*.tick")):
        path.write_text(with_query(path))
