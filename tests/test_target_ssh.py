"""The deliver hook's targets of the kind `ssh`: real OpenSSH servers, and nginx on one of them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from certbot_renewal_targets import ssh
from support.targets import (
    assert_failure,
    assert_success,
    available,
    fill_disk,
    is_pair,
    lines_of,
    mode_of,
    names_in,
    quoted,
    renew,
    renewed_certificate,
    small_disk,
    ssh_table,
)
from tools.servers.processes import free_port, wait_for
from tools.servers.targets import (
    Sshd,
    install_deliver_hook,
    run_deliver_hook,
    served_certificate,
    start_nginx,
)

GROUP_MAIL = 8


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder of the other server in which it has its certificates."""
    return tmp_path / "there"


# ---- Copies ------------------------------------------------------------------------------------
def test_a_host_gets_certificate_and_key(sshd: Sshd, there: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, ssh_table(sshd, there))
    live = renew(certbot_folder)
    assert_success(run_deliver_hook(hook, "--all"), f"to ssh/{sshd.host}: copied, reload ran")
    assert (there / "example.com.crt").read_bytes() == (live / "fullchain.pem").read_bytes()
    assert (there / "example.com.key").read_bytes() == (live / "privkey.pem").read_bytes()
    assert mode_of(there / "example.com.crt") == 0o644
    assert mode_of(there / "example.com.key") == 0o600
    assert names_in(there) == {"example.com.crt", "example.com.key", "reloads"}


def test_a_look_copies_nothing(sshd: Sshd, there: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, ssh_table(sshd, there))
    renew(certbot_folder)
    assert_success(run_deliver_hook(hook, "--dry-run"), "would be copied")
    assert names_in(there) == set()


def test_a_renewed_certificate_keeps_mode_and_owner_of_the_old_files(
    sshd: Sshd, there: Path, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, ssh_table(sshd, there))
    renew(certbot_folder, days_ago=60)
    assert_success(run_deliver_hook(hook, "--all"))
    (there / "example.com.key").chmod(0o640)
    (there / "example.com.crt").chmod(0o444)
    if os.geteuid() == 0:
        os.chown(there / "example.com.key", 0, GROUP_MAIL)

    live = renew(certbot_folder)
    assert_success(run_deliver_hook(hook, "--all"))
    assert (there / "example.com.crt").read_bytes() == (live / "fullchain.pem").read_bytes()
    assert mode_of(there / "example.com.crt") == 0o444
    assert mode_of(there / "example.com.key") == 0o640
    assert os.geteuid() != 0 or (there / "example.com.key").stat().st_gid == GROUP_MAIL


def test_a_host_that_has_the_certificate_is_left_alone_also_without_a_state_file(
    sshd: Sshd, there: Path, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, ssh_table(sshd, there))
    renew(certbot_folder)
    assert_success(run_deliver_hook(hook, "--all"))
    (certbot_folder / "certbot_renewal_deliver.state").unlink()
    assert_success(run_deliver_hook(hook, "--all"), "nothing to do: 1 up to date")
    assert lines_of(there / "reloads") == ["reloaded"]


def test_files_are_put_where_links_lead(
    sshd: Sshd, there: Path, tmp_path: Path, certbot_folder: Path
) -> None:
    real = tmp_path / "real"
    real.mkdir()
    hook = install_deliver_hook(certbot_folder, ssh_table(sshd, there))
    renew(certbot_folder)
    for kind in ("crt", "key"):
        (real / kind).write_text("old")
        (real / kind).chmod(0o640)
        (there / f"example.com.{kind}").symlink_to(Path("..") / "real" / kind)

    assert_success(run_deliver_hook(hook, "--all"))
    assert is_pair(real / "crt", real / "key")
    assert names_in(real) == {"crt", "key"}
    assert [mode_of(real / "crt"), mode_of(real / "key")] == [0o640, 0o640]
    assert (there / "example.com.crt").is_symlink()
    assert (there / "example.com.key").is_symlink()
    assert_success(run_deliver_hook(hook, "--all"), "nothing to do")


def test_nginx_serves_the_copied_certificate_after_its_reload(
    sshd: Sshd, there: Path, tmp_path: Path, certbot_folder: Path
) -> None:
    port = free_port()
    pid_file = tmp_path / "nginx" / "nginx.pid"
    reload = f"[ ! -e {pid_file} ] || kill -HUP $(cat {pid_file})"
    hook = install_deliver_hook(certbot_folder, ssh_table(sshd, there, reload=reload))
    first = renewed_certificate(certbot_folder, days_ago=60)
    assert_success(run_deliver_hook(hook, "--all"))
    files = f"ssl_certificate {there}/example.com.crt; ssl_certificate_key {there}/example.com.key;"
    server = f"server {{ listen 127.0.0.1:{port} ssl; {files} }}"
    with available(start_nginx(tmp_path / "nginx", server)):
        assert served_certificate(port, "example.com") == first
        second = renewed_certificate(certbot_folder)
        assert_success(run_deliver_hook(hook, "--all"))
        wait_for(
            lambda: served_certificate(port, "example.com") == second,
            "nginx to serve the new certificate",
        )


