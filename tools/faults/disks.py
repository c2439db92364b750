"""What reports in the trials: a certbot folder on disk and both programs; and what must hold.

After all faults, the database must equal the disk. `Disk` knows which points that means.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import io
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import certbot_renewal_report
import certbot_renewal_run
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, install_report_hook, install_run_report, make_lineage

LINEAGE = "example.com"
NAMES = ["example.com", "www.example.com"]
LIFETIME = 90 * DAY
DUE_AFTER = 60 * DAY


class PromiseError(Exception):
    """Something that the project promises does not hold."""


def expect(condition: object, promise: str) -> None:
    """Raise PromiseError if a condition does not hold; the text says where and what."""
    if not condition:
        raise PromiseError(promise)


# ---- The programs ------------------------------------------------------------------------------
class Program(enum.Enum):
    """What reports: the hook that certbot starts after a renewal, or the run report."""

    DEPLOY_HOOK = "deploy-hook"
    RUN_REPORT = "run-report"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line."""
        return ("--all",) if self is Program.RUN_REPORT else ()


class Ended(NamedTuple):
    """How a program ended: its exit status, and what it printed."""

    status: int
    out: str
    err: str


def run_here(program: Program, script: Path, environ: Mapping[str, str], *arguments: str) -> Ended:
    """Run a program in this process, which is quick; check what it promises to print."""
    is_run_report = program is Program.RUN_REPORT
    main = certbot_renewal_run.main if is_run_report else certbot_renewal_report.main
    out = io.StringIO()
    err = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments, dict(environ), str(script))
    ended = Ended(status, out.getvalue(), err.getvalue())
    expect_proper_output(ended, environ.get("INFLUXDB_TOKEN", ""))
    return ended


def expect_proper_output(ended: Ended, token: str) -> None:
    """Expect no traceback, ASCII, no token, and one line on stderr if and only if it failed."""
    output = ended.out + ended.err
    expect("Traceback" not in output, f"no traceback: {ended}")
    expect(output.isascii(), f"only ASCII: {ended}")
    expect(ended.err.count("\n") <= 1, f"one line on stderr: {ended}")
    expect((ended.status == 0) == (not ended.err), f"a reason when it fails, only then: {ended}")
    expect(not token or token not in output, f"no token: {ended}")


# ---- The database ------------------------------------------------------------------------------
class StoredField(NamedTuple):
    """One field of a point in the database: its time in Unix seconds, its value as text."""

    time: int
    field: str
    value: str
    tags: frozenset[str]  # each of them as host=web1


def stored_by_host(influxdb: InfluxDB, bucket: str) -> Mapping[str, set[StoredField]]:
    """Return everything in a bucket by host; a host that has reported nothing has an empty set."""
    by_host = collections.defaultdict[str, set[StoredField]](set)
    for seconds, field, value, *tags in influxdb.points(bucket):
        stored = StoredField(int(seconds), field, value, frozenset(tags))
        for tag in tags:
            key, _, tag_value = tag.partition("=")
            if key == "host":
                by_host[tag_value].add(stored)
    return by_host


