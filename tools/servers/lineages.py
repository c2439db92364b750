"""A real certbot against a real CA (pebble) on loopback, for the tests and the demo: a renewal takes a second, a life as long as wished."""

from __future__ import annotations

import datetime
import ipaddress
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Union

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tools import ROOT

DAY = 86400
Key = Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]
KEY: Key = ec.generate_private_key(ec.SECP256R1())
REPORT_HOOK = ROOT / "certbot_renewal_report.py"
RUN_REPORT = ROOT / "certbot_renewal_run.py"


def make_certificate(names: Sequence[str], not_before: int, lifetime: int, key: Key = KEY) -> bytes:
    """A certificate as PEM, signed by itself; without names it has no subjectAltName at all. Times in seconds."""
    general = [
        x509.IPAddress(ipaddress.ip_address(n))
        if n.replace(".", "").isdigit() or ":" in n
        else x509.DNSName(n)
        for n in names
    ]
    begin = datetime.datetime.fromtimestamp(not_before, datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(seconds=lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if general:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_lineage(
    folder: Path,
    lineage: str,
    names: list[str],
    not_before: int,
    lifetime: int,
    conf: str = "",
    key: Key | None = None,
) -> Path:
    """A lineage as certbot lays it out, without its key and chain where no key is given; returns its folder in live/."""
    archive, live, renewal = (
        folder / "archive" / lineage,
        folder / "live" / lineage,
        folder / "renewal",
    )
    for path in (archive, live, renewal):
        path.mkdir(parents=True, exist_ok=True)
    number = len(list(archive.glob("cert*.pem"))) + 1
    pem = make_certificate(names, not_before, lifetime, key or KEY)
    more = {"chain": pem, "fullchain": pem, "privkey": key_as_pem(key)} if key else {}
    for kind, text in {"cert": pem, **more}.items():
        file, link = archive / f"{kind}{number}.pem", live / f"{kind}.pem"
        file.touch(0o600 if kind == "privkey" else 0o644)
        file.write_bytes(text)
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../archive/{lineage}/{kind}{number}.pem")
    paths = "".join(
        f"{key} = {live}/{key}.pem\n" for key in ("cert", "privkey", "chain", "fullchain")
    )
    (renewal / f"{lineage}.conf").write_text(
        f"{conf}version = 5.8.0\n{paths}[renewalparams]\nautorenew = True\n"
    )
    return live


def install_report_hook(folder: Path) -> Path:
    """Copy the report hook into renewal-hooks/deploy of a configuration folder."""
    return install(REPORT_HOOK, folder / "renewal-hooks" / "deploy")


def install_run_report(folder: Path) -> Path:
    """Copy the run report into renewal-hooks/post, and the report hook that it needs."""
    install_report_hook(folder)
    return install(RUN_REPORT, folder / "renewal-hooks" / "post")


def install(program: Path, folder: Path) -> Path:
    """Copy a program into a folder, executable, as `install -m 755` does."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / program.name
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    return copy


def key_as_pem(key: Key) -> bytes:
    """A private key as certbot writes it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_server_certificate(path: Path, name: str) -> Path:
    """A server's certificate and key in one file, which is its own CA too."""
    path.write_bytes(key_as_pem(KEY) + make_certificate([name], int(time.time()) - 60, DAY))
    return path
