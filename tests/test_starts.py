"""What starts run reports: the files and command lines that an administrator copies, run as they are."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import certbot_renewal_report
from support.hooks import CRON, Ran, known
from support.points import run_points, state_of
from support.servers import require_program, skip_or_fail
from tools import ROOT
from tools.servers.certbot import Authority, Certbot
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import REPORT_HOOK, install_report_hook
from tools.servers.processes import MissingServer, built_program, running, wait_for
from tools.servers.targets import install_deliver_hook

README = (ROOT / "README.md").read_text()
DROP_IN = ROOT / "systemd" / "certbot.service.d" / "renewal-report.conf"
(DOCKER,) = re.findall(r"(?m)^(docker run .* -q renew; (?:.*\\\n)+.*)$", README)
# What docker would start in the container, without one: certbot, or the entrypoint; of EXIT_STATUS only what it is told to pass on.
FAKE_DOCKER = """#!/bin/sh
start=certbot
passed=
while [ $# -gt 0 ]; do
    case $1 in
    --entrypoint) start=$2; shift ;;
    -e) [ "$2" = EXIT_STATUS ] && passed=yes; shift ;;
    certbot/certbot) shift; break ;;
    esac
    shift
done
[ "$passed" ] || unset EXIT_STATUS
exec "$start" "$@"
"""
# What systemd-run would start in a unit of its own: with nothing in its environment but what is set, and PATH.
FAKE_SYSTEMD_RUN = """#!/bin/sh
set -e
while :; do
    case $1 in
    --quiet|--collect) shift ;;
    --setenv=*) passed=${1#--setenv=}; shift ;;
    -*) exit 64 ;;
    *) break ;;
    esac
done
exec env -i PATH="$PATH" "$passed" "$@"
"""


@pytest.fixture
def bucket(server: Callable[[str], InfluxDB]) -> str:
    """An empty bucket of InfluxDB 1.12."""
    return server("influxd-1.12").new_bucket()


@pytest.fixture
def certbot(
    server: Callable[[str], InfluxDB], bucket: str, authority: Authority, tmp_path: Path
) -> Certbot:
    """A certbot with one certificate, which it has not reported, and with another one's renewal configuration, which is broken."""
    certbot = Certbot(tmp_path / "letsencrypt", authority)
    issued = certbot.issue("example.com", "example.com")
    assert issued.returncode == 0, issued.stdout
    (certbot.folder / "renewal" / "broken.conf").write_text("version = 5.8.0\n")
    certbot.settings({**server("influxd-1.12").settings(bucket), "HOSTNAME": "web1"})
    return certbot


def assert_reported(influxdb: InfluxDB, bucket: str, exit_status: str | None) -> None:
    """The run report came, with certbot's exit status."""
    points = influxdb.points(bucket)
    assert state_of(points, "example.com")["run_at"] > 0
    (run,) = run_points(points)
    assert (run["certificates"], run["unreadable"], run.get("exit_status")) == (
        "1",
        "broken",
        exit_status,
    )


def test_the_line_for_cron(
    server: Callable[[str], InfluxDB], bucket: str, certbot: Certbot
) -> None:
    done = certbot.shell(CRON)
    assert "broken.conf: cert, privkey, chain, fullchain, [renewalparams] missing" in done.stdout
    assert "reported into" not in done.stdout  # cron would mail it
    assert_reported(server("influxd-1.12"), bucket, "1")
    assert known(certbot.folder) == ["broken", "example.com"]


def test_the_docker_commands(
    server: Callable[[str], InfluxDB], bucket: str, certbot: Certbot, tmp_path: Path
) -> None:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(FAKE_DOCKER)
    docker.chmod(0o755)
    certbot.environ["PATH"] = f"{docker.parent}:{certbot.surroundings()['PATH']}"
    certbot.shell(DOCKER)
    assert_reported(server("influxd-1.12"), bucket, "1")


