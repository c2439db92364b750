"""How the manual is tested: blocks of a page, a throwaway machine, and what differs is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.machine import Machine, start_machine
from support.manual import assert_output, blocks_of, follow

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
