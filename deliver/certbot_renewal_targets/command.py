"""A command: a target of any other kind, reached by a program of the administrator."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import ClassVar

import certbot_renewal_report as hook
from certbot_renewal_targets import base


class Target(base.Target):
    """A program that is started once for each certificate.

    What the program does cannot be seen. All that is known is that it ended with status 0 for a
    certificate: then the state file has the certificate's fingerprint, and it is not run again.
    The program runs as root, as the settings file names it.
    """

    OPTIONS: ClassVar[Mapping[str, base.Option]] = {
        "command": base.Option(
            None,
            "a list: the program and its arguments. It runs with RENEWED_LINEAGE and "
            "RENEWED_DOMAINS, like a deploy hook of certbot",
            base.LIST_OF_TEXTS,
        ),
    }

    def look(self, attempt: base.Attempt) -> str:
        """Return what would be run, "" if it has succeeded for this certificate."""
        if has_succeeded(attempt):
            return ""
        command = self.options["command"]
        if not shutil.which(command[0]):
            raise base.DeliverError(f"{command[0]}: not found: install it, or make it executable")
        return f"would run {hook.shortened(' '.join(command))}"

    def deliver(self, attempt: base.Attempt) -> str:
        """Run the program, unless it has succeeded for this certificate."""
        if has_succeeded(attempt):
            return ""
        lineage = attempt.lineage
        environ = {
            **os.environ,
            "RENEWED_LINEAGE": lineage.live_folder,
            "RENEWED_DOMAINS": " ".join(lineage.names),
        }
        base.run_program(self.options["command"], "", attempt.deadline, environ)
        return "command ran"


def has_succeeded(attempt: base.Attempt) -> bool:
    """Return whether the program has ended with status 0 for the current certificate."""
    return attempt.recorded.fingerprint == attempt.lineage.fingerprint
