"""Access keys: made, shown once, sealed, revoked."""

import json
import stat

import pytest

from tests.companion import logging_kept
from wheeltapper.cli import main
from wheeltapper.clock import ManualClock
from wheeltapper.errors import SettingsError
from wheeltapper_cloud.keys import KEYS_FILE, SEAL_FILE, KeyStore


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
        "wheeltapper cloud keys create"
    )
