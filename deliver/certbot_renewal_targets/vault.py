"""HashiCorp Vault: it holds certificates and certbot's accounts, and gives them back.

They are secrets of the KV engine, version 2: PATH/certificates/LINEAGE has cert, chain, fullchain,
privkey, and for certbot `conf` (the renewal configuration) and `number` (of the file in archive/);
PATH/accounts has certbot's accounts, by path.

Several hosts may write to one Vault. Secrets are written with check-and-set: Vault keeps the newest
version of a certificate, and every account. A user who may write to these secrets is trusted:
`restore` writes their content into certbot's configuration folder, and certbot uses it as root. But
nothing is written outside of that folder, or to a path that certbot does not have.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import certbot_renewal_report as hook
from certbot_renewal_targets import base

CERTBOT_FOLDER = "/etc/letsencrypt"  # in a renewal configuration in Vault, wherever it was
TRIES = 10  # of a check-and-set, while others write the same secret

# What to do about an error of Vault: the name of hvac's exception. The first that matches.
REMEDIES = (
    hook.Remedy(r"^Forbidden$", "check that the token is valid and that its policy allows this"),
    hook.Remedy(r"^VaultDown$", "unseal Vault"),
    hook.Remedy(r"^InvalidPath$", "check that mount is a KV engine, version 2"),
    hook.Remedy(r"", "check Vault's log"),
)

# Matches: /etc/letsencrypt/archive/example.com/cert7.pem
ARCHIVE_NUMBER = re.compile(r"(?P<number>\d+)\.pem$")

# Matches: cert7.pem
ARCHIVED_CERTIFICATE = re.compile(r"cert(?P<number>\d+)\.pem")

# Matches what each run of certbot may write into a renewal configuration: version = 5.8.0
VOLATILE_LINE = re.compile(
    r"""
    ^ \s* (?: version | ari_retry_after ) \s* = .* \n?
    """,
    re.VERBOSE | re.MULTILINE,
)

Values = dict[str, str]


class Target(base.RestorableTarget):
    """A Vault."""

    OPTIONS: ClassVar[Mapping[str, base.Option]] = {
        "url": base.Option("", "address of Vault; if empty, VAULT_ADDR from the environment"),
        "mount": base.Option("secret", "mount path of the KV engine, version 2"),
        "path": base.Option(
            "certbot",
            "prefix: certificates are in PATH/certificates/LINEAGE, accounts in PATH/accounts",
        ),
        "namespace": base.Option(
            "", "namespace of Vault; if empty, VAULT_NAMESPACE from the environment"
        ),
        "token_file": base.Option(
            "",
            "file with the token. Without token_file and role_id_file: VAULT_TOKEN from the "
            "environment",
        ),
        "role_id_file": base.Option("", "file with the role id of an AppRole"),
        "secret_id_file": base.Option("", "file with the secret id of the AppRole"),
        "ca_file": base.Option(
            "",
            "file with the CA certificate for Vault; if empty, VAULT_CACERT, or the CAs of the "
            "system",
        ),
    }

    def look(self, attempt: base.Attempt) -> str:
        """Return what would be written, after Vault has said that the token may write it."""
        lineage = LineageOnDisk(attempt.lineage)
        with open_store(self.options, attempt.deadline) as store:
            accounts = store.preview("accounts", lineage.merged_accounts)
            certificate = store.preview(lineage.secret_path, lineage.certificate_to_hold)
        return lineage.describe(accounts, certificate, "would be written")

    def deliver(self, attempt: base.Attempt) -> str:
        """Write certbot's accounts, then the certificate with its key."""
        lineage = LineageOnDisk(attempt.lineage)
        with open_store(self.options, attempt.deadline) as store:
            accounts = store.update("accounts", lineage.merged_accounts)
            certificate = store.update(lineage.secret_path, lineage.certificate_to_hold)
        return lineage.describe(accounts, certificate, "written")

    def restore(self, folder: str) -> base.Restored:
        """Write certbot's accounts and the lineages that are newer in Vault, with certbot's modes.

        The folder may be empty. Raise a DeliverError if Vault, or the folder, refuses.
        """
        restored = base.Restored([], [])
        old_umask = os.umask(0o077)
        try:
            with open_store(self.options, base.Deadline(self.options["timeout"])) as store:
                restore_accounts(store, folder, restored)
                restore_lineages(store, folder, restored)
        finally:
            os.umask(old_umask)
        return restored