# ---- The disk ----------------------------------------------------------------------------------
class Disk:
    """A certbot folder with three certificates of one lineage, and the programs installed in it.

    The first certificate was reported. The report of the second was lost. The third is the
    current one. A deploy hook reports the third, a run report the second and the third.

    `begins` are notBefore of the three, in Unix seconds. `known` is the known file.
    """

    def __init__(self, folder: Path) -> None:
        """Make the certificates, and install the programs."""
        self.folder = folder
        self.scripts = {
            Program.DEPLOY_HOOK: install_report_hook(folder),
            Program.RUN_REPORT: install_run_report(folder),
        }
        now = int(time.time())
        self.begins = [now - days * DAY for days in (100, 40, 1)]
        for begin in self.begins:
            self.live = make_lineage(folder, LINEAGE, NAMES, begin, LIFETIME)
        self.known = folder / certbot_renewal_report.KNOWN_FILE

    def environ(self, program: Program, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the environment in which a program starts: certbot names the renewal to a hook."""
        if program is Program.RUN_REPORT:
            return dict(settings)
        return {
            **settings,
            "RENEWED_LINEAGE": str(self.live),
            "RENEWED_DOMAINS": " ".join(NAMES),
        }

    def report(self, program: Program, settings: Mapping[str, str]) -> Ended:
        """Send a report in this process."""
        environ = self.environ(program, settings)
        return run_here(program, self.scripts[program], environ, *program.arguments)

    def report_lines(self, host: str) -> list[str]:
        """Return the lines of line protocol that the deploy hook sends."""
        environ = self.environ(Program.DEPLOY_HOOK, {"HOSTNAME": host})
        script = self.scripts[Program.DEPLOY_HOOK]
        ended = run_here(Program.DEPLOY_HOOK, script, environ, "--dry-run")
        return ended.out.splitlines()[:-1]  # the last line says where they would go

    # ---- The known file
    def first_known(self, host: str) -> str:
        """Return the known file as it was after the first certificate was reported."""
        return known_text(host, LINEAGE, self.begins[0])

    def reset_known(self, host: str) -> None:
        """Write the known file as it was after the first certificate was reported."""
        self.known.write_text(self.first_known(host))

    def other_known(self, host: str) -> str:
        """Return a known file in which the lineage is missing: each program has to add it."""
        return known_text(host, "other", self.begins[0])

    def reset_known_to_other(self, host: str) -> None:
        """Write a known file in which the lineage is missing."""
        self.known.write_text(self.other_known(host))

    def known_lineages(self, host: str) -> dict[str, int]:
        """Return what is known of a host: by lineage, notBefore of its certificate."""
        known_file = certbot_renewal_report.KnownFile(str(self.folder), host)
        problems: list[str] = []
        verdicts = known_file.read(problems).verdicts
        expect(not problems, f"{host}: the known file is whole: {problems}")
        return {lineage: verdict.not_before for lineage, verdict in verdicts.items()}

    def expect_current_known(self, host: str) -> None:
        """Expect that the known file has the current certificate, as after a run report."""
        known_begin = self.known_lineages(host).get(LINEAGE)
        expect(known_begin == self.begins[-1], f"{host}: what is known is wrong")

    # ---- What must be stored
    def renewals(self, host: str, begins: Iterable[int]) -> set[StoredField]:
        """Return the renewals of certificates as they must be stored."""
        host_tag = f"host={host}"
        tags_of_all = frozenset({"domain=all", host_tag, f"lineage={LINEAGE}"})
        renewals = set()
        for begin in begins:
            renewals.add(StoredField(begin, "renewed_count", str(len(NAMES)), tags_of_all))
            for name in NAMES:
                tags = frozenset({f"domain={name}", host_tag})
                renewals.add(StoredField(begin, "renewed_count", "1", tags))
        return renewals

    def state(self) -> set[tuple[str, str]]:
        """Return the fields of the state and their values, as they must be stored."""
        begin = self.begins[-1]
        return {
            ("not_before", str(begin)),
            ("renewal_due", str(begin + DUE_AFTER)),
            ("not_after", str(begin + LIFETIME)),
        }

    def expect_renewal_stored(self, stored: set[StoredField], host: str) -> None:
        """Expect what a deploy hook that succeeded has stored: the current renewal and its state.

        `stored` are all fields of the host.
        """
        renewals = self.renewals(host, self.begins[-1:])
        expect(renewals <= stored, f"{host}: success, so the renewal is stored")
        fields = {item.field for item in stored}
        expect("run_at" in fields, f"{host}: success, so the state is stored")

    def expect_everything_stored(self, stored: set[StoredField], host: str) -> None:
        """Expect what must be stored after a run report: the disk, and the run itself."""
        renewals = self.renewals(host, self.begins[1:])
        expect(renewals <= stored, f"{host}: renewals are missing: {renewals - stored}")

        run_tags = frozenset({f"host={host}"})
        runs = [item for item in stored if item.field == "certificates" and item.tags == run_tags]
        counts = {item.value for item in runs}
        expect("1" in counts, f"{host}: the run of certbot is missing")

        missing = self.state() - stored_states(stored)
        expect(not missing, f"{host}: the state is missing: {missing}")

    def expect_nothing_else_stored(self, stored: set[StoredField], host: str) -> None:
        """Expect no renewal and no state that is not on disk."""
        renewals = {item for item in stored if item.field == "renewed_count"}
        others = renewals - self.renewals(host, self.begins)
        expect(not others, f"{host}: renewals that are not on disk: {others}")
        states = stored_states(stored)
        expect(states == self.state(), f"{host}: states that are not on disk: {states}")

    def expect_equal_to(self, stored: set[StoredField], host: str) -> None:
        """Expect that the database equals the disk after a run report."""
        self.expect_everything_stored(stored, host)
        self.expect_nothing_else_stored(stored, host)


def known_text(host: str, lineage: str, begin: int) -> str:
    """Return a known file in which a host has reported a certificate in a run report."""
    verdicts = {lineage: {"not_before": begin}}
    return json.dumps({host: {"run_report_at": begin, "verdicts": verdicts}})


def stored_states(stored: set[StoredField]) -> set[tuple[str, str]]:
    """Return the certificate's times in all stored states of the lineage: field and value."""
    states = set()
    for item in stored:
        is_state = item.field in ("not_before", "renewal_due", "not_after")
        if is_state and f"lineage={LINEAGE}" in item.tags:
            states.add((item.field, item.value))
    return states
