"""Certificates in Vault: delivered, restored into an empty container, renewed there, by several at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import certbot_renewal_deliver
from support.servers import require_program, skip_or_fail
from tools.servers.certbot import Authority, Certbot
from tools.servers.influxdb import TOKEN
from tools.servers.lineages import DAY, KEY, make_lineage, make_server_certificate
from tools.servers.processes import MissingServer, free_port
from tools.servers.targets import (
    Vault,
    install_deliver_hook,
    run_deliver_hook,
    start_nginx,
    start_vault,
)

NOW = int(time.time())
CERTIFICATE, ACCOUNTS = "certbot/certificates/example.com", "certbot/accounts"


@pytest.fixture(scope="module")
def running_vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """A Vault."""
    require_program("vault-server")
    with start_vault(tmp_path_factory.mktemp("vault")) as found:
        yield found


@pytest.fixture
def vault(running_vault: Vault) -> Vault:
    """A Vault that holds nothing."""
    for name in (
        running_vault.api("LIST", "secret/metadata/certbot/certificates")
        .json()
        .get("data", {})
        .get("keys", [])
    ):
        running_vault.api("DELETE", f"secret/metadata/certbot/certificates/{name}")
    running_vault.api("DELETE", f"secret/metadata/{ACCOUNTS}")
    return running_vault


def target(vault: Vault, folder: Path, more: str = "", token: str = TOKEN) -> str:
    """The table of it in certbot_renewal_deliver.toml."""
    (folder / "token").write_text(token + "\n")
    return f'[[vault]]\nurl = "{vault.url}"\ntoken_file = "{folder}/token"\n{more}\n'


def approle(vault: Vault, folder: Path, *policies: str) -> str:
    """The table of it for a role with these policies."""
    texts = Path(__file__).resolve().parent.parent / "compose" / "vault" / "policies"
    for policy in policies:
        assert vault.api(
            "PUT", f"sys/policies/acl/{policy}", policy=(texts / f"{policy}.hcl").read_text()
        ).ok
    assert vault.api(
        "POST", "auth/approle/role/certbot", token_policies=",".join(policies), token_ttl="1m"
    ).ok
    role = vault.api("GET", "auth/approle/role/certbot/role-id").json()["data"]["role_id"]
    secret = vault.api("POST", "auth/approle/role/certbot/secret-id").json()["data"]["secret_id"]
    (folder / "role_id").write_text(role)
    (folder / "secret_id").write_text(secret)
    return f'[[vault]]\nurl = "{vault.url}"\nrole_id_file = "{folder}/role_id"\nsecret_id_file = "{folder}/secret_id"\n'


def files_of(folder: Path) -> dict[str, tuple[str, str]]:
    """What certbot needs in its folder: by path the mode and the content, or where a link leads to."""
    found = {}
    for place in ("accounts", "archive", "live", "renewal"):
        for path in sorted((folder / place).rglob("*")):
            name, mode = str(path.relative_to(folder)), f"{path.lstat().st_mode & 0o777:o}"
            if path.is_symlink():
                found[name] = ("link", str(path.readlink()))
            elif path.is_file() and path.name != "README":
                found[name] = (mode, path.read_text().replace(str(folder), "FOLDER"))
    return found


def test_an_empty_container_restores_and_renews_and_vault_holds_the_new_certificate(
    vault: Vault, authority: Authority, tmp_path: Path
) -> None:
    first, second = (
        Certbot(tmp_path / name / "letsencrypt", authority) for name in ("first", "second")
    )
    toml = approle(vault, tmp_path, "renewing", "first_start")
    hooks = [install_deliver_hook(certbot.folder, toml) for certbot in (first, second)]
    for certbot in (first, second):
        certbot.hook.unlink()
    done = run_deliver_hook(hooks[0], "restore")
    assert (done.returncode, "Vault holds nothing yet" in done.stdout) == (0, True), done.stderr
    issued = first.issue("example.com", "example.com", "*.example.com")
    assert "example.com to vault: holds it" in issued.stdout
    toml = approle(vault, tmp_path, "renewing")
    done = run_deliver_hook(hooks[1], "restore")
    assert done.returncode == 0, done.stderr
    assert files_of(second.folder) == files_of(first.folder)
    assert all(
        (second.folder / place).stat().st_mode & 0o777 == 0o700
        for place in ("accounts", "archive", "live")
    )
    renewed = second.renew("--force-renewal")
    assert renewed.returncode == 0, renewed.stdout
    assert "example.com to vault: holds it" in renewed.stdout
    held = vault.secret(CERTIFICATE)
    assert (
        held["fullchain"] == (second.folder / "live" / "example.com" / "fullchain.pem").read_text()
    )
    assert held["privkey"] == (second.folder / "live" / "example.com" / "privkey.pem").read_text()
    assert (held["number"], vault.version(CERTIFICATE)) == ("2", 2)
    for _ in range(2):  # what is renewed elsewhere comes back, and then there is nothing to do
        assert run_deliver_hook(hooks[0], "restore").returncode == 0
        assert files_of(first.folder)["live/example.com/cert.pem"] == (
            "link",
            "../../archive/example.com/cert2.pem",
        )
    assert run_deliver_hook(hooks[0], "--all").stdout == "nothing to do: 1 had it\n"
    assert (vault.version(CERTIFICATE), vault.version(ACCOUNTS)) == (2, 1)
    # Both renew at once: both certificates are good, and Vault holds the newer one.
    ended = list[int]()
    threads = [
        threading.Thread(target=lambda it=it: ended.append(it.renew("--force-renewal").returncode))
        for it in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [0, 0]
    newest = max(first.not_before("example.com"), second.not_before("example.com"))
    assert vault.secret(CERTIFICATE)["fullchain"] in [
        (it.folder / "live" / "example.com" / "fullchain.pem").read_text()
        for it in (first, second)
        if it.not_before("example.com") == newest
    ]
    assert [
        run_deliver_hook(hook, argument).returncode
        for hook in hooks
        for argument in ("restore", "--all")
    ] == [0] * 4
    assert {it.not_before("example.com") for it in (first, second)} == {newest}
    assert len(vault.secret(ACCOUNTS)) == 3


def test_of_many_at_once_the_newest_certificate_and_every_account_stay(
    vault: Vault, tmp_path: Path
) -> None:
    hooks = []
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        make_lineage(
            folder, "example.com", ["example.com"], NOW - 1000 * (number + 1), 90 * DAY, key=KEY
        )
        account = (
            folder / "accounts" / "ca.example.com" / "directory" / str(number) / "private_key.json"
        )
        account.parent.mkdir(parents=True)
        account.write_text(f'{{"fake": {number}}}')
        hooks.append(install_deliver_hook(folder, target(vault, folder)))
    ended = dict[Path, subprocess.CompletedProcess[str]]()
    threads = [
        threading.Thread(
            target=lambda hook=hook: ended.update({hook: run_deliver_hook(hook, "--all")})
        )
        for hook in hooks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.stderr for done in ended.values() if done.returncode] == []
    assert (
        vault.secret(CERTIFICATE)["cert"]
        == (tmp_path / "0" / "live" / "example.com" / "cert.pem").read_text()
    )
    assert len(vault.secret(ACCOUNTS)) == 4
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run_deliver_hook(install_deliver_hook(empty, target(vault, empty)), "restore")
    assert done.returncode == 0, done.stderr
    assert len(list((empty / "accounts").rglob("private_key.json"))) == 4


def test_what_another_writes_in_between_is_not_lost(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / certbot_renewal_deliver.TOML_FILE).write_text(target(vault, tmp_path))
    (found,) = certbot_renewal_deliver.read_targets(str(tmp_path))
    seen = list[dict[str, str]]()

    def new(present: dict[str, str]) -> dict[str, str]:
        seen.append(present)
        if len(seen) == 1:
            vault.api("POST", f"secret/data/{ACCOUNTS}", data={"theirs": "x"})
        return {**present, "ours": "y"}

    with certbot_renewal_deliver.vault(found, time.monotonic() + 30) as client:
        assert certbot_renewal_deliver.update_secret(client, found, "accounts", new, True)
    assert seen == [{}, {"theirs": "x"}]
    assert vault.secret(ACCOUNTS) == {"ours": "y", "theirs": "x"}


def test_what_is_newer_on_disk_is_not_restored_over(vault: Vault, tmp_path: Path) -> None:
    hook = install_deliver_hook(tmp_path, target(vault, tmp_path))
    make_lineage(tmp_path, "example.com", ["example.com"], NOW - 5000, 90 * DAY, key=KEY)
    assert run_deliver_hook(hook, "--all").returncode == 0
    make_lineage(tmp_path, "example.com", ["example.com"], NOW - 1000, 90 * DAY, key=KEY)
    before = files_of(tmp_path)
    assert "nothing, all of it is there" in run_deliver_hook(hook, "restore").stdout
    assert files_of(tmp_path) == before


def test_a_configuration_that_changed_is_written_and_what_each_run_writes_is_not(
    vault: Vault, tmp_path: Path
) -> None:
    hook, conf = (
        install_deliver_hook(tmp_path, target(vault, tmp_path)),
        tmp_path / "renewal" / "example.com.conf",
    )
    make_lineage(tmp_path, "example.com", ["example.com"], NOW - 1000, 90 * DAY, key=KEY)
    assert run_deliver_hook(hook, "--all").returncode == 0
    conf.write_text(
        conf.read_text().replace("version = 5.8.0", "version = 5.9.0")
        + "[acme_renewal_info]\nari_retry_after = now\n"
    )
    assert "would get it" in run_deliver_hook(hook, "--dry-run").stdout  # a section of its own
    assert run_deliver_hook(hook, "--all").returncode == 0
    conf.write_text(conf.read_text().replace("now", "later"))
    assert run_deliver_hook(hook, "--all").stdout == "nothing to do: 1 had it\n"
    assert vault.version(CERTIFICATE) == 2


def test_a_restore_that_was_killed_is_done_again(vault: Vault, tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    make_lineage(full, "example.com", ["example.com"], NOW - 1000, 90 * DAY, key=KEY)
    assert (
        run_deliver_hook(install_deliver_hook(full, target(vault, full)), "--all").returncode == 0
    )
    empty.mkdir()
    hook = install_deliver_hook(empty, target(vault, empty))
    for piece in (
        "live/example.com/privkey.pem",
        "live/example.com/fullchain.pem",
        "live",
        "archive",
    ):
        assert run_deliver_hook(hook, "restore").returncode == 0
        assert (empty / "renewal" / "example.com.conf").exists() and (
            empty / "live" / "example.com" / "privkey.pem"
        ).exists()
        path = empty / piece
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = run_deliver_hook(hook, "restore")
    assert (done.returncode, "example.com" in done.stdout) == (0, True)
    vault.api("POST", f"secret/data/{CERTIFICATE}", data={"fullchain": "rubbish"})
    done = run_deliver_hook(install_deliver_hook(tmp_path, target(vault, tmp_path)), "restore")
    assert (
        done.stderr
        == "certbot_renewal_deliver: warning: example.com in Vault is no certificate of this script: remove it there\n"
    )
    assert (
        done.returncode,
        list((tmp_path / "live").iterdir()) if (tmp_path / "live").exists() else [],
    ) == (0, [])
    assert run_deliver_hook(hook, "--all").returncode == 0  # what is no certificate is written over
    assert run_deliver_hook(hook, "--all").stdout == "nothing to do: 1 had it\n"


def test_what_vault_refuses_is_named(vault: Vault, tmp_path: Path) -> None:
    make_lineage(tmp_path, "example.com", ["example.com"], NOW - 1000, 90 * DAY, key=KEY)
    url = f"http://127.0.0.1:{free_port()}"
    for toml, says in {
        target(vault, tmp_path, token="fake-wrong"): "permission denied",
        target(vault, tmp_path, 'mount = "nowhere"'): "is mount a KV engine?",
        target(vault, tmp_path, 'mount = "nowhere"\nname = "restore"'): "is mount a KV engine?",
        target(vault, tmp_path).replace(
            vault.url, url
        ): f"{url}: Connection refused: does Vault run, and is url its address?",
        target(vault, tmp_path).replace(vault.url, ""): "url is empty, and so is VAULT_ADDR",
        target(vault, tmp_path).replace(
            "/token", "/no-token"
        ): f"token_file: {tmp_path}/no-token: No such file or directory",
        f'[[vault]]\nurl = "{vault.url}"\n': "no token for Vault: set token_file, role_id_file, or VAULT_TOKEN",
        approle(
            vault, tmp_path, "renewing"
        ): "does its policy give the right to it?",  # not the right to create
        approle(vault, tmp_path, "renewing")
        + "\n": "the token may not create secret/data/certbot/certificates/example.com: give its policy",
        approle(vault, tmp_path, "renewing").replace(
            "/secret_id", "/token"
        ): "correct role_id_file and secret_id_file; after five wrong",
    }.items():
        hook = install_deliver_hook(tmp_path, toml)
        (tmp_path / "token").write_text("fake-wrong" if "permission" in says else TOKEN)
        argument = "restore" if '"restore"' in toml else "--check" if "may not" in says else "--all"
        done = run_deliver_hook(hook, argument, HOME=str(tmp_path))
        assert done.returncode == 1, toml
        assert (
            says in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
        ), done.stderr
        assert TOKEN not in done.stderr + done.stdout
    environ = {"VAULT_ADDR": vault.url, "VAULT_TOKEN": TOKEN}
    done = run_deliver_hook(install_deliver_hook(tmp_path, "[[vault]]\n"), "--all", **environ)
    assert (done.returncode, done.stderr) == (0, "")


def test_over_https_the_ca_of_vaults_certificate_counts(vault: Vault, tmp_path: Path) -> None:
    make_lineage(tmp_path, "example.com", ["example.com"], NOW - 1000, 90 * DAY, key=KEY)
    port, pem = free_port(), make_server_certificate(tmp_path / "vault.pem", "127.0.0.1")
    https = f"listen 127.0.0.1:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};"
    block = f"server {{ {https} location / {{ proxy_pass {vault.url}; }} }}"
    toml = target(vault, tmp_path).replace(vault.url, f"https://127.0.0.1:{port}")
    try:
        with start_nginx(tmp_path / "nginx", block):
            done = run_deliver_hook(install_deliver_hook(tmp_path, toml), "--all")
            assert (
                "certificate verify failed" in done.stderr
                and "does Vault run, and is url its address?" in done.stderr
            )
            done = run_deliver_hook(
                install_deliver_hook(tmp_path, f'{toml}ca_file = "{pem}"\n'), "--all"
            )
            assert (done.returncode, done.stderr) == (0, "")
    except MissingServer as error:
        skip_or_fail(error)


def test_without_hvac_the_other_targets_get_the_certificate(tmp_path: Path) -> None:
    make_lineage(tmp_path, "example.com", ["example.com"], NOW - 1000, 90 * DAY, key=KEY)
    toml = f'[[vault]]\nurl = "http://127.0.0.1:1"\n[[command]]\ncommand = ["touch", "{tmp_path}/done"]\n'
    hook = install_deliver_hook(tmp_path, toml)
    (hook.parent / "hvac.py").write_text("raise ImportError\n")
    done = run_deliver_hook(hook, "--all")
    assert (
        f"not delivered to vault: no hvac library for {sys.executable}: pip install hvac, or apt-get install"
        in done.stderr
    )
    assert (tmp_path / "done").exists()