# ---- Reloads -----------------------------------------------------------------------------------
def test_a_reload_that_fails_is_tried_again_without_another_copy(
    sshd: Sshd, there: Path, tmp_path: Path, certbot_folder: Path
) -> None:
    fails = f"test -e {tmp_path}/mended || {{ echo nginx is sad >&2; exit 3; }}"
    table = ssh_table(sshd, there, reload=f"{fails}; echo reloaded >> {there}/reloads")
    hook = install_deliver_hook(certbot_folder, table)
    renew(certbot_folder)
    failed = run_deliver_hook(hook, "--all")
    assert_failure(
        failed,
        f"example.com not delivered to ssh/{sshd.host}: ssh ended with status 3: "
        "nginx is sad (reload failed; the files are in place)",
    )
    checked = run_deliver_hook(hook, "--check")
    error = (
        r"not ready: .*: the last attempt failed: ssh ended with status 3: nginx is sad .* --all"
    )
    assert re.search(error, checked.stderr)

    copy = (there / "example.com.crt").stat().st_ino
    assert_failure(run_deliver_hook(hook, "--all"), "(reload failed; the files are up to date)")
    (tmp_path / "mended").touch()
    assert_success(run_deliver_hook(hook, "--all"), "reload ran")
    assert (there / "example.com.crt").stat().st_ino == copy
    assert lines_of(there / "reloads") == ["reloaded"]


