"""The compose files: what they start, what they show to others, and that they hold no secret."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tools import ROOT

COMPOSE = ROOT / "compose"
DOCKERFILE = COMPOSE / "vault" / "Dockerfile"

# The ports that are reached from elsewhere.
PUBLISHED = {
    ("haproxy/compose.yaml", "haproxy"): ["80:80", "443:443"],
    ("vault/compose.yaml", "certbot"): ["80:80"],
}
# It runs twice a day in the folders of the host, where nothing keeps when it last ran. Its run
# reports show that.
WITHOUT_HEALTH_CHECK = [("certbot.yaml", "certbot")]

# Matches: POSTGRES_PASSWORD, VAULT_TOKEN
SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|KEY|ROLE")
# Matches a token of Vault, a PEM file, and: password: abc
SECRET = re.compile(
    r"""
    \b hv[sbr] \.
    | -----BEGIN
    | ( password | secret | token ) \s* [:=] \s* "? \w
    """,
    re.VERBOSE | re.IGNORECASE,
)


class Service(NamedTuple):
    """One service; `file` is the path of its compose file in compose/."""

    file: str
    name: str
    definition: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """The file and the name."""
        return self.file, self.name


def services() -> Iterator[Service]:
    """Yield every service of every compose file."""
    for path in sorted(COMPOSE.rglob("*.yaml")):
        for name, definition in yaml.safe_load(path.read_text())["services"].items():
            yield Service(str(path.relative_to(COMPOSE)), name, definition)


def test_every_image_is_of_one_version() -> None:
    definitions = [service.definition for service in services()]
    images = [definition["image"] for definition in definitions if "build" not in definition]
    images += re.findall(r"(?m)^FROM (\S+)$", DOCKERFILE.read_text())
    assert len(images) == 8
    for image in images:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+(-alpine)?", image), image


def test_only_what_must_be_reached_from_elsewhere_is_published() -> None:
    published = {}
    for service in services():
        if "ports" in service.definition:
            published[service.key] = service.definition["ports"]
    assert published == PUBLISHED


def test_every_service_is_restarted_and_has_a_health_check() -> None:
    assert {service.definition["restart"] for service in services()} == {"unless-stopped"}
    without = [service.key for service in services() if "healthcheck" not in service.definition]
    assert without == WITHOUT_HEALTH_CHECK


def test_secrets_come_from_the_environment() -> None:
    for service in services():
        for name, value in service.definition.get("environment", {}).items():
            if SECRET_NAME.search(name):
                assert str(value).startswith("${"), f"{service.key}: {name}"


def test_no_file_holds_a_secret() -> None:
    for path in COMPOSE.rglob("*"):
        if path.is_file():
            for line in path.read_text().splitlines():
                assert not SECRET.search(line), f"{path}: {line}"
    ignored = set((ROOT / ".gitignore").read_text().splitlines())
    assert {"compose/*/.env", "compose/*/secrets/"} <= ignored


def mounted_paths(service: Service) -> list[Path]:
    """Return the files and folders that a service mounts from this project."""
    folder = (COMPOSE / service.file).parent
    sources = [volume.split(":")[0] for volume in service.definition.get("volumes", [])]
    return [folder / source for source in sources if source.startswith(".")]


def copied_paths() -> list[Path]:
    """Return the files and folders that the Dockerfile copies from the root of this project."""
    paths: list[Path] = []
    for sources in re.findall(r"(?m)^COPY (.*) \S+$", DOCKERFILE.read_text()):
        paths += [ROOT / source for source in sources.split()]
    return paths


def test_every_file_that_is_mounted_or_copied_exists_and_programs_are_executable() -> None:
    paths = [COMPOSE / "certbot.sh", COMPOSE / "vault" / "entrypoint.sh", *copied_paths()]
    for service in services():
        paths += mounted_paths(service)
    assert ROOT / "certbot_renewal_run.py" in paths
    assert COMPOSE / "haproxy" / "../../certbot_renewal_run.py" in paths
    for path in paths:
        assert path.exists(), path
        is_program = path.suffix in (".py", ".sh")
        assert not is_program or os.access(path, os.X_OK), path


def test_hadolint_accepts_the_dockerfile() -> None:
    hadolint = str(Path(sys.executable).with_name("hadolint"))
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
