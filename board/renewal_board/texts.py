"""Times and names in words, and text without control characters."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from renewal_board.report_hook import hook

# What steers a terminal, or changes the direction of writing: control characters, and the marks and
# overrides of Unicode for text from right to left. And halves of surrogate pairs.
UNSAFE = re.compile(
    "[\x00-\x1f\x7f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]",
)

MOST_NAMES = 8  # at most this many names are shown
FIRST_NAMES = 6  # if there are more names, only this many are shown


def plain(text: str) -> str:
    """Return a text with a ? for each character that steers a terminal or turns text around."""
    return UNSAFE.sub("?", text)


def utc(moment: float) -> str:
    """Return a time in Unix seconds for people, "" for 0: not known."""
    return hook.utc(moment) if moment else ""


def iso(moment: int | None) -> str:
    """Return a time in Unix seconds for programs, "" for None: not known."""
    if moment is None:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def first_names(names: Sequence[str]) -> str:
    """Return the names as text, and only the first of them if they are many."""
    if len(names) <= MOST_NAMES:
        return " ".join(names)
    return f"{' '.join(names[:FIRST_NAMES])} and {len(names) - FIRST_NAMES} more"
