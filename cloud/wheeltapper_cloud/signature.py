"""
AWS Signature Version 4, verified: in the Authorization header or in the query of a presigned URL.

What is signed is what is checked: method, path (encoded twice, as every service but S3 wants it), query, signed headers and
the SHA-256 of the body that arrived. A request is accepted from 5 minutes before to 5 minutes after its time, a presigned
one until it expires; within that time the same request may come again, as clients that retry do. Any region may be signed
for, since there is one server and no other that a signature could be carried to.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NoReturn
from urllib.parse import quote, unquote

import msgspec

from wheeltapper.clock import Clock
from wheeltapper_cloud.wire import ServiceError

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_S = 5 * 60
LONGEST_EXPIRY_S = 7 * 24 * 3600
# Our own headers begin so; they change what is done, so nobody on the way may add one.
_OURS = "x-wheeltapper-"

Headers = Sequence[tuple[bytes, bytes]]
SecretOf = Callable[[str], bytes | None]

_UNKNOWN = "The security token included in the request is invalid."
_STATUS = {
    "MissingAuthenticationTokenException": 403,
    "IncompleteSignatureException": 400,
    "InvalidSignatureException": 403,
    "UnrecognizedClientException": 403,
}


class SignedRequest(msgspec.Struct, frozen=True):
    """
    A request as it came over the wire.

    Attributes:
        path: percent-encoded, without the query.
        query: percent-encoded, without the question mark.
        headers: names in lower case, in the order received.
    """

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes


class _Claim(msgspec.Struct, frozen=True):
    """What the sender says of the signature."""

    access_key: str
    date: str
    region: str
    service: str
    signed_headers: list[str]
    signature: str
    time: str
    expires_s: int | None


def verify(request: SignedRequest, service: str, secret_of: SecretOf, clock: Clock) -> str:
    """
    The access key that signed the request.

    Args:
        request: as received; nothing may have rewritten it on the way.
        service: the signing name the request's operation belongs to.
        secret_of: access key → its secret; None where the key is unknown or revoked.
        clock: now.

    Raises:
        ServiceError: with AWS's code for what is missing, malformed, unknown, expired or wrong.
    """
    claim = _claim_of(request)
    _check_headers(request, claim)
    secret = secret_of(claim.access_key)
    if secret is None:
        _refuse("UnrecognizedClientException", _UNKNOWN)
    if claim.service != service:
        _refuse("InvalidSignatureException", f"Credential should be scoped to correct service: '{service}'.")
    _check_time(claim, clock)
    scope = f"{claim.date}/{claim.region}/{claim.service}/aws4_request"
    digest = hashlib.sha256(canonical_request(request, claim.signed_headers).encode()).hexdigest()
    text = f"{ALGORITHM}\n{claim.time}\n{scope}\n{digest}"
    key = _signing_key(secret, claim.date, claim.region, claim.service)
    expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), claim.signature.encode()):
        _refuse(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
            "Key and signing method. Consult the service documentation for details.",
        )
    return claim.access_key


def canonical_request(request: SignedRequest, signed_headers: Sequence[str]) -> str:
    """The text whose digest is signed."""
    values: dict[str, list[str]] = {}
    for name, value in request.headers:
        values.setdefault(name.decode("latin-1"), []).append(" ".join(value.decode("latin-1").split()))
    lines = [f"{name}:{','.join(values.get(name, []))}\n" for name in signed_headers]
    return "\n".join(
        (
            request.method,
            quote(_normal_path(request.path), safe="/~"),
            _canonical_query(request.query),
            "".join(lines),
            ";".join(signed_headers),
            hashlib.sha256(request.body).hexdigest(),
        )
    )


def _normal_path(path: str) -> str:
    """The path without empty and dot segments (RFC 3986 §5.2.4); a slash at the end stays."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    end = "/" if kept and path.endswith("/") else ""
    return f"/{'/'.join(kept)}{end}"


