"""The queries of flux/, from which templates, dashboards and alerts are generated."""

from __future__ import annotations

import re

from tools import ROOT

# Matches the parameters that are text, at the top of a query: bucket = "telegraf"
TEXT_PARAMETER = re.compile(r'^(?P<name>bucket|measurement) = ".*"$', re.MULTILINE)


def read_query(name: str) -> str:
    """Return the text of a query, without the line break at its end."""
    return (ROOT / "flux" / f"{name}.flux").read_text().rstrip()
