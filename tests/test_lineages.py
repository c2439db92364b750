"""Which lineages there are and which are broken: the same as for the real certbot 5.8."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import configobj  # type: ignore[import-untyped]
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import certbot_renewal_report as hook
from support.lineages import LineageFiles, make_aged_lineage, remove_lineage
from tools.servers.certbot import Authority, Certbot
from tools.servers.lineages import DAY, make_certificate, make_lineage

SECRET = "fake-Secret-7f3"
Change = Callable[[LineageFiles], None]


# ---- The file, compared with configobj, which certbot reads it with ----------------------------
# Pieces of a configuration; together they make nearly every construct that configobj knows.
SIGNS = ["a", "b", "c1", "=", " = ", '"', "'", ",", ", ", "#", "%(a)s", '"""', "'''"]
SECTIONS = ["[", "]", "[s]\n", "[[t]]\n", "[[[u]]]\n"]
BLANKS = [" ", "  ", "\t", "\x1c", "\xa0", "\r", "\n", "\n", "\ufeff"]
LINES = ["a = b\n", "key = ", "renewalparams", "cert = /x # y\n"]
PIECES = st.sampled_from([*SIGNS, *SECTIONS, *BLANKS, *LINES])
A_TEXT = st.lists(PIECES, max_size=20).map("".join)


def configobj_entries(path: Path) -> hook.ConfEntries | None:
    """Return the entries of a file as configobj reads them; None if it refuses the file."""
    try:
        conf = configobj.ConfigObj(str(path), encoding="utf-8", default_encoding="utf-8")
    except configobj.ConfigObjError:
        return None
    conf.interpolation = False
    return section_entries(conf, ())


def section_entries(section: configobj.Section, names: tuple[str, ...]) -> hook.ConfEntries:
    """Return the entries of a section and of the sections in it."""
    entries: hook.ConfEntries = {}
    for key in section.scalars:
        value = section[key]
        entry = (*names, key)
        entries[entry] = value if isinstance(value, str) else None
    for name in section.sections:
        entry = (*names, name)
        entries[entry] = None
        entries.update(section_entries(section[name], entry))
    return entries


def own_entries(text: str) -> hook.ConfEntries | None:
    """Return the entries of a text as the hook reads them; None if it refuses the text."""
    try:
        return hook.parse_renewal_conf(text)
    except hook.ConfSyntaxError:
        return None


