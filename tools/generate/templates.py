#!/usr/bin/env python3
"""Puts the queries of flux/ into the TICKscripts of kapacitor/templates/, so that a dashboard shows what an alert saw.

    python3 -m tools.generate.templates

A script renewal_X.tick or certificate_X.tick holds X.flux, and host_silent.tick silent_hosts.flux, with their parameters bucket,
measurement, silence and crit taken from the script's vars.
"""

from __future__ import annotations

import re
from pathlib import Path

from tools import ROOT

TEMPLATES = ROOT / "kapacitor" / "templates"
QUERY = re.compile(r"(?<=\|queryFlux\('''\n).*?(?='''\)\n)", re.DOTALL)
TEXT = re.compile(r'(?m)^(bucket|measurement) = ".*"$')
NUMBER = re.compile(r"(?m)^(silence|crit) = [\d.]+$")


def with_query(script: Path) -> str:
    """The text of a TICKscript with its query as flux/ has it now."""
    name = (
        "silent_hosts"
        if script.stem == "host_silent"
        else script.stem.removeprefix("renewal_").removeprefix("certificate_")
    )
    query = (ROOT / "flux" / f"{name}.flux").read_text()
    spliced = TEXT.sub(lambda found: f"{found[1]} = \"''' + {found[1]} + '''\"", query)
    spliced = NUMBER.sub(lambda found: f"{found[1]} = ''' + string({found[1]}) + '''", spliced)
    return QUERY.sub(lambda _: spliced, script.read_text(), count=1)


if __name__ == "__main__":
    for path in sorted(TEMPLATES.glob("*.tick")):
        path.write_text(with_query(path))
