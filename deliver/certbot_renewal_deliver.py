#!/usr/bin/env python3
"""Delivers renewed certificates to HAProxy, Vault, other servers or a command: a deploy hook.

Copy this file and the folder certbot_renewal_targets into /etc/letsencrypt/renewal-hooks/deploy,
beside certbot_renewal_report.py. Make it executable, write certbot_renewal_deliver.toml, and run it
once with --check. It needs Python 3.9 (before 3.11 with tomli), hvac for Vault, and OpenSSH's
client for ssh. certbot starts it after each renewal. Start it with --all after each certbot run, to
repeat deliveries that failed.

It runs as root. It trusts certbot's configuration folder, with the settings file in it, and its
environment: both belong to root. The settings file names commands and paths, which are used without
changes. It does not trust the answers of targets.
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
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import argparse


def module_folders() -> list[str]:
    """Return the folders that may hold the report hook and the targets.

    The user who installed this file owns these folders, so they are trusted. Usually both are
    beside this file. If this file is in renewal-hooks/post, they are in ../deploy. If this file is
    in deliver/ of a checkout, or a link that leads there, the report hook is in the folder above.
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
        if kind_name in kind_names and is_list_of_tables(tables):
            targets += targets_of_kind(kind_name, tables, faults)
        else:
            known = ", ".join(f"[[{name}]]" for name in kind_names)
            faults.append(
                f"{kind_name} is not a kind of target: begin each target with one of {known}"
            )

    faults += equal_name_faults(targets)
    if not targets and not faults:
        faults.append("this file has no target: add one, as docs/deliver.md shows")
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
            f"{path}: {error.strerror}: write this file as docs/deliver.md shows, "
            "readable for certbot's user"
        ) from None
    except ValueError as error:
        raise base.DeliverError(
            f"{path}: {error}: correct the syntax, as docs/deliver.md shows"
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


def targets_of_kind(
    kind_name: str, tables: Sequence[Mapping[str, Any]], faults: list[str]
) -> list[base.Target]:
    """Return the targets of all tables of a kind; add the faults of wrong tables."""
    kind = kinds.load_kind(kind_name)
    targets: list[base.Target] = []
    for table in tables:
        targets += targets_of_table(kind_name, kind, table, faults)
    return targets


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
        f"{option} is not an option of {kind_name} (known options: {all_known})"
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
    counts = Counter(target.name for target in targets)
    equal_names = sorted(name for name, count in counts.items() if count > 1)
    return [
        f"more than one target has the name {name}: set a different name for each"
        for name in equal_names
    ]


# ---- Lineages on disk --------------------------------------------------------------------------
def read_all_lineages(folder: str, problems: list[str]) -> list[base.Lineage]:
    """Return all lineages that can be read; add the problems of the others."""
    live = os.path.join(folder, "live")
    lineages = []
    for entry in sorted(hook.list_folder(live, problems)):
        live_folder = os.path.join(live, entry)
        if not base.is_lineage_name(entry) or not os.path.isdir(live_folder):
            continue
        try:
            lineages.append(base.read_lineage(live_folder))
        except base.DeliverError as error:
            problems.append(str(error))
    return lineages


# ---- State -------------------------------------------------------------------------------------
RETIRED_SECONDS = 30 * hook.DAY  # the state file keeps a retired delivery for this long


class StateFile:
    """The file that says what each target has: certbot_renewal_deliver.state.

    It has a line for each lineage and target, see hook.DELIVERY_LINE.

    - Only a run that holds the lock (`run_lock`) writes the file. A run reads it once, and then
      replaces it as a whole after each delivery: whatever happens, it is the old one or the new
      one, and a run that is killed loses nothing.
    - The threads of a run share one object; its own lock makes their changes one after the other.
    - Before a target changes for good, the line may say that the last run was stopped. It is
      replaced when the delivery is complete. So a run that was killed in between is known.
    - A delivery that is no longer wanted is retired: it is kept for 30 days, as DELIVERY_RETIRED,
      so that reports say so.
    - The report hook and the run report read the file, without a lock, and report it.

    The file may be missing, or hold anything: then a delivery counts as never made. Only root may
    read it, because it may hold the output of a command. `problems` has the problems of the file.
    """

    def __init__(self, folder: str) -> None:
        """Read the file in certbot's configuration folder."""
        self.path = os.path.join(folder, hook.DELIVERY_STATE_FILE)
        self.lock = threading.Lock()
        self.problems: list[str] = []
        self.deliveries: dict[tuple[str, str], hook.Delivery] = {}
        for delivery in hook.parse_deliveries(self.read_saved_text()):
            self.deliveries[delivery.lineage, delivery.target] = delivery

    def read_saved_text(self) -> str:
        """Return the text of the file, "" if there is none, or if it cannot be read."""
        try:
            return base.read_bytes_as_text(self.path)
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.add_problem(error, "make it readable; until then each command runs again")
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
        """Return what a target has of a lineage that it wants; a retired one has nothing."""
        delivery = self.delivery(lineage, target)
        if delivery.fingerprint == hook.DELIVERY_RETIRED:
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

    def retire_others(self, wanted: set[tuple[str, str]]) -> None:
        """Retire all deliveries but the wanted ones.

        Forget those that were retired more than RETIRED_SECONDS ago. `wanted`: lineage and target
        of each.
        """
        now = int(time.time())
        with self.lock:  # a delivery that was left alone at its deadline may still be at work
            remaining = {}
            for key, delivery in self.deliveries.items():
                if key not in wanted:
                    delivery = retired_delivery(delivery, now)
                is_retired = delivery.fingerprint == hook.DELIVERY_RETIRED
                if not is_retired or delivery.changed_at >= now - RETIRED_SECONDS:
                    remaining[key] = delivery
            if remaining != self.deliveries:
                self.deliveries = remaining
                self.write()

    def write(self) -> None:
        """Replace the file. If that fails, add to the problems; the deliveries continue."""
        lines = [delivery_line(delivery) for _, delivery in sorted(self.deliveries.items())]
        try:
            base.replace_file(self.path, "".join(lines))
        except OSError as error:
            self.add_problem(error, "make it writable; until then reports omit new deliveries")


def retired_delivery(delivery: hook.Delivery, now: int) -> hook.Delivery:
    """Return what is recorded of a delivery that is no longer wanted; `now`: Unix seconds."""
    if delivery.fingerprint == hook.DELIVERY_RETIRED:
        return delivery
    return hook.Delivery(delivery.lineage, delivery.target, hook.DELIVERY_RETIRED, changed_at=now)


def delivery_line(delivery: hook.Delivery) -> str:
    """Return a line of the state file; hook.parse_deliveries reads it."""
    columns = [
        delivery.lineage,
        delivery.target,
        delivery.fingerprint,
        str(delivery.not_before),
        str(delivery.not_after),
        str(delivery.changed_at),
        hook.CONTROL.sub(" ", delivery.error),
    ]
    return "\t".join(columns) + "\n"


# ---- Lock --------------------------------------------------------------------------------------
LOCK_SECONDS = 300.0  # a run waits for others for this long at most, and certbot waits for the run
LOCK_PAUSE_SECONDS = 0.1


@contextlib.contextmanager
def run_lock(folder: str) -> Iterator[None]:
    """Wait until no other run delivers, then make others wait.

    Two runs would deliver the same to the same targets, and overwrite each other's state.

    - A run holds an flock on a file in certbot's configuration folder. The system releases it when
      the run ends, however it ends. The file stays; it is empty.
    - Only root may open the file: a user who can open it could hold the lock.
    - Each run takes the lock, --check and --dry-run too: what they see is never half delivered.
    - Without a lock, as in a folder that cannot be written to, a run continues. At worst, two runs
      deliver at the same time.

    Raise a DeliverError if the lock is not free within LOCK_SECONDS. In that time one run has held
    it, or several one after the other.
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
                f"{path}: another run has held this lock for {LOCK_SECONDS:g} s: "
                f"find that run with: fuser -v {path}"
            )
        time.sleep(LOCK_PAUSE_SECONDS)


# ---- Deliveries --------------------------------------------------------------------------------
LATE_SECONDS = 0.5  # after its deadline a target has this long to say what did not answer


class Result(NamedTuple):
    """The result of an attempt, for a lineage and a target.

    `action` says what was done, or would be, "" if the target has the certificate. `error` is "" if
    the attempt did not fail. `is_down`: the target failed as a whole.
    """

    lineage: str
    target: str
    action: str = ""
    error: str = ""
    is_down: bool = False

    def is_unchanged(self) -> bool:
        """Return whether the target had the certificate."""
        return not self.action and not self.error


class Visit(ABC):
    """A visit of targets with lineages: either to deliver, or to look what would be delivered."""

    def __init__(self, state: StateFile) -> None:
        """`state` says what the targets have had so far."""
        self.state = state

    def run(self, targets: Sequence[base.Target], lineages: Sequence[base.Lineage]) -> list[Result]:
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

        When the target is down, the remaining lineages are not tried: they would fail too.
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
                    self.record(lineage, result)
                except Exception as error:  # the result of the target is still reported
                    results.append(result._replace(action="", error=fault_text(error)))

    def attempt_in_time(self, target: base.Target, lineage: base.Lineage) -> Result:
        """Attempt one lineage; leave the attempt alone LATE_SECONDS after its deadline."""
        seconds = target.options["timeout"]
        recorded = self.state.wanted_delivery(lineage.name, target.name)

        def record_start() -> None:
            error = "the last run was stopped during this delivery"
            self.state.record(recorded._replace(error=error))

        attempt = base.Attempt(lineage, recorded, base.Deadline(seconds), record_start)
        late = Result(
            lineage.name,
            target.name,
            error="no answer in time: check the target, or raise timeout",
            is_down=True,
        )
        result: Result = hook.run_with_deadline(
            seconds + LATE_SECONDS, lambda: self.attempt(target, attempt), late
        )
        return result

    def attempt(self, target: base.Target, attempt: base.Attempt) -> Result:
        """Return the result of an attempt; every error is a result, also an unexpected error."""
        result = Result(attempt.lineage.name, target.name)
        try:
            return result._replace(action=self.look_or_deliver(target, attempt))
        except hook.ReportError as error:
            is_down = isinstance(error, base.TargetDownError)
            return result._replace(error=str(error), is_down=is_down)
        except Exception as error:
            return result._replace(error=fault_text(error))

    @abstractmethod
    def look_or_deliver(self, target: base.Target, attempt: base.Attempt) -> str:
        """Look at a target, or deliver to it; return in words what would be done, or was done."""

    @abstractmethod
    def record(self, lineage: base.Lineage, result: Result) -> None:
        """Record a result in the state file, if it is a delivery."""


class DryVisit(Visit):
    """Looks what would be delivered; changes neither a target nor the state file."""

    def look_or_deliver(self, target: base.Target, attempt: base.Attempt) -> str:
        """Look."""
        return target.look(attempt)

    def record(self, lineage: base.Lineage, result: Result) -> None:
        """Record nothing."""


class DeliveryVisit(Visit):
    """Delivers to each target what it lacks, and records in the state file what it has then."""

    def look_or_deliver(self, target: base.Target, attempt: base.Attempt) -> str:
        """Deliver."""
        return target.deliver(attempt)

    def record(self, lineage: base.Lineage, result: Result) -> None:
        """Record what the target has now, and the error if the delivery failed."""
        delivery = self.state.wanted_delivery(lineage.name, result.target)
        if not result.error:
            delivery = delivery._replace(
                fingerprint=lineage.fingerprint,
                not_before=lineage.not_before,
                not_after=lineage.not_after,
            )
        self.state.record(delivery._replace(error=hook.shortened(result.error)))


def fault_text(error: Exception) -> str:
    """Return the text of an unexpected error."""
    reason = f"{type(error).__name__}: {hook.shortened(str(error))}"
    return f"{reason}: this is a bug in {NAME}.py, please report it"


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
    """Deliver the lineage that certbot has renewed; return the problems."""
    with run_lock(folder):
        state = StateFile(folder)
        results = DeliveryVisit(state).run(targets, [base.read_lineage(live_folder)])
    problems = [*state.problems, *undelivered_problems(results)]
    print_deliveries(results, problems)
    return problems


def deliver_all(targets: Sequence[base.Target], folder: str) -> list[str]:
    """Deliver all lineages, and retire deliveries that nothing wants; return the problems."""
    problems: list[str] = []
    with run_lock(folder):
        state = StateFile(folder)
        lineages = read_all_lineages(folder, problems)
        results = DeliveryVisit(state).run(targets, lineages)
        if not problems:  # all lineages could be read, so those that are missing are deleted
            state.retire_others(wanted_pairs(targets, lineages))
    problems += [*state.problems, *undelivered_problems(results)]
    print_deliveries(results, problems)
    return problems


def wanted_pairs(
    targets: Sequence[base.Target], lineages: Sequence[base.Lineage]
) -> set[tuple[str, str]]:
    """Return the names of each lineage and of each target that wants it."""
    pairs: set[tuple[str, str]] = set()
    for target in targets:
        pairs.update((lineage.name, target.name) for lineage in lineages if target.wants(lineage))
    return pairs


def print_deliveries(results: Sequence[Result], problems: Sequence[str]) -> None:
    """Print on one line what was delivered, and how many targets were up to date."""
    texts = [
        f"{result.lineage} to {result.target}: {result.action}"
        for result in results
        if result.action
    ]
    unchanged_count = sum(result.is_unchanged() for result in results)
    if unchanged_count:
        texts.append(f"{unchanged_count} up to date")

    if not texts:
        hook.say("nothing delivered")
    elif unchanged_count == len(results) and not problems:
        hook.say(f"nothing to do: {unchanged_count} up to date")
    else:
        hook.say("; ".join(texts))


def look_at_all(targets: Sequence[base.Target], folder: str) -> list[str]:
    """Print what would be delivered, for --dry-run; return the problems."""
    problems: list[str] = []
    with run_lock(folder):
        state = StateFile(folder)
        lineages = read_all_lineages(folder, problems)
        results = DryVisit(state).run(targets, lineages)
    problems += [*state.problems, *undelivered_problems(results)]
    print_states(results)
    return problems + idle_problems(targets, lineages)


def check(targets: Sequence[base.Target], folder: str, script: str) -> list[str]:
    """Prove the installation: print what would be delivered; return the problems.

    It changes nothing. A delivery that failed the last time, and is still to be done, is a problem
    too: a look does not find every fault.
    """
    problems: list[str] = []
    with run_lock(folder):
        state = StateFile(folder)
        lineages = read_all_lineages(folder, problems)
        if not lineages and not problems:
            problems.append(hook.no_certificate_problem(folder))
        results = DryVisit(state).run(targets, lineages)

    problems += installation_problems(script, folder)
    results = [with_last_error(state, result) for result in results]
    problems += [*state.problems, *undelivered_problems(results)]
    print_states(results)
    problems += idle_problems(targets, lineages)
    if not problems:
        path = os.path.join(folder, TOML_FILE)
        certificate_count = hook.counted(len(lineages), "certificate")
        target_count = hook.counted(len(targets), "target")
        hook.say(f"ready: {certificate_count} for {target_count} in {path}")
    return problems


def installation_problems(script: str, folder: str) -> list[str]:
    """Return why certbot would not start this hook, and which files are of another version."""
    if os.path.basename(os.path.dirname(script)) == "post":  # a post hook delivers everything
        problems = hook.not_executable_problems(script)
    else:
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
    error = f"the last attempt failed: {last_error}: try again with --all"
    return result._replace(error=error)


def print_states(results: Sequence[Result]) -> None:
    """Print a table: for each target and lineage, what would be delivered.

    Errors are not in the table: `undelivered_problems` has them.
    """
    rows = []
    for result in sorted(results, key=lambda result: (result.target, result.lineage)):
        state = "FAILED" if result.error else result.action or "up to date"
        rows.append((result.target, result.lineage, state))

    if rows:
        hook.say("Deliveries:")
        hook.say_table(("target", "certificate", "state"), rows)


def idle_problems(targets: Sequence[base.Target], lineages: Sequence[base.Lineage]) -> list[str]:
    """Return a text for each target that wants none of the lineages."""
    if not lineages:
        return []
    busy_names = {target_name for _, target_name in wanted_pairs(targets, lineages)}
    return [
        f"no certificate matches the target {target.name}: correct its lineages or names"
        for target in targets
        if target.name not in busy_names
    ]


def restore(targets: Sequence[base.Target], folder: str) -> None:
    """Restore from the first target that can be restored from; print what was restored."""
    sources = [target for target in targets if isinstance(target, base.RestorableTarget)]
    if not sources:
        raise base.DeliverError(f"{TOML_FILE} has no [[vault]] table to restore from")
    with run_lock(folder):
        restored = sources[0].restore(folder)
    for text in restored.problems:
        hook.warn(text, NAME)
    if restored.names:
        hook.say(f"restored into {folder}: {', '.join(restored.names)}")
    else:
        hook.say(f"nothing restored: {folder} is up to date, or Vault holds nothing yet")


# ---- Command line ------------------------------------------------------------------------------
class Options(NamedTuple):
    """What the command line asks for; certbot starts the hook without arguments."""

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
    lines = [
        f"options of targets, in {TOML_FILE} in certbot's configuration folder;",
        "each target is a table that begins with [[kind]]:",
    ]
    for kind, table in option_tables().items():
        lines += ["", f"{kind}:"]
        for name, option in table.items():
            lines.append(f"  {name:15} {default_in_words(option):9} {option.meaning}")
    return "\n".join(lines)


def default_in_words(option: base.Option) -> str:
    """Return the default of an option as --help and the manual show it."""
    if option.default is None:
        return "required"
    return str(option.default or "(empty)")


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = hook.argument_parser(
        NAME,
        (__doc__ or "").partition("\n")[0],
        epilog="",
        check_help="check the installation and ask each target; change nothing",
        dry_run_help="print what would be delivered, change nothing",
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=["restore"],
        help="rebuild certbot's configuration folder from Vault",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="deliver each certificate to each target that lacks it",
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
        parser.error("restore changes files: do not combine it with --check or --dry-run")
    return Options(
        parsed.all, parsed.check, parsed.dry_run, parsed.what == "restore", parsed.config_dir
    )


def run(options: Options, environ: Mapping[str, str], script: str) -> list[str]:
    """Run the chosen command; return the problems. Raise a ReportError.

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
            "RENEWED_LINEAGE is not set: certbot sets it when it starts this hook. "
            f"To deliver by hand, run {NAME}.py --all"
        )
    return deliver_lineage(targets, folder, os.path.abspath(live_folder))


def main(arguments: Sequence[str], environ: Mapping[str, str], script: str = __file__) -> int:
    """Run the hook; return its exit status.

    0: every target has the certificates that it wants. 1: something is wrong. Wrong usage raises
    SystemExit with status 2.
    """
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
