"""What starts run reports: the files and command lines that an administrator copies, run as is.

tests/test_manual_run_reports.py follows the page about them.
"""

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
from support.buckets import Bucket
from support.hooks import CRON, RUN_REPORT, Ran, known
from support.lineages import UNREACHABLE, make_empty_folders
from support.machine import STAND_INS
from support.servers import require_program, skip_or_fail
from tools import ROOT
from tools.servers.certbot import Authority, Certbot
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import install_run_report
from tools.servers.processes import MissingServer, built_program, running, wait_for
from tools.servers.targets import install_deliver_hook

Program = Callable[..., Ran]
RUN_REPORTS_PAGE = (ROOT / "docs" / "run-reports.md").read_text()
DROP_INS = ROOT / "systemd" / "certbot.service.d"
REPORT_DROP_IN = DROP_INS / "renewal-report.conf"
DELIVER_DROP_IN = DROP_INS / "renewal-deliver.conf"
TELEGRAF_CONF = ROOT / "telegraf" / "certbot_renewal_report.conf"
UNIT = "[Service]\nType=oneshot\nExecStart=/usr/bin/env certbot -q renew\n"


@pytest.fixture
def bucket(server: Callable[[str], InfluxDB]) -> Bucket:
    """An empty bucket of InfluxDB 1.12."""
    return Bucket(server("influxd-1.12"))


@pytest.fixture(scope="module")
def issued(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Certbot:
    """A certbot with a certificate that was not reported, for copies of it."""
    certbot = Certbot(tmp_path_factory.mktemp("issued") / "letsencrypt", authority)
    certbot.settings(UNREACHABLE)
    process = certbot.issue("example.com", "example.com")
    assert process.returncode == 0, process.stdout
    return certbot


@pytest.fixture
def certbot(bucket: Bucket, issued: Certbot, tmp_path: Path) -> Certbot:
    """A certbot with a certificate that was not reported, and a broken renewal configuration."""
    certbot = issued.copied(tmp_path / "letsencrypt")
    (certbot.folder / "renewal" / "broken.conf").write_text("version = 5.8.0\n")
    install_run_report(certbot.folder)
    certbot.settings({**bucket.settings, "HOSTNAME": "web1"})
    return certbot


def put_on_path(certbot: Certbot, folder: Path, name: str, script: str) -> None:
    """Put a script on the PATH of the commands that certbot's host runs."""
    folder.mkdir()
    program = folder / name
    program.write_text(script)
    program.chmod(0o755)
    certbot.environ["PATH"] = f"{folder}:{certbot.surroundings()['PATH']}"


def assert_reported(bucket: Bucket, exit_status: str | None) -> None:
    """Assert that one run report came, with certbot's exit status; None: it does not know it."""
    assert bucket.state_of("example.com")["run_at"] > 0
    (run,) = bucket.runs()
    assert run["certificates"] == "1"
    assert run["unreadable"] == "broken"
    assert run.get("exit_status") == exit_status


def test_the_line_for_cron(bucket: Bucket, certbot: Certbot) -> None:
    done = certbot.shell(CRON)
    assert "missing a required file reference" in done.stdout
    assert "reported to" not in done.stdout  # cron would mail it
    assert_reported(bucket, "1")
    assert known(certbot.folder) == ["broken", "example.com"]


def test_the_compose_service(bucket: Bucket, certbot: Certbot, tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "compose" / "certbot.yaml").read_text())
    service = compose["services"]["certbot"]
    (script,) = service["command"]
    script = certbot.adapted(script).replace("$$", "$").replace("sleep 43200", "sleep 60")
    log = tmp_path / "log"
    known_file = certbot.folder / certbot_renewal_report.KNOWN_FILE
    with running([*service["entrypoint"], script], log, certbot.surroundings()) as child:
        wait_for(lambda: "reported to" in log.read_text(), "the report", child=child)
        wait_for(known_file.exists, "the known file", child=child)
    assert child.returncode == 0  # it ends when it is stopped, also while it sleeps
    assert_reported(bucket, "1")


