"""Logs as certbot writes them: short ones that a test puts together, message by message."""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from certbot_renewal_run import CertbotLog, CertbotRun, read_certbot_log

CONFIG = "/etc/letsencrypt"
LOCKED = "Another instance of Certbot is already running."
FRAME = "- " * 40
MAIN = "/usr/lib/python3/dist-packages/certbot/_internal/main.py"


class RunText:
    """The text that one certbot command writes into its log, at a message each millisecond."""

    def __init__(
        self, start: str, version: str = "5.8.0", arguments: Sequence[str] = ("-q",)
    ) -> None:
        """`start` is local time: `2026-11-27 18:06:39`."""
        self.moment = datetime.fromisoformat(start)
        self.text = ""
        self.message("_internal.main", f"certbot version: {version}")
        self.message("_internal.main", "Location of certbot entry point: /usr/bin/certbot")
        self.message("_internal.main", f"Arguments: {list(arguments)!r}")
        self.message("_internal.main", "Discovered plugins: PluginsRegistry(…)")
        self.message("_internal.log", "Root logging level set at 40")

    def message(self, logger: str, text: str, level: str = "DEBUG") -> RunText:
        """Write a message of one of certbot's own loggers."""
        return self.line(f"certbot.{logger}", text, level)

    def line(self, logger: str, text: str, level: str = "DEBUG") -> RunText:
        """Write a message of any logger; it may have several lines."""
        moment = self.moment.strftime("%Y-%m-%d %H:%M:%S")
        milliseconds = self.moment.microsecond // 1000
        self.text += f"{moment},{milliseconds:03}:{level}:{logger}:{text}\n"
        self.moment += timedelta(milliseconds=1)
        return self

    def wait(self, seconds: int) -> RunText:
        """Let time pass before the next message."""
        self.moment += timedelta(seconds=seconds)
        return self

    def notice(self, text: str) -> RunText:
        """Write what certbot says to the user."""
        return self.message("_internal.display.obj", f"Notifying user: {text}")

    def error(self, text: str) -> RunText:
        """Write an error about a lineage."""
        return self.message("_internal.renewal", text, "ERROR")

    def fatal(self, text: str, function: str = "renew") -> RunText:
        """End with an error, after its traceback; `function` is certbot's function of the verb."""
        self.message(
            "_internal.log",
            "Exiting abnormally:\n"
            "Traceback (most recent call last):\n"
            f'  File "{MAIN}", line 1744, in main\n'
            "    return config.func(config, plugins)\n"
            f'  File "{MAIN}", line 1630, in {function}\n'
            f"certbot.errors.Error: {text}",
        )
        return self.message("_internal.log", text, "ERROR")

    def processing(self, lineage: str) -> RunText:
        """Begin with a lineage. certbot wraps this text, as the only one, at 80 characters."""
        path = f"{CONFIG}/renewal/{lineage}.conf"
        blank = " " if len(f"Processing {path}") <= 80 else "\n"
        return self.notice(f"Processing{blank}{path}")

    def window(self, start: str, end: str) -> RunText:
        """Write the CA's renewal information, as boulder sends it."""
        return self.line(
            "acme.client",
            "Received response:\nHTTP 200\nRetry-After: 21600\n\n"
            f'{{\n  "suggestedWindow": {{\n    "start": "{start}",\n    "end": "{end}"\n  }}\n}}',
        )

    def not_due(self, lineage: str) -> RunText:
        """Process a lineage that is not due."""
        return self.processing(lineage).notice("Certificate not yet due for renewal")

    def renewed(self, lineage: str) -> RunText:
        """Process a lineage that is renewed."""
        self.processing(lineage)
        return self.notice(f"Renewing an existing certificate for {lineage}")

    def refusal(self, name: str, detail: str, problem: str = "unauthorized") -> RunText:
        """Write why the CA refuses a name."""
        return self.notice(
            "\nCertbot failed to authenticate some domains (authenticator: webroot). The "
            "Certificate Authority reported these problems:\n"
            f"  Identifier: {name}\n  Type:   {problem}\n  Detail: {detail}\n\n"
            "Hint: The Certificate Authority failed to download the challenge files.\n"
        )

    def failed(self, lineage: str, error: str = "Some challenges have failed.") -> RunText:
        """Say that the renewal of the lineage failed."""
        return self.error(f"Failed to renew certificate {lineage} with error: {error}")

    def broken(self, lineage: str) -> RunText:
        """Process a lineage whose configuration certbot cannot parse."""
        path = f"{CONFIG}/renewal/{lineage}.conf"
        self.processing(lineage)
        self.error(f"Renewal configuration file {path} is broken.")
        return self.error(f"The error was: error parsing {path}\nSkipping.")

    def summary(
        self,
        renewed: Sequence[str] = (),
        failed: Sequence[str] = (),
        not_due: Sequence[str] = (),
        broken: Sequence[str] = (),
        noun: str = "renewal",
    ) -> RunText:
        """List the lineages with their results."""
        self.notice(f"\n{FRAME}")
        if not_due:
            self.notice("The following certificates are not due for renewal yet:")
            self.notice(
                listed([f"{live(name)} expires on 2027-02-25" for name in not_due], "skipped")
            )
        if not renewed and not failed:
            self.notice(f"No {noun}s were attempted.")
        elif renewed and not failed:
            self.notice(f"Congratulations, all {noun}s succeeded: ")
            self.notice(listed([live(name) for name in renewed], "success"))
        elif failed and not renewed:
            self.error(f"All {noun}s failed. The following certificates could not be renewed:")
            self.error(listed([live(name) for name in failed], "failure"))
        else:
            self.notice(f"The following {noun}s succeeded:")
            self.notice(listed([live(name) for name in renewed], "success") + "\n")
            self.error(f"The following {noun}s failed:")
            self.error(listed([live(name) for name in failed], "failure"))
        if broken:
            self.notice("\nAdditionally, the following renewal configurations were invalid: ")
            paths = [f"{CONFIG}/renewal/{name}.conf" for name in broken]
            self.notice(listed(paths, "parsefail"))
        return self.notice(FRAME)

    def end(self, failed: int = 0, broken: int = 0) -> RunText:
        """Write the last line of a run that looked at all lineages."""
        if failed or broken:
            return self.fatal(f"{failed} renew failure(s), {broken} parse failure(s)")
        return self.message("_internal.renewal", "no renewal failures")


