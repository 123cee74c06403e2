"""
A private certificate authority for a plant: one for the broker's name, one for each thing's.

Every name has a folder that holds all that its machine needs and nothing else: ``certs/motor-1/`` holds ``ca.crt``,
``motor-1.crt`` and ``motor-1.key``. The authority's own key lies in ``certs/ca/`` and belongs on no machine. Keys are EC
P-256, readable by their owner alone.
"""

import contextlib
import datetime
import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wheeltapper.clock import Clock
from wheeltapper.errors import SettingsError, UnavailableError

CA = "ca"
BROKER = "broker"
CA_DAYS = 3650
LEAF_DAYS = 365
# A machine whose clock is behind, as after a long time on the shelf, must not take a fresh certificate for a future one.
_BACKDATE = datetime.timedelta(days=1)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_\-.]{0,63}")

Key = ec.EllipticCurvePrivateKey
State = Literal["valid", "expiring", "expired", "key missing", "key readable by others", "not issued by this authority"]


class Listed(msgspec.Struct, frozen=True):
    """A certificate at rest; ``state`` is the worst that can be said of it."""

    name: str
    path: Path
    subject: str
    alternative_names: list[str]
    not_after_ms: int
    days_left: int
    state: State


class Authority:
    """
    The authority in a folder.

    Args:
        folder: ``certs/``.
        clock: dates certificates.
        owner: user and group id that files are given to; None leaves them with who runs this.
    """

    def __init__(self, folder: Path, clock: Clock, owner: tuple[int, int] | None = None) -> None:
        self._folder = folder
        self._clock = clock
        self._owner = owner

    @property
    def exists(self) -> bool:
        """Whether there is an authority already."""
        return self._key_path(CA).exists()

    def create(self, *, force: bool = False) -> Path:
        """
        Make the authority.

        Raises:
            SettingsError: there is one; ``force`` replaces it, and every certificate that it issued is worthless then.
        """
        self._refuse_overwrite(CA, force)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign_authority(key)
        return self._write(CA, key, certificate, [certificate])

    def issue(self, name: str, *, names: Sequence[str] = (), days: int = LEAF_DAYS, force: bool = False) -> Path:
        """
        Make a key and a certificate.

        Args:
            name: ``broker``, or a thing; brokers know their clients by it.
            names: DNS names and IP addresses that it is reached by; a thing that has some may serve as well.
            days: until it expires.
            force: replace those there are.

        Returns:
            The folder that goes to the machine.

        Raises:
            SettingsError: no authority, a name that cannot be one, or one that is taken.
        """
        if not _NAME.fullmatch(name) or name == CA:
            raise SettingsError(f"certificate name {name!r}: must be 1 to 64 of A-Z a-z 0-9 : _ - . and not {CA!r}")
        self._refuse_overwrite(name, force)
        ca_key, ca_certificate = self._load_authority()
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name, key, days).issuer_name(ca_certificate.subject)
        usages = [] if name == BROKER else [ExtendedKeyUsageOID.CLIENT_AUTH]
        if name == BROKER or names:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_certificate.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(each) for each in names]), False)
        return self._write(name, key, builder.sign(ca_key, hashes.SHA256()), self._trusted())

    def rotate(self, name: str, *, days: int = LEAF_DAYS) -> Path:
        """
        Replace a key and its certificate by fresh ones with the same names.

        Raises:
            SettingsError: there is none of that name.
        """
        if name == CA:
            raise SettingsError(
                "certificate ca: is rotated with all that it issued; run: wheeltapper certs rotate --authority"
            )
        return self.issue(name, names=_alternative_names(self._load(name)), days=days, force=True)

    def rotate_authority(self, *, days: int = LEAF_DAYS) -> list[str]:
        """
        Make a new authority and issue everything anew; machines trust the old one as well until it expires.

        Returns:
            The names that were issued anew.
        """
        _, old = self._load_authority()
        kept = [certificate for certificate in self._trusted() if certificate.not_valid_after_utc > self._now()]
        names = self.names()
        key = ec.generate_private_key(ec.SECP256R1())
        fresh = self._sign_authority(key)
        self._write(CA, key, fresh, [fresh, *(kept or [old])])
        for name in names:
            self.rotate(name, days=days)
        return names

    def give_away(self) -> None:
        """Give every folder and file to the owner."""
        if self._owner is None or not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.is_dir():
                for each in (path, *path.iterdir()):
                    os.chown(each, *self._owner)

    def names(self) -> list[str]:
        """Everything that was issued, without the authority."""
        if not self._folder.is_dir():
            return []
        return sorted(
            path.name
            for path in self._folder.iterdir()
            if path.name != CA and self._certificate_path(path.name).exists()
        )

    def list(self, warn_days: int = 30) -> Iterator[Listed]:
        """
        Every certificate, the authority's first.

        Raises:
            SettingsError: there is no authority.
        """
        _, authority = self._load_authority()
        for name in (CA, *self.names()):
            certificate = self._load(name)
            end = certificate.not_valid_after_utc
            yield Listed(
                name=name,
                path=self._certificate_path(name),
                subject=certificate.subject.rfc4514_string(),
                alternative_names=_alternative_names(certificate),
                not_after_ms=int(end.timestamp() * 1000),
                days_left=(end - self._now()).days,
                state=self._state(name, certificate, authority, warn_days),
            )

    def _state(self, name: str, certificate: x509.Certificate, authority: x509.Certificate, warn_days: int) -> State:
        left = certificate.not_valid_after_utc - self._now()
        if left <= datetime.timedelta():
            return "expired"
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            return "not issued by this authority"
        key = self._key_path(name)
        if not key.exists():
            return "key missing"
        if key.stat().st_mode & 0o077:
            return "key readable by others"
        return "expiring" if left <= datetime.timedelta(days=warn_days) else "valid"

    def _sign_authority(self, key: Key) -> x509.Certificate:
        subject = _subject("Wheeltapper plant authority")
        builder = self._builder("Wheeltapper plant authority", key, CA_DAYS).issuer_name(subject)
        return (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )

    def _builder(self, common_name: str, key: Key, days: int) -> x509.CertificateBuilder:
        if days < 1:
            raise SettingsError(f"--days {days}: must be at least 1")
        now = self._now()
        return (
            x509.CertificateBuilder()
            .subject_name(_subject(common_name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    def _load_authority(self) -> tuple[Key, x509.Certificate]:
        path = self._key_path(CA)
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except FileNotFoundError as error:
            raise SettingsError(f"{path}: there is no authority; run: wheeltapper certs init") from error
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{path}: is not a private key") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SettingsError(f"{path}: is not an EC key; this authority signs with EC keys only")
        return key, self._load(CA)

    def _load(self, name: str) -> x509.Certificate:
        return _read_certificates(self._certificate_path(name))[0]

    def _trusted(self) -> Sequence[x509.Certificate]:
        return _read_certificates(self._certificate_path(CA))

    def _write(self, name: str, key: Key, certificate: x509.Certificate, trusted: Sequence[x509.Certificate]) -> Path:
        folder = self._folder / name
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        bundle = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in trusted)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._put(folder / f"{CA}.crt", bundle)
            self._put(self._key_path(name), private)
            if name != CA:
                self._put(self._certificate_path(name), certificate.public_bytes(serialization.Encoding.PEM))
            if self._owner is not None:
                os.chown(folder, *self._owner)
        except OSError as error:
            raise UnavailableError(f"{folder}: cannot be written: {error.strerror}") from error
        return folder

    def _put(self, path: Path, content: bytes) -> None:
        """Write a file that only its owner may read, whole or not at all."""
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if self._owner is not None:
            os.chown(fresh, *self._owner)
        fresh.replace(path)

    def _refuse_overwrite(self, name: str, force: bool) -> None:
        if self._key_path(name).exists() and not force:
            raise SettingsError(
                f"{self._folder / name}: is there already; wheeltapper certs rotate renews it, --force replaces it"
            )

    def _certificate_path(self, name: str) -> Path:
        return self._folder / name / f"{name}.crt"

    def _key_path(self, name: str) -> Path:
        return self._folder / name / f"{name}.key"

    def _now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self._clock.time_ms() / 1000, datetime.UTC)


def _read_certificates(path: Path) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}; run: wheeltapper certs init") from error
    except ValueError as error:
        raise SettingsError(f"{path}: holds no certificate") from error


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise SettingsError(f"--name {name!r}: is neither a DNS name nor an IP address") from error


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [str(each.value) for each in extension.value]


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
