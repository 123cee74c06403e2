"""Files of definitions that settings name: every fault names the file, and no remark is lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from wheeltapper.definition_files import read_definition_file, warn_of_unused
from wheeltapper.errors import SettingsError

MODEL = {
    "detectorModelName": {"Fn::Sub": "heat-${Stage}"},
    "detectorModelDefinition": {"initialStateName": "a", "states": [{"stateName": "a"}]},
}
TEMPLATE: dict[str, Any] = {
    "Parameters": {"Stage": {"Type": "String"}},
    "Resources": {
        "Heat": {"Type": "AWS::IoTEvents::DetectorModel", "Properties": MODEL},
        "T": {"Type": "AWS::SNS::Topic"},
    },
}


def write(folder: Path, name: str, content: Any) -> Path:
    file = folder / name
    file.write_text(json.dumps(content))
    return file


def test_a_template_takes_its_parameters_and_what_is_left_out_is_logged(tmp_path, caplog):
    file = write(tmp_path, "heat.json", TEMPLATE)

    found = read_definition_file(file, {"Stage": "prod", "Other": "x"}, "parameters")

    assert found.detector_models[0]["detectorModelName"] == "heat-prod"
    assert [record.message for record in caplog.records] == [
        f"{file}: Resources.T: left out: AWS::SNS::Topic is not an IoT Events resource"
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "heat: not JSON"),
        (b"\xff\x00", "not text"),
        (b"{}", "holds no detector model"),
        (json.dumps(TEMPLATE).encode(), r"'Stage' has no default; put into \[some.table\] Stage="),
        (None, "cannot be read: No such file"),
    ],
    ids=["broken", "binary", "empty", "parameter", "missing"],
)
def test_every_fault_names_the_file(tmp_path, content, says):
    file = tmp_path / "heat.json"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SettingsError, match=f"{file}: .*{says}") as caught:
        read_definition_file(file, {}, "some.table")

    assert "\n" not in str(caught.value)


def test_a_parameter_that_is_missing_is_to_be_put_where_settings_have_them(tmp_path, caplog):
    stage = {"Fn::Sub": "heat-${Stige}"}
    template = {**TEMPLATE, "Resources": {"Heat": {**TEMPLATE["Resources"]["Heat"]}}}
    template["Resources"]["Heat"]["Properties"] = {**MODEL, "detectorModelName": stage}

    read_definition_file(write(tmp_path, "heat.json", template), {}, "some.table")

    assert "the name itself stands in ([some.table] Stige=… sets it)" in caplog.text


def test_a_parameter_is_unused_where_no_file_uses_it(tmp_path, caplog):
    parameters = {"Stage": "prod", "Stige": "prod"}
    plain = {**MODEL, "detectorModelName": "plain"}
    files = [write(tmp_path, "heat.json", TEMPLATE), write(tmp_path, "plain.json", plain)]
    found = [read_definition_file(file, parameters, "detectors.parameters") for file in files]
    caplog.clear()

    warn_of_unused(parameters, found, "detectors.parameters")

    assert [record.message for record in caplog.records] == [
        "[detectors.parameters] Stige: given, but no file of models uses it"
    ]
