#!/usr/bin/env python3
"""Delivers certbot's renewed certificates to where they are used: a deploy hook.

Copy this file and the folder certbot_renewal_targets into /etc/letsencrypt/renewal-hooks/deploy,
beside certbot_renewal_report.py, make it executable, write certbot_renewal_deliver.toml, and run it
there once with --check. It needs Python 3.9 (before 3.11 with tomli), hvac for Vault, and OpenSSH's
client for ssh. certbot starts it after each renewal; start it with --all after each run of certbot,
to deliver what failed before.

It runs as root. It trusts certbot's configuration folder, with the settings file in it, and its
environment: both belong to root. The settings file names commands and paths, which are used as they
are. It does not trust what a target answers.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import argparse


def module_folders() -> list[str]:
    """Return where the report hook and the targets may lie; whoever installed this file owns them.

    They lie beside this file. If this file is in renewal-hooks/post, they are in ../deploy. If it,
    or a link to it, leads to deliver/ of a checkout, the report hook is in the folder above.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    real = os.path.dirname(os.path.realpath(__file__))
    folders = [here, real]
    if os.path.basename(here) == "post":
        folders.append(os.path.join(os.path.dirname(here), "deploy"))
    if os.path.basename(real) == "deliver":
        folders.append(os.path.dirname(real))
    return folders


sys.path += module_folders()
try:
    import certbot_renewal_report as hook
    import certbot_renewal_targets as kinds
    from certbot_renewal_targets import base
except ImportError as error:
    if error.name not in ("certbot_renewal_report", "certbot_renewal_targets"):
        raise
    sys.exit(
        f"certbot_renewal_deliver: {error.name} is missing: copy certbot_renewal_report.py and "
        f"certbot_renewal_targets/ to {module_folders()[0]}"
    )

__version__ = "0.1.0"

NAME = "certbot_renewal_deliver"
TOML_FILE = f"{NAME}.toml"
LOCK_FILE = f".{NAME}.lock"


# ---- Settings file -----------------------------------------------------------------------------
def read_targets(folder: str) -> list[base.Target]:
    """Return the targets in the settings file; raise a DeliverError that lists every fault."""
    path = os.path.join(folder, TOML_FILE)
    faults: list[str] = []
    targets: list[base.Target] = []
    kind_names = kinds.kind_names()
    for kind_name, tables in read_toml(path).items():
        if kind_name not in kind_names or not is_list_of_tables(tables):
            known = ", ".join(f"[[{name}]]" for name in kind_names)
            faults.append(f"{kind_name} is no kind of target: each begins with {known}")
            continue
        kind = kinds.load_kind(kind_name)
        for table in tables:
            targets += targets_of_table(kind_name, kind, table, faults)

    faults += equal_name_faults(targets)
    if not targets and not faults:
        faults.append("no target in it")
    if faults:
        raise base.DeliverError(f"{path}: {'; '.join(faults)}")
    return targets


def read_toml(path: str) -> dict[str, Any]:
    """Return what is in a TOML file; raise a DeliverError if it cannot be read."""
    toml = load_toml_library()
    try:
        with open(path, "rb", opener=hook.open_regular) as file:
            tables: dict[str, Any] = toml.load(file)
    except OSError as error:
        raise base.DeliverError(
            f"{path}: {error.strerror}: write it, as docs/deliver.md says, "
            "and let certbot's user read it"
        ) from None
    except ValueError as error:
        raise base.DeliverError(
            f"{path}: {error}: it must be TOML, as in docs/deliver.md"
        ) from None
    return tables


