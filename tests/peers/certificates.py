"""Certificates of the tests' own, made by openssl: a CA, and what it has signed."""

from pathlib import Path
from typing import NamedTuple

from tests.peers.daemon import output


class Certificate(NamedTuple):
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self.certificate, self._key = directory / "ca.crt", directory / "ca.key"
        made = ["-keyout", self._key, "-out", self.certificate, "-subj", "/CN=test authority"]
        output("openssl", "req", "-x509", *_NEW_KEY, "-days", "2", *made)

    def sign(self, name: str, kind: str = "serverAuth") -> Certificate:
        """Return a new certificate for 127.0.0.1 and localhost."""
        key, request, certificate = (self._directory / f"{name}.{end}" for end in ("key", "csr", "cert"))
        output("openssl", "req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions = self._directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage={kind}\n")
        signed_by = ["-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-extfile", extensions]
        output("openssl", "x509", "-req", "-in", request, "-out", certificate, "-days", "2", *signed_by)
        return Certificate(certificate, key)


_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
