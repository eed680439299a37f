"""The broker's addresses, as an operator writes them, and what TLS needs."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import pika

from ..domain.errors import SettingsError

_BETWEEN = re.compile(r"\s*,\s*(?=amqps?://)", re.IGNORECASE)
"""A comma elsewhere belongs to the address: to its password, say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Paths of PEM files, empty where there is none. `ca` takes the place of the system's authorities; without `key` the
    private key is in `certificate`, too."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    key_password: str = field(default="", repr=False)

    @property
    def is_set(self) -> bool:
        return bool(self.ca or self.certificate or self.key)

    def context(self) -> ssl.SSLContext:
        """One that checks the broker's certificate and name. Raises `SettingsError`."""
        if self.key and not self.certificate:
            raise SettingsError("AMQP_TLS_KEY is set without AMQP_TLS_CERT; set both, or none")
        for name, file in (("CA", self.ca), ("CERT", self.certificate), ("KEY", self.key)):
            try:
                if (path := _path(file)) is not None:
                    path.read_bytes()
            except OSError as error:
                raise SettingsError(f"AMQP_TLS_{name} cannot be read: {file}: {error.strerror}") from None
        try:
            context = ssl.create_default_context(cafile=_path(self.ca))
        except ssl.SSLError:
            raise SettingsError(f"AMQP_TLS_CA holds no certificate in PEM form: {self.ca}") from None
        if self.certificate:
            try:
                # A function, or OpenSSL would ask at the terminal.
                context.load_cert_chain(Path(self.certificate).expanduser(), _path(self.key), lambda: self.key_password)
            except ssl.SSLError:
                raise SettingsError(
                    f"AMQP_TLS_CERT and AMQP_TLS_KEY cannot be used: {self.certificate}: a certificate and its private key"
                    " in PEM form are allowed; where the key is encrypted, set AMQP_TLS_KEY_PASSWORD"
                ) from None
        return context


def parse_addresses(url: str, heartbeat: int, tls: Tls) -> list[pika.URLParameters]:
    """One address, or several with commas between them.

    Raises ValueError with a sentence that shows nothing of the URL, as a part of it may be the password; SettingsError
    for files of `tls`.
    """
    addresses = [_parse(part, heartbeat) for part in _BETWEEN.split(url.strip())]
    for address in addresses:
        if address.ssl_options is not None:
            address.ssl_options = pika.SSLOptions(tls.context())
        elif tls.is_set:
            raise ValueError("AMQP_TLS_… is set, and this address is without TLS: amqps://… is allowed")
    return addresses


def place(address: pika.URLParameters) -> str:
    """Host and port, for people."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _parse(url: str, heartbeat: int) -> pika.URLParameters:
    try:
        parts = urlsplit(url)
        if (problem := _problem(parts)) is None:
            parameters = pika.URLParameters(url)
            if parameters.heartbeat is None:
                parameters.heartbeat = heartbeat
            return parameters
    except (ValueError, TypeError, SyntaxError, OSError):
        problem = _FORM  # their texts quote the URL
    raise ValueError(f"the broker's URL cannot be used: {problem}")


_FORM = "it is not of the form amqp://user:password@host:port/vhost"


def _problem(parts: SplitResult) -> str | None:
    if parts.scheme not in {"amqp", "amqps"}:
        return "it has to begin with amqp:// or amqps://"
    if "," in (parts.hostname or "") or re.search(",.*/", parts.path):
        return "several addresses are each written in full: amqp://…,amqp://…"
    if "@" in parts.path + parts.query or parts.fragment or parts.path.count("/") > 1:
        return "special characters of user, password and vhost have to be percent-encoded (/ is %2F)"
    if "ssl_options" in parts.query:
        return "ssl_options is not taken; set AMQP_TLS_CA, AMQP_TLS_CERT and AMQP_TLS_KEY"
    if not parts.hostname or (parts.username is None) != (parts.password is None):
        return _FORM
    return None


def _path(file: str) -> Path | None:
    return Path(file).expanduser() if file else None