def test_the_compose_service(
    server: Callable[[str], InfluxDB], bucket: str, certbot: Certbot, tmp_path: Path
) -> None:
    service = yaml.safe_load((ROOT / "compose" / "certbot.yaml").read_text())["services"]["certbot"]
    (script,) = service["command"]
    command = [
        *service["entrypoint"],
        certbot.adapted(script).replace("$$", "$").replace("sleep 43200", "sleep 60"),
    ]
    with running(command, tmp_path / "log", certbot.surroundings()) as child:
        wait_for(
            lambda: "reported into" in (tmp_path / "log").read_text(), "the report", child=child
        )
        wait_for(
            lambda: (certbot.folder / certbot_renewal_report.KNOWN_FILE).exists(),
            "the known file",
            child=child,
        )
    assert child.returncode == 0  # it ends when it is told to, also while it sleeps
    assert_reported(server("influxd-1.12"), bucket, "1")


def test_telegrafs_exec_input(
    server: Callable[[str], InfluxDB], bucket: str, certbot: Certbot, tmp_path: Path
) -> None:
    require_program("telegraf")
    influxdb = server("influxd-1.12")
    conf, piece = (
        tmp_path / "telegraf.conf",
        (ROOT / "telegraf" / "certbot_renewal_report.conf").read_text(),
    )
    output = f'[[outputs.influxdb]]\nurls = ["{influxdb.url}"]\ndatabase = "{bucket}"\nskip_database_creation = true\n'
    conf.write_text(f"[agent]\n{certbot.adapted(piece).replace('sudo -n ', '')}\n{output}")
    assert "sudo -n " in piece
    once = [built_program("telegraf"), "--config", str(conf), "--once"]
    done = certbot.start(once)
    assert done.returncode == 0, done.stdout
    assert_reported(influxdb, bucket, None)
    points = influxdb.points(bucket)
    assert (
        str(certbot.not_before("example.com")),
        "renewed_count",
        "1",
        "domain=example.com",
        "host=web1",
    ) in points
    deleted = certbot.run("delete", "--cert-name", "example.com")
    assert deleted.returncode == 0, deleted.stdout
    assert certbot.start(once).returncode == 0
    assert state_of(influxdb.points(bucket), "example.com")["renewal_due"] == 0
    assert known(certbot.folder) == ["broken"]


def test_a_reader_of_stdout_that_goes_away_took_nothing(certbot: Certbot) -> None:
    done = certbot.shell(
        "bash -c 'set -o pipefail; /etc/letsencrypt/renewal-hooks/post/certbot_renewal_run.py --all --stdout >/dev/full'"
    )
    assert (
        done.returncode,
        "Traceback" in done.stdout,
        "stdout: No space left on device: nothing was taken" in done.stdout,
    ) == (
        1,
        False,
        True,
    )
    assert not (certbot.folder / certbot_renewal_report.KNOWN_FILE).exists()


@pytest.mark.parametrize("unit", ["certbot.service", "snap.certbot.renew.service"])
def test_the_drop_in_for_systemd(
    server: Callable[[str], InfluxDB], bucket: str, certbot: Certbot, tmp_path: Path, unit: str
) -> None:
    if not shutil.which("systemd-analyze"):
        skip_or_fail(MissingServer("systemd-analyze: install the package systemd"))
    assert f"`{unit}.d`" in README or f"/{unit}.d\n" in README
    drop_in = certbot.adapted(DROP_IN.read_text())
    (tmp_path / f"{unit}.d").mkdir()
    (tmp_path / f"{unit}.d" / DROP_IN.name).write_text(drop_in)
    (tmp_path / unit).write_text(
        "[Service]\nType=oneshot\nExecStart=/usr/bin/env certbot -q renew\n"
    )
    verify = ["systemd-analyze", "verify", "--man=no", f"./{unit}"]
    verified = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stderr) == (0, "")
    (command,) = (
        line.partition("=-")[2] for line in drop_in.splitlines() if line.startswith("ExecStopPost=")
    )
    systemd_run = tmp_path / "bin" / "systemd-run"
    systemd_run.parent.mkdir()
    systemd_run.write_text(FAKE_SYSTEMD_RUN)
    systemd_run.chmod(0o755)
    certbot.environ["PATH"] = f"{systemd_run.parent}:{certbot.surroundings()['PATH']}"
    certbot.environ.update(
        SERVICE_RESULT="signal", EXIT_CODE="killed", EXIT_STATUS="TERM"
    )  # systemd.exec(5)
    certbot.start([word.replace("$$", "$") for word in shlex.split(command)])
    assert_reported(server("influxd-1.12"), bucket, "143")


