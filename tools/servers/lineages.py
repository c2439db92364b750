"""Makes certificates, lays lineages out as certbot does, and installs the project's programs."""

from __future__ import annotations

import datetime
import ipaddress
import time
from collections.abc import Mapping, Sequence
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


def make_certificate(
    names: Sequence[str],
    not_before: int,
    lifetime: int,
    key: Key = KEY,
    common_name: str = "test",
) -> bytes:
    """Return a certificate as PEM, signed by itself.

    `names` are DNS names and IP addresses; without names it has no subjectAltName at all.
    `not_before` is in Unix seconds, `lifetime` in seconds. Two certificates that a client trusts at
    the same time need different common names.
    """
    begin = datetime.datetime.fromtimestamp(not_before, datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
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
    alternative_names = [general_name(name) for name in names]
    if alternative_names:
        extension = x509.SubjectAlternativeName(alternative_names)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def general_name(name: str) -> x509.GeneralName:
    """Return a subject alternative name: an IP address if it is one, else a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def make_lineage(
    folder: Path,
    lineage: str,
    names: list[str],
    not_before: int,
    lifetime: int,
    conf: str = "",
    key: Key | None = None,
    params: Mapping[str, str] | None = None,
) -> Path:
    """Lay a lineage out as certbot does; return its folder in live/.

    A lineage that exists gets a new certificate. `conf` is text that begins the renewal
    configuration; the usual line of a key in it is left out. `params` are further values in
    [renewalparams], or other ones. Without a key of its own, the lineage has KEY.
    """
    archive = folder / "archive" / lineage
    live = folder / "live" / lineage
    renewal = folder / "renewal"
    for path in (archive, live, renewal):
        path.mkdir(parents=True, exist_ok=True)

    key = key or KEY
    pem = make_certificate(names, not_before, lifetime, key)
    # The certificate is signed by itself, so it is also the chain.
    files = {"cert": pem, "privkey": key_as_pem(key), "chain": pem, "fullchain": pem + pem}
    number = len(list(archive.glob("cert*.pem"))) + 1
    for kind, content in files.items():
        file = archive / f"{kind}{number}.pem"
        file.touch(0o600 if kind == "privkey" else 0o644)
        file.write_bytes(content)
        link = live / f"{kind}.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../archive/{lineage}/{file.name}")

    text = renewal_conf(folder, lineage, conf, params or {})
    (renewal / f"{lineage}.conf").write_text(text)
    return live


def renewal_conf(folder: Path, lineage: str, beginning: str, params: Mapping[str, str]) -> str:
    """Return a renewal configuration that certbot accepts.

    `beginning` begins it; the usual line of a key in it is left out. `params` are further values in
    [renewalparams], or other ones.
    """
    live = folder / "live" / lineage
    lines = [
        "version = 4.0.0\n",
        f"archive_dir = {folder / 'archive' / lineage}\n",
        f"cert = {live}/cert.pem\n",
        f"privkey = {live}/privkey.pem\n",
        f"chain = {live}/chain.pem\n",
        f"fullchain = {live}/fullchain.pem\n",
    ]
    own_keys = [line.partition("=")[0].strip() for line in beginning.splitlines()]
    usual_lines = [line for line in lines if line.partition(" ")[0] not in own_keys]
    all_params = {
        "authenticator": "standalone",
        "server": "https://acme-v02.api.letsencrypt.org/directory",
        "key_type": "ecdsa",
        **params,
    }
    param_lines = [f"{name} = {value}\n" for name, value in all_params.items()]
    return "".join([beginning, *usual_lines, "[renewalparams]\n", *param_lines])


def install_report_hook(folder: Path) -> Path:
    """Copy the report hook into renewal-hooks/deploy of a configuration folder."""
    return install(REPORT_HOOK, folder / "renewal-hooks" / "deploy")


def install_run_report(folder: Path) -> Path:
    """Copy the run report into renewal-hooks/post, and the report hook that it needs.

    The folder gets an empty log of certbot, and a cli.ini that names it: the log of the machine is
    about other lineages.
    """
    install_report_hook(folder)
    make_empty_log(folder)
    return install(RUN_REPORT, folder / "renewal-hooks" / "post")


def make_empty_log(folder: Path) -> Path:
    """Make an empty log of certbot for a configuration folder, if it has none; return it."""
    log = folder / "logs" / "letsencrypt.log"
    log.parent.mkdir(exist_ok=True)
    log.touch()
    (folder / "cli.ini").write_text(f"logs-dir = {log.parent}\n")
    return log


def install(program: Path, folder: Path) -> Path:
    """Copy a program into a folder, executable, as `install -m 755` does; return the copy."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / program.name
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    return copy


def key_as_pem(key: Key) -> bytes:
    """Return a private key as certbot writes it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_server_certificate(path: Path, name: str) -> Path:
    """Write a server's key and certificate into one file; return it.

    The certificate is signed by itself, so the file also serves clients as the CA to trust.
    """
    path.write_bytes(key_as_pem(KEY) + make_certificate([name], int(time.time()) - 60, DAY))
    return path
