"""`fedmq provision`: what it makes, that it makes it once, and what it says about mistakes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from fedmq.cli import main
from fedmq.settings import load_settings
from tests.broker_config.provisioned import Provision, bundles, check_bundles, content, secrets_in


@pytest.fixture
def provision(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Provision:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power is cut here, and it takes most of the time
    return Provision(tmp_path / "secure", capsys)


def test_it_makes_everything_and_says_what_to_run_next(provision: Provision) -> None:
    said = provision.begin("dev-1", "dev-2", options=("--host", "broker.example"))
    assert set(content(provision.root)) == {
        "provision.json",
        "authority/key.pem",
        "authority/ca.pem",
        *(
            f"broker/{name}"
            for name in ("mosquitto.conf", "rules", "passwords", "revoked.pem", "identity.pem", "ca.pem")
        ),
        *(
            f"{bundle}/{name}"
            for bundle in ("aggregator", "operator", "devices/dev-1", "devices/dev-2")
            for name in ("federation.toml", "password", "identity.pem", "ca.pem")
        ),
        *(f"{bundle}/signing.pem" for bundle in ("aggregator", "devices/dev-1", "devices/dev-2")),
        *(f"{bundle}/aggregator-keys" for bundle in ("aggregator", "operator", "devices/dev-1", "devices/dev-2")),
        *("aggregator/device-keys", "operator/device-keys", "aggregator/revoked"),
    }
    check_bundles(provision.root)
    assert f"fedmq broker --secure {provision.root}\n" in said
    assert f"fedmq client --config {provision.root}/devices/dev-1/federation.toml\n" in said
    assert len(said.splitlines()) < 10


def test_a_bundle_is_small_and_holds_nothing_of_anybody_else(provision: Provision) -> None:
    provision.begin("dev-1", "dev-2")
    holdings: dict[str, set[str]] = {}
    for name, bundle in bundles(provision.root):
        files = content(bundle)
        assert sum(map(len, files.values())) < 4096
        key = files["identity.pem"].partition(b"-----END PRIVATE KEY")[0]
        holdings[name] = {key.decode(), files["password"].decode()}
        others = {other for other, _ in bundles(provision.root)} - {name}
        files.pop("device-keys", None)  # names and public keys, which are no secret
        assert not any(other.encode() in text for other in others - {"aggregator"} for text in files.values())
    every = [secret for secrets in holdings.values() for secret in secrets]
    assert len(every) == len(set(every))
    everything = content(provision.root)
    for secret in every:
        assert sum(secret.encode() in text for text in everything.values()) == 1


def test_twice_changes_nothing_byte_for_byte(provision: Provision) -> None:
    provision.begin("dev-1", "dev-2")
    provision("--add", "dev-3")
    provision("--revoke", "dev-2")
    before = content(provision.root)
    times = {path: path.stat().st_mtime_ns for path in provision.root.rglob("*") if path.is_file()}
    for arguments in ((), ("--add", "dev-3"), ("--revoke", "dev-2"), ("--federation", "f"), ("--renew",)):
        assert "nothing to do" in provision(*arguments)
        assert content(provision.root) == before
    assert times == {path: path.stat().st_mtime_ns for path in provision.root.rglob("*") if path.is_file()}


def test_no_secret_is_in_anything_that_is_printed(provision: Provision) -> None:
    secrets = set()
    for arguments in (("--add", "dev-3"), ("--revoke", "dev-2"), ("--renew", "--all"), (), ("--add", "dev-2")):
        if not provision.root.exists():
            provision.begin("dev-1", "dev-2")
        secrets |= secrets_in(provision.root)
        provision.run(*arguments)
    secrets |= secrets_in(provision.root)
    assert len(secrets) > 20
    assert [secret for secret in secrets if secret in provision.said] == []


@pytest.mark.parametrize(
    ("opened", "advice"),
    [
        (
            ("provision.json", "broker/passwords", "devices/dev-1/aggregator-keys"),
            "no key and no password was among",
        ),
        (
            ("authority/key.pem", "devices/dev-1/password"),
            "nothing here makes authority/key.pem worthless",
        ),
        (
            ("broker/identity.pem",),
            "nothing here makes broker/identity.pem worthless for who has",
        ),
        (
            ("devices/dev-1/password", "devices/dev-1/identity.pem", "devices/dev-2/signing.pem"),
            "who has read secrets of dev-1, dev-2 can act as these devices, also after --renew: take them",
        ),
        (("operator/password",), "who has read secrets of the operator can act as it: move "),
        (("aggregator/signing.pem",), "who has read secrets of the aggregator can act as it: move "),
    ],
)
def test_open_modes_are_closed_again_and_what_repairs_it_is_said(
    provision: Provision, opened: tuple[str, ...], advice: str
) -> None:
    provision.begin("dev-1", "dev-2")
    for name in opened:
        (provision.root / name).chmod(0o644)
    said = provision().partition("could be read by others, and is closed now: ")[2].splitlines()
    assert set(said[0].split(", ")) == set(opened)
    assert said[1].startswith(advice)
    assert len(said) == 2
    assert "read by others" not in provision()
    check_bundles(provision.root)


def test_with_certificates_alone_a_read_key_of_the_aggregator_is_worth_something_until_it_ends(
    provision: Provision,
) -> None:
    provision.begin("dev-1", options=("--login", "certificate"))
    (provision.root / "aggregator" / "identity.pem").chmod(0o644)
    assert "nothing here makes secrets of aggregator worthless" in provision()


def test_what_only_its_owner_could_read_was_not_open(provision: Provision) -> None:
    provision.begin("dev-1")
    (provision.root / "authority" / "key.pem").chmod(0o400)
    assert "read by others" not in provision()
    check_bundles(provision.root)


def test_a_folder_that_was_there_is_for_its_owner_only_too(provision: Provision) -> None:
    provision.root.mkdir()
    provision.root.chmod(0o777)
    said = provision.begin("dev-1")
    check_bundles(provision.root)
    assert provision.root.stat().st_mode & 0o777 == 0o700
    assert "could be read by others" not in said  # nothing was in it
    provision.root.chmod(0o755)
    assert f"could be read by others, and is closed now: {provision.root}\nno key and no" in provision()


def test_what_a_link_leads_to_is_left_alone(provision: Provision) -> None:
    provision.begin("dev-1")
    shared = Path("shared.py")
    shared.write_text("")
    shared.chmod(0o644)
    (provision.root / "devices" / "dev-1" / "task.py").symlink_to(shared.resolve())
    assert "nothing to do" in provision()
    assert shared.stat().st_mode & 0o777 == 0o644


def test_the_mark_that_some_editors_put_before_a_text_is_no_part_of_an_id(provision: Provision) -> None:
    Path("ids.txt").write_bytes(b"\xef\xbb\xbfdev-1\r\ndev-2\r\n")
    provision("--federation", "f", "--clients", "ids.txt")
    assert {name for name, _ in bundles(provision.root)} == {"aggregator", "operator", "dev-1", "dev-2"}


def test_a_device_whose_id_begins_with_a_dash_can_still_be_revoked(provision: Provision) -> None:
    provision.begin("dev-1", "dev-2")
    record = provision.root / "provision.json"
    record.write_text(record.read_text().replace('"dev-2"', '"-dev"'))  # of before such ids were refused
    assert "revoked: -dev;" in provision("--revoke=-dev")


def test_whoever_is_revoked_is_not_among_those_who_are_there(provision: Provision) -> None:
    provision.begin("dev-1", "dev-2")
    provision("--revoke", "dev-2")
    assert provision.fails("--revoke", "dev-9").endswith("; there are dev-1")


def test_a_bundle_takes_its_task_file_with_it(provision: Provision, tmp_path: Path) -> None:
    Path("mine.py").write_text("# one")
    said = provision.begin("dev-1", options=("--task", "mine.py"))
    assert f"task.py in each bundle is a copy of {Path('mine.py').resolve()}; if it imports" in said
    moved = provision.root / "devices" / "dev-1"
    moved = moved.rename(tmp_path / "another machine")
    assert load_settings(moved / "federation.toml", environment={}).task == moved / "task.py"
    assert (moved / "task.py").read_text() == "# one"
    assert not (provision.root / "operator" / "task.py").exists()
    Path("mine.py").write_text("# two")
    provision("--add", "dev-2")
    assert (provision.root / "devices" / "dev-2" / "task.py").read_text() == "# two"
    ours = provision.root / "aggregator" / "task.py"
    assert ours.read_text() == "# one"  # it is the user's once it is written
    Path("mine.py").unlink()
    before = content(provision.root)
    assert "mine.py: it cannot be copied into a bundle: No such file" in provision.fails("--add", "dev-3")
    assert content(provision.root) == before
    Path("mine.py").write_text("# three")
    provision("--add", "dev-3")
    assert (provision.root / "devices" / "dev-3" / "task.py").read_text() == "# three"


def test_settings_are_the_users_once_they_are_written(provision: Provision) -> None:
    Path("task.py").write_text("")
    provision.begin("dev-1", options=("--task", "task.py", "--host", "::1", "--port", "8884"))
    file = provision.root / "aggregator" / "federation.toml"
    settings = load_settings(file, environment={})
    assert settings.task == provision.root / "aggregator" / "task.py"
    assert settings.broker.url == "mqtts://[::1]:8884"
    assert settings.aggregator.revoked_file == provision.root / "aggregator" / "revoked"
    assert settings.aggregator.client_updates_per_minute == 240
    file.write_text(file.read_text() + "publish_interval = 2.0\n")
    before = file.read_bytes()
    said = provision("--host", "10.0.0.7")
    assert "federation.toml of aggregator, operator, dev-1 names a broker that is not mqtts://10.0.0.7:8884" in said
    assert file.read_bytes() == before
    file.unlink()
    provision()
    assert load_settings(file, environment={}).broker.url == "mqtts://10.0.0.7:8884"


def test_names_that_the_broker_loses_are_named_with_the_way_to_keep_them(provision: Provision) -> None:
    assert "bundles name the broker localhost, which is right on this machine only" in provision.begin("dev-1")
    said = provision("--host", "broker.example")
    assert (
        "who connects to the broker as localhost, 127.0.0.1, ::1 cannot any more (`Hostname mismatch`): its certificate"
        " is for broker.example only; to keep all: --host broker.example --host localhost --host 127.0.0.1 --host ::1\n"
    ) in said
    assert "cannot any more" not in provision()
    said = provision("--host", "broker.example", "--host", "localhost")
    assert "cannot any more" not in said
    assert "names a broker" not in said  # which bundles still call localhost


def test_a_new_federation_of_a_named_broker_loses_no_name(provision: Provision) -> None:
    said = provision.begin("dev-1", options=("--host", "broker.example"))
    assert "localhost" not in said
    assert "cannot any more" not in said


def test_an_added_device_changes_nobody_elses_files(provision: Provision) -> None:
    provision.begin("dev-1")
    before = content(provision.root)
    said = provision("--add", "dev-2", "dev-3")
    assert "made or renewed: dev-2, dev-3;" in said
    assert "changed for the broker: passwords, rules;" in said
    after = content(provision.root)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        *("provision.json", "broker/passwords", "broker/rules", "aggregator/device-keys", "operator/device-keys"),
    }
    assert before["broker/passwords"].splitlines()[1] in after["broker/passwords"].splitlines()
    check_bundles(provision.root)


def test_a_revoked_device_is_nowhere_but_in_the_lists_of_the_revoked(provision: Provision) -> None:
    provision.begin("dev-1", "dev-2")
    mine = provision.root / "devices" / "dev-2" / "notes.txt"
    mine.write_text("of the user")
    said = provision("--revoke", "dev-2")
    assert "revoked: dev-2;" in said
    assert "what dev-2 left on the broker may still be there" in said  # there is none
    files = content(provision.root)
    assert files["aggregator/revoked"] == b"dev-2\n"
    assert b"f.dev-2" not in files["broker/passwords"] + files["broker/rules"]
    assert {name for name in files if name.startswith("devices/dev-2/")} == {"devices/dev-2/notes.txt"}
    mine.unlink()
    record = json.loads(files["provision.json"])
    assert record["accounts"]["dev-2"]["revoked"]
    assert "what dev-2 left on the broker may still be there" in provision()


def test_a_bundle_that_was_taken_away_is_left_alone_until_it_is_renewed(provision: Provision) -> None:
    provision.begin("dev-1", "dev-2")
    passwords = provision.root / "broker" / "passwords"
    shutil.rmtree(provision.root / "devices" / "dev-1")
    before = content(provision.root)
    assert "not here, so left as it is: dev-1;" in provision()
    assert content(provision.root) == before
    provision("--renew", "dev-1")
    check_bundles(provision.root)
    assert passwords.read_bytes() != before["broker/passwords"]  # the new bundle has a new password
    provision("--revoke", "dev-1")


def test_renewing_is_for_what_is_due_or_named_or_all(provision: Provision) -> None:
    def renewed(*arguments: str) -> set[str]:
        before = content(provision.root)
        provision(*arguments)
        check_bundles(provision.root)
        after = content(provision.root)
        changed = {name for name in after if before.get(name) != after[name]} - {"provision.json"}
        changed = {name for name in changed if not name.endswith("-keys")}  # everybody learns of a new key
        assert {name.rpartition("/")[2] for name in changed} <= {"identity.pem", "signing.pem"}
        return {Path(name).parent.name for name in changed}

    provision.begin("dev-1", "dev-2", options=("--device-days", "90", "--server-days", "65"))
    assert renewed("--renew") == set()
    assert renewed("--renew", "dev-2") == {"dev-2"}
    assert renewed("--renew", "--renew-days", "70", "--server-days", "397") == {"broker"}
    assert re.search(
        r"ends within 95 days: aggregator on \S+, operator on .* and 1 more;", provision("--renew-days", "95")
    )
    assert renewed("--renew", "--all") == {"broker", "aggregator", "operator", "dev-1", "dev-2"}


def test_a_certificate_that_is_renewed_leaves_the_old_one_to_be_revoked_too(provision: Provision) -> None:
    provision.begin("dev-1")
    provision("--renew", "dev-1")
    record = json.loads((provision.root / "provision.json").read_text())
    assert len({one["serial"] for one in record["accounts"]["dev-1"]["issued"]}) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--add", "dev/1"),
            "--add: client id 'dev/1': expected 1 to 64 of A-Z a-z 0-9 _ -, because it becomes part of",
        ),
        (("--add", "#"), "--add: client id '#': expected 1 to 64"),
        (("--add", "x" * 65), "expected 1 to 64"),
        (("--add", "aggregator"), "--add: client id 'aggregator' is the aggregator's own account; choose another"),
        (("--add", "operator"), "is the operator's own account"),
        (("--add", "b", "b"), "--add: client id 'b' is there twice; each device has one of its own"),
        (("--add", "y" * 63), "is 65 characters; a certificate's name takes 64, so shorten one"),
        (("--add", "out"), "--add: client 'out' was revoked, and its name with it"),
        (("--revoke", "eve"), "--revoke: client 'eve' is not in "),
        (("--revoke", "aggregator"), "client id 'aggregator' is the aggregator's own account"),
        (("--add", "c", "--revoke", "c"), "--add: client 'c' is to be revoked too; take it out of one of them"),
        (("--renew", "eve"), "--renew: client 'eve' is not in "),
        (("--renew", "out"), "--renew: client 'out' is revoked; there is nothing to renew"),
        (("--all",), "--all goes with --renew"),
        (("--federation", "g"), "it is the folder of federation 'f', not of 'g'; name another with --out"),
        (
            ("--host", "mqtts://broker"),
            "--host 'mqtts://broker': expected a host name such as broker.example.org or an IP",
        ),
        (("--host", "broker_1"), "--host 'broker_1': expected a host name"),
        (("--host", "1.2.3"), "--host '1.2.3': expected"),
        (("--host=-a.example",), "expected a host name"),
        (("--host", ""), "expected a host name"),
        (
            ("--listen", "::1", "--listen", "127.0.0.1"),
            "--listen is there 2 times; Mosquitto listens on one",
        ),
        (
            ("--add", "DEV-1"),
            "--add: client ids 'dev-1' and 'DEV-1' differ only in case, and on a disk",
        ),
        (("--add", "a", "A"), "--add: client ids 'a' and 'A' differ only in case"),
        (("--listen", "broker.example"), "--listen 'broker.example': expected an IP address of the broker's machine"),
        (
            ("--listen", "fe80::1%x\nlistener 1883\nallow_anonymous true"),
            "expected an IP address of the broker's machine, without a zone",
        ),
        (("--host", "fe80::1%eth0"), "--host 'fe80::1%eth0': expected a host name"),
        (("--host", "10.0.0.7\n"), "expected a host name"),
        (("--listen", "10.0.0.7\n"), "expected an IP address"),
        (("--add=-dev",), "--add: client id '-dev' begins with -, as options of commands do; choose another"),
        (("--memory-bytes", str(10**22)), "expected: less than or equal to 1099511627776"),
        (("--port", "0"), "--port: found 0, expected: greater than or equal to 1"),
        (("--device-days", "0"), "--device-days: found 0, expected: greater than or equal to 1"),
        (("--memory-bytes", "1"), "--memory-bytes: found 1, expected: greater than or equal to"),
        (
            ("--clients", "missing.txt"),
            "missing.txt: it cannot be read: No such file or directory; write one client id",
        ),
        (
            ("--clients", "twice.txt"),
            "twice.txt:3: client id 'a' is there already, in line 1; each device has one of its",
        ),
        (("--clients", "bad.txt"), "bad.txt:2: client id 'a b': expected 1 to 64"),
        (("--clients", "empty.txt"), "empty.txt: it names no client; write one client id in each line"),
        (("--clients", "binary.txt"), "binary.txt: it is not UTF-8 text"),
        (("--clients", "old.txt"), "old.txt: client 'out' was revoked"),
        (("--task", "nowhere.py"), "--task nowhere.py: there is no such file"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    provision: Provision, arguments: tuple[str, ...], sentence: str
) -> None:
    for name, text in (
        *(("twice.txt", b"a # one\n\na\n"), ("bad.txt", b"a\na b\n"), ("empty.txt", b"# nobody\n\n")),
        *(("binary.txt", b"\xff\xfe"), ("old.txt", b"a\nout\n")),
    ):
        Path(name).write_bytes(text)
    provision.begin("dev-1", "out")
    provision("--revoke", "out")
    before = content(provision.root)
    assert sentence in provision.fails(*arguments)
    assert content(provision.root) == before


def test_a_folder_that_is_none_of_its_own_is_refused(provision: Provision) -> None:
    said = provision.fails("--federation", "f")
    assert "no federation is in it yet; begin with --federation NAME --clients FILE" in said
    assert not provision.root.exists()
    Path("ids.txt").write_text("a\n")
    provision.root.mkdir()
    (provision.root / "thesis.tex").write_text("")
    assert "it is not empty, and no provisioned folder" in provision.fails("--federation", "f", "--clients", "ids.txt")
    assert set(content(provision.root)) == {"thesis.tex"}
    Path("file").write_text("")
    provision.root = Path("file")
    assert "file: it cannot be used as a folder" in provision.fails("--federation", "f", "--clients", "ids.txt")


@pytest.mark.parametrize("length", [54, 61, 62, 64])
def test_a_federation_whose_aggregator_could_have_no_certificate_is_not_begun(
    provision: Provision, length: int
) -> None:
    Path("ids.txt").write_text("d\n")
    name = "f" * length
    said = provision.fails("--federation", name, "--clients", "ids.txt")
    assert said == (
        f"federation {name!r}: an account would log in as '{name}.aggregator', which is {length + 11} characters; a"
        " certificate's name takes 64, so begin a folder with a name of at most 53"
    )
    assert not provision.root.exists()
    provision("--federation", "f" * 53, "--clients", "ids.txt")


def test_a_device_that_is_not_in_the_list_any_more_is_named_with_what_takes_it_out(provision: Provision) -> None:
    provision.begin("dev-1", "stolen")
    before = content(provision.root)
    Path("ids.txt").write_text("dev-1\n")
    told = (
        "in, and not in ids.txt: stolen; right for what --add has added; a list takes nobody out,"
        f" `fedmq provision --out {provision.root} --revoke ID` does"
    )
    assert provision("--clients", "ids.txt").splitlines()[1:] == ["nothing was changed", told]
    assert content(provision.root) == before
    said = provision("--clients", "ids.txt", "--add", "dev-2").splitlines()
    assert told in said
    assert "nothing was changed" not in said
    assert "not in ids.txt" not in provision()
    assert "not in ids.txt" not in provision("--clients", "ids.txt", "--add", "dev-2", "--revoke", "stolen")


def test_of_many_devices_that_are_in_no_list_a_few_are_named(provision: Provision) -> None:
    provision.begin(*(f"dev-{number}" for number in range(6)))
    Path("ids.txt").write_text("dev-0\n")
    assert "in, and not in ids.txt: dev-1, dev-2, dev-3 and 2 more; right for" in provision("--clients", "ids.txt")


def test_a_record_that_is_damaged_is_named(provision: Provision) -> None:
    provision.begin("dev-1")
    file = provision.root / "provision.json"
    file.write_text(file.read_text().replace('"port": 8883', '"port": "x"'))
    assert f"{file}: port: Input should be a valid integer" in provision.fails()


@pytest.mark.parametrize(
    "arguments", [("--add", "dev-2"), ("--revoke", "dev-1"), ("--renew", "--all"), ("--host", "b")]
)
def test_without_the_authoritys_key_nothing_is_decided_that_needs_it(
    provision: Provision, arguments: tuple[str, ...]
) -> None:
    provision.begin("dev-1")
    key = provision.root / "authority" / "key.pem"
    aside = key.rename(provision.root.with_name("offline.pem"))
    before = content(provision.root)
    assert "nothing to do" in provision()
    assert f"{key}: the authority's private key is not there" in provision.fails(*arguments)
    assert content(provision.root) == before
    aside.rename(key)
    provision(*arguments)


def test_another_authoritys_key_or_none_at_all_is_refused(provision: Provision, tmp_path: Path) -> None:
    provision.begin("dev-1")
    other = Provision(tmp_path / "other", provision.capsys)
    other.begin("dev-1")
    folder = provision.root / "authority"
    shutil.copy(other.root / "authority" / "key.pem", folder)
    assert "it is another authority's key" in provision.fails("--add", "dev-2")
    (folder / "key.pem").write_text("nonsense")
    assert "it holds no private key in PEM" in provision.fails("--add", "dev-2")
    shutil.rmtree(folder)
    assert "the authority that signed this folder's certificates is gone" in provision.fails("--add", "dev-2")
    assert "is gone" in provision.fails()


def test_without_cryptography_it_says_what_to_install(provision: Provision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert provision.fails() == 'certificates need the package cryptography; "pip install fedmq[secure]" installs it'


def test_the_help_says_everything_without_cryptography(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["provision", "--help"])
    assert "fedmq provision --federation gestures" in capsys.readouterr().out
