"""A revocation counts whatever is wrong with anybody else, and whatever a clock has said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision as run
from tests.broker_config.provisioned import Provision, content

NOW = datetime.now(UTC)


@pytest.fixture
def provision(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Provision:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return Provision(tmp_path / "secure", capsys)


def is_out(root: Path, client_id: str, serials: set[int]) -> bool:
    """Whether nothing is left by which it could come in."""
    files = content(root)
    user = f"f.{client_id}".encode()
    listed = {entry.serial_number for entry in x509.load_pem_x509_crl(files["broker/revoked.pem"])}
    return (
        user not in files["broker/passwords"] + files["broker/rules"]
        and client_id.encode() in files["aggregator/revoked"].splitlines()
        and serials <= listed
        and not (root / "devices" / client_id).exists()
    )


def serials_of(root: Path, client_id: str) -> set[int]:
    account = json.loads((root / "provision.json").read_text())["accounts"][client_id]
    return {int(one["serial"], 16) for one in account["issued"]}


@pytest.mark.parametrize(
    ("damaged", "sentence"),
    [
        ("devices/dev-1/signing.pem", "it holds no private key in PEM"),
        ("devices/dev-1/password", "it is empty; put it back, or remove it"),
        ("operator/identity.pem", "it holds no certificate in PEM"),
        ("broker/identity.pem", "it holds no certificate in PEM"),
    ],
)
def test_damage_elsewhere_does_not_keep_a_device_in(provision: Provision, damaged: str, sentence: str) -> None:
    provision.begin("dev-1", "dev-2")
    serials = serials_of(provision.root, "dev-2")
    kept = provision.root.with_name("kept")
    shutil.copy(provision.root / damaged, kept)
    (provision.root / damaged).write_text("")
    said = provision.fails("--revoke", "dev-2")
    assert f"{provision.root / damaged}: {sentence}" in said
    assert f"; out all the same: dev-2, once the broker has what is in {provision.root}/broker and the agg" in said
    assert is_out(provision.root, "dev-2", serials)
    shutil.copy(kept, provision.root / damaged)
    # What is to be carried is said by the run that comes to its end.
    said = provision()
    assert f"revoked: dev-2; take {provision.root}/aggregator/revoked to the aggregator's machine" in said
    assert "changed for the broker: passwords, rules, revoked.pem;" in said


@pytest.mark.parametrize("full", [1, 4])
def test_a_disk_that_is_full_is_said_with_what_it_means_for_the_device(
    provision: Provision, monkeypatch: pytest.MonkeyPatch, full: int
) -> None:
    provision.begin("dev-1", "dev-2")
    serials = serials_of(provision.root, "dev-2")
    count = 0

    def replace(*arguments: str, real: Callable[..., None] = os.replace, **folders: int) -> None:
        nonlocal count
        count += 1
        if count >= full:
            raise OSError(28, "No space left on device")
        real(*arguments, **folders)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        code, _, err = provision.run("--revoke", "dev-2")
    assert code == 1
    assert "No space left on device; not out yet: dev-2\n" in err
    provision("--revoke", "dev-2")
    assert is_out(provision.root, "dev-2", serials)


def test_a_task_file_that_has_moved_does_not_keep_a_device_in(provision: Provision) -> None:
    Path("task.py").write_text("")
    provision.begin("dev-1", "dev-2", options=("--task", "task.py"))
    serials = serials_of(provision.root, "dev-2")
    Path("task.py").rename("elsewhere.py")
    assert "it cannot be copied into a bundle" in provision.fails("--add", "dev-9", "--revoke", "dev-2")
    assert is_out(provision.root, "dev-2", serials)
    assert "dev-9" not in (provision.root / "provision.json").read_text()
    provision()


def test_a_new_folder_is_not_begun_with_a_task_that_cannot_be_read(provision: Provision) -> None:
    Path("ids.txt").write_text("dev-1\n")
    Path("task.py").write_text("")
    request = Request("f", clients=("dev-1",), changes={"task": str(Path("nowhere.py"))})
    with pytest.raises(Exception, match="it cannot be copied"):
        run(provision.root, request, NOW)
    assert not provision.root.exists()


def list_begins(root: Path) -> datetime:
    return x509.load_pem_x509_crl((root / "broker" / "revoked.pem").read_bytes()).last_update_utc


def test_a_clock_that_was_ahead_for_one_revocation_shuts_nobody_out(tmp_path: Path) -> None:
    root = tmp_path / "secure"
    run(root, Request("f", clients=("dev-1", "dev-2", "dev-3")), NOW)
    first, serials = list_begins(root), serials_of(root, "dev-2")
    run(root, Request(revoke=("dev-2",)), NOW + timedelta(days=4000))
    second = list_begins(root)
    assert first < second < NOW
    outcome = run(root, Request(revoke=("dev-3",)), NOW)
    assert second < list_begins(root) < NOW
    assert not outcome.redated
    assert is_out(root, "dev-2", serials)


def test_a_clock_that_was_ahead_has_no_certificate_forgotten_that_is_still_good(tmp_path: Path) -> None:
    root = tmp_path / "secure"
    run(root, Request("f", clients=("dev-1", "dev-2"), changes={"device_days": 30}), NOW)
    run(root, Request(renew=("dev-2",)), NOW)
    serials = serials_of(root, "dev-2")
    assert len(serials) == 2
    run(root, Request(), NOW + timedelta(days=300))
    run(root, Request(revoke=("dev-2",)), NOW)
    assert is_out(root, "dev-2", serials)


def test_a_list_from_the_future_is_made_anew_and_the_broker_has_to_be_started_again(
    provision: Provision, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision.begin("dev-1", "dev-2")
    serials = serials_of(provision.root, "dev-2")
    with monkeypatch.context() as patch:
        # As a version made them that dated lists by the clock.
        ahead = NOW + timedelta(days=40)
        patch.setattr(
            x509.CertificateRevocationListBuilder,
            "last_update",
            lambda self, updated, real=x509.CertificateRevocationListBuilder.last_update: real(self, ahead),
        )
        provision("--revoke", "dev-2")
    assert list_begins(provision.root) > NOW
    said = provision()
    assert "was dated in the future, by a clock that was ahead, and is made anew; start the broker again" in said
    assert list_begins(provision.root) < NOW
    assert is_out(provision.root, "dev-2", serials)
    assert "nothing to do" in provision()


def test_what_a_renewal_that_was_killed_has_left_is_removed(provision: Provision) -> None:
    provision.begin("dev-1", "dev-2")
    bundle = provision.root / "devices" / "dev-2"
    left = [
        bundle / ".identity.pem.part",
        provision.root / ".provision.json.part",
        provision.root / "broker/.rules.part",
    ]
    for path in left:
        path.write_text("secret")
    half = provision.root / "devices" / ".dev-1.part"
    half.mkdir()
    (half / "password").write_text("secret")
    theirs = bundle / ".notes.part"
    theirs.write_text("of the user")
    provision()
    assert not [path for path in (*left, half) if path.exists()]
    assert theirs.exists()
    theirs.unlink()
    left[0].write_text("secret")
    provision("--revoke", "dev-2")
    assert not bundle.exists()


def test_a_certificate_is_known_before_it_is_written(provision: Provision, monkeypatch: pytest.MonkeyPatch) -> None:
    provision.begin("dev-1", "dev-2")
    written: list[int] = []
    real = os.replace
    bundle = provision.root / "devices" / "dev-2"

    def looking(aside: str, name: str, **folders: int) -> None:
        if name == "identity.pem" and os.path.samestat(os.fstat(folders["dst_dir_fd"]), bundle.stat()):
            written.append(x509.load_pem_x509_certificate((bundle / aside).read_bytes()).serial_number)
            assert written[0] in serials_of(provision.root, "dev-2")
        real(aside, name, **folders)

    monkeypatch.setattr(os, "replace", looking)
    provision("--renew", "dev-2")
    assert len(written) == 1


def test_an_older_copy_of_the_record_lets_nobody_in_again_and_says_what_to_do(provision: Provision) -> None:
    provision.begin("dev-1", "dev-2")
    record = provision.root / "provision.json"
    copy = record.read_bytes()
    provision("--revoke", "dev-2")
    record.write_bytes(copy)
    out = (provision.root / "broker" / "revoked.pem").read_bytes()
    assert "or, if it was revoked after provision.json was copied, --revoke dev-2 takes it out" in provision.fails()
    provision("--revoke", "dev-2")
    assert (provision.root / "broker" / "revoked.pem").read_bytes() == out
    assert b"f.dev-2:" not in (provision.root / "broker" / "passwords").read_bytes()
    assert (provision.root / "aggregator" / "revoked").read_text() == "dev-2\n"
