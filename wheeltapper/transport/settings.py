"""How to reach a broker, and the transport that does it."""

from collections.abc import Collection
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from wheeltapper.errors import SettingsError
from wheeltapper.secret_files import check_private, read_secret
from wheeltapper.transport import Transport

Client = Literal["", "paho", "awscrt", "bulk"]

_SHOWN: Final = 3


class BrokerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    A broker's address and the credentials for it.

    ``url`` is ``mqtt://host[:1883]``, or ``mqtts://host[:8883]`` with ``ca`` and, where the broker asks for it, a client
    ``certificate`` and ``key``. ``client`` is ``paho`` (MQTT 3.1.1), ``awscrt`` (the AWS client, MQTT 5) or ``bulk`` (MQTT
    3.1.1, for those who hear much); where it is empty, the program chooses. The password is read from a file so that it
    never stands in settings or on a command line.
    """

    url: str = "mqtt://127.0.0.1:1883"
    client_id: str = ""
    client: Client = ""
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    username: str = ""
    password_file: Path | None = None
    keep_alive_s: int = 30
    session_expiry_s: int = 7 * 24 * 3600

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "mqtts"

    def host_and_port(self) -> tuple[str, int]:
        """
        The address.

        Raises:
            SettingsError: the URL is not of the described form.

        >>> BrokerSettings(url="mqtts://plant.example").host_and_port()
        ('plant.example', 8883)
        """
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise SettingsError(f"broker {self.url!r}: {error}") from error
        if parts.username is not None or parts.password is not None:
            raise SettingsError(
                f"broker {host}: no credentials in the address; give username and password_file in settings"
            )
        if parts.scheme not in ("mqtt", "mqtts") or not host or parts.path not in ("", "/"):
            raise SettingsError(f"broker {self.url!r}: must be mqtt://host:port or mqtts://host:port")
        return host, port or (8883 if self.tls else 1883)

    def password(self) -> str | None:
        """
        The password, None where there is none.

        Raises:
            SettingsError: the file cannot be read, or others may read it, too.
        """
        return None if self.password_file is None else read_secret(self.password_file, "broker password_file")

    def check_files(self) -> None:
        """
        See that every credential named can be read, and the secret ones by nobody else.

        Raises:
            SettingsError: names the first of which this is not so.
        """
        self.password()
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("broker: certificate and key go together; give both or neither")
        for name in ("ca", "certificate", "key"):
            path: Path | None = getattr(self, name)
            if path is None:
                continue
            try:
                path.open("rb").close()
            except OSError as error:
                raise SettingsError(f"broker {name} {path}: {error.strerror}; run: wheeltapper certs init") from error
        if self.key is not None:
            check_private(self.key, "broker key")


def refused_subscriptions(address: tuple[str, int], filters: Collection[str]) -> str:
    """
    What is to be said of subscriptions that a broker has refused; empty where there are none.

    >>> refused_subscriptions(("plant", 1883), {"b", "a"})
    'broker plant:1883: refused to subscribe to a, b; see its access rules'
    """
    names = sorted(filters)
    if not names:
        return ""
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return "broker {}:{}: refused to subscribe to {}; see its access rules".format(*address, shown)


def open_transport(settings: BrokerSettings, client_id: str = "", client: Client = "paho") -> Transport:
    """A transport to the broker, not yet started; ``client_id`` and ``client`` serve where the settings name none."""
    match settings.client or client:
        case "awscrt":
            from wheeltapper.transport.aws import AwsTransport

            return AwsTransport(settings, client_id)
        case "bulk":
            from wheeltapper.transport.bulk import BulkTransport

            return BulkTransport(settings, client_id)
    from wheeltapper.transport.mqtt import MqttTransport

    return MqttTransport(settings, client_id)