# ---- Connection --------------------------------------------------------------------------------
def load_hvac() -> Any:
    """Import hvac; raise a TargetDownError if it is missing.

    It is imported only here: it takes longer than all the rest, and other targets do without it.
    """
    try:
        import hvac
    except ImportError:
        raise base.TargetDownError(
            f"no hvac library for {sys.executable}: pip install hvac, "
            "or apt-get install python3-hvac"
        ) from None
    return hvac


@contextlib.contextmanager
def open_store(options: Mapping[str, Any], deadline: base.Deadline) -> Iterator[SecretStore]:
    """Log in to Vault and yield its secrets; every error of Vault becomes a DeliverError."""
    hvac = load_hvac()
    secrets = read_secret_files(options)
    url = options["url"] or os.environ.get("VAULT_ADDR", "")
    if not url:
        raise base.TargetDownError("url and VAULT_ADDR are empty: set url to the address of Vault")

    with vault_errors(hvac, url):
        client = new_client(hvac, url, options, secrets["token_file"], deadline)
        has_own_token = bool(secrets["role_id_file"])
        if has_own_token:
            log_in(hvac, client, secrets["role_id_file"], secrets["secret_id_file"])
        elif not client.token:
            raise base.TargetDownError(
                "no token for Vault: set token_file, role_id_file, or VAULT_TOKEN"
            )
        try:
            yield SecretStore(hvac, client, options["mount"], options["path"])
        finally:
            if has_own_token:
                log_out(hvac, client)


def read_secret_files(options: Mapping[str, Any]) -> Values:
    """Return what is in the files with secrets, by option; "" for a file that is not set."""
    secrets = {}
    for option in ("token_file", "role_id_file", "secret_id_file"):
        path = options[option]
        try:
            secrets[option] = base.read_bytes_as_text(path).strip() if path else ""
        except OSError as error:
            raise base.TargetDownError(
                f"{option}: {path}: {error.strerror}: correct the path, or make the file readable"
            ) from None
    return secrets


def new_client(
    hvac: Any, url: str, options: Mapping[str, Any], token: str, deadline: base.Deadline
) -> Any:
    """Return a client of Vault. Without a token, hvac takes it from the environment."""
    arguments: dict[str, Any] = {
        "url": url,
        "token": token or None,
        "namespace": options["namespace"] or os.environ.get("VAULT_NAMESPACE") or None,
        "timeout": deadline.seconds_left(),
    }
    if options["ca_file"]:
        arguments["verify"] = options["ca_file"]
    return hvac.Client(**arguments)


def log_in(hvac: Any, client: Any, role_id: str, secret_id: str) -> None:
    """Get a token for an AppRole. It is tried once: Vault locks a role after some wrong tries."""
    errors = hvac.exceptions
    try:
        client.auth.approle.login(role_id, secret_id)
    except (errors.InvalidRequest, errors.Forbidden, errors.InvalidPath) as error:
        raise base.TargetDownError(
            f"{client.url}: {hook.shortened(str(error))}: correct role_id_file and "
            "secret_id_file (after five failed logins Vault locks the role for 15 minutes)"
        ) from None


def log_out(hvac: Any, client: Any) -> None:
    """Revoke the client's token; if that fails, it expires by itself."""
    with contextlib.suppress(hvac.exceptions.VaultError, OSError):
        client.auth.token.revoke_self()