@pytest.fixture
def telegraf_once(bucket: Bucket, certbot: Certbot, tmp_path: Path) -> list[str]:
    """The command that lets Telegraf collect once, with the input of telegraf/."""
    require_program("telegraf")
    text = TELEGRAF_CONF.read_text()
    assert "sudo -n " in text
    exec_input = certbot.adapted(text).replace("sudo -n ", "")
    output = (
        f'[[outputs.influxdb]]\nurls = ["{bucket.influxdb.url}"]\n'
        f'database = "{bucket.name}"\nskip_database_creation = true\n'
    )
    conf = tmp_path / "telegraf.conf"
    conf.write_text(f"[agent]\n{exec_input}\n{output}")
    return [built_program("telegraf"), "--config", str(conf), "--once"]


def test_telegrafs_exec_input(bucket: Bucket, certbot: Certbot, telegraf_once: list[str]) -> None:
    done = certbot.start(telegraf_once)
    assert done.returncode == 0, done.stdout
    assert_reported(bucket, "-1")
    moment = str(certbot.not_before("example.com"))
    assert (moment, "renewed_count", "1", "domain=example.com", "host=web1") in bucket.points()


def test_telegrafs_exec_input_retires_a_certificate_that_was_deleted(
    bucket: Bucket, certbot: Certbot, telegraf_once: list[str]
) -> None:
    assert certbot.start(telegraf_once).returncode == 0
    deleted = certbot.run("delete", "--cert-name", "example.com")
    assert deleted.returncode == 0, deleted.stdout
    assert certbot.start(telegraf_once).returncode == 0
    assert bucket.state_of("example.com")["renewal_due"] == 0
    assert known(certbot.folder) == ["broken"]


def test_a_report_that_stdout_did_not_take_is_not_remembered(certbot: Certbot) -> None:
    done = certbot.shell(f"bash -c 'set -o pipefail; {RUN_REPORT} --stdout >/dev/full'")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "stdout: No space left on device: the report was not written" in done.stdout
    assert not (certbot.folder / certbot_renewal_report.KNOWN_FILE).exists()


def put_drop_in(certbot: Certbot, folder: Path, unit: str, drop_in: Path) -> list[str]:
    """Put a drop-in beside a unit, let systemd verify it, and return its command for this host."""
    if not shutil.which("systemd-analyze"):
        skip_or_fail(MissingServer("systemd-analyze: install the package systemd"))
    text = certbot.adapted(drop_in.read_text())
    (folder / f"{unit}.d").mkdir(exist_ok=True)
    (folder / f"{unit}.d" / drop_in.name).write_text(text)
    (folder / unit).write_text(UNIT)
    command = ["systemd-analyze", "verify", "--man=no", f"./{unit}"]
    verified = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stderr) == (0, "")

    (line,) = [line for line in text.splitlines() if line.startswith("ExecStopPost=")]
    words = shlex.split(line.removeprefix("ExecStopPost=-"))
    return [word.replace("$$", "$") for word in words]


@pytest.mark.parametrize(
    "unit", ["certbot.service", "certbot-renew.service", "snap.certbot.renew.service"]
)
def test_the_drop_in_for_systemd(
    bucket: Bucket, certbot: Certbot, tmp_path: Path, unit: str
) -> None:
    assert f" /etc/systemd/system/{unit}.d/\n" in RUN_REPORTS_PAGE
    assert f"{unit}.d/" in REPORT_DROP_IN.read_text()
    command = put_drop_in(certbot, tmp_path, unit, REPORT_DROP_IN)
    systemd_run = (STAND_INS / "systemd-run").read_text()
    put_on_path(certbot, tmp_path / "bin", "systemd-run", systemd_run)
    # What systemd sets after a signal: systemd.exec(5).
    certbot.environ.update(SERVICE_RESULT="signal", EXIT_CODE="killed", EXIT_STATUS="TERM")
    certbot.start(command)
    assert_reported(bucket, "143")


