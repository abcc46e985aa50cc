"""HTTP connections that can be cut from another thread: Ctrl-C must not wait for a registry that is silent.

Source: urllib3's pool_classes_by_scheme and ConnectionCls, which it documents for this kind of thing.
"""

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import make_headers, parse_url

if TYPE_CHECKING:
    import ssl

AT_MOST = 8


class Connections:
    """The connections of one client."""

    def __init__(self) -> None:
        self._open: WeakSet[HTTPConnection] = WeakSet()
        self._cut = False

    def cut(self) -> None:
        """End every connection, also one that waits for an answer; there will be no others."""
        self._cut = True
        for connection in list(self._open):
            try:
                if connection.sock:
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
            except OSError:
                continue  # it has ended by itself

    def close(self) -> None:
        """Close every connection, now: urllib3 would leave that to the garbage collector."""
        for connection in list(self._open):
            connection.close()

    def pool(self, base: str, *, direct: bool, context: "ssl.SSLContext | None" = None) -> PoolManager:
        """Return a pool for ``base``; unless ``direct``, through the proxy that the environment names for it.

        ``context`` says who is trusted; None: the machine's certificate authorities.
        """
        parts = urlsplit(base)
        proxy = getproxies().get(parts.scheme)
        if direct or not proxy or proxy_bypass(parts.netloc):
            pool = PoolManager(maxsize=AT_MOST, ssl_context=context)
        else:
            login = parse_url(proxy).auth
            headers = make_headers(proxy_basic_auth=login) if login else None
            pool = ProxyManager(proxy, maxsize=AT_MOST, proxy_headers=headers, ssl_context=context)
        pool.pool_classes_by_scheme = self._classes()
        return pool

    def _note(self, connection: HTTPConnection) -> None:
        if self._cut:
            raise ConnectionAbortedError("it was stopped")
        self._open.add(connection)

    def _classes(self) -> dict[str, type[HTTPConnectionPool]]:
        note = self._note

        class Plain(HTTPConnection):
            def connect(self) -> None:
                note(self)
                super().connect()

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                note(self)
                super().connect()

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        return {"http": PlainPool, "https": SecurePool}