def test_a_run_that_is_killed_before_the_reload_is_made_up_for(
    sshd: Sshd, there: Path, tmp_path: Path, certbot_folder: Path
) -> None:
    pid_file = tmp_path / "pid"
    kill = f"until test -s {pid_file}; do sleep 0.05; done; kill -9 $(cat {pid_file}); exit 1"
    reload = f"test -e {tmp_path}/mended || {{ {kill}; }}; echo reloaded >> {there}/reloads"
    hook = install_deliver_hook(certbot_folder, ssh_table(sshd, there, reload=reload))
    renew(certbot_folder)
    child = subprocess.Popen(
        [sys.executable, str(hook), "--all"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    pid_file.write_text(f"{child.pid}\n")
    assert child.wait(60) == -signal.SIGKILL
    assert is_pair(there / "example.com.crt", there / "example.com.key")

    (tmp_path / "mended").touch()
    assert_success(run_deliver_hook(hook, "--dry-run"), "would run reload")
    assert_success(run_deliver_hook(hook, "--all"), "reload ran")
    assert lines_of(there / "reloads") == ["reloaded"]
    assert_success(run_deliver_hook(hook, "--all"), "nothing to do")


# ---- Hosts that fail ---------------------------------------------------------------------------
def test_a_host_that_fails_does_not_keep_the_others_waiting(
    sshd: Sshd, there: Path, certbot_folder: Path
) -> None:
    closed = f"127.0.0.1:{free_port()}"
    unknown_user = f"nobody@{sshd.host}"
    with socket.create_server(("127.0.0.1", 0)) as silent_server:
        silent = f"127.0.0.1:{silent_server.getsockname()[1]}"
        hosts = ", ".join(map(quoted, (sshd.host, closed, silent, unknown_user)))
        table = ssh_table(sshd, there, "timeout = 10", hosts)
        hook = install_deliver_hook(certbot_folder, table)
        renew(certbot_folder)
        completed = run_deliver_hook(hook, "--all")

    assert_failure(
        completed,
        f"not delivered to ssh/{closed}: ssh ended with status 255: ",
        "Connection refused",
    )
    hangs = rf"ssh/{silent}: ssh (did not end in time|ended with status 255: .*timed out)"
    assert re.search(f"not delivered to {hangs}", completed.stderr)
    remedy = "add the key of certbot's user to authorized_keys"
    assert re.search(rf"not delivered to ssh/nobody@\S+: ssh ended .* {remedy}", completed.stderr)
    assert f"to ssh/{sshd.host}: copied, reload ran" in completed.stdout
    assert (there / "example.com.crt").exists()


def test_a_host_key_that_is_not_known_is_refused(
    sshd: Sshd, there: Path, tmp_path: Path, certbot_folder: Path
) -> None:
    config = tmp_path / "ssh_config"
    config.write_text(sshd.config.read_text().replace("known_hosts", "no_known_hosts"))
    table = ssh_table(Sshd(sshd.port, config), there)
    hook = install_deliver_hook(certbot_folder, table)
    renew(certbot_folder)
    assert_failure(
        run_deliver_hook(hook, "--all"),
        "Host key verification failed.",
        "add the key of this host to known_hosts of certbot's user",
    )
    assert names_in(there) == set()


def test_a_host_key_that_changed_is_refused(
    sshd: Sshd, there: Path, tmp_path: Path, certbot_folder: Path
) -> None:
    config = tmp_path / "ssh_config"
    known_hosts = tmp_path / "known_hosts"
    old_path = str(sshd.config.parent / "known_hosts")
    config.write_text(sshd.config.read_text().replace(old_path, str(known_hosts)))
    other_key = (sshd.config.parent / "user.pub").read_text()
    known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {other_key}")
    hook = install_deliver_hook(certbot_folder, ssh_table(Sshd(sshd.port, config), there))
    renew(certbot_folder)
    completed = run_deliver_hook(hook, "--all")
    assert_failure(
        completed, "find out why the host key changed before you replace it in known_hosts"
    )
    assert names_in(there) == set()


@pytest.mark.parametrize("argument", ["--check", "--all"])
def test_a_folder_that_is_missing_is_reported_before_anything_is_copied(
    sshd: Sshd, there: Path, tmp_path: Path, certbot_folder: Path, argument: str
) -> None:
    table = ssh_table(sshd, there).replace(f'key = "{there}/', f'key = "{tmp_path}/nowhere/')
    hook = install_deliver_hook(certbot_folder, table)
    renew(certbot_folder)
    assert_failure(
        run_deliver_hook(hook, argument),
        f"ssh ended with status 1: {tmp_path}/nowhere does not exist, or is not writable",
    )
    assert names_in(there) == set()


def test_users_ports_and_ipv6_addresses_are_passed_on_to_ssh(
    tmp_path: Path, certbot_folder: Path
) -> None:
    fake_ssh = tmp_path / "bin" / "ssh"
    fake_ssh.parent.mkdir()
    fake_ssh.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/arguments\nexit 255\n')
    fake_ssh.chmod(0o755)
    hosts = "hosts = ['deploy@[::1]:2222', 'web1']"
    toml = f"[[ssh]]\n{hosts}\nfullchain = '/x/{{lineage}}.crt'\nkey = '/x/{{lineage}}.key'\n"
    hook = install_deliver_hook(certbot_folder, toml)
    renew(certbot_folder)
    path = f"{fake_ssh.parent}:{os.environ['PATH']}"
    assert run_deliver_hook(hook, "--all", PATH=path).returncode == 1

    last_common = "ForwardAgent=no -o ConnectTimeout=30 "
    own_arguments = [line.partition(last_common)[2] for line in lines_of(tmp_path / "arguments")]
    assert sorted(own_arguments) == [
        "-o Port=2222 deploy@::1 exec sh -s",
        "web1 exec sh -s",
    ]


def test_a_full_disk_of_a_host_leaves_the_old_files_and_nothing_half_written(
    sshd: Sshd, there: Path, certbot_folder: Path
) -> None:
    certificate = there / "example.com.crt"
    key = there / "example.com.key"
    hook = install_deliver_hook(certbot_folder, ssh_table(sshd, there))
    renew(certbot_folder, days_ago=60)
    with small_disk(there, "64k"):
        assert_success(run_deliver_hook(hook, "--all"))
        old = certificate.read_bytes()
        fill_disk(there / "filler")
        renew(certbot_folder)
        assert_failure(run_deliver_hook(hook, "--all"), "sftp ended with status 1: ")
        assert certificate.read_bytes() == old
        assert is_pair(certificate, key)
        assert names_in(there) == {"example.com.crt", "example.com.key", "filler", "reloads"}

        (there / "filler").unlink()
        assert_success(run_deliver_hook(hook, "--all"))
        assert is_pair(certificate, key)
        assert certificate.read_bytes() != old


@pytest.mark.parametrize("broken", ["a.key.new", "a.crt.new"])
def test_no_reload_runs_if_a_file_cannot_be_moved_into_place(tmp_path: Path, broken: str) -> None:
    files = []
    for name in ("a.key", "a.crt"):
        (tmp_path / f"{name}.new").write_text("new")
        files.append(ssh.CopiedFile("not read", str(tmp_path / name), "600"))
    failing_mv = f'mv() {{ [ "$2" != "{tmp_path}/{broken}" ] && command mv "$@"; }}'
    script = f"{failing_mv}\n{ssh.move_script(files)}\ntouch {tmp_path}/reload-ran\n"
    completed = subprocess.run(["sh", "-s"], input=f"{{ set -e\n{script}\nexit; }}\n", text=True)
    assert completed.returncode == 1
    assert not (tmp_path / "reload-ran").exists()
