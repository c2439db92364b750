"""Certificates on disk in the ages that the tests need."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import NamedTuple

from tools.servers.lineages import DAY, make_lineage

# A server that refuses connections, and a timeout that does not make a test wait.
UNREACHABLE = {"INFLUXDB_URL": "http://127.0.0.1:1", "INFLUXDB_TIMEOUT": "0.1"}


def make_aged_lineage(folder: Path, lineage: str, days: int, *names: str) -> Path:
    """Make a certificate of 90 days that is so many days old; return its folder in live/.

    Without names it is for LINEAGE.example.com.
    """
    not_before = int(time.time()) - days * DAY
    return make_lineage(
        folder, lineage, list(names) or [f"{lineage}.example.com"], not_before, 90 * DAY
    )


def make_empty_folders(folder: Path) -> None:
    """Make the folders that certbot has before its first certificate."""
    for name in ("live", "renewal"):
        (folder / name).mkdir()


def remove_files(folder: Path, lineage: str) -> None:
    """Remove the files of a lineage from live/ and archive/; its renewal configuration stays."""
    for place in ("live", "archive"):
        shutil.rmtree(folder / place / lineage)


def remove_lineage(folder: Path, lineage: str) -> None:
    """Remove a lineage as `certbot delete` does."""
    remove_files(folder, lineage)
    (folder / "renewal" / f"{lineage}.conf").unlink()


class LineageFiles(NamedTuple):
    """Where the files of a lineage are; `folder` is certbot's configuration folder."""

    folder: Path
    name: str

    @property
    def live(self) -> Path:
        """The folder with the links."""
        return self.folder / "live" / self.name

    @property
    def archive(self) -> Path:
        """The folder with the files to which the links lead."""
        return self.folder / "archive" / self.name

    @property
    def conf(self) -> Path:
        """The renewal configuration."""
        return self.folder / "renewal" / f"{self.name}.conf"
