"""What a page of the manual says, and which messages a program has."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path


# ---- Pages -------------------------------------------------------------------------------------
def section_of(page: str, title: str) -> str:
    """Return the text of a section of a page."""
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows_of(page: str, section: str, header: str) -> list[list[str]]:
    """Return the cells of each row of a table in a section, without backticks."""
    table = section_of(page, section).split(header + "\n")[1].split("\n\n")[0]
    rows = []
    for line in table.splitlines()[1:]:  # after the line of dashes
        cells = line.strip("|").replace("`", "").split("|")
        rows.append([cell.strip() for cell in cells])
    return rows


def headings(page: str) -> list[str]:
    """Return the headings of a page that begin with a message."""
    return re.findall(r"(?m)^### (`.*)$", page)


def literals(texts: Sequence[str]) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]*)`", " ".join(texts))


# ---- Programs ----------------------------------------------------------------------------------
def options_of_help(text: str) -> set[str]:
    """Return the long options in the output of --help."""
    return set(re.findall(r"(?m)^  (?:-h, )?(--[a-z-]+)", text))


def messages(*programs: Path) -> str:
    """Return all string constants of programs, one after the other, in one text.

    A literal that is broken over several lines is whole, and a placeholder of an f-string is "…",
    or its value if it is a constant of the program.
    """
    texts = []
    for program in programs:
        tree = ast.parse(program.read_text())
        constants = constants_of(tree)
        strings = [
            node for node in ast.walk(tree) if isinstance(node, (ast.Constant, ast.JoinedStr))
        ]
        texts += [text_of(string, constants) for string in strings]
    return "\n".join(texts)


def constants_of(tree: ast.Module) -> dict[str, str]:
    """Return the strings that a module assigns to names at its top level."""
    constants = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    constants[target.id] = str(node.value.value)
    return constants


def text_of(node: ast.expr, constants: Mapping[str, str]) -> str:
    """Return the text of a string, of an f-string, or of a placeholder; "…" if it is not known."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, constants) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return text_of(node.value, constants)
    if isinstance(node, ast.Name):
        return constants.get(node.id, "…")
    return "…"
