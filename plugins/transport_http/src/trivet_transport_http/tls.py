"""TLS for the HTTP listener, with messages that name the file at fault."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from trivet.errors import InvalidArgumentError
from trivet.options import Settings


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of a listener. With ``client_ca``, clients must show a certificate (mutual TLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None

    @classmethod
    def of(cls, settings: Settings) -> TlsFiles | None:
        """``None`` without ``--http-use-ssl``. :class:`InvalidArgumentError` for options that do not go together."""
        names = ("http-ssl-certificate", "http-ssl-key", "http-ssl-client-ca")
        certificate, key, client_ca = (settings[name.replace("-", "_")] for name in names)
        if not settings["http_use_ssl"]:
            for name, value in zip(names, (certificate, key, client_ca), strict=True):
                if value is not None:
                    raise InvalidArgumentError(f"--{name} is given without --http-use-ssl: HTTP would not be encrypted")
            return None
        for name, value in zip(names[:2], (certificate, key), strict=True):
            if value is None:
                raise InvalidArgumentError(f"--http-use-ssl needs --{name}, a PEM file")
        return cls(Path(certificate), Path(key), None if client_ca is None else Path(client_ca))

    def context(self, protocols: list[str]) -> ssl.SSLContext:
        """A server's context that offers ``protocols`` by ALPN. :class:`InvalidArgumentError` names a file at fault."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(protocols)
        certificate = self._read("http-ssl-certificate", self.certificate)
        key = self._read("http-ssl-key", self.key)
        if "-----BEGIN CERTIFICATE-----" not in certificate:
            raise InvalidArgumentError(f"--http-ssl-certificate: {self.certificate} holds no PEM certificate")
        if "PRIVATE KEY-----" not in key:
            raise InvalidArgumentError(f"--http-ssl-key: {self.key} holds no PEM private key")
        if "ENCRYPTED" in key:
            raise InvalidArgumentError(
                f"--http-ssl-key: {self.key} is encrypted; decrypt it (openssl pkey -in {self.key}) into a file that "
                "only the server can read"
            )
        try:
            context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            raise InvalidArgumentError(
                f"cannot use the certificate {self.certificate} with the key {self.key}: {error.reason or error}"
            ) from error
        if self.client_ca is not None:
            self._read("http-ssl-client-ca", self.client_ca)
            try:
                context.load_verify_locations(self.client_ca)
            except ssl.SSLError as error:
                raise InvalidArgumentError(
                    f"--http-ssl-client-ca: {self.client_ca} holds no usable PEM certificate: {error.reason or error}"
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @staticmethod
    def _read(option: str, path: Path) -> str:
        try:
            return path.read_text("ascii", "replace")
        except OSError as error:
            raise InvalidArgumentError(f"--{option}: cannot read {path}: {error.strerror}") from error
