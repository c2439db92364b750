"""The compose files: what they start, what they show to others, and the pieces of them that run without a container engine."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from support.servers import require_program, skip_or_fail
from tools import ROOT
from tools.servers.certbot import Authority, Certbot
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, KEY, make_lineage
from tools.servers.processes import (
    MissingServer,
    built_program,
    free_port,
    installed_program,
    running,
    wait_for,
)
from tools.servers.targets import start_vault

COMPOSE = ROOT / "compose"
FILES = sorted(COMPOSE.rglob("*.yaml"))
HAPROXY = COMPOSE / "haproxy"
VAULT = COMPOSE / "vault"
# The only ones that are reached from elsewhere.
PUBLISHED = {
    ("haproxy/compose.yaml", "haproxy"): ["80:80", "443:443"],
    ("vault/compose.yaml", "certbot"): ["80:80"],
}
# It runs twice a day in the folders of the host, where nothing keeps when it last did; its run reports tell.
WITHOUT_HEALTH_CHECK = [("certbot.yaml", "certbot")]


def services() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every service: its file, its name, what is said of it."""
    for path in FILES:
        for name, service in yaml.safe_load(path.read_text())["services"].items():
            yield str(path.relative_to(COMPOSE)), name, service


def test_every_image_is_of_one_version() -> None:
    images = [service["image"] for _, _, service in services() if "build" not in service]
    images += re.findall(r"(?m)^FROM (\S+)$", (VAULT / "Dockerfile").read_text())
    assert len(images) == 8
    for image in images:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+(-alpine)?", image), image


def test_nothing_is_published_but_what_has_to_be() -> None:
    assert {
        (file, name): service["ports"] for file, name, service in services() if "ports" in service
    } == PUBLISHED


def test_every_service_comes_back_and_has_a_health_check() -> None:
    assert all(service["restart"] == "unless-stopped" for _, _, service in services())
    assert [
        (file, name) for file, name, service in services() if "healthcheck" not in service
    ] == WITHOUT_HEALTH_CHECK


def test_no_file_holds_a_secret() -> None:
    for file, name, service in services():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET|KEY|ROLE", key):
                assert str(value).startswith("${"), f"{file}: {name}: {key}"
    for path in filter(Path.is_file, COMPOSE.rglob("*")):
        for line in path.read_text().splitlines():
            assert not re.search(
                r"(?i)\bhv[sbr]\.|-----BEGIN|(password|secret|token)\s*[:=]\s*\"?\w", line
            ), f"{path}: {line}"
    assert {"compose/*/.env", "compose/*/secrets/"} <= set(
        (ROOT / ".gitignore").read_text().splitlines()
    )


def test_every_file_that_is_mounted_or_copied_is_there() -> None:
    found = [COMPOSE / "certbot.sh", VAULT / "entrypoint.sh"]
    for file, _, service in services():
        folder = (COMPOSE / file).parent
        found += [
            folder / volume.split(":")[0]
            for volume in service.get("volumes", [])
            if volume.startswith(".")
        ]
        if "build" in service:
            context = folder / service["build"]["context"]
            for copied in re.findall(
                r"(?m)^COPY (.*) \S+$", (context / service["build"]["dockerfile"]).read_text()
            ):
                found += [context / path for path in copied.split()]
    assert len(found) == 16
    for path in found:
        assert path.exists(), path
        assert path.suffix not in (".py", ".sh") or os.access(path, os.X_OK), path


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), str(VAULT / "Dockerfile")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")


