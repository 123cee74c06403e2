"""Access keys: made, shown once, sealed, revoked."""

import errno
import json
import os
import stat

import pytest

from tests.companion import logging_kept
from wheeltapper.cli import main
from wheeltapper.clock import ManualClock
from wheeltapper.errors import SettingsError
from wheeltapper_cloud.guard import Guard
from wheeltapper_cloud.keys import KEYS_FILE, SEAL_FILE, KeyStore
from wheeltapper_cloud.signature import SignedRequest
from wheeltapper_cloud.wire import ServiceError


def test_a_new_key_gives_back_its_secret(tmp_path):
    keys = KeyStore(tmp_path, ManualClock(5))

    made = keys.create("ops")

    assert keys.secret(made.access_key_id) == made.secret_access_key.encode()
    assert (keys.all()[0].name, keys.all()[0].created_ms, keys.name(made.access_key_id)) == ("ops", 5, "ops")


def test_no_file_holds_the_secret_in_the_clear_and_none_can_be_read_by_others(tmp_path):
    made = KeyStore(tmp_path, ManualClock()).create()

    for name in (KEYS_FILE, SEAL_FILE):
        assert made.secret_access_key.encode() not in (tmp_path / name).read_bytes()
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_running_store_sees_what_another_process_makes_and_revokes(tmp_path):
    server, command = KeyStore(tmp_path, ManualClock()), KeyStore(tmp_path, ManualClock())
    made = command.create()
    seen = server.secret(made.access_key_id)

    command.revoke(made.access_key_id)

    assert seen is not None
    assert server.secret(made.access_key_id) is None


def test_when_the_last_key_is_revoked_nobody_is_let_in_not_everybody(tmp_path):
    keys = KeyStore(tmp_path, ManualClock())
    unsigned = SignedRequest("GET", "/inputs", "", [(b"host", b"127.0.0.1:8600")], b"")
    guard = Guard("127.0.0.1", keys, ManualClock())
    assert guard.admit(unsigned, "iotevents") == ""
    keys.revoke(keys.create().access_key_id)

    with pytest.raises(ServiceError, match="Missing Authentication Token"):
        guard.admit(unsigned, "iotevents")
    with pytest.raises(ServiceError, match="Missing Authentication Token"):
        Guard("127.0.0.1", KeyStore(tmp_path, ManualClock()), ManualClock()).admit(unsigned, "iotevents")


def test_a_key_for_some_days_is_unknown_after_them(tmp_path):
    clock = ManualClock(1000)
    keys = KeyStore(tmp_path, clock)
    made = keys.create("contractor", days=2)

    clock.advance(2 * 86_400 - 1)
    assert keys.secret(made.access_key_id) is not None
    clock.advance(1)

    assert keys.secret(made.access_key_id) is None
    assert keys.all()[0].expires_ms == 1000 + 2 * 86_400_000


def test_a_seal_that_was_lost_is_not_replaced_when_a_key_is_used(tmp_path):
    made = KeyStore(tmp_path, ManualClock()).create()
    (tmp_path / SEAL_FILE).unlink()

    with pytest.raises(SettingsError, match="restore the file"):
        KeyStore(tmp_path, ManualClock()).secret(made.access_key_id)
    assert not (tmp_path / SEAL_FILE).exists()


def test_a_seal_that_is_none_is_said_in_one_line(tmp_path):
    KeyStore(tmp_path, ManualClock()).create()
    (tmp_path / SEAL_FILE).write_bytes(b"short")

    with pytest.raises(SettingsError, match=r"keys\.seal: not a seal"):
        KeyStore(tmp_path, ManualClock()).create()


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "x" * 129])
def test_a_name_that_would_spoil_the_audit_trail_is_refused(tmp_path, name):
    with pytest.raises(SettingsError, match="name"):
        KeyStore(tmp_path, ManualClock()).create(name)


def test_a_secret_can_go_to_a_file_of_its_owner_instead_of_the_screen(tmp_path, capsys):
    out = tmp_path / "operator.env"
    command = ["cloud", "keys", "create", "operator", "--data-dir", str(tmp_path), "--out", str(out)]

    assert main(command) == 0

    said, written = capsys.readouterr().out, out.read_text()
    (key,) = KeyStore(tmp_path, ManualClock()).all()
    assert f"export AWS_ACCESS_KEY_ID={key.access_key_id}\nexport AWS_SECRET_ACCESS_KEY=" in written
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "SECRET" not in said
    assert key.access_key_id in said
    assert main(command) == 2
    assert "exists" in capsys.readouterr().err
    assert len(KeyStore(tmp_path, ManualClock()).all()) == 1