@contextlib.contextmanager
def vault_errors(hvac: Any, url: str) -> Iterator[None]:
    """Turn every error of Vault, or of the way to it, into a DeliverError with a remedy."""
    try:
        yield
    except hvac.exceptions.VaultError as error:
        error_name = type(error).__name__
        remedy = hook.remedy_for(error_name, REMEDIES)
        text = f"{url}: {hook.shortened(str(error))}: {remedy}"
        if error_name == "VaultDown":
            raise base.TargetDownError(text) from None
        raise base.DeliverError(text) from None
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        raise base.TargetDownError(
            f"{url}: {hook.root_cause(error)}: "
            "check that Vault is running and that url is its address"
        ) from None


# ---- Secrets -----------------------------------------------------------------------------------
class Secret(NamedTuple):
    """A secret: its values, and the version to name when the secret is written.

    A secret that is missing has no values, and version 0. One that was deleted has no values
    either, but a version above 0.
    """

    values: Values
    version: int


class Update(NamedTuple):
    """The values of a secret after an update; `is_change`: before, it had other values."""

    values: Values
    is_change: bool


class SecretStore:
    """The secrets under one path of a KV engine, version 2."""

    def __init__(self, hvac: Any, client: Any, mount: str, prefix: str) -> None:
        """`client` is a client of hvac with a token."""
        self.hvac = hvac
        self.client = client
        self.engine = client.secrets.kv.v2
        self.mount = mount
        self.prefix = prefix

    def call(self, method: Callable[..., Any], path: str, **arguments: Any) -> Any:
        """Return what Vault answers about a path, None if there is nothing at the path."""
        try:
            return method(path=f"{self.prefix}/{path}", mount_point=self.mount, **arguments)
        except self.hvac.exceptions.InvalidPath as error:
            if error.errors:  # the engine is missing, not the secret
                raise
            return None

    def names(self, path: str) -> list[str]:
        """Return the names of the secrets under a path."""
        answer = self.call(self.engine.list_secrets, path)
        return list(answer["data"]["keys"]) if answer else []

    def read(self, path: str) -> Secret:
        """Return a secret."""
        answer = self.call(self.engine.read_secret_version, path, raise_on_deleted_version=False)
        if not answer:
            return Secret({}, 0)
        data = answer["data"]
        return Secret(data["data"] or {}, data["metadata"]["version"])

    def preview(self, path: str, new_values: Callable[[Values], Values]) -> Update:
        """Return what an update would do; raise a DeliverError if the token may not do it."""
        secret = self.read(path)
        values = new_values(secret.values)
        if values == secret.values:
            return Update(values, False)

        full_path = f"{self.mount}/data/{self.prefix}/{path}"
        right = "update" if secret.version else "create"
        answer = self.client.sys.get_capabilities([full_path])
        if not {"root", right}.intersection(answer["data"][full_path]):
            raise base.DeliverError(
                f"the token may not {right} {full_path}: add this capability to its policy"
            )
        return Update(values, True)

    def update(self, path: str, new_values: Callable[[Values], Values]) -> Update:
        """Write what `new_values` makes of a secret's values, unless it holds that already.

        If another host writes the secret at the same time, its values are read again, so that
        nothing of them is lost.
        """
        for _ in range(TRIES):
            secret = self.read(path)
            values = new_values(secret.values)
            if values == secret.values:
                return Update(values, False)
            if self.write(path, values, secret.version):
                return Update(values, True)
        raise base.DeliverError(f"{path}: other hosts keep changing this secret: try again later")

    def write(self, path: str, values: Values, version: int) -> bool:
        """Write a secret; return False if it no longer has the version: another host wrote it."""
        try:
            self.call(self.engine.create_or_update_secret, path, secret=values, cas=version)
        except self.hvac.exceptions.InvalidRequest as error:
            if "check-and-set" not in str(error):
                raise
            return False
        return True


