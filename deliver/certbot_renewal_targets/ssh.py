"""Another server, reached with OpenSSH: it gets certificate and key, and runs a reload command.

The host runs one shell for a look, one for the reload; sftp copies the files between them. ssh
checks the host's key and never asks for a password. A key is only ever in files, never in an
argument or in a log. The reload command runs there as the user who logs in.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from threading import Semaphore
from typing import Any, ClassVar, NamedTuple

from certbot_renewal_targets import base

# Matches: web1, deploy@web2.example.com:2222, [2001:db8::1]:22
# With a - in front, user or host would be an option of ssh.
HOST = re.compile(
    r"""
    (?!-) (?P<user> [\w.+-]+@ )?
    (?P<host> \[ [\da-fA-F:.]+ \] | (?!-) [\w.-]+ )
    (?: : (?P<port> \d{1,5} ) )?
    """,
    re.VERBOSE,
)

SSH_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ServerAliveInterval=5",
    "ForwardAgent=no",
)

# Prints the certificate that the host has. Fails if a file could not be written.
LOOK_SCRIPT = """
for file in {key} {fullchain}; do
    folder=$(dirname "$file")
    [ -w "$folder" ] || {{ echo "$folder does not exist, or is not writable" >&2; exit 1; }}
done
cat {fullchain} 2>/dev/null || :
"""

# Functions that move a copied file into place: first `prepare FILE MODE`, then `replace FILE`.
# If there is an old file, the new one gets its owner and mode, else MODE.
MOVE_SCRIPT = """
link_target() { readlink -f "$1" 2>/dev/null || echo "$1"; }  # a file that is no link: itself
owner_of() { stat -c '%u:%g' "$1" 2>/dev/null || stat -f '%u:%g' "$1"; }  # GNU's stat, else BSD's
mode_of() { stat -c '%a' "$1" 2>/dev/null || stat -f '%Lp' "$1"; }
prepare() {
    file=$(link_target "$1")
    [ "$file" = "$1" ] || mv -f "$1.new" "$file.new"
    if [ -e "$file" ]; then
        old_owner=$(owner_of "$file")
        old_mode=$(mode_of "$file")
        new_owner=$(owner_of "$file.new")
        [ "$new_owner" = "$old_owner" ] || chown "$old_owner" "$file.new"
        chmod "$old_mode" "$file.new"
    else
        chmod "$2" "$file.new"
    fi
}
replace() { file=$(link_target "$1"); mv -f "$file.new" "$file"; }
"""

# Runs the reload command in a shell of its own; if it fails, adds a line to what it has printed.
RELOAD_SCRIPT = """
( {reload}
) </dev/null || {{
    status=$?
    echo '(reload failed; the files are {state})' >&2
    exit $status
}}
"""


class HostAddress(NamedTuple):
    """One entry of `hosts`.

    `user` ends with its @. `user` and `port` are "" if they are not set.
    """

    user: str
    host: str
    port: str


class CopiedFile(NamedTuple):
    """A file to copy: where it is here, where it goes there, and its mode if it is new there."""

    source: str
    destination: str
    mode: str


class Target(base.Target):
    """One host of a table.

    The steps of a delivery:

    1. `ssh`: can both files be written, and does the host have the certificate already?
    2. `sftp`: copy certificate and key beside the old ones.
    3. Record in the state file that a change begins.
    4. `ssh`: move the files into place, then run the reload command.

    If the last attempt failed or was stopped after the third step, the host has the certificate,
    but the reload command may not have run: then only the reload command runs.
    """

    OPTIONS: ClassVar[Mapping[str, base.Option]] = {
        "hosts": base.Option(
            None,
            "a list of [user@]host[:port], or of host names in OpenSSH's configuration",
            base.LIST_OF_TEXTS,
        ),
        "fullchain": base.Option(
            None,
            "file for the certificate and its chain: /etc/ssl/example/{lineage}.pem",
            is_own_file=True,
        ),
        "key": base.Option(None, "file for the key", is_own_file=True),
        "reload": base.Option("", "command to run on the host after a certificate was copied"),
        "config": base.Option(
            "",
            "file with OpenSSH's client configuration (ssh -F): the key, the user, known hosts",
        ),
        "parallel": base.Option(20, "maximum number of hosts at the same time", base.NUMBER),
    }

    def __init__(
        self, name: str, options: Mapping[str, Any], slots: Semaphore, address: HostAddress
    ) -> None:
        """`slots` is shared by the hosts of a table."""
        super().__init__(name, options, slots)
        self.address = address

    @classmethod
    def table_faults(cls, options: Mapping[str, Any]) -> list[str]:
        """Return a text for each host that cannot be one."""
        return [
            f"{host!a} in hosts is not valid: write [user@]host[:port]"
            for host in options["hosts"]
            if not HOST.fullmatch(host)
        ]

    @classmethod
    def of_table(cls, name: str, options: Mapping[str, Any]) -> Sequence[base.Target]:
        """Return a target for each host of the table."""
        slots = Semaphore(max(1, int(options["parallel"])))
        targets = []
        for host in options["hosts"]:
            match = HOST.fullmatch(host)
            if match:  # table_faults has reported the hosts that do not match
                address = HostAddress(*match.groups(""))
                targets.append(cls(f"{name}/{host}", options, slots, address))
        return targets

    def look(self, attempt: base.Attempt) -> str:
        """Return what the host lacks."""
        if not self.has_certificate(attempt):
            return "would be copied"
        return "would run reload" if attempt.recorded.error else ""

    def deliver(self, attempt: base.Attempt) -> str:
        """Copy certificate and key, move them into place, and run the reload command."""
        if not self.has_certificate(attempt):
            files = self.files(attempt.lineage)
            self.copy(files, attempt.deadline)
            attempt.record_start()  # if this run is killed before the reload, the next one reloads
            self.run_there(move_script(files) + self.reload_script("in place"), attempt.deadline)
            return "copied, reload ran" if self.options["reload"] else "copied"

        if not attempt.recorded.error:
            return ""
        self.run_there(self.reload_script("up to date"), attempt.deadline)
        return "reload ran"

    def has_certificate(self, attempt: base.Attempt) -> bool:
        """Return whether the host has the certificate, with its chain.

        The key is not compared. Raise a DeliverError if the host could not get both.
        """
        script = LOOK_SCRIPT.format(
            fullchain=self.path("fullchain", attempt.lineage),
            key=self.path("key", attempt.lineage),
        )
        present = self.run_there(script, attempt.deadline)
        return attempt.lineage.pem["fullchain"].strip() in present

    def files(self, lineage: base.Lineage) -> list[CopiedFile]:
        """Return the files to copy, the key first."""
        folder = lineage.live_folder
        return [
            CopiedFile(
                os.path.realpath(os.path.join(folder, "privkey.pem")),
                self.path("key", lineage),
                "600",
            ),
            CopiedFile(
                os.path.realpath(os.path.join(folder, "fullchain.pem")),
                self.path("fullchain", lineage),
                "644",
            ),
        ]

    def copy(self, files: Sequence[CopiedFile], deadline: base.Deadline) -> None:
        """Copy files to the host, each as `.new` beside the old one.

        At first a new file has the mode of its source, so that nobody there may read a key.
        """
        address = self.address
        command = ["sftp", "-q", *self.ssh_options(), "-b", "-", address.user + address.host]
        puts = [f'put "{file.source}" {file.destination}.new\n' for file in files]
        try:
            base.run_program(command, "".join(puts), deadline)
        except base.TargetDownError:
            raise
        except base.DeliverError:  # a full disk, for example: nothing half-written stays
            removals = [f"-rm {file.destination}.new\n" for file in files]
            with contextlib.suppress(base.DeliverError):
                base.run_program(command, "".join(removals), deadline)
            raise

    def reload_script(self, state: str) -> str:
        """Return the script that runs the reload command; `state` says how the files are then."""
        return RELOAD_SCRIPT.format(reload=self.options["reload"] or ":", state=state)

    def run_there(self, script: str, deadline: base.Deadline) -> str:
        """Run a shell script on the host; return what it prints.

        The script is the shell's stdin: nothing has to be quoted for the login shell. It stands in
        braces: the shell reads all of it before it runs any of it.
        """
        host = self.address.host.strip("[]")
        command = ["ssh", "-T", *self.ssh_options(), self.address.user + host, "exec sh -s"]
        return base.run_program(command, f"{{ set -e\n{script}\nexit; }}\n", deadline)

    def ssh_options(self) -> list[str]:
        """Return the arguments that ssh and sftp have in common."""
        arguments = []
        for option in (*SSH_OPTIONS, f"ConnectTimeout={max(1, int(self.options['timeout']))}"):
            arguments += ["-o", option]
        if self.options["config"]:
            arguments += ["-F", self.options["config"]]
        if self.address.port:
            arguments += ["-o", f"Port={self.address.port}"]
        return arguments


def move_script(files: Sequence[CopiedFile]) -> str:
    """Return the script that moves copied files into place, once all of them are prepared."""
    preparations = [f"prepare {file.destination} {file.mode}" for file in files]
    replacements = [f"replace {file.destination}" for file in files]
    return "\n".join([MOVE_SCRIPT, *preparations, *replacements])