# ---- HAProxy ---------------------------------------------------------------------------------------------------------
class Names(socketserver.ThreadingUDPServer):
    """A name server: the names that are known are this machine's."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Names.Answer)
        self.known: set[str] = set()

    class Answer(socketserver.BaseRequestHandler):
        """Answers one question."""

        server: Names

        def handle(self) -> None:
            """A known name has an IPv4 address, and no other."""
            asked, peer = self.request
            end = asked.index(b"\0", 12) + 5
            known = asked[13 : 13 + asked[12]].decode() in self.server.known
            answer = (
                b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04\x7f\0\0\x01"
                if known and asked[end - 4 : end - 2] == b"\0\x01"
                else b""
            )
            head = (
                asked[:2]
                + (b"\x81\x80" if known else b"\x81\x83")
                + b"\0\x01"
                + (b"\0\x01" if answer else b"\0\0")
                + bytes(4)
            )
            peer.sendto(head + asked[12:end] + answer, self.client_address)


class Answering(http.server.BaseHTTPRequestHandler):
    """A web service that says what it was asked, by which scheme."""

    def do_GET(self) -> None:
        """Any path."""
        body = f"{self.headers.get('X-Forwarded-Proto')} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Nothing."""


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """A server in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Front:
    """HAProxy with haproxy.cfg, its folders and ports changed for this machine; certbot and the web service are one that answers."""

    def __init__(self, folder: Path, names: Names, behind: int) -> None:
        self.folder, self.names, self.certs, self.cfg = (
            folder,
            names,
            folder / "certs",
            folder / "haproxy.cfg",
        )
        self.http, self.https = free_port(), free_port()
        text = self.here((HAPROXY / "haproxy.cfg").read_text())
        for known, there in {
            "    bind :80\n": f"    bind 127.0.0.1:{self.http}\n",
            "    bind :443 ": f"    bind 127.0.0.1:{self.https} ",
            "certbot:80\n": f"certbot:{behind}\n",
            "web:80 check\n": f"web:{behind} check inter 200ms\n",
            "    parse-resolv-conf\n": f"    nameserver names 127.0.0.1:{names.server_address[1]}\n",
            **({} if os.geteuid() == 0 else {"    user haproxy\n": "", "    group haproxy\n": ""}),
        }.items():
            assert text.count(known) == 1, known
            text = text.replace(known, there)
        self.certs.mkdir()
        self.cfg.write_text(text)

    def here(self, text: str) -> str:
        """A text with the folders of this machine."""
        for known, there in {
            "/run/haproxy": self.folder,
            "/etc/haproxy/certs": self.certs,
            '"/certs': f'"{self.certs}',
        }.items():
            text = text.replace(known, str(there))
        return text

    @contextmanager
    def started(self) -> Iterator[None]:
        """HAProxy runs, as its image starts it."""
        with running(
            [installed_program("haproxy", "haproxy"), "-W", "-db", "-f", str(self.cfg)],
            self.folder / "log",
        ) as child:
            wait_for(lambda: self.get("/haproxy-alive").status_code == 200, "haproxy", child=child)
            yield

    def get(self, path: str) -> requests.Response:
        """What it answers on port 80."""
        return requests.get(
            f"http://127.0.0.1:{self.http}{path}",
            headers={"Host": "www.example.com"},
            allow_redirects=False,
            timeout=5,
        )

    def get_https(self, name: str) -> str:
        """What it answers on port 443 with a certificate for this name, or why it does not."""
        context = ssl.create_default_context(cafile=str(self.folder / "example.com.pem"))
        try:
            with (
                socket.create_connection(("127.0.0.1", self.https), 5) as plain,
                context.wrap_socket(plain, server_hostname=name) as tls,
            ):
                tls.sendall(f"GET /page HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
                return b"".join(iter(lambda: tls.recv(4096), b"")).decode().partition("\r\n\r\n")[2]
        except ssl.SSLError as error:
            return error.reason


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """HAProxy, not started; who is behind it, is not known by name yet."""
    try:
        installed_program("haproxy", "haproxy")
    except MissingServer as error:
        skip_or_fail(error)
    names, behind = Names(), http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    with serving(names), serving(behind):
        yield Front(tmp_path, names, behind.server_address[1])


def test_haproxy_accepts_its_configuration(front: Front) -> None:
    done = subprocess.run(
        [installed_program("haproxy", "haproxy"), "-c", "-f", str(front.cfg)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(?m)^\[(?:WARNING|ALERT)\].*?: (Proxy .*?) \[", done.stderr) == [
        f"Proxy 'https': no SSL certificate specified for bind '127.0.0.1:{front.https}' at"
    ]


def test_haproxy_forwards_challenges_to_certbot_and_redirects_everything_else(front: Front) -> None:
    challenge = "/.well-known/acme-challenge/x"
    with front.started():
        assert (
            front.get(challenge).status_code == 503
        )  # it has started, though certbot is not there yet
        redirected = front.get("/page?a=b")
        assert (redirected.status_code, redirected.headers["Location"]) == (
            301,
            "https://www.example.com/page?a=b",
        )
        front.names.known |= {"certbot"}
        wait_for(lambda: front.get(challenge).text == f"None {challenge}", "certbot's answer", 5)


def test_a_certificate_is_served_as_soon_as_it_is_delivered_and_after_a_restart(
    front: Front,
) -> None:
    front.names.known |= {"web"}
    folder = front.folder / "letsencrypt"
    live = make_lineage(folder, "example.com", ["example.com"], int(time.time()) - 60, DAY, key=KEY)
    shutil.copy(live / "cert.pem", front.folder / "example.com.pem")
    toml = (HAPROXY / "certbot_renewal_deliver.toml").read_text()
    (folder / "certbot_renewal_deliver.toml").write_text(front.here(toml))
    deploy = [
        sys.executable,
        str(ROOT / "certbot_renewal_deliver.py"),
        "--config-dir",
        str(folder),
        "--all",
    ]
    with front.started():
        assert front.get_https("example.com") == "TLSV1_UNRECOGNIZED_NAME"
        done = subprocess.run(deploy, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_for(
            lambda: front.get_https("example.com") == "https /page", "the web service's answer", 5
        )
        assert front.get_https("example.net") == "TLSV1_UNRECOGNIZED_NAME"
    with front.started():
        wait_for(
            lambda: front.get_https("example.com") == "https /page", "the web service's answer", 5
        )


# ---- certbot ---------------------------------------------------------------------------------------------------------
def put_script(path: Path, text: str) -> None:
    """A script of /bin/sh."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_certbot_gets_its_first_certificate_and_then_renews_and_each_run_is_followed_up(
    authority: Authority, tmp_path: Path
) -> None:
    certbot, said = Certbot(tmp_path / "letsencrypt", authority), tmp_path / "said"
    for name in ("certbot_renewal_deliver.py", "certbot_renewal_report.py"):
        put_script(
            certbot.hook.with_name(name), f'[ -z "$1" ] || echo {name} "$@" "$EXIT_STATUS" >>{said}'
        )
    text = (COMPOSE / "certbot.sh").read_text()
    for known, there in {
        "--http-01-port 80": f"--http-01-port {free_port()}",
        "/tmp/ran": str(tmp_path / "ran"),
        "=1200": "=0.1",
    }.items():
        assert text.count(known) == 1, known
        text = text.replace(known, there)
    environ = {
        **certbot.surroundings(),
        "DOMAINS": "example.com,www.example.com",
        "EMAIL": "admin@example.org",
    }
    with running(["/bin/sh", "-c", certbot.adapted(text)], tmp_path / "log", environ) as child:
        wait_for(lambda: said.read_text().count("--patience") == 2, "two reports", child=child)
    assert child.returncode == 0  # it ends when it is told to, also while it sleeps
    assert (
        said.read_text()
        == 2 * "certbot_renewal_deliver.py --all \ncertbot_renewal_run.py --all --patience 24 0\n"
    )
    assert (tmp_path / "log").read_text().count("Requesting a certificate") == 1
    assert (certbot.folder / "live" / "example.com" / "fullchain.pem").exists()
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("vault_answers", [True, False])
def test_certbot_without_its_certificates_does_not_begin(
    tmp_path: Path, vault_answers: bool
) -> None:
    image, etc, hooks = (
        tmp_path / "image",
        tmp_path / "letsencrypt",
        Path("renewal-hooks") / "deploy",
    )
    put_script(
        image / hooks / "certbot_renewal_deliver.py", f"echo $1\nexit {0 if vault_answers else 1}"
    )
    put_script(tmp_path / "certbot.sh", "echo begins")
    etc.mkdir()
    text = (
        (VAULT / "entrypoint.sh")
        .read_text()
        .replace("/usr/local/share/letsencrypt", str(image))
        .replace("/etc/letsencrypt", str(etc))
    )
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/sh", "-c", text], env=environ, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (
        (0, "restore\nbegins\n") if vault_answers else (1, "restore\n")
    )


