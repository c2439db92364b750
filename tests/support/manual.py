"""Pages of the manual: their blocks, and a reader who follows them on a throwaway machine.

The language and the title of a fenced block say what a reader does with it:

    ```sh                                 pastes these commands as root
    ```text                               compares this with what the commands above printed
    ```text title="Mail"                  waits for this mail: its subject, and lines of its text
    ```ini title="/etc/example.conf"      writes this file; any language may have a path as title

All other blocks are examples that a reader only looks at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from typing import NamedTuple

from support.machine import Machine
from tools import ROOT
from tools.servers.processes import wait_for

DOCS = ROOT / "docs"
MAIL = "Mail"
MAIL_SECONDS = 240

FENCE = re.compile(
    r"""
    ^ (?P<indent> [ ]* ) ``` (?P<language> \w+ ) (?: [ ] title="(?P<title> [^"]+ )" )? \n
    (?P<text> .*? )
    ^ (?P=indent) ``` $
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)

# Matches: ## Prove the mail and the recovery
HEADING = re.compile(r"^#{1,4} (?P<title>.+)$", re.MULTILINE)

# What differs from run to run: dates, times, versions, sizes, and ids of InfluxDB.
VOLATILE = re.compile(r"\b[0-9a-f]{16}\b|\d+(?:[.,:T-]\d+)*Z?")


class Block(NamedTuple):
    """A fenced block of a page: its language, its title ("" without), its text, its section."""

    language: str
    title: str
    text: str
    section: str

    @property
    def is_file(self) -> bool:
        """Whether this is the content of a file."""
        return self.title.startswith("/")

    @property
    def is_mail(self) -> bool:
        """Whether this is a mail that the reader gets."""
        return self.title == MAIL

    @property
    def is_command(self) -> bool:
        """Whether this is something to paste."""
        return self.language == "sh" and not self.title

    @property
    def is_output(self) -> bool:
        """Whether this is what commands print."""
        return self.language == "text" and not self.title


def read_page(name: str) -> str:
    """Return the text of a page: of docs/, as `install.md`, or of its parent, as `README.md`."""
    folder = ROOT if (ROOT / name).exists() else DOCS
    return (folder / name).read_text()


def blocks_of(page: str, sections: Sequence[str] = ()) -> list[Block]:
    """Return the blocks of a page in their order; with `sections` those under these headings.

    A section is named by its heading. It does not include the sections below it that have headings
    of their own.
    """
    blocks = [block for block in all_blocks(page) if not sections or block.section in sections]
    missing = set(sections) - {block.section for block in blocks}
    assert not missing, f"no block under {missing}"
    return blocks


def all_blocks(page: str) -> Iterator[Block]:
    """Yield every fenced block of a page."""
    # A comment of a command also begins with #: headings are outside of blocks.
    outside = FENCE.sub(lambda fence: " " * len(fence[0]), page)
    for fence in FENCE.finditer(page):
        headings = HEADING.findall(outside[: fence.start()])
        indent = fence["indent"]
        lines = fence["text"].splitlines(keepends=True)
        text = "".join(line.removeprefix(indent) for line in lines)
        section = headings[-1] if headings else ""
        yield Block(fence["language"], fence["title"] or "", text, section)


# ---- What a page says is printed ---------------------------------------------------------------
def normalized(line: str) -> str:
    """Return a line without what differs from run to run."""
    return VOLATILE.sub("0", " ".join(line.split()))


def output_pattern(text: str) -> re.Pattern[str]:
    """Return what matches a documented output, line by line and normalized.

    A line `...` stands for any lines, and `...` in a line for anything.
    """
    pattern = ""
    for line in text.splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*"
        else:
            parts = [re.escape(normalized(part)) for part in line.split("...")]
            pattern += ".*".join(parts) + r"\n"
    return re.compile(pattern)


def assert_output(documented: str, printed: str) -> None:
    """Assert that commands printed what a page says."""
    lines = "".join(f"{normalized(line)}\n" for line in printed.splitlines())
    is_documented = output_pattern(documented).fullmatch(lines)
    assert is_documented, f"documented:\n{documented}\nprinted:\n{printed}"


def is_documented_mail(documented: str, mail: EmailMessage) -> bool:
    """Return whether a mail has the documented subject, and all documented lines in its text."""
    subject, *lines = documented.splitlines()
    body = mail.get_body()
    content = body.get_content() if body else ""
    # Most mails are HTML. A reader sees it without tags.
    text = normalized(re.sub(r"<[^>]+>", " ", content))
    expected = normalized(subject.removeprefix("Subject: "))
    if expected != normalized(str(mail["Subject"])):
        return False
    return all(normalized(line) in text for line in lines)


# ---- A reader ----------------------------------------------------------------------------------
def follow(machine: Machine, blocks: Sequence[Block]) -> None:
    """Do what blocks say, in their order, and compare what is printed and what is mailed."""
    printed = ""
    for block in blocks:
        if block.is_file:
            machine.write(block.title, block.text)
        elif block.is_mail:
            await_mail(machine, block.text)
        elif block.is_command:
            printed = machine.run(block.text)
        elif block.is_output:
            assert_output(block.text, printed)


def follow_page(machine: Machine, name: str, *sections: str) -> None:
    """Follow a page, or some sections of it."""
    follow(machine, blocks_of(read_page(name), sections))


def await_mail(machine: Machine, documented: str) -> None:
    """Wait for a mail that a page shows."""

    def has_come() -> bool:
        return any(is_documented_mail(documented, mail) for mail in machine.inbox.mails)

    try:
        wait_for(has_come, "the mail", MAIL_SECONDS)
    except TimeoutError:
        subjects = "\n".join(machine.inbox.subjects())
        raise AssertionError(f"no mail like this:\n{documented}\nbut:\n{subjects}") from None
