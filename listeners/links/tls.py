"""TLS of connections to other services: which files it needs, and what it means when it fails.

A certificate is always checked: by an authority that is named, or by those that the system trusts.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote

from feeds.errors import BadRequest

log = logging.getLogger("spile.listeners")

Names = tuple[str, str, str]
"""What somebody calls the files of the authority, of the client's certificate and of its key."""

IN_URL: Names = ("ca", "cert", "key")
HINT = (
    "See that a service runs there. Where its certificate is not trusted, name the host as that does, and the "
    "authority that signed it behind the URL: ?ca=FILE; where it asks for a client's: ?cert=FILE&key=FILE."
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of an address; None where there is none."""

    ca: str | None = None
    """The authority that signed the service's certificate; else those that the system trusts."""
    cert: str | None = None
    """Our own certificate, and its key where that does not stand in the same file."""
    key: str | None = None

    @classmethod
    def of_query(cls, query: str) -> TlsFiles:
        """Read `ca=…&cert=…&key=…`; ValueError for anything else."""
        if not query:
            return cls()
        needed = f"behind `?` stand {', '.join(IN_URL)}, each once, with a file"
        try:
            given = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
        except ValueError:  # it repeats what it cannot read, which may be a secret
            raise ValueError(needed) from None
        named = dict(given)
        strange = [name for name in named if name not in IN_URL]
        if strange or len(named) != len(given) or not all(file and file.isprintable() for file in named.values()):
            told = f", not {strange[0]!r:.40}" if strange else ""  # the name alone: its value may be a secret
            raise ValueError(needed + told)
        return cls(**named)

    @property
    def query(self) -> str:
        """As it stands behind a URL, with the `?`; empty where there are none."""
        given = [(name, getattr(self, name)) for name in IN_URL]
        text = "&".join(f"{name}={quote(file, safe='/')}" for name, file in given if file is not None)
        return "?" + text if text else ""

    def context(self) -> ssl.SSLContext:
        """What checks the other side, and shows our certificate; the files are read. BadRequest says what is wrong
        with them."""
        return tls_context(self.ca, self.cert, self.key)

    def read_again(self, context: ssl.SSLContext) -> None:
        """Have connections that this makes from now on use the files as they are by now."""
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (OSError, ssl.SSLError) as fault:
            log.warning("Files for TLS cannot be read again: %s", file_words(fault, self.cert or self.ca))


NO_FILES = TlsFiles()
"""Nothing beside what the system has."""


def tls_context(
    ca: str | Path | None, certificate: str | Path | None, key: str | Path | None, names: Names = IN_URL
) -> ssl.SSLContext:
    """As `TlsFiles.context`, in the words of whoever calls the files otherwise."""
    ca_name, cert_name, key_name = names
    if key is not None and certificate is None:
        raise BadRequest(f"{key_name} is given, and no certificate.", hint=f"Set {cert_name} too.")
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as fault:
        raise BadRequest(
            f"The certificates of authorities in {ca} cannot be used: {file_words(fault, ca)}.",
            hint=f"{ca_name} names a PEM file with the authority that signed the other side's certificate.",
        ) from None
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ssl.SSLError) as fault:
            raise BadRequest(
                f"The client certificate {certificate} cannot be used: {file_words(fault, certificate)}.",
                hint=f"{cert_name} and {key_name} name PEM files that belong together; the key has no password.",
            ) from None
    return context


def tls_words(fault: BaseException | None) -> str | None:
    """What is wrong with TLS, where that is what made a connection fail."""
    while fault is not None:
        if isinstance(fault, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {fault.verify_message}"
        if isinstance(fault, ssl.SSLError):
            return f"it does not agree on TLS: {(fault.reason or str(fault)).replace('_', ' ').lower()}"
        fault = fault.__cause__ or fault.__context__
    return None


def file_words(fault: Exception, path: str | Path | None) -> str:
    """Why a file cannot be used."""
    if isinstance(fault, ssl.SSLError):
        return fault.reason or str(fault)
    return f"{path}: {fault.strerror}" if isinstance(fault, OSError) and fault.strerror else str(fault)


def _no_password() -> str:
    """Asked for where a key is encrypted: an empty answer fails, and nobody is asked on the terminal."""
    return ""
