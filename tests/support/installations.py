"""A throwaway machine with a certbot and an InfluxDB 2, for the pages about one host.

Its certbot has two certificates that were issued before anything was installed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.buckets import new_token
from support.machine import HOST, Machine, start_machine
from support.manual import blocks_of, follow, read_page
from support.points import Points, renewals_of, run_points, state_of
from tools.servers.influxdb import ORG, InfluxDB

SERVER = "influx.example.com"
BUCKET = "certbot"
LINEAGES = ("example.com", "www.example.net")
BARE = "bare"
INSTALLED = "installed"
CONFIGURATION = "letsencrypt systemd/system cron.d"  # in /etc
RUN_REPORT = "/etc/letsencrypt/renewal-hooks/post/certbot_renewal_run.py"


@dataclass
class Host:
    """A machine, and the InfluxDB to which it reports; `token` may write."""

    machine: Machine
    influxdb: InfluxDB
    token: str

    def follow(self, page: str, *sections: str) -> None:
        """Follow a page, or some sections of it, with a token that is valid."""
        text = read_page(page).replace("fake-token", self.token)
        follow(self.machine, blocks_of(text, sections))

    def points(self) -> Points:
        """Return all that is in the bucket."""
        with self.machine.network():
            return self.influxdb.points(BUCKET)

    def state_of(self, lineage: str) -> dict[str, int]:
        """Return the numbers in the newest state of a lineage."""
        return state_of(self.points(), lineage)

    def renewals_of(self, lineage: str) -> set[int]:
        """Return the times of all renewals of a lineage."""
        return renewals_of(self.points(), lineage)

    def runs(self) -> list[dict[str, str]]:
        """Return the fields of all points about runs of certbot, the oldest first."""
        return run_points(self.points())

    def exists(self, path: str) -> bool:
        """Return whether a path, or anything that matches a pattern, exists on the machine."""
        return self.machine.run(f"ls -d {path} 2>/dev/null", may_fail=True) != ""

    # ---- States of the machine -----------------------------------------------------------------
    def save(self, state: str) -> None:
        """Save the configuration of the machine, under a name."""
        self.machine.run(f"tar -C /etc -cf /srv/{state}.tar {CONFIGURATION}")

    def restore(self, state: str) -> None:
        """Restore a configuration that was saved, and empty the bucket."""
        self.machine.run(
            f"cd /etc && rm -rf {CONFIGURATION} && tar -xf /srv/{state}.tar && hostname {HOST}\n"
            f"cd {self.machine.checkout}"
        )
        self.empty_bucket()

    def empty_bucket(self) -> None:
        """Delete all that is in the bucket."""
        with self.machine.network():
            self.influxdb.post(
                f"/api/v2/delete?org={ORG}&bucket={BUCKET}",
                start="1970-01-01T00:00:00Z",
                stop="2200-01-01T00:00:00Z",
            )


@contextlib.contextmanager
def start_host(folder: Path) -> Iterator[Host]:
    """Start the machine.

    Two states of it are saved: BARE, without any program of this project, and INSTALLED, with what
    docs/install.md installs on a host.
    """
    with start_machine(folder, [SERVER]) as machine:
        machine.add_certbot(*LINEAGES)
        influxdb = machine.add_influxdb("influxd-2")
        with machine.network():
            influxdb.post("/api/v2/buckets", name=BUCKET, orgID=influxdb.org_id())
            token = new_token(influxdb, "write")
        host = Host(machine, influxdb, token)
        host.save(BARE)
        host.follow("install.md", "On a host")
        host.save(INSTALLED)
        yield host
