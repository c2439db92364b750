"""compose/haproxy on the real HAProxy, without a container engine."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.front import HAPROXY, EchoHandler, Front, NameServer, serving
from support.hooks import start
from support.servers import skip_or_fail
from tools import ROOT
from tools.servers.lineages import DAY, KEY, make_lineage
from tools.servers.processes import MissingServer, installed_program, wait_for


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """HAProxy, not started; the services behind it have no names yet."""
    try:
        installed_program("haproxy", "haproxy")
    except MissingServer as error:
        skip_or_fail(error)
    names = NameServer()
    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), EchoHandler)
    with serving(names), serving(service):
        yield Front(tmp_path, names, service.server_address[1])


def test_haproxy_accepts_its_configuration(front: Front) -> None:
    done = subprocess.run(
        [installed_program("haproxy", "haproxy"), "-c", "-f", str(front.cfg)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    warnings = re.findall(r"(?m)^\[(?:WARNING|ALERT)\].*?: (Proxy .*?) \[", done.stderr)
    assert warnings == [
        f"Proxy 'https': no SSL certificate specified for bind '127.0.0.1:{front.https_port}' at"
    ]


def test_haproxy_redirects_everything_but_challenges(front: Front) -> None:
    with front.started():
        response = front.get("/page?a=b")
    assert response.status_code == 301
    assert response.headers["Location"] == "https://www.example.com/page?a=b"


def test_haproxy_forwards_challenges_to_certbot_as_soon_as_it_runs(front: Front) -> None:
    challenge = "/.well-known/acme-challenge/x"
    with front.started():
        assert front.get(challenge).status_code == 503
        front.names.known.add("certbot")
        wait_for(lambda: front.get(challenge).text == f"None {challenge}", "certbot's answer", 5)


def serves_the_web_service(front: Front) -> bool:
    """Return whether https://example.com/page answers."""
    return front.get_https("example.com") == "https /page"


def test_a_certificate_is_served_as_soon_as_it_is_delivered_and_after_a_restart(
    front: Front,
) -> None:
    front.names.known.add("web")
    folder = front.folder / "letsencrypt"
    not_before = int(time.time()) - 60
    live = make_lineage(folder, "example.com", ["example.com"], not_before, DAY, key=KEY)
    shutil.copy(live / "cert.pem", front.folder / "example.com.pem")
    toml = (HAPROXY / "certbot_renewal_deliver.toml").read_text()
    (folder / "certbot_renewal_deliver.toml").write_text(front.adapted(toml))
    deliver_hook = ROOT / "deliver" / "certbot_renewal_deliver.py"

    with front.started():
        assert front.get_https("example.com") == "TLSV1_UNRECOGNIZED_NAME"
        done = start(deliver_hook, "--config-dir", str(folder), "--all")
        assert done.returncode == 0, done.stdout + done.stderr
        wait_for(lambda: serves_the_web_service(front), "the web service's answer", 5)
        assert front.get_https("example.net") == "TLSV1_UNRECOGNIZED_NAME"
    with front.started():
        wait_for(lambda: serves_the_web_service(front), "the web service's answer", 5)
