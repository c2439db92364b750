#!/usr/bin/env python3
"""Puts the queries of flux/ into the TICKscripts of kapacitor/templates/, so that a dashboard shows what an alert saw.

    python3 tools/put_queries.py

A script renewal_X.tick holds X.flux, and host_silent.tick silent_hosts.flux, with their parameters bucket and measurement taken from
the script's vars.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "kapacitor" / "templates"
QUERY = re.compile(r"(?<=\|queryFlux\('''\n).*?(?='''\)\n)", re.DOTALL)
PARAMETER = re.compile(r'(?m)^(bucket|measurement) = ".*"$')


def with_query(script: Path) -> str:
    """The text of a TICKscript with its query as flux/ has it now."""
    name = "silent_hosts" if script.stem == "host_silent" else script.stem.removeprefix("renewal_")
    query = (ROOT / "flux" / f"{name}.flux").read_text()
    spliced = PARAMETER.sub(lambda found: f"{found[1]} = \"''' + {found[1]} + '''\"", query)
    return QUERY.sub(lambda _: spliced, script.read_text(), count=1)


if __name__ == "__main__":
    for path in sorted(TEMPLATES.glob("*.tick")):
        path.write_text(with_query(path))