@pytest.mark.parametrize(
    ("policies", "certificate", "accounts", "listing"),
    [
        (["reading"], ["read"], ["deny"], ["deny"]),
        (["renewing"], ["read", "update"], ["read", "update"], ["list"]),
        (
            ["renewing", "first_start"],
            ["create", "read", "update"],
            ["create", "read", "update"],
            ["list"],
        ),
    ],
)
def test_a_policy_allows_what_it_says_and_nothing_else(
    tmp_path: Path,
    policies: list[str],
    certificate: list[str],
    accounts: list[str],
    listing: list[str],
) -> None:
    require_program("vault-server")
    expected = {
        "secret/data/certbot/certificates/example.com": certificate,
        "secret/data/certbot/accounts": accounts,
        "secret/metadata/certbot/certificates/": listing,
        "secret/metadata/certbot/certificates/example.com": ["deny"],
        "secret/metadata/certbot/": ["deny"],
        "secret/delete/certbot/certificates/example.com": ["deny"],
        "secret/destroy/certbot/certificates/example.com": ["deny"],
        "secret/data/other": ["deny"],
    }
    with start_vault(tmp_path) as vault:
        for policy in policies:
            assert vault.api(
                "PUT",
                f"sys/policies/acl/{policy}",
                policy=(VAULT / "policies" / f"{policy}.hcl").read_text(),
            ).ok
        token = vault.api("POST", "auth/token/create", policies=policies).json()["auth"][
            "client_token"
        ]
        found = vault.api("POST", "sys/capabilities", token=token, paths=list(expected)).json()
    assert {path: sorted(found[path]) for path in expected} == expected


