"""REST-JSON from the service models: found, read, checked, written."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltapper_cloud.wire import STATUS_OF, Operations, ServiceError

OPERATIONS = Operations()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def read(operation: str, body: object = None, *, query: str = "", **labels: str) -> dict:
    text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return OPERATIONS.by_name[operation].read(labels, query, text)


def refusal(operation: str, body: object = None, *, query: str = "", **labels: str) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        read(operation, body, query=query, **labels)
    return caught.value


def test_both_services_have_all_their_operations():
    services = [operation.service for operation in OPERATIONS.by_name.values()]

    assert (services.count("iotevents"), services.count("ioteventsdata")) == (26, 12)


@pytest.mark.parametrize(
    ("method", "path", "operation", "labels"),
    [
        ("POST", "/inputs/messages", "BatchPutMessage", {}),
        ("PUT", "/inputs/messages", "UpdateInput", {"inputName": "messages"}),
        ("POST", "/detectors/delete", "BatchDeleteDetector", {}),
        ("GET", "/detectors/delete", "ListDetectors", {"detectorModelName": "delete"}),
        ("GET", "/detectors/m/keyValues/", "DescribeDetector", {"detectorModelName": "m"}),
        ("GET", "/detectors/m/keyValues", "DescribeDetector", {"detectorModelName": "m"}),
        ("POST", "/analysis/detector-models/", "StartDetectorModelAnalysis", {}),
        ("GET", "/inputs/a%2Fb%20c", "DescribeInput", {"inputName": "a/b c"}),
    ],
)
def test_a_method_and_a_path_find_their_operation(method, path, operation, labels):
    found = OPERATIONS.find(method, path)

    assert found is not None
    assert (found[0].name, found[1]) == (operation, labels)


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("PATCH", "/inputs"), ("GET", "/inputs/a/b"), ("GET", "")])
def test_nothing_else_is_an_operation(method, path):
    assert OPERATIONS.find(method, path) is None


def test_every_broken_constraint_is_named_as_aws_names_it():
    error = refusal("CreateDetectorModel", {"detectorModelName": "a b", "evaluationMethod": "SERIES"})

    assert (error.code, error.status) == ("InvalidRequestException", 400)
    assert error.message == (
        "4 validation errors detected: "
        "Value 'a b' at 'detectorModelName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: ^[a-zA-Z0-9_-]+$; "
        "Value null at 'detectorModelDefinition' failed to satisfy constraint: Member must not be null; "
        "Value null at 'roleArn' failed to satisfy constraint: Member must not be null; "
        "Value 'SERIES' at 'evaluationMethod' failed to satisfy constraint: "
        "Member must satisfy enum value set: [BATCH, SERIAL]"
    )


@pytest.mark.parametrize(
    ("operation", "body", "query", "said"),
    [
        ("BatchPutMessage", {"messages": []}, "", "Value '[]' at 'messages' failed to satisfy constraint: Member must"),
        ("ListInputs", None, "maxResults=0", "Member must have value greater than or equal to 1"),
        ("ListInputs", None, "maxResults=251", "Member must have value less than or equal to 250"),
        ("BatchPutMessage", {"messages": [{"messageId": "1", "payload": ""}]}, "", "null at 'messages.1.member.inputName'"),
        ("TagResource", {"tags": []}, "", "Value null at 'resourceArn' failed to satisfy constraint: Member"),
        ("UntagResource", None, "resourceArn=a&tagKeys=", "Value '' at 'tagKeys.1.member' failed"),
        ("CreateInput", {"inputName": "1a", "inputDefinition": {"attributes": [{"jsonPath": "a.b"}]}}, "", "Value '1a' at"),
        ("CreateInput", {"inputName": "a\n", "inputDefinition": {"attributes": [{"jsonPath": "a"}]}}, "", "at 'inputName'"),
    ],
)  # fmt: skip
def test_constraints_hold_wherever_a_member_travels(operation, body, query, said):
    error = refusal(operation, body, query=query)

    assert error.code == "InvalidRequestException"
    assert said in error.message


@pytest.mark.parametrize("path", ["a", "a.b-c", "`a b`.c", "x.`y-z w`"])
def test_attribute_paths_may_have_hyphens_and_backticks(path):
    body = {"inputName": "In", "inputDefinition": {"attributes": [{"jsonPath": path}]}}

    assert read("CreateInput", body) == body


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"1", b'{"messages": 1}', b'{"messages": [1]}', b"\xff", b'{"messages": [{"messageId": 1}]}',
        b'{"messages": [{"messageId": "1", "inputName": "I", "payload": "%"}]}', b"[" * 100_000, b'{"a":"\\ud800"}',
        b'{"messages": [{"messageId": "1", "inputName": "I", "payload": "", "timestamp": {"timeInMillis": "1"}}]}',
        b'{"messages": [{"messageId": "1", "inputName": "I", "payload": "", "timestamp": {"timeInMillis": 1e30}}]}',
        b'{"messages": [{"messageId": "1", "inputName": "I", "payload": "", "timestamp": {"timeInMillis": true}}]}',
    ],
)  # fmt: skip
def test_a_body_of_other_types_is_a_serialization_exception(body):
    error = refusal("BatchPutMessage", body)

    assert (error.code, error.status) == ("SerializationException", 400)


def test_nulls_and_unknown_members_count_as_missing():
    definition = {"initialStateName": "A", "states": [{"stateName": "A", "onEnter": None, "mood": 1}]}
    parsed = read(
        "CreateDetectorModel", {"detectorModelName": "m", "roleArn": "r", "detectorModelDefinition": definition}
    )

    assert parsed["detectorModelDefinition"] == {"initialStateName": "A", "states": [{"stateName": "A"}]}


def test_labels_queries_and_bodies_meet_in_one_request():
    parsed = read("UpdateInput", {"inputDefinition": {"attributes": [{"jsonPath": "v"}]}}, inputName="In")
    untag = read("UntagResource", query="resourceArn=arn%3Ax&tagKeys=a&tagKeys=b%20c")

    assert parsed == {"inputName": "In", "inputDefinition": {"attributes": [{"jsonPath": "v"}]}}
    assert untag == {"resourceArn": "arn:x", "tagKeys": ["a", "b c"]}


def test_payloads_travel_as_base64():
    payload = base64.b64encode(b'{"v": 1}').decode()
    parsed = read("BatchPutMessage", {"messages": [{"messageId": "1", "inputName": "In", "payload": payload}]})

    assert parsed["messages"][0]["payload"] == b'{"v": 1}'


def test_base64_in_lines_is_read_as_the_shell_prints_it():
    payload = base64.encodebytes(b'{"note": "' + b"x" * 100 + b'"}').decode()
    parsed = read("BatchPutMessage", {"messages": [{"messageId": "1", "inputName": "In", "payload": payload}]})

    assert payload.count("\n") > 1
    assert json.loads(parsed["messages"][0]["payload"])["note"] == "x" * 100


def test_times_are_seconds_with_milliseconds():
    written = OPERATIONS.by_name["ListInputs"].write(
        {"inputSummaries": [{"inputName": "In", "creationTime": 1557519620736}]}
    )

    assert written == b'{"inputSummaries":[{"inputName":"In","creationTime":1557519620.736}]}'


@pytest.mark.parametrize(("code", "status"), [("LimitExceededException", 410), ("ResourceInUseException", 409)])
def test_errors_have_the_status_of_the_service_model(code, status):
    assert STATUS_OF[code] == status


@given(operation=st.sampled_from(sorted(OPERATIONS.by_name)), body=json_values, query=st.text(max_size=20))
def test_whatever_is_sent_is_read_or_refused(operation, body, query):
    found = OPERATIONS.by_name[operation]
    labels = {name.strip("{}"): query for name in found.uri.split("/") if name.startswith("{")}
    try:
        parsed = found.read(labels, query, json.dumps(body).encode())
    except ServiceError as error:
        assert error.status == 400
    else:
        assert isinstance(parsed, dict)
