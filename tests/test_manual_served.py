"""docs/served.md: a reader follows it, with an nginx that serves the certificates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import certbot_renewal_run
from support.documents import rows_of
from support.hooks import next_second
from support.machine import Machine, start_machine
from support.manual import follow_page, read_page
from support.queries import run_query
from support.servers import require_program, skip_or_fail
from tools.servers.influxdb import InfluxDB
from tools.servers.processes import MissingServer, built_program, installed_program

PAGE = read_page("served.md")
BUCKET = "certbot"
NAME = "www.example.com"
URL = "https://influx.example.com:8086"

NGINX_CONF = """events {}
http {
    server {
        listen 443 ssl;
        ssl_certificate /etc/letsencrypt/live/www.example.com/fullchain.pem;
        ssl_certificate_key /etc/letsencrypt/live/www.example.com/privkey.pem;
    }
}
"""


class Host:
    """A machine with certbot, both programs, nginx, and an InfluxDB."""

    def __init__(self, machine: Machine, influxdb: InfluxDB) -> None:
        """The reader did what the pages before this one say."""
        self.machine = machine
        self.influxdb = influxdb

    def rows(self, query: str) -> list[dict[str, str]]:
        """Return the rows of a query of flux/."""
        with self.machine.network():
            return run_query(self.influxdb, query, BUCKET)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host on which the reader begins."""
    require_program("influxd-1.12")
    try:
        nginx = installed_program("nginx", "nginx-light")
    except MissingServer as error:
        skip_or_fail(error)
    with start_machine(tmp_path, ["influx.example.com", NAME, "mail.example.com"]) as machine:
        machine.add_certbot(NAME)
        influxdb = machine.add_influxdb("influxd-1.12")
        with machine.network():
            influxdb.command(f'CREATE DATABASE "{BUCKET}"')
        machine.write(
            "/etc/letsencrypt/certbot_renewal_report.env",
            f"INFLUXDB_URL={URL}\nINFLUXDB_BUCKET={BUCKET}\n",
        )
        machine.run(
            "chmod 600 /etc/letsencrypt/certbot_renewal_report.env\n"
            "mkdir -p /etc/letsencrypt/renewal-hooks/deploy /etc/letsencrypt/renewal-hooks/post\n"
            "install -m 755 certbot_renewal_report.py /etc/letsencrypt/renewal-hooks/deploy/\n"
            "install -m 755 certbot_renewal_run.py /etc/letsencrypt/renewal-hooks/post/\n"
            "/etc/letsencrypt/renewal-hooks/post/certbot_renewal_run.py --all\n"
        )
        machine.write("/etc/nginx/nginx.conf", NGINX_CONF)
        command = f"{nginx} -g 'daemon off;'"
        machine.add_unit("nginx.service", f"[Service]\nExecStart={command}\nX-Listens=443\n")
        machine.run("mkdir -p /var/log/nginx /var/lib/nginx\nsystemctl start nginx")
        yield Host(machine, influxdb)


def test_a_reader_finds_a_server_that_was_not_reloaded(host: Host) -> None:
    follow_page(host.machine, "served.md", "Set VERIFY")
    (row,) = host.rows("not_served")
    assert row["served"] == "1"
    assert row["not_served"] == "none"

    host.machine.run("certbot renew --force-renewal")
    follow_page(host.machine, "served.md", "If another certificate is served")
    (row,) = host.rows("not_served")
    assert row["not_served"] == NAME
    host.machine.run("systemctl restart nginx")
    follow_page(host.machine, "served.md", "If another certificate is served")
    (row,) = host.rows("not_served")
    assert row["not_served"] == "none"


def test_a_reader_checks_with_telegraf(host: Host) -> None:
    require_program("telegraf")
    conf = "/etc/telegraf/telegraf.conf"
    output = '[[outputs.influxdb]]\nurls = ["http://127.0.0.1:8086"]\ndatabase = "certbot"\n'
    host.machine.write(conf, f"[agent]\nflush_interval = '1s'\n{output}")
    folder = "/etc/telegraf/telegraf.d"
    command = f"{built_program('telegraf')} --config {conf} --config-directory {folder}"
    host.machine.add_unit("telegraf.service", f"[Service]\nExecStart={command} --once\n")
    follow_page(host.machine, "served.md", "Check from another place with Telegraf")
    host.machine.run(f"{command} --once")
    next_second()  # Telegraf rounds the time to a second, up or down
    (row,) = host.rows("not_served_x509")
    assert row["name"] == NAME
    assert float(row["days_unserved"]) == -1


def test_the_words_of_verify_are_valid() -> None:
    words = []
    for cell, _ in rows_of(PAGE, "Values of VERIFY", "| word | endpoints |"):
        words.append(cell)
    rules = certbot_renewal_run.verify_rules(" ".join(words))
    assert len(rules) == len(words)
