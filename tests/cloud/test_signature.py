"""Signatures against botocore's own signer."""

import hashlib
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from wheeltapper.clock import ManualClock
from wheeltapper_cloud.signature import SKEW_S, SignedRequest, verify
from wheeltapper_cloud.wire import ServiceError

KEY, SECRET = "WTAKTESTTESTTESTTEST", "secret/of+the=key"
NOW_S = 1_800_000_000

texts = st.text(st.characters(codec="utf-8"), max_size=12)
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=24)
segments = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=8)


def sign(
    request: AWSRequest, *, time_s: int = NOW_S, service: str = "iotevents", expires_s: int | None = None
) -> AWSRequest:
    """Sign a request as botocore does, at a time of our choosing."""
    stamp = datetime.fromtimestamp(time_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    credentials = Credentials(KEY, SECRET)
    signer = (
        SigV4Auth(credentials, service, "eu-west-1")
        if expires_s is None
        else SigV4QueryAuth(credentials, service, "eu-west-1", expires=expires_s)
    )
    request.context["timestamp"] = stamp
    signer._modify_request_before_signing(request)
    if expires_s is None and "X-Amz-Date" in request.headers:
        del request.headers["X-Amz-Date"]
        request.headers["X-Amz-Date"] = stamp
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    signer._inject_signature_to_request(request, signature)
    return request


def received(request: AWSRequest, *, body: bytes | None = None) -> SignedRequest:
    """What a server sees of it."""
    parts = urlsplit(request.url)
    headers = [(name.lower().encode(), str(value).encode("latin-1")) for name, value in request.headers.items()]
    if "host" not in {name for name, _ in headers}:
        headers.append((b"host", parts.netloc.encode()))
    prepared = request.prepare()
    sent = prepared.body if isinstance(prepared.body, bytes) else (prepared.body or "").encode()
    return SignedRequest(request.method, parts.path, parts.query, headers, sent if body is None else body)


def secret_of(key: str) -> bytes | None:
    return SECRET.encode() if key == KEY else None


def check(request: SignedRequest, *, service: str = "iotevents", now_s: int = NOW_S) -> str:
    return verify(request, service, secret_of, ManualClock(now_s * 1000))


def refusal(request: SignedRequest, *, service: str = "iotevents", now_s: int = NOW_S) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        check(request, service=service, now_s=now_s)
    return caught.value


def post(body: bytes = b'{"a": 1}', url: str = "http://127.0.0.1:8600/inputs") -> AWSRequest:
    return AWSRequest("POST", url, {"Content-Type": "application/json"}, body)


@given(
    path=st.lists(segments, max_size=4),
    query=st.lists(st.tuples(texts.filter(bool), texts), max_size=4),
    header=header_values,
    body=st.binary(max_size=64),
    slash=st.booleans(),
)
def test_what_botocore_signs_is_accepted(path, query, header, body, slash):
    from botocore.utils import percent_encode

    url = "http://127.0.0.1:8600/" + "/".join(percent_encode(segment) for segment in path) + ("/" if slash else "")
    encoded = "&".join(f"{percent_encode(name)}={percent_encode(value)}" for name, value in query)
    request = AWSRequest("POST", f"{url}?{encoded}" if encoded else url, {"X-Note": header}, body)

    assert check(received(sign(request))) == KEY


@given(body=st.binary(min_size=1, max_size=64), query=st.dictionaries(st.sampled_from("abc"), texts, max_size=2))
def test_what_botocore_presigns_is_accepted(body, query):
    request = AWSRequest("GET", "http://127.0.0.1:8600/detectors/m/keyValues/", params=query)

    assert check(received(sign(request, expires_s=60))) == KEY


@given(place=st.integers(0, 7), bit=st.integers(0, 7))
def test_a_body_changed_by_one_bit_is_refused(place, bit):
    request = received(sign(post()))
    changed = bytearray(request.body)
    changed[place] ^= 1 << bit

    error = refusal(SignedRequest(request.method, request.path, request.query, request.headers, bytes(changed)))

    assert (error.code, error.status) == ("InvalidSignatureException", 403)
    assert error.message.startswith("The request signature we calculated does not match")


@pytest.mark.parametrize("member", ["method", "path", "query", "header"])
def test_whatever_else_is_changed_on_the_way_is_noticed(member):
    request = received(sign(post()))
    parts = {"method": request.method, "path": request.path, "query": request.query, "headers": list(request.headers)}
    if member == "header":
        parts["headers"] = [
            (name, b"text/plain" if name == b"content-type" else value) for name, value in request.headers
        ]
    else:
        parts[member] = {"method": "PUT", "path": "/tags", "query": "x=1"}[member]

    error = refusal(SignedRequest(*parts.values(), request.body))

    assert error.code == "InvalidSignatureException"


def test_order_and_encoding_of_the_query_do_not_matter():
    url = "http://127.0.0.1:8600/tags?tagKeys=b&resourceArn=arn%3Aaws%3A~x&tagKeys=a"
    request = received(sign(AWSRequest("DELETE", url)))
    other = "tagKeys=b&tagKeys=%61&resourceArn=arn%3aaws%3A%7Ex"

    assert check(SignedRequest(request.method, request.path, other, request.headers, b"")) == KEY


def test_repeated_headers_and_spaces_in_them_are_signed_as_one():
    request = AWSRequest("GET", "http://127.0.0.1:8600/inputs", {"X-Note": "a   b,c"})
    signed = received(sign(request))
    headers = [pair for pair in signed.headers if pair[0] != b"x-note"]
    headers += [(b"x-note", b"  a  b "), (b"x-note", b"c")]

    assert check(SignedRequest("GET", signed.path, signed.query, headers, b"")) == KEY


@pytest.mark.parametrize("late_s", [-SKEW_S, 0, SKEW_S])
def test_a_clock_may_be_wrong_by_five_minutes(late_s):
    assert SKEW_S == 300
    assert check(received(sign(post())), now_s=NOW_S + late_s) == KEY


def test_a_request_replayed_after_five_minutes_has_expired():
    error = refusal(received(sign(post())), now_s=NOW_S + SKEW_S + 1)

    assert (error.code, error.status) == ("InvalidSignatureException", 403)
    assert error.message == (
        "Signature expired: 20270115T080000Z is now earlier than 20270115T080001Z (20270115T080501Z - 5 min.)"
    )


def test_a_request_from_the_future_is_not_yet_current():
    error = refusal(received(sign(post())), now_s=NOW_S - SKEW_S - 1)

    assert error.message == (
        "Signature not yet current: 20270115T080000Z is still later than 20270115T075959Z (20270115T075459Z + 5 min.)"
    )


def test_a_presigned_request_expires_when_it_says():
    request = received(sign(AWSRequest("GET", "http://127.0.0.1:8600/inputs"), expires_s=60))

    assert check(request, now_s=NOW_S + 60) == KEY
    assert refusal(request, now_s=NOW_S + 61).message.startswith("Signature expired")


def test_an_unknown_key_is_an_unrecognized_client():
    request = received(sign(post()))
    with pytest.raises(ServiceError) as caught:
        verify(request, "iotevents", lambda key: None, ManualClock(NOW_S * 1000))

    assert (caught.value.code, caught.value.status) == ("UnrecognizedClientException", 403)


def test_a_signature_for_another_service_is_refused():
    error = refusal(received(sign(post(), service="sqs")))

    assert error.message == "Credential should be scoped to correct service: 'iotevents'."


def test_no_signature_at_all_is_a_missing_token():
    error = refusal(SignedRequest("GET", "/inputs", "", [(b"host", b"127.0.0.1")], b""))

    assert (error.code, error.status) == ("MissingAuthenticationTokenException", 403)


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=K/20270115/r/iotevents/aws4_request, SignedHeaders=host",
        "AWS4-HMAC-SHA256 Credential=K/iotevents/aws4_request, SignedHeaders=host, Signature=00",
        "Basic dXNlcjpwYXNz",
        "AWS4-HMAC-SHA256 ,,,===,",
    ],
)
def test_a_malformed_authorization_is_incomplete(authorization):
    headers = [(b"host", b"x"), (b"authorization", authorization.encode()), (b"x-amz-date", b"20270115T080000Z")]
    error = refusal(SignedRequest("GET", "/inputs", "", headers, b""))

    assert (error.code, error.status) == ("IncompleteSignatureException", 400)


