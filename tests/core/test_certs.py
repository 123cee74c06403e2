"""The private authority: what it issues, renews, refuses and lists."""

import json
import ssl
import stat
import threading
from pathlib import Path

import pytest

from wheeltapper.certs import Authority
from wheeltapper.cli import main
from wheeltapper.clock import ManualClock
from wheeltapper.errors import SettingsError

DAY_S = 86_400
NOW_MS = 1_795_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
def authority(tmp_path: Path, clock: ManualClock) -> Authority:
    authority = Authority(tmp_path / "certs", clock)
    authority.create()
    authority.issue("broker", names=["localhost", "127.0.0.1"])
    authority.issue("motor-1")
    return authority


def states_of(authority: Authority) -> dict[str, str]:
    return {each.name: each.state for each in authority.list()}


def handshake(server_folder: Path, client_folder: Path) -> str:
    """The common name that the server learns of the client; raises ssl.SSLError where either refuses."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_folder / "broker.crt", server_folder / "broker.key")
    server.load_verify_locations(server_folder / "ca.crt")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(client_folder / "ca.crt"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    name = client_folder.name
    client.load_cert_chain(client_folder / f"{name}.crt", client_folder / f"{name}.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(4):
        for side in (asking, serving):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate = serving.getpeercert()
    assert certificate is not None
    return dict(pair[0] for pair in certificate["subject"])["commonName"]


def test_broker_and_machine_recognise_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    assert main(["certs", "init", "--dir", str(folder), "--thing", "motor-1"]) == 0

    assert handshake(folder / "broker", folder / "motor-1") == "motor-1"


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    for plant in ("ours", "theirs"):
        main(["certs", "init", "--dir", str(tmp_path / plant), "--thing", "motor-1"])
    stranger = tmp_path / "theirs" / "motor-1"
    (stranger / "ca.crt").write_bytes((tmp_path / "ours" / "ca" / "ca.crt").read_bytes())

    with pytest.raises(ssl.SSLError):
        handshake(tmp_path / "ours" / "broker", stranger)


def test_the_broker_is_known_by_its_names(authority: Authority) -> None:
    broker = next(each for each in authority.list() if each.name == "broker")

    assert broker.alternative_names == ["localhost", "127.0.0.1"]


def test_only_the_owner_may_read_what_is_written(tmp_path: Path, authority: Authority) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "certs").rglob("*") if path.is_file()}

    assert modes == {0o600}


@pytest.mark.parametrize("again", [["init"], ["device", "motor-1"]], ids=["authority", "machine"])
def test_nothing_is_overwritten_without_force(
    tmp_path: Path, again: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--dir", str(tmp_path)]
    main(["certs", "init", "--thing", "motor-1", *place])
    before = (tmp_path / "motor-1" / "motor-1.key").read_bytes()
    capsys.readouterr()

    assert main(["certs", *again, *place]) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "motor-1" / "motor-1.key").read_bytes() == before


def test_keep_makes_only_what_is_missing(tmp_path: Path) -> None:
    main(["certs", "init", "--dir", str(tmp_path), "--thing", "motor-1"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.key")}

    assert main(["certs", "init", "--keep", "--dir", str(tmp_path), "--thing", "motor-1", "--thing", "cloud"]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert (tmp_path / "cloud" / "cloud.key").exists()


def test_rotation_makes_a_fresh_key_under_the_same_names(tmp_path: Path, authority: Authority) -> None:
    key = tmp_path / "certs" / "broker" / "broker.key"
    before = key.read_bytes()
    authority.rotate("broker")

    assert key.read_bytes() != before
    assert next(each for each in authority.list() if each.name == "broker").alternative_names == [
        "localhost",
        "127.0.0.1",
    ]


def test_after_a_change_of_authority_a_machine_that_was_not_reached_is_still_recognised(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    main(["certs", "init", "--dir", str(folder), "--thing", "motor-1"])
    unreached = tmp_path / "motor-1"
    unreached.mkdir()
    for path in (folder / "motor-1").iterdir():
        (unreached / path.name).write_bytes(path.read_bytes())
    old_broker = folder.parent / "old-broker"
    (folder / "broker").rename(old_broker)
    (folder / "broker").mkdir()
    for path in old_broker.iterdir():
        (folder / "broker" / path.name).write_bytes(path.read_bytes())
    main(["certs", "rotate", "--authority", "--dir", str(folder)])
    for part in ("broker.crt", "broker.key"):  # the broker trusts both, and still shows the certificate machines know
        (folder / "broker" / part).write_bytes((old_broker / part).read_bytes())

    assert handshake(folder / "broker", unreached) == "motor-1"
    assert handshake(folder / "broker", folder / "motor-1") == "motor-1"


def test_expiry_is_told_before_and_after(authority: Authority, clock: ManualClock) -> None:
    fresh = states_of(authority)
    clock.advance(340 * DAY_S)
    soon = states_of(authority)
    clock.advance(30 * DAY_S)
    late = states_of(authority)

    assert fresh == {"ca": "valid", "broker": "valid", "motor-1": "valid"}
    assert soon == {"ca": "valid", "broker": "expiring", "motor-1": "expiring"}
    assert late == {"ca": "valid", "broker": "expired", "motor-1": "expired"}


def test_unfit_certificates_are_told_apart(tmp_path: Path, authority: Authority) -> None:
    folder = tmp_path / "certs"
    authority.issue("no-key")
    (folder / "no-key" / "no-key.key").unlink()
    (folder / "motor-1" / "motor-1.key").chmod(0o644)
    main(["certs", "init", "--dir", str(tmp_path / "theirs"), "--thing", "foreign"])
    (tmp_path / "theirs" / "foreign").rename(folder / "foreign")

    assert states_of(authority) == {
        "ca": "valid",
        "broker": "valid",
        "foreign": "not issued by this authority",
        "motor-1": "key readable by others",
        "no-key": "key missing",
    }


def test_show_prints_json_and_fails_where_something_is_unfit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["certs", "init", "--dir", str(tmp_path), "--thing", "motor-1"])
    capsys.readouterr()
    assert main(["certs", "show", "--dir", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    (tmp_path / "motor-1" / "motor-1.key").unlink()

    assert [each["name"] for each in listed] == ["ca", "broker", "motor-1"]
    assert main(["certs", "show", "--dir", str(tmp_path)]) == 1


@pytest.mark.parametrize("name", ["", "ca", "../escape", "a/b", "x" * 65, "-flag"])
def test_a_name_that_cannot_be_one_is_refused(authority: Authority, name: str) -> None:
    with pytest.raises(SettingsError, match="certificate name"):
        authority.issue(name)


@pytest.mark.parametrize(
    "arguments",
    [
        ["show"],
        ["device", "motor-1"],
        ["rotate", "motor-1"],
        ["rotate"],
        ["init", "--days", "0"],
        ["init", "--owner", "me"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_a_wrong_request_is_one_line_that_says_what_to_do(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certs", *arguments, "--dir", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_file_is_whole_or_absent_for_a_reader_beside_a_rotation(tmp_path: Path, authority: Authority) -> None:
    certificate = tmp_path / "certs" / "motor-1" / "motor-1.crt"
    seen: set[bool] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            text = certificate.read_text()
            seen.add(text.startswith("-----BEGIN") and text.endswith("-----END CERTIFICATE-----\n"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(20):
        authority.rotate("motor-1")
    stop.set()
    watcher.join()

    assert seen == {True}
