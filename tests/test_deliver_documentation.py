"""docs/deliver.md has what the deliver hook has."""

from __future__ import annotations

import re
from pathlib import Path

import certbot_renewal_deliver
from support.documents import rows_of
from tools import ROOT

DELIVER = (ROOT / "docs" / "deliver.md").read_text()


def test_the_options_of_targets_are_documented_as_the_code_has_them() -> None:
    documented = {}
    header = "| kind | option | default | meaning |"
    for kind, option, default, meaning in rows_of(DELIVER, "Options", header):
        documented[kind, option] = (default, meaning)
    options = {}
    for kind, table in certbot_renewal_deliver.option_tables().items():
        for name, declared in table.items():
            default = certbot_renewal_deliver.default_in_words(declared).strip("()")
            options[kind, name] = (default, declared.meaning)
    assert documented == options


def test_the_example_of_targets_is_read_without_a_problem(tmp_path: Path) -> None:
    (example,) = re.findall(r"```\n(\[\[haproxy\]\].*?)```", DELIVER, re.DOTALL)
    (tmp_path / certbot_renewal_deliver.TOML_FILE).write_text(example)
    names = [target.name for target in certbot_renewal_deliver.read_targets(str(tmp_path))]
    assert names == [
        "haproxy",
        "web/web1.example.com",
        "web/deploy@web2.example.com:2222",
        "vault",
        "mail",
    ]


def test_every_command_of_the_deliver_hook_is_documented() -> None:
    for option in ("--all", "--check", "restore"):
        assert f"certbot_renewal_deliver.py {option}" in DELIVER