def test_the_drop_in_that_delivers_comes_before_the_report(
    certbot: Certbot, tmp_path: Path
) -> None:
    assert sorted(DROP_INS.iterdir()) == [DELIVER_DROP_IN, REPORT_DROP_IN]
    install_deliver_hook(
        certbot.folder, f'[[command]]\ncommand = ["touch", "{tmp_path}/delivered"]\n'
    )
    put_drop_in(certbot, tmp_path, "certbot.service", REPORT_DROP_IN)
    command = put_drop_in(certbot, tmp_path, "certbot.service", DELIVER_DROP_IN)
    assert certbot.start(command).returncode == 0
    assert (tmp_path / "delivered").exists()


def test_the_line_for_cron_that_also_delivers(
    bucket: Bucket, certbot: Certbot, tmp_path: Path
) -> None:
    manual = (ROOT / "docs" / "deliver.md").read_text()
    (line,) = re.findall(r"(?m)^ *17 3,15 \* \* \* (?:root )?(.*)$", manual)
    install_deliver_hook(
        certbot.folder, f'[[command]]\ncommand = ["touch", "{tmp_path}/delivered"]\n'
    )
    certbot.shell(line)
    assert (tmp_path / "delivered").exists()
    assert_reported(bucket, "1")
    deployed = ("deployed", str(certbot.not_before("example.com")))
    assert deployed in {point[1:3] for point in bucket.points()}


@pytest.fixture
def etc(certbot_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that --check takes for /etc and /var, with a certbot that has no certificate."""
    folder = certbot_folder.parent
    make_empty_folders(certbot_folder)
    paths = [
        path.replace("/etc/", f"{folder}/").replace("/var/", f"{folder}/")
        for path in certbot_renewal_report.STARTER_PATHS
    ]
    monkeypatch.setattr(certbot_renewal_report, "STARTER_PATHS", paths)
    return folder


def run_reports_of_check(report_hook: Program) -> list[str]:
    """Return what --check prints about run reports and the post hook."""
    lines = report_hook("--check", **UNREACHABLE).out.splitlines()
    (begin,) = [number for number, line in enumerate(lines) if line.startswith("Run reports: ")]
    return lines[begin:]


NO_STARTER = "(no timer, cron job or Telegraf input starts certbot_renewal_run.py)"


@pytest.mark.usefixtures("etc")
def test_check_says_that_nothing_starts_run_reports(
    report_hook: Program, run_report: Program
) -> None:
    (certbot_post_hook,) = run_reports_of_check(report_hook)[1:]
    assert certbot_post_hook.startswith("Post hook: ")
    assert certbot_post_hook.endswith(
        "/certbot_renewal_run.py, reports only after attempted renewals"
    )
    assert run_reports_of_check(report_hook)[0] == f"Run reports: none yet {NO_STARTER}"

    assert run_report("--all", "--stdout").status == 0
    last = rf"Run reports: last 20\d\d-\S+ \S+ UTC {re.escape(NO_STARTER)}"
    assert re.fullmatch(last, run_reports_of_check(report_hook)[0])


def test_check_says_what_starts_run_reports(report_hook: Program, etc: Path) -> None:
    starters = {
        "systemd/system/certbot.service.d/renewal-report.conf": REPORT_DROP_IN.read_text(),
        "cron.d/certbot": f"17 3,15 * * * root {CRON}\n",
        "cron.d/off": f"# 17 3,15 * * * root {CRON}\n",
        "spool/cron/crontabs/root": f"17 3,15 * * * {CRON}\n",
        "telegraf/telegraf.d/certbot_renewal_report.conf": TELEGRAF_CONF.read_text(),
    }
    for name, text in starters.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(text)
    assert run_reports_of_check(report_hook) == [
        "Run reports: none yet, started by:",
        *[f"  {etc / name}" for name in starters if name != "cron.d/off"],
    ]
