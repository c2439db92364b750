"""The deliver hook's targets of the kind `vault`: delivered, restored elsewhere, renewed there."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import certbot_renewal_deliver
from certbot_renewal_targets import base
from certbot_renewal_targets import vault as vault_targets
from support.servers import require_program
from support.targets import (
    Completed,
    assert_failure,
    assert_success,
    available,
    command_table,
    installed_in,
    lines_of,
    mode_of,
)
from tools import ROOT
from tools.servers.certbot import Authority, Certbot
from tools.servers.influxdb import TOKEN
from tools.servers.lineages import DAY, KEY, make_lineage, make_server_certificate
from tools.servers.processes import free_port
from tools.servers.targets import (
    Vault,
    install_deliver_hook,
    run_deliver_hook,
    start_nginx,
    start_vault,
)

NOW = int(time.time())
CERTIFICATE = "certbot/certificates/example.com"
ACCOUNTS = "certbot/accounts"


@pytest.fixture(scope="module")
def running_vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """A Vault."""
    require_program("vault-server")
    with start_vault(tmp_path_factory.mktemp("vault")) as vault:
        yield vault


@pytest.fixture
def vault(running_vault: Vault) -> Vault:
    """A Vault that holds nothing."""
    listed = running_vault.api("LIST", "secret/metadata/certbot/certificates").json()
    for name in listed.get("data", {}).get("keys", []):
        running_vault.api("DELETE", f"secret/metadata/certbot/certificates/{name}")
    running_vault.api("DELETE", f"secret/metadata/{ACCOUNTS}")
    return running_vault


def token_table(vault: Vault, folder: Path, more: str = "") -> str:
    """Return the table of a Vault, with a token that may do anything."""
    token_file = folder / "token"
    token_file.write_text(f"{TOKEN}\n")
    return f'[[vault]]\nurl = "{vault.url}"\ntoken_file = "{token_file}"\n{more}\n'


def role_table(vault: Vault, folder: Path, *policies: str) -> str:
    """Return the table of a Vault, with an AppRole that has these policies of compose/vault/."""
    for policy in policies:
        text = (ROOT / "compose" / "vault" / "policies" / f"{policy}.hcl").read_text()
        assert vault.api("PUT", f"sys/policies/acl/{policy}", policy=text).ok
    role = "auth/approle/role/certbot"
    assert vault.api("POST", role, token_policies=",".join(policies), token_ttl="1m").ok
    role_id = vault.api("GET", f"{role}/role-id").json()["data"]["role_id"]
    secret_id = vault.api("POST", f"{role}/secret-id").json()["data"]["secret_id"]
    (folder / "role_id").write_text(role_id)
    (folder / "secret_id").write_text(secret_id)
    return f"""[[vault]]