@pytest.mark.parametrize("date", ["", "yesterday", "20270145T080000Z", "20270115T080000", "²0270115T080000Z"])
def test_a_date_that_is_none_is_incomplete(date):
    signed = received(sign(post()))
    headers = [(n, date.encode("latin-1", "replace") if n == b"x-amz-date" else v) for n, v in signed.headers]
    error = refusal(SignedRequest("POST", signed.path, "", headers, signed.body))

    assert error.code in ("IncompleteSignatureException", "InvalidSignatureException")


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-amz-date", b"host"]), st.binary(max_size=80))), texts)
def test_no_header_whatever_breaks_the_verifier(headers, query):
    request = SignedRequest("GET", "/", f"X-Amz-Signature={query}", headers, b"")

    assert refusal(request).code.endswith("Exception")


def test_the_body_that_arrived_is_hashed_not_the_hash_that_was_claimed():
    claimed = hashlib.sha256(b"good").hexdigest()
    request = post(b"good")
    request.headers["X-Amz-Content-SHA256"] = claimed
    signed = received(sign(request))

    assert refusal(SignedRequest("POST", signed.path, "", signed.headers, b"evil")).code == "InvalidSignatureException"


def test_a_date_header_says_when_where_there_is_no_other():
    request = post()
    request.headers["Date"] = "now"  # botocore then signs the Date header and sends no X-Amz-Date
    signed = received(sign(request))

    assert b"x-amz-date" not in dict(signed.headers)
    assert dict(signed.headers)[b"date"] == b"Fri, 15 Jan 2027 08:00:00 -0000"
    assert check(signed) == KEY
    assert refusal(signed, now_s=NOW_S + SKEW_S + 1).message.startswith("Signature expired")