# ---- What is on disk ---------------------------------------------------------------------------
class LineageOnDisk:
    """A lineage as Vault should hold it, and certbot's accounts."""

    def __init__(self, lineage: base.Lineage) -> None:
        """Read the renewal configuration and the accounts; raise a DeliverError."""
        folder = os.path.dirname(os.path.dirname(lineage.live_folder))
        certificate_path = os.path.realpath(os.path.join(lineage.live_folder, "cert.pem"))
        number = ARCHIVE_NUMBER.search(certificate_path)
        try:
            conf = base.read_bytes_as_text(hook.renewal_conf_path(folder, lineage.name))
            self.accounts = read_accounts(folder)
        except OSError as error:
            raise base.DeliverError(
                f"{error.filename}: {error.strerror}: make it readable for certbot's user"
            ) from None
        self.not_before = lineage.not_before
        self.secret_path = f"certificates/{lineage.name}"
        self.certificate: Values = {
            **lineage.pem,
            "conf": with_folder(conf, folder, CERTBOT_FOLDER),
            "number": number["number"] if number else "1",
        }

    def merged_accounts(self, held: Values) -> Values:
        """Return the accounts that Vault should hold: those of other hosts too."""
        return {**held, **self.accounts}

    def certificate_to_hold(self, held: Values) -> Values:
        """Return what Vault should hold of the lineage, out of what it holds.

        That is the certificate on disk. But `held` stays if it is newer, or if only such parts of
        it differ as each run of certbot writes.
        """
        if self.is_newer(held) or self.is_same(held):
            return held
        return self.certificate

    def is_newer(self, held: Values) -> bool:
        """Return whether Vault's certificate began after this one: another host renewed it."""
        try:
            return base.decode_pem(held["fullchain"]).not_before > self.not_before
        except (KeyError, ValueError):
            return False

    def is_same(self, held: Values) -> bool:
        """Return whether Vault has the certificate, with a configuration that means the same."""
        if held.get("fullchain") != self.certificate["fullchain"] or "conf" not in held:
            return False
        return stable_part(held["conf"]) == stable_part(self.certificate["conf"])

    def describe(self, accounts: Update, certificate: Update, change: str) -> str:
        """Return the result in words: `change` if anything changed, "" if nothing did.

        A newer certificate in Vault is named instead, also if accounts changed.
        """
        if self.is_newer(certificate.values):
            return "unchanged, Vault has a newer certificate"
        if accounts.is_change or certificate.is_change:
            return change
        return ""


def read_accounts(folder: str) -> Values:
    """Return all files of certbot's accounts, by path in the folder; raise OSError."""
    accounts = {}
    # certbot links the accounts of the second version of ACME to those of the first.
    for place, _, names in os.walk(os.path.join(folder, "accounts"), followlinks=True):
        for name in names:
            path = os.path.join(place, name)
            accounts[os.path.relpath(path, folder)] = base.read_bytes_as_text(path)
    return accounts


def with_folder(conf: str, old: str, new: str) -> str:
    """Return a renewal configuration whose paths are in another folder of certbot."""
    return re.sub(rf"(?m){re.escape(old)}(?=/|$)", lambda _: new, conf)


def stable_part(conf: str) -> str:
    """Return a renewal configuration without what each run of certbot may write."""
    return VOLATILE_LINE.sub("", conf)


# ---- Restoring ---------------------------------------------------------------------------------
class StoredLineage(NamedTuple):
    """A lineage in Vault, checked; `number` is that of its files in archive/."""

    name: str
    pem: Values
    conf: str
    number: int
    not_before: int


@contextlib.contextmanager
def file_errors(folder: str) -> Iterator[None]:
    """Turn an error of a file into a DeliverError that names the file."""
    try:
        yield
    except OSError as error:
        raise base.DeliverError(
            f"{error.filename or folder}: {error.strerror}: make it writable"
        ) from None


