"""The files of the renewal board: the page that it replaces, its settings, and what it needs."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from support.board import BOARD, FleetSettings, run_board
from support.buckets import Bucket
from support.lineages import UNREACHABLE
from tools import ROOT
from tools.servers.lineages import REPORT_HOOK


# ---- The page ----------------------------------------------------------------------------------
@pytest.fixture
def settings(fleet_settings: FleetSettings) -> dict[str, str]:
    """The settings to read the fleet."""
    return fleet_settings("influxd-1.12")


def test_everybody_may_read_a_new_page_and_no_other_file_is_left(
    settings: dict[str, str], tmp_path: Path
) -> None:
    page = tmp_path / "board.html"
    assert run_board(settings, "--html", str(page)).status == 1
    assert stat.S_IMODE(page.stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["board.html"]


def test_a_page_is_replaced_behind_a_link_and_keeps_its_mode(
    settings: dict[str, str], tmp_path: Path
) -> None:
    page = tmp_path / "board.html"
    page.touch(0o640)
    link = tmp_path / "link.html"
    link.symlink_to(page)
    assert run_board(settings, "--html", str(link)).err == ""
    assert link.is_symlink()
    assert "example.net" in page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o640


def test_a_pipe_is_not_replaced(settings: dict[str, str], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    err = run_board(settings, "--html", str(pipe)).err
    assert "not a regular file: set --html to the path of a file" in err


def test_a_page_with_certificates_is_not_replaced_by_one_without(
    settings: dict[str, str], one_bucket: Bucket, tmp_path: Path
) -> None:
    page = tmp_path / "board.html"
    run_board(settings, "--html", str(page))
    assert run_board(one_bucket.settings, "--html", str(page)).status == 2
    assert "example.net" in page.read_text()


def test_a_page_that_cannot_be_written_has_its_remedy(
    settings: dict[str, str], tmp_path: Path
) -> None:
    page = tmp_path / "missing" / "board.html"
    assert "set --html to a file" in run_board(settings, "--html", str(page)).err


# ---- The settings ------------------------------------------------------------------------------
def write_env_file(path: Path, settings: dict[str, str]) -> None:
    """Write settings into an env file."""
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    path.write_text("".join(lines))


def test_settings_come_from_a_file(settings: dict[str, str], tmp_path: Path) -> None:
    env_file = tmp_path / "board.env"
    write_env_file(env_file, settings)
    run = run_board({}, "--env", str(env_file), "--json")
    assert (run.status, run.err) == (1, "")  # nothing is secret: this InfluxDB asks for no token


def test_a_token_that_everybody_may_read_is_a_warning(
    settings: dict[str, str], tmp_path: Path
) -> None:
    env_file = tmp_path / "board.env"
    write_env_file(env_file, {**settings, "INFLUXDB_TOKEN": "fake:token"})
    env_file.chmod(0o644)
    assert f": chmod o= {env_file}\n" in run_board({}, "--env", str(env_file), "--json").err


def test_an_env_file_that_is_missing_has_its_remedy(tmp_path: Path) -> None:
    assert "correct --env" in run_board({}, "--env", str(tmp_path / "missing"), "--json").err


# ---- What it needs -----------------------------------------------------------------------------
@pytest.fixture
def installed_board(tmp_path: Path) -> Path:
    """The board as docs/board.md says to copy it: board/, flux/ and the report hook."""
    for folder in ("board", "flux"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(REPORT_HOOK, tmp_path)
    return tmp_path / "board" / BOARD.name


def test_the_board_works_where_the_manual_has_it_copied(
    settings: dict[str, str], installed_board: Path, tmp_path: Path
) -> None:
    page = tmp_path / "board.html"
    assert run_board(settings, "--html", str(page), board=installed_board).err == ""
    assert "example.net" in page.read_text()


def test_a_missing_report_hook_is_one_line(installed_board: Path) -> None:
    folder = installed_board.parents[1]
    (folder / REPORT_HOOK.name).unlink()
    run = run_board({}, board=installed_board)
    line = (
        f"certbot_renewal_board: no certbot_renewal_report.py in {folder}: copy it to this folder\n"
    )
    assert (run.status, run.out, run.err) == (2, "", line)


def test_a_report_hook_of_another_version_is_one_line(installed_board: Path) -> None:
    report_hook = installed_board.parents[1] / REPORT_HOOK.name
    text = report_hook.read_text().replace('__version__ = "', '__version__ = "9.')
    report_hook.write_text(text.replace("Remedy(", "OtherRemedy("))  # and lacks what it needs
    run = run_board({}, board=installed_board)
    assert (run.status, run.out) == (2, "")
    assert f"certbot_renewal_board: {report_hook} is version 9." in run.err
    assert "certbot_renewal_board.py is version" in run.err
    assert "copy both from the same release" in run.err


def test_a_missing_query_is_one_line(installed_board: Path) -> None:
    flux = installed_board.parents[1] / "flux"
    shutil.rmtree(flux)
    run = run_board(dict(UNREACHABLE), board=installed_board)
    assert run.status == 2
    assert f"{flux}: No such file or directory: copy the folder flux/ beside" in run.err


def test_a_missing_file_of_the_page_is_one_line(
    settings: dict[str, str], installed_board: Path, tmp_path: Path
) -> None:
    style = installed_board.parent / "board.css"
    style.unlink()
    run = run_board(settings, "--html", str(tmp_path / "page.html"), board=installed_board)
    assert run.status == 2
    assert f"{style}: No such file or directory: copy the whole folder board/" in run.err


@pytest.mark.parametrize(
    ("module", "html", "remedy"),
    [
        ("rich", False, "apt-get install python3-rich"),
        ("jinja2", True, "apt-get install python3-jinja2"),
    ],
)
def test_a_missing_library_has_its_remedy(
    settings: dict[str, str], tmp_path: Path, module: str, html: bool, remedy: str
) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError(name={module!r})")
    arguments = ["--html", str(tmp_path / "board.html")] if html else []
    err = run_board({**settings, "PYTHONPATH": str(tmp_path)}, *arguments).err
    assert f"no {module} for {sys.executable}: " in err
    assert remedy in err