def test_a_session_token_is_refused_for_our_keys_have_none():
    request = post()
    request.headers["X-Amz-Security-Token"] = "IQoJb3JpZ2lu"
    query = AWSRequest("GET", "http://127.0.0.1:8600/inputs", params={"X-Amz-Security-Token": "IQoJb3JpZ2lu"})

    for signed in (received(sign(request)), received(sign(query, expires_s=60))):
        error = refusal(signed)
        assert (error.code, error.status) == ("UnrecognizedClientException", 403)
        assert error.message == "The security token included in the request is invalid."


@pytest.mark.parametrize("claimed", ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"])
def test_a_payload_that_is_not_signed_is_refused(claimed, monkeypatch):
    request = post()
    request.headers["X-Amz-Content-SHA256"] = claimed
    monkeypatch.setattr(SigV4Auth, "payload", lambda self, request: claimed)

    assert refusal(received(sign(request))).code == "InvalidSignatureException"


def test_a_header_that_changes_what_is_done_must_be_signed():
    signed = received(sign(post()))
    headers = [*signed.headers, (b"x-wheeltapper-migrate", b"true")]

    error = refusal(SignedRequest(signed.method, signed.path, signed.query, headers, signed.body))

    assert error.message == "'x-wheeltapper-migrate' must be a 'SignedHeader' in the AWS Authorization."


def test_the_scope_names_the_whole_day():
    signed = received(sign(post()))
    headers = [(name, value.replace(b"/20270115/", b"/202701/")) for name, value in signed.headers]

    error = refusal(SignedRequest(signed.method, signed.path, signed.query, headers, signed.body))

    assert error.message.startswith("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date")


@given(query=st.lists(st.sampled_from(["a", "a=", "a=1", "b=%20", "b=+", "c=%2F", "~=-_."]), min_size=1, max_size=5))
def test_parameters_without_a_value_and_repeated_ones_are_signed_as_botocore_signs_them(query):
    request = AWSRequest("GET", "http://127.0.0.1:8600/inputs?" + "&".join(query).replace("+", "%2B"))

    assert check(received(sign(request))) == KEY