def restore_accounts(store: SecretStore, folder: str, restored: base.Restored) -> None:
    """Write the accounts that are missing in certbot's configuration folder."""
    for path, text in sorted(store.read("accounts").values.items()):
        place = os.path.join(folder, path)
        is_account = path.startswith("accounts/") and ".." not in path
        if not is_account or os.path.exists(place):
            continue
        mode = 0o400 if path.endswith("private_key.json") else 0o644  # as certbot has them
        with file_errors(folder):
            os.makedirs(os.path.dirname(place), exist_ok=True)
            base.replace_file(place, text, mode)
        restored.names.append(path)


def restore_lineages(store: SecretStore, folder: str, restored: base.Restored) -> None:
    """Write the lineages that are missing, or older, in certbot's configuration folder."""
    for name in store.names("certificates"):
        values = store.read(f"certificates/{name}").values
        if not values:  # it was deleted
            continue
        try:
            lineage = stored_lineage(name, values)
        except (KeyError, ValueError):
            restored.problems.append(
                f"{name} in Vault was not written by this hook: delete it in Vault"
            )
            continue
        if not is_as_new_on_disk(folder, lineage):
            with file_errors(folder):
                write_lineage(folder, lineage)
            restored.names.append(name)


def stored_lineage(name: str, values: Values) -> StoredLineage:
    """Return the lineage in a secret; raise KeyError or ValueError if there is none."""
    texts = [values[key] for key in (*base.PEM_PARTS, "conf")]
    if not base.is_lineage_name(name) or not base.is_list_of_texts(texts):
        raise ValueError(name)

    pem = {part: values[part] for part in base.PEM_PARTS}
    not_before = base.decode_pem(pem["fullchain"]).not_before
    return StoredLineage(name, pem, values["conf"], int(values["number"]), not_before)


def is_as_new_on_disk(folder: str, lineage: StoredLineage) -> bool:
    """Return whether the folder has a complete lineage that is as new, or newer."""
    try:
        on_disk = base.read_lineage(os.path.join(folder, "live", lineage.name))
    except base.DeliverError:
        return False
    return on_disk.not_before >= lineage.not_before


def write_lineage(folder: str, lineage: StoredLineage) -> None:
    """Write a lineage as certbot lays it out: archive/, renewal/, and last the links in live/.

    The links in live/ mean that the lineage is complete: without them, the next restore writes it
    again.
    """
    live = os.path.join(folder, "live", lineage.name)
    archive = os.path.join(folder, "archive", lineage.name)
    renewal_conf = hook.renewal_conf_path(folder, lineage.name)
    for path in (live, archive, os.path.dirname(renewal_conf)):
        os.makedirs(path, exist_ok=True)

    number = max([lineage.number, *(used + 1 for used in archive_numbers(archive))])
    for part, text in lineage.pem.items():
        mode = 0o600 if part == "privkey" else 0o644
        base.replace_file(os.path.join(archive, f"{part}{number}.pem"), text, mode)
    base.replace_file(renewal_conf, with_folder(lineage.conf, CERTBOT_FOLDER, folder), 0o644)
    for part in lineage.pem:  # one after the other, as certbot does it
        file = os.path.join("..", "..", "archive", lineage.name, f"{part}{number}.pem")
        replace_link(os.path.join(live, f"{part}.pem"), file)


def archive_numbers(archive: str) -> list[int]:
    """Return the numbers of the certificates in a folder of archive/."""
    numbers = []
    for entry in os.listdir(archive):
        match = ARCHIVED_CERTIFICATE.fullmatch(entry)
        if match:
            numbers.append(int(match["number"]))
    return numbers


def replace_link(path: str, destination: str) -> None:
    """Make a symbolic link, or replace it."""
    new_path = f"{path}.new"
    base.remove_file(new_path)
    os.symlink(destination, new_path)
    os.replace(new_path, path)