url = "{vault.url}"
role_id_file = "{folder}/role_id"
secret_id_file = "{folder}/secret_id"
"""


def make_example(folder: Path, seconds_ago: int = 1000) -> Path:
    """Write a certificate of example.com that began `seconds_ago`; return its folder in live/."""
    begin = NOW - seconds_ago
    return make_lineage(folder, "example.com", ["example.com"], begin, 90 * DAY, key=KEY)


def files_of(folder: Path) -> dict[str, tuple[str, str]]:
    """Return what certbot needs in its folder.

    By path, the mode and the text of a file, or where a link leads.
    """
    files = {}
    for part in ("accounts", "archive", "live", "renewal"):
        for path in sorted((folder / part).rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_symlink():
                files[name] = ("link", str(path.readlink()))
            elif path.is_file() and path.name != "README":
                text = path.read_text().replace(str(folder), "FOLDER")
                files[name] = (f"{mode_of(path):o}", text)
    return files


def run_at_once(works: Sequence[Callable[[], Completed]]) -> list[Completed]:
    """Run several programs at the same time; return how they ended."""
    completed: list[Completed] = []

    def run(work: Callable[[], Completed]) -> None:
        completed.append(work())

    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(completed) == len(works)
    return completed


# ---- Two certbots that share a Vault -----------------------------------------------------------
class Sharers:
    """Two certbots with a Vault between them; the first has issued, the second has restored."""

    def __init__(self, vault: Vault, authority: Authority, folder: Path) -> None:
        """Issue a certificate with one certbot, and restore it with the other one."""
        toml = role_table(vault, folder, "renewing", "first_start")
        self.vault = vault
        self.first = Certbot(folder / "first" / "letsencrypt", authority)
        self.second = Certbot(folder / "second" / "letsencrypt", authority)
        self.hooks = [installed_in(certbot, toml) for certbot in (self.first, self.second)]
        empty = run_deliver_hook(self.hooks[0], "restore")
        assert_success(empty, "Vault holds nothing yet")

        issued = self.first.issue("example.com", "example.com", "*.example.com")
        assert "example.com to vault: written" in issued.stdout
        role_table(vault, folder, "renewing")  # from now on without the right to create
        assert_success(run_deliver_hook(self.hooks[1], "restore"), "example.com")

    def renew_second(self) -> None:
        """Renew with the second certbot."""
        renewed = self.second.renew("--force-renewal")
        assert renewed.returncode == 0, renewed.stdout
        assert "example.com to vault: written" in renewed.stdout


@pytest.fixture
def sharers(vault: Vault, authority: Authority, tmp_path: Path) -> Sharers:
    """Two certbots that share a certificate."""
    return Sharers(vault, authority, tmp_path)


def test_an_empty_container_restores_all_that_certbot_needs(sharers: Sharers) -> None:
    assert files_of(sharers.second.folder) == files_of(sharers.first.folder)
    for part in ("accounts", "archive", "live"):
        assert mode_of(sharers.second.folder / part) == 0o700


def test_a_container_that_has_restored_renews_and_vault_holds_the_new_certificate(
    sharers: Sharers,
) -> None:
    sharers.renew_second()
    live = sharers.second.folder / "live" / "example.com"
    held = sharers.vault.secret(CERTIFICATE)
    assert held["fullchain"] == (live / "fullchain.pem").read_text()
    assert held["privkey"] == (live / "privkey.pem").read_text()
    assert held["number"] == "2"
    assert sharers.vault.version(CERTIFICATE) == 2


def test_a_certificate_that_was_renewed_elsewhere_is_restored_once(sharers: Sharers) -> None:
    sharers.renew_second()
    for _ in range(2):
        assert_success(run_deliver_hook(sharers.hooks[0], "restore"))
        link = files_of(sharers.first.folder)["live/example.com/cert.pem"]
        assert link == ("link", "../../archive/example.com/cert2.pem")
    delivered = run_deliver_hook(sharers.hooks[0], "--all")
    assert delivered.stdout == "nothing to do: 1 up to date\n"
    assert sharers.vault.version(CERTIFICATE) == 2
    assert sharers.vault.version(ACCOUNTS) == 1


def test_of_two_certbots_that_renew_at_once_vault_holds_the_newer_certificate(
    sharers: Sharers,
) -> None:
    certbots = [sharers.first, sharers.second]
    renewals = [lambda certbot=certbot: certbot.renew("--force-renewal") for certbot in certbots]
    assert [renewal.returncode for renewal in run_at_once(renewals)] == [0, 0]
    newest = max(certbot.not_before("example.com") for certbot in certbots)
    newest_texts = [
        (certbot.folder / "live" / "example.com" / "fullchain.pem").read_text()
        for certbot in certbots
        if certbot.not_before("example.com") == newest
    ]
    assert sharers.vault.secret(CERTIFICATE)["fullchain"] in newest_texts

    for hook in sharers.hooks:
        assert run_deliver_hook(hook, "restore").returncode == 0
        assert run_deliver_hook(hook, "--all").returncode == 0
    assert [certbot.not_before("example.com") for certbot in certbots] == [newest, newest]
    assert len(sharers.vault.secret(ACCOUNTS)) == 3


# ---- Several writers ---------------------------------------------------------------------------
def make_folder_with_account(folder: Path, number: int) -> None:
    """Make a folder of certbot with a certificate of its own age, and an account of its own."""
    make_example(folder, seconds_ago=1000 * (number + 1))
    directory = folder / "accounts" / "ca.example.com" / "directory"
    account = directory / str(number) / "private_key.json"
    account.parent.mkdir(parents=True)
    account.write_text(f'{{"fake": {number}}}')


def test_of_many_at_once_the_newest_certificate_and_every_account_stay(
    vault: Vault, tmp_path: Path
) -> None:
    hooks = []
    for number in range(4):
        folder = tmp_path / str(number)
        make_folder_with_account(folder, number)
        hooks.append(install_deliver_hook(folder, token_table(vault, folder)))
    deliveries = [lambda hook=hook: run_deliver_hook(hook, "--all") for hook in hooks]
    errors = [delivery.stderr for delivery in run_at_once(deliveries) if delivery.returncode]
    assert errors == []
    newest = tmp_path / "0" / "live" / "example.com" / "cert.pem"
    assert vault.secret(CERTIFICATE)["cert"] == newest.read_text()
    assert len(vault.secret(ACCOUNTS)) == 4

    empty = tmp_path / "empty"
    empty.mkdir()
    hook = install_deliver_hook(empty, token_table(vault, empty))
    assert_success(run_deliver_hook(hook, "restore"))
    assert len(list((empty / "accounts").rglob("private_key.json"))) == 4


def read_vault_target(vault: Vault, folder: Path) -> base.Target:
    """Return the target of a Vault, as the deliver hook reads it."""
    (folder / certbot_renewal_deliver.TOML_FILE).write_text(token_table(vault, folder))
    (target,) = certbot_renewal_deliver.read_targets(str(folder))
    return target


def test_a_secret_that_another_host_writes_in_between_is_not_lost(
    vault: Vault, tmp_path: Path
) -> None:
    target = read_vault_target(vault, tmp_path)
    seen: list[dict[str, str]] = []

    def new_values(held: dict[str, str]) -> dict[str, str]:
        seen.append(held)
        if len(seen) == 1:
            vault.api("POST", f"secret/data/{ACCOUNTS}", data={"theirs": "x"})
        return {**held, "ours": "y"}

    with vault_targets.open_store(target.options, base.Deadline(30)) as store:
        update = store.update("accounts", new_values)
    assert update.is_change
    assert seen == [{}, {"theirs": "x"}]
    assert vault.secret(ACCOUNTS) == {"ours": "y", "theirs": "x"}


def test_a_secret_that_others_write_all_the_time_is_an_error(vault: Vault, tmp_path: Path) -> None:
    target = read_vault_target(vault, tmp_path)
    numbers = iter(range(100))

    def new_values(held: Mapping[str, str]) -> dict[str, str]:
        vault.api("POST", f"secret/data/{ACCOUNTS}", data={"theirs": str(next(numbers))})
        return {**held, "ours": "y"}

    with (
        vault_targets.open_store(target.options, base.Deadline(30)) as store,
        pytest.raises(base.DeliverError, match="accounts: other hosts keep changing this secret"),
    ):
        store.update("accounts", new_values)


def test_a_certificate_that_another_host_renewed_later_stays_in_vault(
    vault: Vault, tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    older = tmp_path / "older"
    make_example(newer, seconds_ago=1000)
    make_example(older, seconds_ago=5000)
    hook = install_deliver_hook(newer, token_table(vault, newer))
    assert_success(run_deliver_hook(hook, "--all"), "written")
    hook = install_deliver_hook(older, token_table(vault, older))
    assert_success(run_deliver_hook(hook, "--dry-run"), "unchanged, Vault has a newer certificate")
    assert_success(run_deliver_hook(hook, "--all"), "unchanged, Vault has a newer certificate")
    newer_text = (newer / "live" / "example.com" / "cert.pem").read_text()
    assert vault.secret(CERTIFICATE)["cert"] == newer_text


# ---- Configuration -----------------------------------------------------------------------------
def test_a_configuration_that_changed_is_written(vault: Vault, tmp_path: Path) -> None:
    hook = install_deliver_hook(tmp_path, token_table(vault, tmp_path))
    conf = tmp_path / "renewal" / "example.com.conf"
    make_example(tmp_path)
    assert_success(run_deliver_hook(hook, "--all"))
    new_section = "[acme_renewal_info]\nari_retry_after = now\n"
    conf.write_text(conf.read_text() + new_section)
    assert_success(run_deliver_hook(hook, "--dry-run"), "would be written")
    assert vault.version(CERTIFICATE) == 1
    assert_success(run_deliver_hook(hook, "--all"))
    assert vault.version(CERTIFICATE) == 2


def test_what_each_run_of_certbot_writes_into_a_configuration_does_not_count(
    vault: Vault, tmp_path: Path
) -> None:
    hook = install_deliver_hook(tmp_path, token_table(vault, tmp_path))
    conf = tmp_path / "renewal" / "example.com.conf"
    make_example(tmp_path)
    conf.write_text(conf.read_text() + "[acme_renewal_info]\nari_retry_after = now\n")
    assert_success(run_deliver_hook(hook, "--all"))
    later = conf.read_text().replace("ari_retry_after = now", "ari_retry_after = later")
    conf.write_text(later.replace("version = 5.8.0", "version = 5.9.0"))
    assert run_deliver_hook(hook, "--all").stdout == "nothing to do: 1 up to date\n"
    assert vault.version(CERTIFICATE) == 1


# ---- Restoring ---------------------------------------------------------------------------------
def test_a_certificate_that_is_newer_on_disk_stays(vault: Vault, tmp_path: Path) -> None:
    hook = install_deliver_hook(tmp_path, token_table(vault, tmp_path))
    make_example(tmp_path, seconds_ago=5000)
    assert_success(run_deliver_hook(hook, "--all"))
    make_example(tmp_path, seconds_ago=1000)
    before = files_of(tmp_path)
    restored = run_deliver_hook(hook, "restore")
    assert f"nothing restored: {tmp_path} is up to date" in restored.stdout
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    "lost",
    ["live/example.com/privkey.pem", "live/example.com/fullchain.pem", "live", "archive"],
)
def test_a_restore_that_was_killed_is_done_again(vault: Vault, tmp_path: Path, lost: str) -> None:
    full = tmp_path / "full"
    empty = tmp_path / "empty"
    empty.mkdir()
    make_example(full)
    hook = install_deliver_hook(full, token_table(vault, full))
    assert_success(run_deliver_hook(hook, "--all"))
    hook = install_deliver_hook(empty, token_table(vault, empty))
    assert_success(run_deliver_hook(hook, "restore"), "example.com")

    path = empty / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert_success(run_deliver_hook(hook, "restore"), "example.com")
    assert (empty / "renewal" / "example.com.conf").exists()
    assert (empty / "live" / "example.com" / "privkey.pem").exists()


def test_a_secret_that_is_no_certificate_is_not_restored(vault: Vault, tmp_path: Path) -> None:
    vault.api("POST", f"secret/data/{CERTIFICATE}", data={"fullchain": "rubbish"})
    hook = install_deliver_hook(tmp_path, token_table(vault, tmp_path))
    completed = run_deliver_hook(hook, "restore")
    warning = "example.com in Vault was not written by this hook: delete it in Vault"
    assert completed.stderr == f"certbot_renewal_deliver: warning: {warning}\n"
    assert completed.returncode == 0
    assert not (tmp_path / "live").exists()


def test_a_secret_that_is_no_certificate_is_written_over(vault: Vault, tmp_path: Path) -> None:
    vault.api("POST", f"secret/data/{CERTIFICATE}", data={"fullchain": "rubbish"})
    hook = install_deliver_hook(tmp_path, token_table(vault, tmp_path))
    make_example(tmp_path)
    assert_success(run_deliver_hook(hook, "--all"))
    assert run_deliver_hook(hook, "--all").stdout == "nothing to do: 1 up to date\n"


def test_a_folder_that_cannot_be_written_to_is_named(vault: Vault, tmp_path: Path) -> None:
    vault.api("POST", f"secret/data/{ACCOUNTS}", data={"accounts/ca/private_key.json": "{}"})
    hook = install_deliver_hook(tmp_path, token_table(vault, tmp_path))
    (tmp_path / "accounts").write_text("no folder")
    completed = run_deliver_hook(hook, "restore")
    assert_failure(completed, f"{tmp_path}/accounts/ca: ", ": make it writable")


def test_without_a_vault_there_is_nothing_to_restore_from(tmp_path: Path) -> None:
    hook = install_deliver_hook(tmp_path, command_table(tmp_path))
    error = "certbot_renewal_deliver.toml has no [[vault]] table to restore from"
    assert_failure(run_deliver_hook(hook, "restore"), error)


# ---- A Vault that refuses ----------------------------------------------------------------------
def assert_refused(toml: str, folder: Path, error: str, argument: str = "--all") -> None:
    """Assert that a delivery of example.com fails, with a text on stderr and without the token."""
    make_example(folder)
    hook = install_deliver_hook(folder, toml)
    completed = run_deliver_hook(hook, argument, HOME=str(folder))
    assert_failure(completed, error)
    assert "Traceback" not in completed.stderr
    assert TOKEN not in completed.stderr + completed.stdout


def test_a_wrong_token_is_refused(vault: Vault, tmp_path: Path) -> None:
    toml = token_table(vault, tmp_path)
    (tmp_path / "token").write_text("fake-wrong")
    assert_refused(toml, tmp_path, "permission denied")


@pytest.mark.parametrize("argument", ["--all", "restore"])
def test_a_mount_without_an_engine_is_refused(vault: Vault, tmp_path: Path, argument: str) -> None:
    toml = token_table(vault, tmp_path, 'mount = "nowhere"')
    assert_refused(toml, tmp_path, "check that mount is a KV engine", argument)


@pytest.mark.parametrize("argument", ["--all", "restore"])
def test_a_vault_that_does_not_run_is_named(vault: Vault, tmp_path: Path, argument: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    toml = token_table(vault, tmp_path).replace(vault.url, url)
    error = f"{url}: Connection refused: check that Vault is running and that url is its address"
    assert_refused(toml, tmp_path, error, argument)


def test_a_vault_without_an_address_is_an_error(vault: Vault, tmp_path: Path) -> None:
    toml = token_table(vault, tmp_path).replace(vault.url, "")
    assert_refused(toml, tmp_path, "url and VAULT_ADDR are empty: set url")


def test_a_token_file_that_is_missing_is_named(vault: Vault, tmp_path: Path) -> None:
    toml = token_table(vault, tmp_path).replace("/token", "/no-token")
    error = f"token_file: {tmp_path}/no-token: No such file or directory"
    assert_refused(toml, tmp_path, error)


def test_a_vault_without_a_token_is_an_error(vault: Vault, tmp_path: Path) -> None:
    toml = f'[[vault]]\nurl = "{vault.url}"\n'
    error = "no token for Vault: set token_file, role_id_file, or VAULT_TOKEN"
    assert_refused(toml, tmp_path, error)


def test_a_role_without_the_right_to_create_is_refused(vault: Vault, tmp_path: Path) -> None:
    toml = role_table(vault, tmp_path, "renewing")
    assert_refused(toml, tmp_path, "check that the token is valid and that its policy allows this")


def test_check_finds_out_that_a_role_has_not_the_right_to_create(
    vault: Vault, tmp_path: Path
) -> None:
    toml = role_table(vault, tmp_path, "renewing")
    secret = "secret/data/certbot/certificates/example.com"
    error = f"the token may not create {secret}: add this capability to its policy"
    assert_refused(toml, tmp_path, error, "--check")


def test_a_wrong_secret_id_is_refused(vault: Vault, tmp_path: Path) -> None:
    toml = role_table(vault, tmp_path, "renewing")
    (tmp_path / "secret_id").write_text(TOKEN)
    error = "correct role_id_file and secret_id_file (after five failed logins"
    assert_refused(toml, tmp_path, error)


def test_address_and_token_may_come_from_the_environment(vault: Vault, tmp_path: Path) -> None:
    make_example(tmp_path)
    hook = install_deliver_hook(tmp_path, "[[vault]]\n")
    environ = {"VAULT_ADDR": vault.url, "VAULT_TOKEN": TOKEN}
    assert_success(run_deliver_hook(hook, "--all", **environ))
    assert vault.version(CERTIFICATE) == 1


def test_over_https_the_ca_of_vaults_certificate_counts(vault: Vault, tmp_path: Path) -> None:
    make_example(tmp_path)
    port = free_port()
    pem = make_server_certificate(tmp_path / "vault.pem", "127.0.0.1")
    https = f"listen 127.0.0.1:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};"
    server = f"server {{ {https} location / {{ proxy_pass {vault.url}; }} }}"
    toml = token_table(vault, tmp_path).replace(vault.url, f"https://127.0.0.1:{port}")
    with available(start_nginx(tmp_path / "nginx", server)):
        hook = install_deliver_hook(tmp_path, toml)
        remedy = "check that Vault is running and that url is its address"
        assert_failure(run_deliver_hook(hook, "--all"), "certificate verify failed", remedy)
        hook = install_deliver_hook(tmp_path, f'{toml}ca_file = "{pem}"\n')
        assert_success(run_deliver_hook(hook, "--all"))


def test_without_hvac_the_other_targets_get_the_certificate(tmp_path: Path) -> None:
    live = make_example(tmp_path)
    toml = f'[[vault]]\nurl = "http://127.0.0.1:1"\n{command_table(tmp_path)}'
    hook = install_deliver_hook(tmp_path, toml)
    (hook.parent / "hvac.py").write_text("raise ImportError\n")
    library = f"no hvac library for {sys.executable}: pip install hvac, or apt-get install"
    assert_failure(run_deliver_hook(hook, "--all"), f"not delivered to vault: {library}")
    assert lines_of(tmp_path / "log") == [f"{live} example.com"]