@settings(deadline=None, max_examples=2000)
@given(text=A_TEXT)
@example("a = 'b', \"c\" # d\ne = 'f, g'\nh = i, , j\n")
@example("a = '''b\nc''' # d\n'e f' = g\n = h\n")
@example("a = 1\r\n[s]\r\na = 2\n[[t]]\n[[ 't' ]]\n")
def test_a_file_is_read_as_configobj_reads_it(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "example.conf"
    path.write_bytes(text.encode())
    assert own_entries(text) == configobj_entries(path)


@pytest.mark.parametrize(
    "piece", [' "', "a, ", '"a", ', "[ ", "'''", "a = b\n", "= ", "\r", '"a" ']
)
@pytest.mark.parametrize("beginning", ["", "a = ", "[", '"'])
def test_a_file_that_is_huge_takes_no_time(beginning: str, piece: str) -> None:
    begin = time.monotonic()
    own_entries(beginning + piece * 200_000 + "'x")
    assert time.monotonic() - begin < 5


# ---- What certbot refuses, and what it accepts -------------------------------------------------
def nothing(files: LineageFiles) -> None:
    """Leave the lineage as certbot has made it."""


def without(pattern: str) -> Change:
    """Return a change that removes the lines with a pattern from the configuration."""

    def change(files: LineageFiles) -> None:
        lines = files.conf.read_text().splitlines(keepends=True)
        files.conf.write_text("".join(line for line in lines if not re.match(pattern, line)))

    return change


def replaced(pattern: str, text: str) -> Change:
    """Return a change that replaces a pattern in the configuration."""

    def change(files: LineageFiles) -> None:
        files.conf.write_text(re.sub(pattern, text, files.conf.read_text(), flags=re.MULTILINE))

    return change


def begun_with(text: str) -> Change:
    """Return a change that adds lines at the beginning of the configuration."""

    def change(files: LineageFiles) -> None:
        files.conf.write_text(text + files.conf.read_text())

    return change


def ended_with(text: str) -> Change:
    """Return a change that adds lines at the end of the configuration, to [renewalparams]."""

    def change(files: LineageFiles) -> None:
        files.conf.write_text(files.conf.read_text() + text)

    return change


def with_content(content: bytes) -> Change:
    """Return a change that replaces the configuration as a whole."""

    def change(files: LineageFiles) -> None:
        files.conf.write_bytes(content)

    return change


def with_windows_line_ends(files: LineageFiles) -> None:
    """Let an editor have saved the configuration on Windows."""
    files.conf.write_bytes(b"\xef\xbb\xbf" + files.conf.read_bytes().replace(b"\n", b"\r\n"))


def with_copies(files: LineageFiles) -> None:
    """Restore live/ as a backup does that does not know links."""
    for link in list(files.live.iterdir()):
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(content)


def without_file(kind: str) -> Change:
    """Return a change that removes a file from archive/."""

    def change(files: LineageFiles) -> None:
        (files.archive / f"{kind}1.pem").unlink()

    return change


def without_link(files: LineageFiles) -> None:
    """Remove the link to the key."""
    (files.live / "privkey.pem").unlink()


def with_other_file_name(files: LineageFiles) -> None:
    """Let a link lead to a file whose name has no number."""
    (files.archive / "chain1.pem").rename(files.archive / "chain.pem")
    (files.live / "chain.pem").unlink()
    (files.live / "chain.pem").symlink_to(files.archive / "chain.pem")


def with_other_number(files: LineageFiles) -> None:
    """Give one of the four files another number than the others."""
    (files.archive / "chain1.pem").rename(files.archive / "chain2.pem")
    (files.live / "chain.pem").unlink()
    (files.live / "chain.pem").symlink_to(files.archive / "chain2.pem")


def moved_archive(files: LineageFiles) -> None:
    """Move the files from archive/ to another folder."""
    files.archive.rename(files.archive.with_name("elsewhere"))


def moved_archive_behind_a_link(files: LineageFiles) -> None:
    """Move the files from archive/ to another disk, and leave a link there."""
    disk = files.folder.parent / "disk"
    files.archive.rename(disk)
    files.archive.symlink_to(disk)


def moved_live_folder(files: LineageFiles) -> None:
    """Move the links to a folder of the administrator's own, as the configuration says."""
    own = files.folder.parent / "own"
    own.mkdir()
    for link in list(files.live.iterdir()):
        (own / link.name).symlink_to(link.resolve())
        link.unlink()
    files.live.rmdir()
    files.conf.write_text(files.conf.read_text().replace(f"{files.live}/", f"{own}/"))


def without_certificate(files: LineageFiles) -> None:
    """Write something else into the file of the certificate."""
    (files.archive / "cert1.pem").write_text("this is no certificate")


def with_conf_folder(files: LineageFiles) -> None:
    """Put a folder in the place of the configuration."""
    files.conf.unlink()
    files.conf.mkdir()


def with_dangling_conf(files: LineageFiles) -> None:
    """Let the configuration be a link to nowhere."""
    files.conf.unlink()
    files.conf.symlink_to("nowhere")


def with_link_to_the_folder(files: LineageFiles) -> None:
    """Give the lineage's folder in live/ a second name."""
    (files.live.parent / "alias.example.com").symlink_to(files.live.name)


def with_second_version(files: LineageFiles) -> None:
    """Add a renewal of which the links are not yet there, because certbot was interrupted."""
    for kind in hook.FILE_KINDS:
        shutil.copy(files.archive / f"{kind}1.pem", files.archive / f"{kind}2.pem")


def with_reused_key(files: LineageFiles) -> None:
    """Let the current key be a link to the first one, as with --reuse-key."""
    for kind in hook.FILE_KINDS:
        link = files.live / f"{kind}.pem"
        if kind == "privkey":
            (files.archive / "privkey2.pem").symlink_to("privkey1.pem")
        else:
            shutil.copy(files.archive / f"{kind}1.pem", files.archive / f"{kind}2.pem")
        link.unlink()
        link.symlink_to(files.archive / f"{kind}2.pem")


class Case(NamedTuple):
    """A change to a lineage, and why it is unreadable then; "": certbot renews it nevertheless."""

    change: Change
    reason: str = ""


WEBROOT_MAP = "[[webroot_map]]\nexample.com = /srv/www\n'*.example.com' = /srv/www\n"
SYMLINK = "to be a symlink: restore the links into "
NOT_SHOWN = "(the line is not shown because it may hold a secret)"

CASES = {
    "untouched": Case(nothing),
    "comments": Case(begun_with("# renew_before_expiry = 30 days\n\n   # indented\n")),
    "carriage-return": Case(begun_with("# renew_hook\rcert = /x\n")),
    "quotes": Case(replaced(r"^(cert|chain) = (.*)$", r"'\1' = '\2'  # comment")),
    "webroot-map": Case(ended_with(WEBROOT_MAP)),
    "hook": Case(ended_with("pre_hook = '''echo \"a's\"\necho b, c'''\n")),
    "list": Case(ended_with("webroot_path = /srv/www,\n")),
    "windows": Case(with_windows_line_ends),
    "no-version": Case(without("version")),
    "no-archive-dir": Case(without("archive_dir")),
    "autorenew": Case(ended_with("autorenew = true\n")),
    "http01-port": Case(ended_with("http01_port = None\n")),
    "interpolation": Case(ended_with("deploy_hook = echo %(server)s\n")),
    "archive-link": Case(moved_archive_behind_a_link),
    "own-live-folder": Case(moved_live_folder),
    "alias": Case(with_link_to_the_folder),
    "interrupted": Case(with_second_version),
    "reuse-key": Case(with_reused_key),
    #
    "no-cert": Case(without("cert"), "is missing a required file reference (cert)"),
    "no-privkey": Case(without("privkey"), "is missing a required file reference (privkey)"),
    "no-chain": Case(without("chain"), "is missing a required file reference (chain)"),
    "no-fullchain": Case(without("fullchain"), "is missing a required file reference (fullchain)"),
    "cert-list": Case(replaced("^(cert = .*)$", r"\1,"), "a required file reference (cert)"),
    "no-params": Case(without(r"\[renewalparams"), "the file lacks renewalparams"),
    "no-authenticator": Case(without("authenticator"), "does not specify an authenticator"),
    "autorenew-yes": Case(ended_with("autorenew = yes\n"), "expected True or False for autorenew"),
    "key-size": Case(ended_with("rsa_key_size = big\n"), "a numeric value for rsa_key_size"),
    "duplicate-key": Case(begun_with("cert = /x\n"), "Duplicate keyword name at line 4"),
    "duplicate-section": Case(ended_with("[renewalparams]\n"), "Duplicate section name at line 13"),
    "junk": Case(
        begun_with(f"{SECRET}\n"), f"at line 1): correct the line, or restore the file {NOT_SHOWN}"
    ),
    "quote": Case(begun_with(f"x = '{SECRET}\n"), "Parse error in value at line 1"),
    "long-quote": Case(ended_with(f"x = '''{SECRET}\n"), "Parse error in multiline value at line"),
    "nested": Case(begun_with("[[x]]\n"), "Section too nested at line 1"),
    "depth": Case(begun_with("[[x]\n"), "Cannot compute the section depth at line 1"),
    "unknown-option": Case(ended_with("x = %(nothing)s\n"), "missing option in interpolation"),
    "utf-8": Case(begun_with("# caf\xe9\n")),
    "no-utf-8": Case(with_content(b"\xff\n"), "not UTF-8 text: replace it with a text file"),
    "empty": Case(with_content(b""), "is missing a required file reference (cert, privkey, chain"),
    "folder": Case(with_conf_folder, "Is a directory"),
    "dangling-conf": Case(with_dangling_conf, "No such file or directory: restore the file"),
    "copies": Case(with_copies, SYMLINK),
    "no-link": Case(without_link, SYMLINK),
    "no-key-file": Case(without_file("privkey"), "does not exist: restore the file"),
    "no-cert-file": Case(without_file("cert"), "does not exist: restore the file"),
    "moved-archive": Case(moved_archive, "does not exist: restore the file"),
    "other-archive": Case(
        replaced("^archive_dir = .*$", "archive_dir = /nowhere"), "does not point within /nowhere"
    ),
    "other-name": Case(with_other_file_name, "does not follow the archive naming convention"),
    "other-number": Case(with_other_number, "no version has all of cert, privkey, chain, fullcha"),
    "no-certificate": Case(without_certificate, "cert.pem: not a certificate"),
}


class Verdicts(NamedTuple):
    """What the hook and certbot make of the lineages, each of which has been changed by a case.

    `processed` are the lineages that certbot looked at, `refused` those that it could not renew,
    `invalid` those that `certbot certificates` cannot show.
    """

    lineages: hook.Lineages
    processed: set[str]
    refused: set[str]
    invalid: set[str]


@pytest.fixture(scope="module")
def verdicts(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """Let the hook read all cases, and certbot renew them."""
    folder = tmp_path_factory.mktemp("lineages") / "letsencrypt"
    certbot = Certbot(folder, authority)
    for name, case in CASES.items():
        case.change(make_renewable_lineage(folder, name))
    lineages = hook.read_lineages(str(folder))

    certbot.run("certificates")
    shown = certbot.log.read_text()
    arguments = ["--force-renewal", "--no-directory-hooks"]
    arguments += ["--agree-tos", "--register-unsafely-without-email"]
    certbot.renew(*arguments)
    output = certbot.log.read_text()
    failed = re.findall(r"Failed to renew certificate (\S+) with error", output)
    parse_failures = re.findall(r"renewal/(\S+)\.conf \(parsefail\)", output)
    return Verdicts(
        lineages,
        processed=set(re.findall(r"Processing\s\S+/renewal/(\S+)\.conf", output)),
        refused={*failed, *parse_failures},
        invalid=set(re.findall(r"renewal/(\S+)\.conf produced an unexpected error", shown)),
    )


def make_renewable_lineage(folder: Path, name: str) -> LineageFiles:
    """Make a lineage that pebble renews."""
    params = {"authenticator": "manual", "manual_auth_hook": "/bin/true", "pref_challs": "dns-01,"}
    names = [f"{name}.example.com"]
    make_lineage(folder, name, names, int(time.time()) - DAY, 90 * DAY, params=params)
    return LineageFiles(folder, name)


def test_the_lineages_are_those_of_certbot(verdicts: Verdicts) -> None:
    assert verdicts.lineages.names == verdicts.processed
    assert verdicts.lineages.problems == []
    assert verdicts.processed == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_what_certbot_refuses_is_unreadable_and_what_it_accepts_is_not(
    verdicts: Verdicts, name: str
) -> None:
    assert (name in verdicts.refused) == bool(CASES[name].reason)
    assert CASES[name].reason in verdicts.lineages.unreadable.get(name, "")
    assert (name in verdicts.lineages.unreadable) == bool(CASES[name].reason)


def test_what_certbot_does_not_show_is_unreadable(verdicts: Verdicts) -> None:
    assert len(verdicts.invalid) > 10
    assert verdicts.invalid <= set(verdicts.lineages.unreadable)


def test_no_secret_of_a_configuration_is_in_a_problem(verdicts: Verdicts) -> None:
    assert SECRET not in str(verdicts.lineages.unreadable)


@pytest.mark.parametrize("name", ["copies", "no-key-file", "no-authenticator", "junk", "untouched"])
def test_a_broken_lineage_keeps_its_certificate(verdicts: Verdicts, name: str) -> None:
    (certificate,) = [one for one in verdicts.lineages.certificates if one.lineage == name]
    assert certificate.names == [f"{name}.example.com"]


# ---- What is no lineage ------------------------------------------------------------------------
class Seen(NamedTuple):
    """The lineages that the hook and certbot see, and the problems of the unreadable ones."""

    names: list[str]
    unreadable: dict[str, str]


def seen_in(folder: Path) -> Seen:
    """Return what the hook sees in a configuration folder."""
    lineages = hook.read_lineages(str(folder))
    assert lineages.problems == []
    return Seen(sorted(lineages.names), lineages.unreadable)


@pytest.fixture
def files(certbot_folder: Path) -> LineageFiles:
    """A lineage in the configuration folder."""
    make_aged_lineage(certbot_folder, "a.example.com", 1)
    return LineageFiles(certbot_folder, "a.example.com")


def test_everything_in_live_without_a_configuration_is_ignored(files: LineageFiles) -> None:
    live = files.live.parent
    (live / "README").touch()
    (live / "alias.example.com").symlink_to(files.live.name)
    (live / "a\nb").mkdir()
    shutil.copytree(files.live, live / "copy.example.com")
    foreign = live / "foreign.example.com"
    foreign.mkdir()
    now = int(time.time())
    (foreign / "cert.pem").write_bytes(make_certificate(["x.example.com"], now, DAY))
    assert seen_in(files.folder) == Seen(["a.example.com"], {})


@pytest.mark.parametrize("suffix", [".disabled", ".off", "~", "-old", ".bak"])
def test_a_configuration_with_a_longer_name_is_switched_off(
    files: LineageFiles, suffix: str
) -> None:
    files.conf.rename(f"{files.conf}{suffix}")
    assert seen_in(files.folder) == Seen([], {})


def test_a_configuration_with_another_name_is_another_lineage(files: LineageFiles) -> None:
    files.conf.rename(files.conf.with_name("b.example.com.conf"))
    lineages = hook.read_lineages(str(files.folder))
    assert seen_in(files.folder) == Seen(["b.example.com"], {})
    assert lineages.certificates[0].names == ["a.example.com.example.com"]


def test_a_valid_certificate_whose_configuration_is_missing_is_unreadable(
    files: LineageFiles,
) -> None:
    files.conf.unlink()
    seen = seen_in(files.folder)
    assert seen.names == ["a.example.com"]
    assert seen.unreadable["a.example.com"] == (
        f"{files.conf}: renewal configuration is missing: restore the file, or, if the certificate "
        f"is no longer wanted, delete {files.live} and {files.archive}, or retire it with "
        "certbot_renewal_run.py --retire a.example.com"
    )


@pytest.mark.parametrize(("days", "names"), [(89, ["a.example.com"]), (91, [])])
def test_an_expired_certificate_without_a_configuration_is_no_lineage(
    certbot_folder: Path, days: int, names: list[str]
) -> None:
    make_aged_lineage(certbot_folder, "a.example.com", days)
    LineageFiles(certbot_folder, "a.example.com").conf.unlink()
    assert seen_in(certbot_folder).names == names


def test_all_configurations_lost_at_once_are_reported(files: LineageFiles) -> None:
    make_aged_lineage(files.folder, "b.example.com", 1)
    shutil.rmtree(files.folder / "renewal")
    lineages = hook.read_lineages(str(files.folder))
    assert sorted(lineages.unreadable) == ["a.example.com", "b.example.com"]
    assert len(lineages.problems) == 1
    assert "renewal: No such file or directory" in lineages.problems[0]


def test_files_that_vanish_while_the_configuration_stays_are_unreadable(
    files: LineageFiles,
) -> None:
    shutil.rmtree(files.live)
    shutil.rmtree(files.archive)
    seen = seen_in(files.folder)
    assert seen.names == ["a.example.com"]
    assert f"expected {files.live}/cert.pem to be a symlink" in seen.unreadable["a.example.com"]


def test_a_bundle_that_outlives_certbot_delete_is_no_lineage(files: LineageFiles) -> None:
    certbot = Certbot(files.folder, Authority("http://127.0.0.1:1", files.folder))
    (files.live / "bundle.pem").write_text("key and certificate")
    deleted = certbot.run("delete", "--cert-name", "a.example.com")
    assert "Deleted all files" in deleted.stdout
    assert files.live.exists()
    assert seen_in(files.folder) == Seen([], {})


def test_a_deleted_lineage_is_no_lineage(files: LineageFiles) -> None:
    remove_lineage(files.folder, files.name)
    assert seen_in(files.folder) == Seen([], {})


# ---- What a configuration says of a certificate ------------------------------------------------
def certificate_with(folder: Path, conf: str = "", **params: str) -> hook.Certificate:
    """Return the certificate of a lineage with such a configuration."""
    names = ["example.com"]
    make_lineage(folder, "a", names, int(time.time()) - DAY, 90 * DAY, conf, params=params)
    lineages = hook.read_lineages(str(folder))
    assert lineages.unreadable == {}
    (certificate,) = lineages.certificates
    return certificate


def test_a_usual_certificate_is_renewed_and_from_a_ca_for_everybody(certbot_folder: Path) -> None:
    certificate = certificate_with(certbot_folder)
    assert certificate.failure == ""
    assert not certificate.is_staging


@pytest.mark.parametrize("value", ["False", "false", '"FALSE"'])
def test_a_certificate_that_certbot_never_renews_says_so(certbot_folder: Path, value: str) -> None:
    certificate = certificate_with(certbot_folder, autorenew=value)
    conf = certbot_folder / "renewal" / "a.conf"
    assert certificate.failure == (
        f"autorenew = False in {conf}: certbot never renews this certificate"
    )


def test_an_interval_that_certbot_does_not_understand_is_named(certbot_folder: Path) -> None:
    certificate = certificate_with(certbot_folder, "renew_before_expiry = some bananas\n")
    conf = certbot_folder / "renewal" / "a.conf"
    assert certificate.failure == (
        f"renew_before_expiry = some bananas in {conf} is no interval for certbot"
    )


@pytest.mark.parametrize(
    ("server", "is_staging"),
    [
        ("https://acme-v02.api.letsencrypt.org/directory", False),
        ("https://acme-staging-v02.api.letsencrypt.org/directory", True),
        ("https://dv.acme-v02.api.pki.goog/directory", False),
        ("https://dv.acme-v02.test-api.pki.goog/directory", True),
        ("https://api.test4.buypass.no/acme/directory", True),
        ("https://acme.example.com/staging/directory", False),
        ("rubbish", False),
    ],
)
def test_a_certificate_of_a_ca_for_tests_is_known(
    certbot_folder: Path, server: str, is_staging: bool
) -> None:
    assert certificate_with(certbot_folder, server=server).is_staging == is_staging


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("version = 5.8.0\n", (5, 8)),
        ("version = '2.11.0.dev0'  # of a package\n", (2, 11)),
        ("version = unknown\n", (0, 0)),
    ],
)
def test_the_version_of_certbot_is_known(
    certbot_folder: Path, line: str, version: tuple[int, int]
) -> None:
    certificate_with(certbot_folder, line)
    assert hook.read_lineages(str(certbot_folder)).confs["a"].version == version


