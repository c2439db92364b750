"""A certificate that certbot has just renewed, what must be stored of it, and a mocked InfluxDB."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import responses
from line_protocol_parser import parse_line

from support.hooks import Ran
from support.points import Points
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, make_lineage

NAMES = ("example.com", "www.example.com", "::1")

# Where the mocked InfluxDB is.
MOCKED_URL = "http://influx.example.com:8086"
MOCKED_WRITE_URL = f"{MOCKED_URL}/api/v2/write"


class Renewal(NamedTuple):
    """A renewal, as certbot reports it to a deploy hook; `not_before` is in Unix seconds."""

    live_folder: Path
    names: Sequence[str]
    not_before: int

    @property
    def environ(self) -> dict[str, str]:
        """The variables that certbot sets."""
        return {
            "RENEWED_LINEAGE": str(self.live_folder),
            "RENEWED_DOMAINS": " ".join(self.names),
        }

    def points(self, host: str = "web1") -> Points:
        """Return the points with `renewed_count` that must be in the database."""
        return renewal_points(self.live_folder.name, self.names, self.not_before, host)


def renew(
    folder: Path,
    lineage: str = "example.com",
    names: Sequence[str] = NAMES,
    age: int = 3600,
    lifetime: int = 90 * DAY,
    conf: str = "",
) -> Renewal:
    """Make a certificate that was issued so many seconds ago, as the successor of the present one.

    `conf` are lines for the top of its renewal configuration.
    """
    not_before = int(time.time()) - age
    live_folder = make_lineage(folder, lineage, list(names), not_before, lifetime, conf)
    return Renewal(live_folder, names, not_before)


def renewal_points(
    lineage: str, names: Sequence[str], not_before: int, host: str = "web1"
) -> Points:
    """Return the points with `renewed_count` of a renewal: of the certificate, and of each name."""
    moment = str(not_before)
    tags = ("domain=all", f"host={host}", f"lineage={lineage}")
    points: Points = {(moment, "renewed_count", str(len(names)), *tags)}
    for name in names:
        points.add((moment, "renewed_count", "1", f"domain={name}", f"host={host}"))
    return points


def stored_renewals(influxdb: InfluxDB, bucket: str) -> Points:
    """Return the points with `renewed_count` that are in a bucket."""
    return {point for point in influxdb.points(bucket) if point[1] == "renewed_count"}


def printed_points(ran: Ran) -> list[dict[str, Any]]:
    """Return the points that a dry run has printed, as another project's parser reads them."""
    *lines, summary = ran.out.splitlines()
    assert summary.startswith("# ")
    return [parse_line(line) for line in lines]


@contextlib.contextmanager
def storing_influxdb(**headers: str) -> Iterator[responses.RequestsMock]:
    """Mock an InfluxDB at MOCKED_URL that stores whatever is sent to it."""
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, MOCKED_WRITE_URL, status=204, headers=headers)
        yield mock


def sent_lines(mock: responses.RequestsMock) -> list[str]:
    """Return the lines in the first request that a mocked InfluxDB has got."""
    body = mock.calls[0].request.body
    assert isinstance(body, bytes)
    return body.decode().splitlines()