def load_toml_library() -> Any:
    """Import tomllib, which Python has since 3.11, else tomli; raise a DeliverError."""
    for name in ("tomllib", "tomli"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise base.DeliverError(
        f"no TOML library for {sys.executable}: apt-get install python3-tomli, or pip install tomli"
    )


def is_list_of_tables(value: Any) -> bool:
    """Return whether a value in a TOML file was written as [[tables]]."""
    return isinstance(value, list) and all(isinstance(table, dict) for table in value)


def targets_of_table(
    kind_name: str, kind: type[base.Target], table: Mapping[str, Any], faults: list[str]
) -> Sequence[base.Target]:
    """Return the targets of one table; if anything is wrong with it, add faults, and return []."""
    known = {**base.COMMON_OPTIONS, **kind.OPTIONS}
    options = {name: option.default for name, option in known.items()}
    options.update(table)
    name = str(options["name"] or kind_name)

    all_known = ", ".join(known)
    own_faults = [
        f"{option} is no option of {kind_name} (known: {all_known})"
        for option in table
        if option not in known
    ]
    own_faults += base.option_faults(known, options)
    if not own_faults:
        own_faults += kind.table_faults(options)
    faults += [f"{name}: {fault}" for fault in own_faults]
    if own_faults:
        return []
    return kind.of_table(name, options)


def equal_name_faults(targets: Sequence[base.Target]) -> list[str]:
    """Return a text for each name that more than one target has."""
    names = [target.name for target in targets]
    equal_names = sorted({name for name in names if names.count(name) > 1})
    return [f"two targets are called {name}: give each a name" for name in equal_names]


# ---- Lineages on disk --------------------------------------------------------------------------
def read_all_lineages(folder: str, problems: list[str]) -> list[base.Lineage]:
    """Return all lineages that can be read; add what is wrong with others to the problems."""
    live = os.path.join(folder, "live")
    lineages = []
    for entry in sorted(hook.list_folder(live, problems)):
        live_folder = os.path.join(live, entry)
        is_lineage = entry.isprintable() and not entry.startswith(".")
        if not is_lineage or not os.path.isdir(live_folder):
            continue
        try:
            lineages.append(base.read_lineage(live_folder))
        except base.DeliverError as error:
            problems.append(str(error))
    return lineages


# ---- State -------------------------------------------------------------------------------------
ENDED_SECONDS = 30 * hook.DAY  # so long the state file says that a delivery has ended


class StateFile:
    """The file that says what each target has, as far as is known: certbot_renewal_deliver.state.

    It has a line for each lineage and target, see hook.DELIVERY_LINE.

    - Only a run that holds the lock (`run_lock`) writes the file. A run reads it once, and then
      replaces it as a whole after each delivery: whatever happens, it is the old one or the new
      one, and a run that is killed loses nothing.
    - The threads of a run share one object; its own lock makes their changes one after the other.
    - Before a target changes for good, the line may say that the last run was stopped. It is
      replaced when the delivery has ended. So a run that was killed in between is known.
    - A delivery that is no longer wanted is kept for 30 days, as DELIVERY_ENDED, so that reports
      say so.
    - The report hook and the run report read the file, without a lock, and report it.

    The file may be missing, or hold anything: then less is known. It is for root alone, since the
    last words of a command may be in it. `problems` are what is wrong with it.
    """

    def __init__(self, folder: str) -> None:
        """Read the file in certbot's configuration folder."""
        self.path = os.path.join(folder, hook.DELIVERY_STATE_FILE)
        self.lock = threading.Lock()
        self.problems: list[str] = []
        self.deliveries: dict[tuple[str, str], hook.Delivery] = {}
        for delivery in hook.parse_deliveries(self.read_text()):
            self.deliveries[delivery.lineage, delivery.target] = delivery

    def read_text(self) -> str:
        """Return the text of the file, "" if there is none, or if it cannot be read."""
        try:
            return base.read_text(self.path)
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.add_problem(error, "make it readable; without it a command runs again")
            return ""

    def add_problem(self, error: OSError, remedy: str) -> None:
        """Add to the problems that the file cannot be used; once, also if it fails again."""
        problem = f"{self.path}: {error.strerror}: {remedy}"
        if problem not in self.problems:
            self.problems.append(problem)

    def delivery(self, lineage: str, target: str) -> hook.Delivery:
        """Return what a target has of a lineage."""
        return self.deliveries.get((lineage, target), hook.Delivery(lineage, target))

    def wanted_delivery(self, lineage: str, target: str) -> hook.Delivery:
        """Return what a target has of a lineage that it wants; if it had ended, it begins again."""
        delivery = self.delivery(lineage, target)
        if delivery.fingerprint == hook.DELIVERY_ENDED:
            return hook.Delivery(lineage, target)
        return delivery

    def record(self, delivery: hook.Delivery) -> None:
        """Record what a target has now; nothing is written if it had the same before."""
        key = (delivery.lineage, delivery.target)
        with self.lock:
            old = self.deliveries.get(key)
            if old and old._replace(changed_at=0) == delivery._replace(changed_at=0):
                return
            self.deliveries[key] = delivery._replace(changed_at=int(time.time()))
            self.write()

    def end_others(self, wanted: set[tuple[str, str]]) -> None:
        """Record that all deliveries but the wanted ones have ended; forget those of long ago."""
        now = int(time.time())
        with self.lock:  # a delivery that was left alone at its deadline may still be at work
            old = dict(self.deliveries)
            for (lineage, target), delivery in old.items():
                has_ended = delivery.fingerprint == hook.DELIVERY_ENDED
                if has_ended and delivery.changed_at < now - ENDED_SECONDS:
                    del self.deliveries[lineage, target]
                elif not has_ended and (lineage, target) not in wanted:
                    ended = hook.Delivery(lineage, target, hook.DELIVERY_ENDED, changed_at=now)
                    self.deliveries[lineage, target] = ended
            if self.deliveries != old:
                self.write()

    def write(self) -> None:
        """Replace the file. If that fails it is a problem, and the deliveries go on."""
        lines = [delivery_line(delivery) for _, delivery in sorted(self.deliveries.items())]
        try:
            base.replace_file(self.path, "".join(lines))
        except OSError as error:
            self.add_problem(error, "make it writable, or alerts know nothing of this")


def delivery_line(delivery: hook.Delivery) -> str:
    """Return a line of the state file; hook.parse_deliveries reads it."""
    columns = [str(column) for column in delivery._replace(error="")]
    columns[-1] = hook.CONTROL.sub(" ", delivery.error)
    return "\t".join(columns) + "\n"


# ---- Lock --------------------------------------------------------------------------------------
LOCK_SECONDS = 300.0  # so long a run waits for another one; certbot waits as long
LOCK_PAUSE_SECONDS = 0.1


@contextlib.contextmanager
def run_lock(folder: str) -> Iterator[None]:
    """Wait until no other run delivers, and keep others waiting meanwhile.

    Two runs would deliver the same to the same targets, and overwrite each other's state.

    - A run holds an flock on a file in certbot's configuration folder. The system releases it when
      the run ends, however it ends. The file stays; it is empty.
    - Only root may open the file: whoever can open it could hold the lock.
    - Each run takes the lock, --check and --dry-run too: what they see is never half delivered.
    - Without a lock, as in a folder that cannot be written to, a run goes on: at worst two deliver.

    Raise a DeliverError if the other run does not end for LOCK_SECONDS.
    """
    path = os.path.join(folder, LOCK_FILE)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file = stack.enter_context(open(path, "w", opener=open_private))
            wait_for_lock(file.fileno(), path)
        yield


def open_private(path: str, flags: int) -> int:
    """Open a file, as an opener for open(); a new one is for its owner alone."""
    return os.open(path, flags, 0o600)


def wait_for_lock(descriptor: int, path: str) -> None:
    """Take the lock as soon as it is free; raise a DeliverError after LOCK_SECONDS."""
    deadline = base.Deadline(LOCK_SECONDS)
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if deadline.has_passed():
            raise base.DeliverError(
                f"{path}: another run has held it for {LOCK_SECONDS:g} s: "
                "look what it hangs at, and end it"
            )
        time.sleep(LOCK_PAUSE_SECONDS)


# ---- Deliveries --------------------------------------------------------------------------------
LATE_SECONDS = 0.5  # after its deadline, a target has so long to say what did not answer


class Result(NamedTuple):
    """How an attempt ended, for a lineage and a target.

    `action` says what was done, or would be, "" if the target has the certificate. `error` is "" if
    the attempt did not fail. `is_down`: the target failed as a whole.
    """

    lineage: str
    target: str
    action: str = ""
    error: str = ""
    is_down: bool = False


class Looker:
    """Looks what would be delivered; changes neither a target nor the state file."""

    def __init__(self, state: StateFile) -> None:
        """`state` says what the targets have had so far."""
        self.state = state

    def visit(
        self, targets: Sequence[base.Target], lineages: Sequence[base.Lineage]
    ) -> list[Result]:
        """Visit each target with each lineage that it wants; return the results, sorted.

        Each target has a thread of its own: no target waits for another one.
        """
        results: list[Result] = []
        threads = []
        for target in targets:
            wanted = [lineage for lineage in lineages if target.wants(lineage)]
            if wanted:
                arguments = (target, wanted, results)
                thread = threading.Thread(target=self.visit_target, args=arguments, daemon=True)
                threads.append(thread)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(results)

    def visit_target(
        self, target: base.Target, lineages: Sequence[base.Lineage], results: list[Result]
    ) -> None:
        """Visit a target with one lineage after the other; add to the results.

        When the target is down, the remaining lineages are not tried: they would fail as well.
        """
        down_error = ""
        with target.slots:
            for lineage in lineages:
                if down_error:
                    result = Result(lineage.name, target.name, error=down_error, is_down=True)
                else:
                    result = self.attempt_in_time(target, lineage)
                if result.is_down:
                    down_error = result.error
                results.append(result)
                try:
                    self.finish(lineage, result)
                except Exception as error:  # the target has its certificate, but that is not known
                    results.append(result._replace(action="", error=fault_text(error)))

    def attempt_in_time(self, target: base.Target, lineage: base.Lineage) -> Result:
        """Attempt one lineage; leave the attempt alone half a second after its deadline."""
        seconds = target.options["timeout"]
        recorded = self.state.wanted_delivery(lineage.name, target.name)

        def record_start() -> None:
            error = "the last run was stopped while it delivered"
            self.state.record(recorded._replace(error=error))

        attempt = base.Attempt(lineage, recorded, base.Deadline(seconds), record_start)
        late = Result(
            lineage.name,
            target.name,
            error="no answer in time: timeout is too short, or it hangs",
            is_down=True,
        )
        result: Result = hook.run_with_deadline(
            seconds + LATE_SECONDS, lambda: self.attempt(target, attempt), late
        )
        return result

    def attempt(self, target: base.Target, attempt: base.Attempt) -> Result:
        """Return how an attempt ended; every error is a result, also one that nobody expected."""
        result = Result(attempt.lineage.name, target.name)
        try:
            return result._replace(action=self.act(target, attempt))
        except hook.ReportError as error:
            is_down = isinstance(error, base.TargetDownError)
            return result._replace(error=str(error), is_down=is_down)
        except Exception as error:
            return result._replace(error=fault_text(error))

    def act(self, target: base.Target, attempt: base.Attempt) -> str:
        """Do what this object is for; return it in words."""
        return target.look(attempt)

    def finish(self, lineage: base.Lineage, result: Result) -> None:
        """Record a result: nothing, after a look."""


class Deliverer(Looker):
    """Delivers to each target what it lacks, and records in the state file what it has then."""

    def act(self, target: base.Target, attempt: base.Attempt) -> str:
        """Deliver."""
        return target.deliver(attempt)

    def finish(self, lineage: base.Lineage, result: Result) -> None:
        """Record what the target has now, or why it has not the certificate."""
        delivery = self.state.wanted_delivery(lineage.name, result.target)
        if not result.error:
            delivery = delivery._replace(
                fingerprint=lineage.fingerprint,
                not_before=lineage.not_before,
                not_after=lineage.not_after,
            )
        self.state.record(delivery._replace(error=hook.shortened(result.error)))


def fault_text(error: Exception) -> str:
    """Return the text of an error that nobody expected."""
    reason = f"{type(error).__name__}: {hook.shortened(str(error))}"
    return f"{reason}: this is a fault of {NAME}.py, please report it"


def undelivered_problems(results: Sequence[Result]) -> list[str]:
    """Return a text for each error of a target, with the lineages that have it: three by name."""
    lineages_of: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.error:
            lineages_of.setdefault((result.target, result.error), []).append(result.lineage)

    problems = []
    for (target, error), lineages in lineages_of.items():
        names = ", ".join(lineages[:3])
        if len(lineages) > 3:
            names += f" and {len(lineages) - 3} more"
        problems.append(f"{names} not delivered to {target}: {error}")
    return problems


# ---- Runs --------------------------------------------------------------------------------------
def deliver_lineage(targets: Sequence[base.Target], folder: str, live_folder: str) -> list[str]:
    """Deliver the lineage that certbot has renewed; return what is wrong."""
    with run_lock(folder):
        state = StateFile(folder)
        results = Deliverer(state).visit(targets, [base.read_lineage(live_folder)])
    problems = [*state.problems, *undelivered_problems(results)]
    say_deliveries(results, problems)
    return problems


def deliver_all(targets: Sequence[base.Target], folder: str) -> list[str]:
    """Deliver all lineages, and record which deliveries have ended; return what is wrong."""
    problems: list[str] = []
    with run_lock(folder):
        state = StateFile(folder)
        lineages = read_all_lineages(folder, problems)
        results = Deliverer(state).visit(targets, lineages)
        if not problems:  # all lineages were seen, so those that are missing are gone
            state.end_others(wanted_pairs(targets, lineages))
    problems += [*state.problems, *undelivered_problems(results)]
    say_deliveries(results, problems)
    return problems


def wanted_pairs(
    targets: Sequence[base.Target], lineages: Sequence[base.Lineage]
) -> set[tuple[str, str]]:
    """Return the names of each lineage and of each target that wants it."""
    pairs: set[tuple[str, str]] = set()
    for target in targets:
        pairs.update((lineage.name, target.name) for lineage in lineages if target.wants(lineage))
    return pairs


def say_deliveries(results: Sequence[Result], problems: Sequence[str]) -> None:
    """Print on one line what was delivered, and how many had it."""
    actions = []
    unchanged = 0
    for result in results:
        if result.action:
            actions.append(f"{result.lineage} to {result.target}: {result.action}")
        elif not result.error:
            unchanged += 1

    if unchanged and (actions or problems):
        actions.append(f"{unchanged} had it")
    elif unchanged:
        actions.append(f"nothing to do: {unchanged} had it")
    hook.say("; ".join(actions) or "nothing delivered")


def look_at_all(targets: Sequence[base.Target], folder: str) -> list[str]:
    """Print what would be delivered, for --dry-run; return what is wrong."""
    problems: list[str] = []
    with run_lock(folder):
        state = StateFile(folder)
        lineages = read_all_lineages(folder, problems)
        results = Looker(state).visit(targets, lineages)
    problems += [*state.problems, *undelivered_problems(results)]
    say_looks(results)
    return problems + idle_problems(targets, lineages)


def check(targets: Sequence[base.Target], folder: str, script: str) -> list[str]:
    """Prove the installation: print what would be delivered; return what is wrong.

    It changes nothing. A delivery that failed the last time, and is still to be done, is a problem
    too: not everything can be found out by a look.
    """
    problems: list[str] = []
    with run_lock(folder):
        state = StateFile(folder)
        lineages = read_all_lineages(folder, problems)
        if not lineages and not problems:
            problems.append(hook.no_certificate_problem(folder))
        results = Looker(state).visit(targets, lineages)

    problems += installation_problems(script, folder)
    results = [with_last_error(state, result) for result in results]
    problems += [*state.problems, *undelivered_problems(results)]
    say_looks(results)
    problems += idle_problems(targets, lineages)
    if not problems:
        path = os.path.join(folder, TOML_FILE)
        hook.say(f"ready: {len(lineages)} certificates for {len(targets)} targets of {path}")
    return problems


def installation_problems(script: str, folder: str) -> list[str]:
    """Return why certbot would not start this hook, and what is not of its version."""
    problems = hook.deploy_hook_problems(script, folder)
    problems += hook.version_problems(__version__, f"{NAME}.py")
    if kinds.__version__ != __version__:
        problems += hook.version_problems(kinds.__version__, "certbot_renewal_targets/")
    return problems


def with_last_error(state: StateFile, result: Result) -> Result:
    """Return a result that fails if there is something to do, and the last attempt has failed."""
    last_error = state.delivery(result.lineage, result.target).error
    if not result.action or not last_error:
        return result
    return result._replace(error=f"the last try: {last_error}. --all tries again")


def say_looks(results: Sequence[Result]) -> None:
    """Print a row for each lineage and target: what would be delivered."""
    for result in results:
        text = result.error or result.action or "has it"
        hook.say(f"{result.target:25} {result.lineage:25} {text}")


def idle_problems(targets: Sequence[base.Target], lineages: Sequence[base.Lineage]) -> list[str]:
    """Return a text for each target that wants none of the lineages."""
    if not lineages:
        return []
    busy_names = {target_name for _, target_name in wanted_pairs(targets, lineages)}
    return [
        f"no certificate here is for {target.name}: correct its lineages and names"
        for target in targets
        if target.name not in busy_names
    ]


def restore(targets: Sequence[base.Target], folder: str) -> None:
    """Restore from the first target that can give back what it has; print what was restored."""
    sources = [target for target in targets if isinstance(target, base.RestorableTarget)]
    if not sources:
        raise base.DeliverError(f"{TOML_FILE} has no [[vault]] to restore from")
    with run_lock(folder):
        restored = sources[0].restore(folder)
    for text in restored.problems:
        hook.warn(text, NAME)
    names = ", ".join(restored.names)
    hook.say(
        f"restored into {folder}: "
        f"{names or 'nothing, all of it is there, or Vault holds nothing yet'}"
    )


# ---- Command line ------------------------------------------------------------------------------
class Options(NamedTuple):
    """What the command line asks for; certbot gives nothing."""

    all: bool = False
    check: bool = False
    dry_run: bool = False
    restore: bool = False
    config_dir: str = ""


def option_tables() -> dict[str, Mapping[str, base.Option]]:
    """Return the options of all kinds, by kind, for --help and the manual; the common ones first.

    It imports all kinds.
    """
    tables = {"every kind": base.COMMON_OPTIONS}
    for name in kinds.kind_names():
        tables[name] = kinds.load_kind(name).OPTIONS
    return tables


def options_help() -> str:
    """Return the options of all kinds of targets, for --help."""
    lines = [f"targets, from {TOML_FILE} in certbot's configuration folder, each a table [[kind]]:"]
    for kind, table in option_tables().items():
        lines += ["", f"{kind}:"]
        for name, option in table.items():
            lines.append(f"  {name:15} {default_in_words(option):9} {option.meaning}")
    return "\n".join(lines)


def default_in_words(option: base.Option) -> str:
    """Return the default of an option for people."""
    if option.default is None:
        return "required"
    return str(option.default or "(empty)")


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    description = (__doc__ or "").partition("\n")[0]
    parser = hook.argument_parser(NAME, description, "")
    parser.add_argument(
        "what",
        nargs="?",
        choices=["restore"],
        help="rebuild certbot's configuration folder out of Vault",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="deliver what any target lacks of any certificate: after each run of certbot",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="prove the installation: look at each target, change nothing",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="tell what would be delivered, change nothing"
    )
    return parser


def read_options(arguments: Sequence[str]) -> Options | None:
    """Parse the command line; None if it only asked for help or the version, which was printed.

    Wrong usage raises SystemExit with status 2, as argparse does.
    """
    if not arguments:  # as certbot starts it: argparse is not needed, and not imported
        return Options()
    parser = command_line()
    parsed = parser.parse_args(arguments)
    if parsed.help:
        parser.epilog = options_help()  # of all kinds, which nothing else needs
    if hook.printed_help(parsed, parser, NAME, __version__):
        return None
    if parsed.what and (parsed.check or parsed.dry_run):
        parser.error("restore changes files: use it without --check and --dry-run")
    return Options(
        parsed.all, parsed.check, parsed.dry_run, parsed.what == "restore", parsed.config_dir
    )


def run(options: Options, environ: Mapping[str, str], script: str) -> list[str]:
    """Do what the command line asks for; return what is wrong. Raise a ReportError.

    In renewal-hooks/post, where certbot names no lineage, it delivers all of them.
    """
    live_folder = environ.get("RENEWED_LINEAGE", "").strip().rstrip("/")
    folder = options.config_dir or hook.config_folder(script, live_folder)
    is_post_hook = os.path.basename(os.path.dirname(script)) == "post"
    targets = read_targets(folder)

    if options.restore:
        restore(targets, folder)
        return []
    if options.check:
        return check(targets, folder, script)
    if options.dry_run:
        return look_at_all(targets, folder)
    if options.all or is_post_hook:
        return deliver_all(targets, folder)
    if not live_folder:
        raise base.DeliverError(
            "RENEWED_LINEAGE is not set: certbot sets it for a deploy hook. "
            f"By hand use {NAME}.py --all"
        )
    return deliver_lineage(targets, folder, os.path.abspath(live_folder))


def main(arguments: Sequence[str], environ: Mapping[str, str], script: str = __file__) -> int:
    """Run the hook; return 0: every target has what it should have, 1: not so, 2: wrong usage."""
    options = read_options(arguments)
    if options is None:
        return 0
    try:
        problems = run(options, environ, os.path.abspath(script))
    except hook.ReportError as error:
        problems = [str(error)]
    return hook.say_problems(problems, NAME, options.check)


if __name__ == "__main__":
    gc.disable()  # it ends before there is anything to collect
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C needs no traceback
    sys.exit(main(sys.argv[1:], os.environ))