# ---- Any bytes as a configuration --------------------------------------------------------------
A_CONFIGURATION = st.lists(
    st.one_of(
        st.binary(max_size=20).map(lambda data: data + SECRET.encode()),
        A_TEXT.map(str.encode),
        st.sampled_from([f"{SECRET} ".encode(), f"x = {SECRET}\n".encode(), b"[renewalparams]\n"]),
    ),
    max_size=6,
).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(content=A_CONFIGURATION)
@example(f"cert = {SECRET}\n{SECRET}\n".encode())
@example(f"[{SECRET}]\n[{SECRET}]\n".encode())
@example(f"{SECRET} = 1\n{SECRET} = 1\n".encode())
def test_any_bytes_are_a_problem_without_a_secret(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.conf"
    path.write_bytes(content)
    problems: list[str] = []
    hook.read_renewal_conf(str(path), problems)
    assert SECRET not in str(problems)


def test_a_thousand_configurations_are_read_in_a_moment(certbot_folder: Path) -> None:
    first = make_lineage(certbot_folder, "a0", ["example.com"], int(time.time()), DAY)
    conf = (certbot_folder / "renewal" / "a0.conf").read_text()
    for number in range(1, 1000):
        name = f"a{number}"
        shutil.copytree(first, certbot_folder / "live" / name, symlinks=True)
        text = conf.replace("live/a0/", f"live/{name}/")
        (certbot_folder / "renewal" / f"{name}.conf").write_text(text)
    begin = time.process_time()
    lineages = hook.read_lineages(str(certbot_folder))
    seconds = time.process_time() - begin
    assert len(lineages.certificates) == 1000
    assert lineages.unreadable == {}
    assert seconds < 2
