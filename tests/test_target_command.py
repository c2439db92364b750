"""The deliver hook's targets of the kind `command`."""

from __future__ import annotations

from pathlib import Path

from support.targets import assert_failure, assert_success, command_table, lines_of, renew
from tools.servers.targets import install_deliver_hook, run_deliver_hook


def test_a_command_runs_once_for_each_certificate(tmp_path: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    live = renew(certbot_folder)
    assert_success(run_deliver_hook(hook, "--all"), "example.com to log: command ran")
    assert lines_of(tmp_path / "log") == [f"{live} example.com"]
    assert_success(run_deliver_hook(hook, "--all"), "nothing to do: 1 up to date")
    assert lines_of(tmp_path / "log") == [f"{live} example.com"]


def test_a_command_gets_the_names_of_the_renewed_certificate(
    tmp_path: Path, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    live = renew(certbot_folder, names=("example.com", "*.example.com"))
    environ = {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": "ignored"}
    assert_success(run_deliver_hook(hook, **environ))
    assert lines_of(tmp_path / "log") == [f"{live} example.com *.example.com"]


def test_a_command_runs_only_for_the_lineages_that_it_names(
    tmp_path: Path, certbot_folder: Path
) -> None:
    table = command_table(tmp_path) + 'lineages = ["example.*"]\n'
    hook = install_deliver_hook(certbot_folder, table)
    live = renew(certbot_folder)
    renew(certbot_folder, "not-for-it")
    assert_success(run_deliver_hook(hook, "--all"))
    assert lines_of(tmp_path / "log") == [f"{live} example.com"]


def test_a_command_runs_for_a_certificate_that_has_one_of_its_names(
    tmp_path: Path, certbot_folder: Path
) -> None:
    table = command_table(tmp_path) + 'names = ["mail.example.com", "*.example.net"]\n'
    hook = install_deliver_hook(certbot_folder, table)
    renew(certbot_folder, "first", ("example.com", "mail.example.com"))
    renew(certbot_folder, "second", ("www.example.net",))
    renew(certbot_folder, "third", ("example.com",))
    assert_success(run_deliver_hook(hook, "--all"))
    lineages = [Path(line.split()[0]).name for line in lines_of(tmp_path / "log")]
    assert lineages == ["first", "second"]


def test_a_command_that_fails_is_reported_with_its_last_words_and_runs_again(
    tmp_path: Path, certbot_folder: Path
) -> None:
    script = f"echo first; echo the disk is \\\\360 sad >&2; test -e {tmp_path}/mended"
    hook = install_deliver_hook(
        certbot_folder, f"[[command]]\ncommand = ['/bin/sh', '-c', '{script}']\n"
    )
    renew(certbot_folder)
    error = "example.com not delivered to command: /bin/sh ended with status 1: the disk is"
    assert_failure(run_deliver_hook(hook, "--all"), error)
    (tmp_path / "mended").touch()
    assert_success(run_deliver_hook(hook, "--all"), "example.com to command: command ran")


def test_a_command_that_does_not_exist_is_named(certbot_folder: Path) -> None:
    hook = install_deliver_hook(
        certbot_folder, "[[command]]\nname = 'lost'\ncommand = ['no-such-program']\n"
    )
    renew(certbot_folder)
    remedy = "install it, or make it executable"
    assert_failure(
        run_deliver_hook(hook, "--all"),
        f"not delivered to lost: no-such-program: No such file or directory: {remedy}",
    )
    assert_failure(
        run_deliver_hook(hook, "--dry-run"),
        f"not delivered to lost: no-such-program: not found: {remedy}",
    )


def test_a_command_that_leaves_a_child_behind_does_not_hold_certbot_up(
    certbot_folder: Path,
) -> None:
    command = "['/bin/sh', '-c', 'sleep 60 & echo started']"
    hook = install_deliver_hook(certbot_folder, f"[[command]]\ncommand = {command}\n")
    renew(certbot_folder)
    assert_success(run_deliver_hook(hook, "--all"), "example.com to command: command ran")
    assert_success(run_deliver_hook(hook, "--all"), "nothing to do")


def test_a_command_that_hangs_is_killed_with_its_children(
    tmp_path: Path, certbot_folder: Path
) -> None:
    script = f"(sleep 3; touch {tmp_path}/child-lived) & sleep 60"
    toml = f"[[command]]\ncommand = ['/bin/sh', '-c', '{script}']\ntimeout = 1\n"
    hook = install_deliver_hook(certbot_folder, toml)
    renew(certbot_folder)
    error = "/bin/sh did not end in time: check why, or raise timeout"
    assert_failure(run_deliver_hook(hook, "--all"), error)
    assert_failure(run_deliver_hook(hook, "--all"), error)
    assert_failure(run_deliver_hook(hook, "--all"), error)
    assert not (tmp_path / "child-lived").exists()


def test_a_look_shows_the_command_and_does_not_run_it(tmp_path: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder)
    for argument in ("--dry-run", "--check"):
        assert_success(run_deliver_hook(hook, argument), "would run /bin/sh -c echo $RENEWED")
    assert lines_of(tmp_path / "log") == []
