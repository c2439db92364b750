"""docs/messages.md explains every message of the programs, and no other one."""

from __future__ import annotations

import re
from pathlib import Path

from support.documents import Entry, error_messages, message_entries, messages, pieces_of
from tools import ROOT
from tools.servers.lineages import REPORT_HOOK, RUN_REPORT

PAGE = (ROOT / "docs" / "messages.md").read_text()
ENTRIES = message_entries(PAGE)

# The programs whose messages the entries are, by the text after *From*.
PROGRAMS: dict[str, list[Path]] = {
    "every program": [REPORT_HOOK],
    "": [REPORT_HOOK, RUN_REPORT],
    "the deliver hook": [*sorted((ROOT / "deliver").rglob("*.py")), REPORT_HOOK],
    "the board": [*sorted((ROOT / "board").rglob("*.py")), REPORT_HOOK],
}

FOREIGN_SOURCES = {
    "Grafana",
    "Kapacitor's log",
    "Kapacitor's log, Grafana, Chronograf",
    "Kapacitor's log, the runs of a task in InfluxDB 2",
    "the command line of every program",
}

# Words of servers, libraries and the system in the messages of our programs.
FOREIGN_WORDS = re.compile(
    r"""
    answered [ ] (?: \d\d\d | [45]… | 40… )
    | certificate [ ] verify [ ] failed
    | max-values-per-tag [ ] limit [ ] exceeded
    | No [ ] such [ ] file [ ] or [ ] directory
    | Permission [ ] denied
    """,
    re.VERBOSE,
)


def words_of(message: str) -> list[str]:
    """Return the words by which the page is sorted."""
    return re.findall(r"[a-z0-9]+", message.lower())


def own_pieces(entry: Entry) -> list[str]:
    """Return the fixed pieces of an entry's message, without the words of others."""
    return pieces_of(FOREIGN_WORDS.sub("…", entry.message))


def test_the_messages_are_in_alphabetical_order_and_each_has_one_entry() -> None:
    assert len(ENTRIES) > 70
    entries = [entry.message for entry in ENTRIES]
    assert entries == sorted(entries, key=words_of)
    assert len(set(entries)) == len(entries)


def test_every_message_has_a_cause_and_a_remedy() -> None:
    for text in PAGE.split("\n### ")[1:]:
        assert "\n- *Cause*: " in text, text
        assert "\n- *Remedy*: " in text, text


def test_every_entry_is_a_message_of_its_program() -> None:
    assert {entry.source for entry in ENTRIES} <= {*PROGRAMS, *FOREIGN_SOURCES}
    for source, programs in PROGRAMS.items():
        printed = messages(*programs)
        for entry in ENTRIES:
            if entry.source == source:
                assert own_pieces(entry), entry
                assert [piece for piece in own_pieces(entry) if piece not in printed] == [], entry


def test_every_message_of_the_report_hook_and_the_run_report_has_an_entry() -> None:
    own_entries = [entry for entry in ENTRIES if entry.source in ("", "every program")]
    explained = [piece for entry in own_entries for piece in own_pieces(entry)]
    printed = error_messages(REPORT_HOOK, RUN_REPORT)
    assert len(printed) > 50
    missing = [text for text in printed if not any(piece in text for piece in explained)]
    assert missing == []
