"""Sessions verify a model before anyone can use it, and name what is wrong."""

import resource
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.pumps import pump_model, pump_values
from wheeltapper.errors import ModelError
from wheeltapper_models.card import Card, read_card
from wheeltapper_models.export import write
from wheeltapper_models.header import read_header
from wheeltapper_models.session import Session

MODEL = pump_model()
STATM = Path("/proc/self/statm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(MODEL, tmp_path / "pump")
    return tmp_path / "pump"


def change_card(folder: Path, **changes: object) -> None:
    card = msgspec.structs.replace(read_card(folder / "card.json"), **changes)
    (folder / "card.json").write_bytes(msgspec.json.encode(card))


def test_a_model_is_loaded_from_its_folder_or_its_file(folder):
    by_folder, by_file = Session.load(folder), Session.load(folder / "model.onnx")

    assert by_folder.card == by_file.card == MODEL.card
    assert by_folder.start().shape == (1, MODEL.card.state_size)


def test_a_changed_file_is_refused(folder):
    payload = bytearray((folder / "model.onnx").read_bytes())
    payload[len(payload) // 2] ^= 1
    (folder / "model.onnx").write_bytes(payload)

    with pytest.raises(ModelError, match=r"model.onnx: .*SHA-256"):
        Session.load(folder)


def test_a_card_without_a_hash_is_refused(folder):
    change_card(folder, sha256="")

    with pytest.raises(ModelError, match="has no sha256"):
        Session.load(folder)


@pytest.mark.parametrize(("opset", "ir_version"), [(99, 8), (17, 99)], ids=["opset", "IR"])
def test_what_the_runtime_cannot_run_is_refused_with_its_opset_and_ir(opset, ir_version):
    import onnx

    model = onnx.load_from_string(MODEL.model)
    model.ir_version = ir_version
    model.opset_import[0].version = opset
    card = msgspec.structs.replace(MODEL.card, sha256="", opset=opset, ir_version=ir_version)

    with pytest.raises(ModelError, match=rf"onnxruntime .* refuses it \(IR {ir_version}, opset {opset}\)"):
        Session(card, model.SerializeToString())


def test_a_card_that_names_another_opset_is_refused(folder):
    change_card(folder, opset=18)

    with pytest.raises(ModelError, match="opset 17, its card says IR 8 and opset 18"):
        Session.load(folder)


def test_a_model_that_computes_something_else_here_fails_its_self_test(folder):
    test = MODEL.card.self_test
    assert test is not None
    wrong = [score + 0.5 for score in test.expected["score"]]
    change_card(folder, self_test=msgspec.structs.replace(test, expected={"score": wrong}))

    with pytest.raises(ModelError, match="fails its self-test on this machine: score of test row 0"):
        Session.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": MODEL.card.inputs[:-1]}, r"input rows has shape .* its card says \(N, 3\)"),
        ({"state_size": 7}, r"input states has shape"),
        ({"outputs": ["score", "luck"]}, r"lacks the outputs \['luck'\]"),
        ({"kind": "oracle"}, "unknown kind 'oracle'"),
    ],
    ids=["inputs", "states", "outputs", "kind"],
)
def test_a_card_that_disagrees_with_the_file_is_refused(folder, changes, message):
    change_card(folder, **changes)

    with pytest.raises(ModelError, match=message):
        Session.load(folder)


def test_a_missing_card_is_refused_unless_the_caller_can_do_without(folder):
    (folder / "card.json").unlink()

    with pytest.raises(ModelError, match="there is no card"):
        Session.load(folder)
    inside = Session.load(folder, require_card=False)

    assert inside.sensors == MODEL.card.sensors
    assert inside.card.limit == MODEL.card.limit


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere.*cannot be read"):
        Session.load(tmp_path / "nowhere")


def test_rows_of_the_wrong_width_are_refused_with_the_right_one():
    session = Session(MODEL.card, MODEL.model)

    with pytest.raises(ModelError, match=r"needs rows \(N, 4\) and states \(N, 24\)|needs rows \(N, 4\)"):
        session.step(np.zeros((1, 3), dtype=np.float32), session.start())


def test_a_row_is_built_from_named_values():
    session = Session(MODEL.card, MODEL.model)

    row = session.row({"load": 50, "current": True, "heat": "hot", "other": 1.0})

    assert row[:2].tolist() == [50.0, 1.0]
    assert np.isnan(row[2:]).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(MODEL.model) - 1), st.binary(max_size=8))
def test_a_cut_or_garbled_file_is_a_model_error_and_nothing_else(length, tail):
    card = msgspec.structs.replace(MODEL.card, sha256="", opset=0)

    with pytest.raises(ModelError):
        Session(card, MODEL.model[:length] + tail + b"\xff")


def test_the_header_is_read_without_the_onnx_library():
    header = read_header(MODEL.model, "pump")

    assert (header.ir_version, header.opset, header.other_domains) == (8, 17, {})
    assert header.metadata["sensors"].splitlines() == ["load", "current", "heat", "noise"]
    assert msgspec.json.decode(header.metadata["card"], type=Card).kind == "anomaly"


def test_memory_returns_after_many_swaps(folder):
    def resident() -> float:
        return int(STATM.read_text().split()[1]) * resource.getpagesize() / 1e6

    if not STATM.exists():
        pytest.skip("needs /proc")
    rows = pump_values(1).astype(np.float32)
    for _ in range(20):
        session = Session.load(folder)
    before = resident()
    for _ in range(100):
        session = Session.load(folder)
        session.step(rows, session.start())

    assert resident() - before < 5.0
