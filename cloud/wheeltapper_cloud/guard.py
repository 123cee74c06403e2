"""
Who may ask: whoever holds an access key; on loopback, until the first key is made, every program of this machine.

A browser is not a program of this machine: pages from anywhere could make it call loopback. So without keys whatever comes
from a web page (it has an Origin) or was looked up under a foreign name (DNS rebinding) is refused.
"""

import ipaddress
from functools import lru_cache

from wheeltapper.clock import Clock
from wheeltapper.errors import SettingsError
from wheeltapper_cloud.keys import KeyStore
from wheeltapper_cloud.signature import SignedRequest, verify
from wheeltapper_cloud.wire import ServiceError


class Guard:
    """Admits requests to one address."""

    def __init__(self, host: str, keys: KeyStore, clock: Clock) -> None:
        """
        Raises:
            SettingsError: the address is not loopback and there are no access keys.
        """
        self._loopback = is_loopback(host)
        self._keys = keys
        self._clock = clock
        if not self._loopback and not keys.all():
            raise SettingsError(
                f"{host}: not a loopback address, and there are no access keys; make one: "
                f"wheeltapper cloud keys create --data-dir {keys.folder}"
            )

    def admit(self, request: SignedRequest, service: str) -> str:
        """
        Whose key signed the request; empty where none has to.

        Raises:
            ServiceError: with AWS's code for what is wrong with the signature.
        """
        if not self._loopback or self._keys.required():
            return self._keys.name(verify(request, service, self._keys.secret, self._clock))
        for name, value in request.headers:
            if name == b"origin" or (name == b"host" and not is_loopback(_host_of(value.decode("latin-1")))):
                raise ServiceError(
                    "AccessDeniedException", "without access keys only programs on this machine may call"
                )
        return ""


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")


def _host_of(authority: str) -> str:
    """
    >>> _host_of("[::1]:8600"), _host_of("localhost:8600"), _host_of("127.0.0.1")
    ('::1', 'localhost', '127.0.0.1')
    """
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]
