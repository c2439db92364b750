"""The board as an HTML page: one file that needs nothing else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from renewal_board.chart import chart_of
from renewal_board.commands import DEPLOY_HOOKS, POST_HOOKS
from renewal_board.exports import CSV_HEADER, csv_rows
from renewal_board.model import DAY, STATES, Card, Fleet
from renewal_board.report_hook import hook
from renewal_board.reports import Source
from renewal_board.texts import iso, utc

ASSETS = Path(__file__).resolve().parents[1]  # board.html, board.css and board.js
EMPTY_PAGE = '<section class="empty">'  # a page without any certificate has this
NEW_PAGE_MODE = 0o644  # a web server must be able to read it
LONGEST_PREFIX = 200  # a file's name has 255 characters at most


def page_html(fleet: Fleet, source: Source, measurement: str, max_age: int) -> str:
    """Return the page; `max_age`: the age in seconds from which on it warns that it is old.

    Its Content-Security-Policy allows the browser nothing but its own style and script. Raise
    ModuleNotFoundError if Jinja2 is missing, a ReportError if a file of the board is.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(utc=utc, iso=iso)
    style = read_asset("board.css")
    script = read_asset("board.js")
    return environment.from_string(read_asset("board.html")).render(
        fleet=fleet,
        columns=columns_of(fleet),
        states=STATES,
        chart=chart_of(fleet),
        history={"header": CSV_HEADER, "rows": csv_rows(fleet.renewals)},
        style=style,
        style_hash=csp_hash(style),
        script=script,
        script_hash=csp_hash(script),
        max_age=max_age,
        where=source.place,
        measurement=measurement,
        day=DAY,
        deploy_hooks=DEPLOY_HOOKS,
        post_hooks=POST_HOOKS,
    )


def columns_of(fleet: Fleet) -> dict[str, list[Card]]:
    """Return the cards by state, in the order of the board."""
    columns: dict[str, list[Card]] = {state: [] for state in STATES}
    for card in fleet.cards:
        columns[card.state].append(card)
    return columns


def read_asset(name: str) -> str:
    """Return the text of a file of the board; raise a ReportError if it cannot be read."""
    path = ASSETS / name
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise hook.ReportError(f"{path}: {error.strerror}: copy the whole folder board/") from None


def csp_hash(text: str) -> str:
    """Return the source expression that allows a style or a script in a Content-Security-Policy."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def write_page(path: Path, text: str) -> None:
    """Replace a page as a whole: at any time, it is the old page or the new page.

    An existing page keeps its mode, a symbolic link its place. Raise a ReportError.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise hook.ReportError(f"{path}: not a regular file: set --html to the path of a file")
    try:
        replace_file(path, text)
    except OSError as error:
        raise hook.ReportError(
            f"{path}: {error.strerror}: set --html to a file that can be written"
        ) from None


def replace_file(path: Path, text: str) -> None:
    """Write a file beside the old one, then rename it; raise OSError."""
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else NEW_PAGE_MODE
    prefix = f".{path.name[:LONGEST_PREFIX]}."
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=prefix, delete=False
    ) as file:
        try:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise


def is_page_with_certificates(path: Path) -> bool:
    """Return whether there is a page that one without certificates must not replace."""
    with contextlib.suppress(OSError):
        return EMPTY_PAGE not in path.read_text(encoding="utf-8", errors="replace")
    return False
