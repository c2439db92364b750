"""The formats of generated files: JSON, and YAML in which queries are readable."""

from __future__ import annotations

import json
from typing import Any

import yaml

Json = dict[str, Any]


class BlockDumper(yaml.SafeDumper):
    """Writes text of several lines as a block of lines, and no references to values."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value in full at each place."""
        return True


def represent_text(dumper: BlockDumper, text: str) -> yaml.ScalarNode:
    """Return text for YAML: as a block if it has several lines."""
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


BlockDumper.add_representer(str, represent_text)


def to_yaml(value: Json) -> str:
    """Return YAML, the keys in their order."""
    return yaml.dump(value, Dumper=BlockDumper, sort_keys=False, width=1000, allow_unicode=True)


def to_json(value: Json) -> str:
    """Return JSON, indented, with a line break at the end."""
    return json.dumps(value, indent=2) + "\n"