def test_where_the_secret_cannot_be_written_no_key_is_made(tmp_path, capsys):
    out = tmp_path / "missing" / "operator.env"

    assert main(["cloud", "keys", "create", "--data-dir", str(tmp_path), "--out", str(out)]) == 2

    assert str(out) in capsys.readouterr().err
    assert not KeyStore(tmp_path, ManualClock()).required()


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    assert main(["cloud", "keys", "create", "--data-dir", str(tmp_path)]) == 2

    assert "No space left" in capsys.readouterr().err


def test_no_key_yet_says_what_that_means_and_how_to_make_one(tmp_path, capsys):
    assert main(["cloud", "keys", "list", "--data-dir", str(tmp_path)]) == 0
    assert "wheeltapper cloud keys create" in capsys.readouterr().out
    keys = KeyStore(tmp_path, ManualClock())
    made = keys.create("ada", days=1)
    keys.create()

    assert main(["cloud", "keys", "list", "--data-dir", str(tmp_path)]) == 0
    assert "expired" in capsys.readouterr().out
    main(["cloud", "keys", "revoke", made.access_key_id, "--data-dir", str(tmp_path)])
    assert "no key is left" not in capsys.readouterr().out
    main(["cloud", "keys", "revoke", keys.all()[0].access_key_id, "--data-dir", str(tmp_path)])
    assert "no key is left" in capsys.readouterr().out


def test_a_key_moved_under_another_id_does_not_open(tmp_path):
    keys = KeyStore(tmp_path, ManualClock())
    keys.create()
    path = tmp_path / KEYS_FILE
    rows = json.loads(path.read_text())
    rows[0]["access_key_id"] = "WTAKAAAAAAAAAAAAAAAA"
    path.write_text(json.dumps(rows))

    with pytest.raises(SettingsError, match="does not open key"):
        KeyStore(tmp_path, ManualClock()).secret("WTAKAAAAAAAAAAAAAAAA")


def test_revoking_an_unknown_key_says_how_to_see_them(tmp_path):
    with pytest.raises(SettingsError, match="cloud keys list"):
        KeyStore(tmp_path, ManualClock()).revoke("WTAK")


def test_the_commands_make_list_and_revoke(tmp_path, capsys):
    folder = ["--data-dir", str(tmp_path), "--json"]
    assert main(["cloud", "keys", "create", "ops", *folder]) == 0
    made = json.loads(capsys.readouterr().out)
    main(["cloud", "keys", "list", *folder])
    listed = json.loads(capsys.readouterr().out)
    main(["cloud", "keys", "revoke", made["AccessKeyId"], *folder])

    assert [(row["AccessKeyId"], row["Name"]) for row in listed] == [(made["AccessKeyId"], "ops")]
    assert KeyStore(tmp_path, ManualClock()).all() == []


def test_another_address_than_loopback_without_keys_is_refused_in_one_line(tmp_path, capsys):
    with logging_kept():
        status = main(["cloud", "serve", "--host", "192.0.2.1", "--port", "0", "--data-dir", str(tmp_path)])

    assert status == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "wheeltapper: 192.0.2.1: not a loopback address, and there are no access keys; make one: "
        f"wheeltapper cloud keys create --data-dir {tmp_path}"
    )


def test_off_loopback_without_https_the_log_says_what_that_means(tmp_path, capsys):
    KeyStore(tmp_path, ManualClock()).create()

    with logging_kept():  # nobody has this address, so nothing comes to listen
        assert main(["cloud", "serve", "--host", "192.0.2.1", "--port", "0", "--data-dir", str(tmp_path)]) == 2

    assert "HTTP only" in capsys.readouterr().err


def test_a_folder_that_cannot_hold_keys_is_said_in_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()

    for word in (["create"], ["revoke", "WTAK"]):
        assert main(["cloud", "keys", *word, "--data-dir", str(tmp_path / "file" / "data")]) == 2
        assert "file/data: Not a directory" in capsys.readouterr().err


def test_a_port_that_is_none_is_said_in_one_line(tmp_path, capsys):
    with logging_kept():
        assert main(["cloud", "serve", "--port", "99999", "--data-dir", str(tmp_path)]) == 2

    assert "--port 99999" in capsys.readouterr().err.splitlines()[-1]