def test_the_drop_in_that_delivers_comes_before_the_report(
    certbot: Certbot, tmp_path: Path
) -> None:
    if not shutil.which("systemd-analyze"):
        skip_or_fail(MissingServer("systemd-analyze: install the package systemd"))
    units = sorted(DROP_IN.parent.iterdir())
    assert [path.name for path in units] == ["renewal-deliver.conf", DROP_IN.name]
    install_deliver_hook(
        certbot.folder, f'[[command]]\ncommand = ["touch", "{tmp_path}/delivered"]\n'
    )
    shutil.copytree(DROP_IN.parent, tmp_path / "certbot.service.d")
    unit = tmp_path / "certbot.service.d" / units[0].name
    unit.write_text(certbot.adapted(unit.read_text()))
    (tmp_path / "certbot.service").write_text(
        "[Service]\nType=oneshot\nExecStart=/usr/bin/env certbot -q renew\n"
    )
    (tmp_path / "certbot.service.d" / DROP_IN.name).write_text(certbot.adapted(DROP_IN.read_text()))
    verify = ["systemd-analyze", "verify", "--man=no", "./certbot.service"]
    verified = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stderr) == (0, "")
    (command,) = (
        line.partition("=-")[2]
        for line in unit.read_text().splitlines()
        if line.startswith("ExecStopPost=")
    )
    assert certbot.start(shlex.split(command)).returncode == 0
    assert (tmp_path / "delivered").exists()


def test_the_line_for_cron_that_delivers_too(
    server: Callable[[str], InfluxDB], bucket: str, certbot: Certbot, tmp_path: Path
) -> None:
    (line,) = re.findall(r"(?m)^17 3,15 \* \* \* (.*)$", (ROOT / "docs" / "deliver.md").read_text())
    install_deliver_hook(
        certbot.folder, f'[[command]]\ncommand = ["touch", "{tmp_path}/delivered"]\n'
    )
    certbot.shell(line)
    assert (tmp_path / "delivered").exists()
    assert_reported(server("influxd-1.12"), bucket, "1")
    assert ("deployed", str(certbot.not_before("example.com"))) in {
        point[1:3] for point in server("influxd-1.12").points(bucket)
    }


def test_check_says_what_starts_run_reports(
    report_hook: Callable[..., Ran],
    run_report: Callable[..., Ran],
    certbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    etc = certbot_folder.parent
    for place in ("live", "renewal"):
        (certbot_folder / place).mkdir()
    patterns = tuple(
        pattern.replace("/etc/", f"{etc}/").replace("/var/", f"{etc}/")
        for pattern in certbot_renewal_report.STARTERS
    )
    monkeypatch.setattr(certbot_renewal_report, "STARTERS", patterns)
    nowhere = {"INFLUXDB_URL": "http://127.0.0.1:1", "INFLUXDB_TIMEOUT": "0.1"}
    assert (
        "run reports          none yet, started by nothing that is known here\n"
        in report_hook("--check", **nowhere).out
    )
    starters = {
        "systemd/system/certbot.service.d/renewal-report.conf": DROP_IN.read_text(),
        "cron.d/certbot": f"17 3,15 * * * root {CRON}\n",
        "cron.d/off": f"# 17 3,15 * * * root {CRON}\n",
        "spool/cron/crontabs/root": f"17 3,15 * * * {CRON}\n",
        "telegraf/telegraf.d/certbot_renewal_report.conf": (
            ROOT / "telegraf" / "certbot_renewal_report.conf"
        ).read_text(),
    }
    for name, text in starters.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(text)
    post = certbot_folder / "renewal-hooks" / "post" / REPORT_HOOK.name
    post.parent.mkdir()
    post.symlink_to(Path("..") / "deploy" / install_report_hook(certbot_folder).name)
    assert run_report("--all", "--stdout").status == 0
    (line,) = (
        line
        for line in report_hook("--check", **nowhere).out.splitlines()
        if line.startswith("run reports ")
    )
    found = [str(etc / name) for name in starters if name != "cron.d/off"]
    assert re.fullmatch(
        r"run reports +last 20\d\d-\S+ \S+ UTC, started by " + ", ".join([*found, str(post)]), line
    )