def live(lineage: str) -> str:
    """Return the path of a lineage's full chain."""
    return f"{CONFIG}/live/{lineage}/fullchain.pem"


def listed(texts: Sequence[str], ending: str) -> str:
    """Return the lines of the list at the end of a run."""
    return "\n".join(f"  {text} ({ending})" for text in texts)


def quiet_run(start: str, *lineages: str) -> RunText:
    """Return a whole run in which no lineage is due."""
    run = RunText(start)
    for lineage in lineages:
        run.not_due(lineage)
    return run.summary(not_due=lineages).end()


def failed_run(start: str, lineage: str, detail: str) -> RunText:
    """Return a whole run in which the CA refuses a lineage."""
    run = RunText(start).processing(lineage).refusal(lineage, detail).failed(lineage)
    return run.summary(failed=[lineage]).end(failed=1)


def write_log(path: Path, *runs: RunText, written_at: float = 0) -> None:
    """Write a log file with these runs, compressed if its name ends with .gz.

    `written_at` is the file's time in Unix seconds, 0 for now.
    """
    content = "".join(run.text for run in runs).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    if written_at:
        os.utime(path, (written_at, written_at))


def only_run(log: CertbotLog) -> CertbotRun:
    """Return the only run of a log that could be read."""
    assert log.problem == ""
    assert len(log.runs) == 1
    return log.runs[0]


def newest_run(logs_dir: Path, now: int) -> CertbotRun:
    """Return the newest run of `certbot renew` in a folder of logs."""
    return only_run(read_certbot_log(str(logs_dir), "", now))
