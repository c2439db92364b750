"""What a page of the manual says, and which messages a program has."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


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


class Entry(NamedTuple):
    """An entry of the page of messages: the message, and who prints it, "" if not named."""

    message: str
    source: str


def message_entries(page: str) -> list[Entry]:
    """Return the entries of the page of messages, in their order."""
    entries = []
    for text in page.split("\n### `")[1:]:
        source = re.search(r"(?m)^- \*From\*: (.*)$", text)
        entries.append(Entry(text.partition("`\n")[0], source[1] if source else ""))
    return entries


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


# Functions and classes whose arguments are messages.
MESSAGE_CALLS = ("ReportError", "SendResult", "warn", "error", "exit")

# What is assigned or added to a variable of this name, or returned by a function of this name, is a
# message: problems, remedy, secret_warnings
MESSAGE_NAME = re.compile(r"(^|_)(problem|problems|remedy|warning|warnings)$")


def error_messages(*programs: Path) -> list[str]:
    """Return the errors and warnings of programs; a placeholder of an f-string is "…".

    Texts of one word, and texts without fixed words are left out.
    """
    texts = []
    for program in programs:
        tree = ast.parse(program.read_text())
        constants = constants_of(tree)
        for node in ast.walk(tree):
            for part in message_parts(node):
                texts += texts_in(part, constants)
    return [text for text in texts if " " in text and pieces_of(text)]


LEAST_CHARACTERS = 10  # of a piece of a message that identifies the message
PLACEHOLDER = re.compile(r"…|\{\w+\}")


def pieces_of(message: str) -> list[str]:
    """Return the fixed words between the placeholders of a message, without short pieces."""
    pieces = [piece.strip(" :,;.()") for piece in PLACEHOLDER.split(message)]
    return [piece for piece in pieces if len(piece) >= LEAST_CHARACTERS]


def message_parts(node: ast.AST) -> Sequence[ast.expr]:
    """Return the expressions in a node, not in those below it, that are messages."""
    if isinstance(node, ast.Call) and name_of(node.func) == "Remedy":
        return node.args[1:]  # the first argument is a pattern
    if isinstance(node, ast.Call) and name_of(node.func) in MESSAGE_CALLS:
        return node.args
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        is_added = node.func.attr in ("append", "extend")
        return node.args if is_added and MESSAGE_NAME.search(name_of(node.func.value)) else []
    if isinstance(node, ast.AugAssign) and MESSAGE_NAME.search(name_of(node.target)):
        return [node.value]
    if isinstance(node, ast.Assign) and MESSAGE_NAME.search(name_of(node.targets[0])):
        return [node.value]
    if isinstance(node, ast.FunctionDef) and MESSAGE_NAME.search(node.name):
        returns = [below for below in ast.walk(node) if isinstance(below, ast.Return)]
        return [below.value for below in returns if below.value]
    return []


def name_of(node: ast.expr) -> str:
    """Return the last word of a name: `problems` of `self.problems`, "" if it is not a name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def texts_in(node: ast.AST, constants: Mapping[str, str]) -> list[str]:
    """Return the strings in an expression: literals, f-strings as a whole, and constants."""
    if isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    ):
        return [text_of(node, constants)]
    if isinstance(node, ast.Name):
        return [constants[node.id]] if node.id in constants else []
    texts = []
    for below in ast.iter_child_nodes(node):
        texts += texts_in(below, constants)
    return texts


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
