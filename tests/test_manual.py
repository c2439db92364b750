"""The manual as a whole, and the reader who follows it: what differs from a page is noticed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.machine import Machine, start_machine
from support.manual import DOCS, assert_output, blocks_of, follow, read_page
from tools import ROOT

PAGE = """# A page

1. Write `/etc/example.conf`:

    ```ini title="/etc/example.conf"
    NAME=value
    ```

2. Look at it:

    ```sh
    name=/etc/example.conf
    cat $name
    ```

    ```text
    NAME=value
    ```

## Later

```sh
echo "$name has $(wc -l <$name) line"; hostname
```

```text
/etc/example.conf has 9 line
...
```
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A throwaway machine."""
    with start_machine(tmp_path, ["influx.example.com"]) as running:
        yield running


def test_a_reader_follows_a_page(machine: Machine) -> None:
    follow(machine, blocks_of(PAGE))
    assert machine.read("/etc/example.conf") == "NAME=value\n"
    assert not Path("/etc/example.conf").exists()


def test_a_reader_follows_a_section(machine: Machine) -> None:
    machine.run("name=/etc/hosts")
    with pytest.raises(AssertionError, match="documented"):
        follow(machine, blocks_of(PAGE, ["Later"]))


def test_a_command_that_fails_is_noticed(machine: Machine) -> None:
    with pytest.raises(AssertionError, match="cat /missing: status 1"):
        machine.run("cat /missing\ntrue\n")


def test_the_stand_in_for_systemd_runs_a_unit_with_its_drop_in(machine: Machine) -> None:
    machine.add_unit("job.service", "[Service]\nType=oneshot\nExecStart=sh -c 'exit 3'\n")
    machine.write(
        "/etc/systemd/system/job.service.d/after.conf",
        "[Service]\nExecStopPost=-/bin/sh -c 'echo status $$EXIT_STATUS'\n",
    )
    assert machine.run("systemctl start job.service", may_fail=True) == "status 3\n"


@pytest.mark.parametrize(
    ("documented", "printed"),
    [
        ("at 2026-01-02 10:00", "at 2027-12-24 09:59"),
        ("first\n...\nlast", "first\nlast"),
        ("first\n...", "first\nsecond\nthird"),
        ("token ... made", "token Zm9v made"),
        ("a  1", "a      22"),
    ],
)
def test_an_output_may_differ_in_numbers_and_where_the_page_says_so(
    documented: str, printed: str
) -> None:
    assert_output(documented, printed)


@pytest.mark.parametrize(
    ("documented", "printed"),
    [("ready", "not ready"), ("one", "one\ntwo"), ("one\ntwo", "one"), ("status OK", "status due")],
)
def test_an_output_that_differs_otherwise_is_noticed(documented: str, printed: str) -> None:
    with pytest.raises(AssertionError):
        assert_output(documented, printed)


# ---- The manual as a whole ---------------------------------------------------------------------
PAGES = ["README.md", *sorted(path.name for path in DOCS.glob("*.md"))]


def sections_with_commands(page: str) -> set[str]:
    """Return the headings of a page under which a reader pastes something."""
    return {block.section for block in blocks_of(read_page(page)) if block.is_command}


def followed_headings(page: str) -> set[str]:
    """Return the strings in the test module of a page: the headings that it follows are in them."""
    name = page.removesuffix(".md").replace("-", "_").lower()
    module = Path(__file__).with_name(f"test_manual_{name}.py")
    if not module.exists():
        return set()
    nodes = ast.walk(ast.parse(module.read_text()))
    return {str(node.value) for node in nodes if isinstance(node, ast.Constant)}


# Sections whose commands no machine runs as they are, and what is tested instead.
NOT_FOLLOWED = {
    "grafana.md": {"Dashboard"},  # needs Grafana: test_dashboards.py runs the part before curl
    "kapacitor.md": {"Chronograf"},  # needs Chronograf: the same
    "servers.md": {
        "InfluxDB 3",  # cannot be built here
        "VictoriaMetrics",  # test_manual_servers.py starts vmauth with this file, without TLS
    },
}


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_every_section_are_run_by_a_test(page: str) -> None:
    exceptions = NOT_FOLLOWED.get(page, set())
    assert sections_with_commands(page) - exceptions <= followed_headings(page)


def sentences_of(page: str) -> set[str]:
    """Return the sentences of a page that have at least ten words, without its blocks."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", read_page(page))
    paragraphs = re.split(r"\n\s*\n|\n\s*(?:[-*|]|\d+\.) ", text)
    sentences = set()
    for paragraph in paragraphs:
        for sentence in re.split(r"(?<=[.!?:])\s", " ".join(paragraph.split())):
            if len(sentence.split()) >= 10:
                sentences.add(sentence)
    return sentences


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_of_a_page_stands_on_another_page(page: str) -> None:
    for other in PAGES:
        if other != page:
            assert not sentences_of(page) & sentences_of(other), other


def test_the_site_has_every_page() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    for path in DOCS.glob("*.md"):
        assert f"- {path.name}\n" in site


def test_every_file_that_the_manual_names_is_there() -> None:
    folders = "systemd|compose|flux|kapacitor|telegraf|prometheus|dashboards|board|deliver"
    for page in PAGES:
        for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", read_page(page)):
            assert (ROOT / path).exists(), f"{page}: {path}"


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", read_page("README.md")):
        assert (ROOT / target).exists(), target


def test_the_makefile_has_every_target_that_the_manual_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in [*PAGES, "CONTRIBUTING.md"]:
        for target in re.findall(r"(?:`|```sh\n)make ([a-z]+)[`\n]", read_page(page)):
            assert f"\n{target}:" in makefile, f"{page}: {target}"
