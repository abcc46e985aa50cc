"""The server that gives out tokens for a docker-registry: it knows one user, signs with openssl, and counts.

Source: distribution's docs/spec/auth/jwt.md, token.md and oauth.md
"""

import base64
import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.peers.certificates import Certificate
from tests.peers.daemon import output

USER, PASSWORD, IDENTITY = "someone", "pässword", "an-identity-token"


class TokenServer:
    """A token server on loopback, until closed. Anybody may pull from ``open/…``; the user may do everything."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.signer = Certificate(directory / "signer.crt", directory / "signer.key")
        output(
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=signer",
            "-keyout", self.signer.key, "-out", self.signer.certificate,
        )  # fmt: skip
        self.lifetime_s = 300
        self.said_lifetime_s: int | None = None
        self.asked: list[dict[str, list[str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "")
                right = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                outer.answer(self, parse_qs(urlsplit(self.path).query), given, right)

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                outer.answer(self, form, form["refresh_token"][0], IDENTITY)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def answer(self, to: BaseHTTPRequestHandler, query: dict[str, list[str]], given: str, right: str) -> None:
        self.asked.append(query)
        if given not in ("", right):
            status, body = 401, b'{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}'
        else:
            scopes = [scope for one in query.get("scope", []) for scope in one.split()]
            access = [_access(scope, known=given == right) for scope in scopes]
            token = self._signed([one for one in access if one["actions"]])
            said = {"token": token} | ({"expires_in": self.said_lifetime_s} if self.said_lifetime_s else {})
            status, body = 200, json.dumps(said).encode()
        to.send_response(status)
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body)

    def _signed(self, access: list[dict[str, Any]]) -> str:
        der = subprocess.run(
            ["openssl", "x509", "-in", self.signer.certificate, "-outform", "der"], capture_output=True, check=True
        ).stdout
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": "test issuer", "sub": USER, "aud": "test registry", "jti": os.urandom(8).hex(),
            "iat": now, "nbf": now - 5, "exp": now + self.lifetime_s, "access": access,
        }  # fmt: skip
        body = f"{_packed(json.dumps(header).encode())}.{_packed(json.dumps(claims).encode())}"
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.signer.key],
            input=body.encode(), capture_output=True, check=True,
        ).stdout  # fmt: skip
        return f"{body}.{_packed(signed)}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _access(scope: str, *, known: bool) -> dict[str, Any]:
    kind, name, actions = scope.split(":")
    allowed = actions.split(",") if known else [one for one in actions.split(",") if one == "pull"]
    return {"type": kind, "name": name, "actions": allowed if known or name.startswith("open/") else []}


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