# ---- Alerts ----------------------------------------------------------------------------------------------------------
def test_kapacitor_loads_the_alerts_and_takes_the_mail_server_from_its_environment(
    server: Callable[[str], InfluxDB], tmp_path: Path
) -> None:
    require_program("kapacitord")
    influxdb, port = server("influxd-1.12"), free_port()
    text = (COMPOSE / "kapacitor.conf").read_text().replace("/var/lib/kapacitor", str(tmp_path))
    text = text.replace("/etc/kapacitor/load", str(ROOT / "kapacitor")).replace(
        "http://influxdb:8086", influxdb.url
    )
    (tmp_path / "kapacitor.conf").write_text(text)
    service = yaml.safe_load((COMPOSE / "alerts.yaml").read_text())["services"]["kapacitor"]
    environ = {"KAPACITOR_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}"}
    for name, value in service["environment"].items():
        value = re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)
        environ[name] = re.sub(
            r"\$\{EMAIL:.*\}",
            "admin@example.net",
            re.sub(r"\$\{SMTP_HOST:.*\}", "mail.example.com", value),
        )
    api, tasks = (
        f"http://127.0.0.1:{port}/kapacitor/v1",
        {path.stem for path in (ROOT / "kapacitor" / "tasks").glob("*.yaml")},
    )
    with running(
        [built_program("kapacitord"), "-config", str(tmp_path / "kapacitor.conf")],
        tmp_path / "log",
        environ,
    ) as child:
        wait_for(
            lambda: (
                {task["id"] for task in requests.get(f"{api}/tasks", timeout=5).json()["tasks"]}
                == tasks
            ),
            "the tasks",
            child=child,
        )
        handlers = f"{api}/alerts/topics/certbot_renewal/handlers"
        wait_for(
            lambda: (
                [it["kind"] for it in requests.get(handlers, timeout=5).json()["handlers"]]
                == ["smtp"]
            ),
            "the handler",
            child=child,
        )
        (smtp,) = requests.get(f"{api}/config/smtp", timeout=5).json()["elements"]
    options = [
        smtp["options"][name]
        for name in ("enabled", "host", "port", "from", "to", "username", "password")
    ]
    assert options == [
        True,
        "mail.example.com",
        25,
        "admin@example.net",
        ["admin@example.net"],
        "",
        False,
    ]
    assert "lvl=error" not in (tmp_path / "log").read_text()