def _canonical_query(query: str) -> str:
    """Every pair but the signature itself, encoded one way and sorted by name, then value."""
    pairs = []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name and name != "X-Amz-Signature":
            pairs.append((_encoded(name), _encoded(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encoded(text: str) -> str:
    return quote(unquote(text, errors="surrogateescape"), safe="-_.~", errors="surrogateescape")


def _claim_of(request: SignedRequest) -> _Claim:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
    query = {unquote(name): unquote(value) for name, _, value in (p.partition("=") for p in request.query.split("&"))}
    if "x-amz-security-token" in headers or "X-Amz-Security-Token" in query:
        _refuse("UnrecognizedClientException", _UNKNOWN)  # only temporary credentials have one, and we make none
    authorization = headers.get("authorization")
    if authorization is not None:
        return _claim_of_header(authorization, headers)
    if "X-Amz-Algorithm" in query or "X-Amz-Signature" in query:
        return _claim_of_query(query)
    return _refuse("MissingAuthenticationTokenException", "Missing Authentication Token")


def _claim_of_header(authorization: str, headers: dict[str, str]) -> _Claim:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        _incomplete(f"Unsupported AWS 'algorithm': '{algorithm[:64]}'.")
    parts = {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in rest.split(","))}
    missing = [
        f"Authorization header requires '{name}' parameter."
        for name in ("Credential", "Signature", "SignedHeaders")
        if not parts.get(name)
    ]
    time = headers.get("x-amz-date") or _stamp_of(headers.get("date", ""))
    if not time:
        missing.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if missing:
        _incomplete(f"{' '.join(missing)} Authorization={algorithm}")
    return _claim(parts["Credential"], parts["SignedHeaders"], parts["Signature"], time, None)


def _claim_of_query(query: dict[str, str]) -> _Claim:
    if query.get("X-Amz-Algorithm") != ALGORITHM:
        _incomplete("AWS query-string parameters must include 'X-Amz-Algorithm' of AWS4-HMAC-SHA256.")
    names = ("X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature")
    missing = [f"AWS query-string parameters must include '{name}'." for name in names if not query.get(name)]
    if missing:
        _incomplete(" ".join(missing))
    expires = query["X-Amz-Expires"]
    if not re.fullmatch("[0-9]{1,7}", expires) or not 0 < int(expires) <= LONGEST_EXPIRY_S:
        _incomplete(f"X-Amz-Expires must be 1 to {LONGEST_EXPIRY_S} seconds.")
    return _claim(
        query["X-Amz-Credential"],
        query["X-Amz-SignedHeaders"],
        query["X-Amz-Signature"],
        query["X-Amz-Date"],
        int(expires),
    )


def _claim(credential: str, signed: str, signature: str, time: str, expires_s: int | None) -> _Claim:
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or parts[4] != "aws4_request" or not all(parts):
        _incomplete(
            "Credential must have 5 slash-delimited elements, e.g. KEY/DATE/REGION/SERVICE/aws4_request, "
            f"got '{credential[:256]}'."
        )
    signed_headers = signed.lower().split(";")
    if "host" not in signed_headers:
        _refuse("InvalidSignatureException", "'Host' must be a 'SignedHeader' in the AWS Authorization.")
    if expires_s is None and "x-amz-date" not in signed_headers and "date" not in signed_headers:
        _refuse("InvalidSignatureException", "'X-Amz-Date' must be a 'SignedHeader' in the AWS Authorization.")
    access_key, date, region, service, _ = parts
    return _Claim(access_key, date, region, service, signed_headers, signature, time, expires_s)


def _check_headers(request: SignedRequest, claim: _Claim) -> None:
    for name in (name.decode("latin-1") for name, _ in request.headers):
        if name.startswith(_OURS) and name not in claim.signed_headers:
            _refuse("InvalidSignatureException", f"'{name[:64]}' must be a 'SignedHeader' in the AWS Authorization.")


def _stamp_of(date: str) -> str:
    """The Date header's time, which HTTP writes its own way, as a signature writes it; others are given back as they are."""
    try:
        moment = parsedate_to_datetime(date)
        return _stamp(int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        return date


def _check_time(claim: _Claim, clock: Clock) -> None:
    signed = _seconds(claim.time)
    now = clock.time_ms() // 1000
    if claim.time[:8] != claim.date:
        _refuse(
            "InvalidSignatureException",
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{claim.date}' != '{claim.time[:8]}', from '{claim.time}'.",
        )
    if signed > now + SKEW_S:
        _refuse(
            "InvalidSignatureException",
            f"Signature not yet current: {claim.time} is still later than {_stamp(now + SKEW_S)} ({_stamp(now)} + 5 min.)",
        )
    if claim.expires_s is not None and signed + claim.expires_s < now:
        _refuse(
            "InvalidSignatureException",
            f"Signature expired: {_stamp(signed + claim.expires_s)} is now earlier than {_stamp(now)}",
        )
    if claim.expires_s is None and signed < now - SKEW_S:
        _refuse(
            "InvalidSignatureException",
            f"Signature expired: {claim.time} is now earlier than {_stamp(now - SKEW_S)} ({_stamp(now)} - 5 min.)",
        )


def _seconds(stamp: str) -> int:
    if re.fullmatch("[0-9]{8}T[0-9]{6}Z", stamp, re.ASCII):
        try:
            return int(datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp())
        except ValueError:
            pass
    return _incomplete(
        f"Date must be in ISO-8601 'basic format'. Got '{stamp[:64]}'. See http://en.wikipedia.org/wiki/ISO_8601"
    )


def _stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


@lru_cache(maxsize=1024)
def _signing_key(secret: bytes, date: str, region: str, service: str) -> bytes:
    key = b"AWS4" + secret
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _incomplete(message: str) -> NoReturn:
    _refuse("IncompleteSignatureException", message)


def _refuse(code: str, message: str) -> NoReturn:
    raise ServiceError(code, message, status=_STATUS[code])
