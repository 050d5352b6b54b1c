"""The HTTP server of the page: uvicorn on a socket of our own, with limits for connections that send nothing."""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import socket
from typing import TYPE_CHECKING, Optional, Tuple

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gender_smile.pages.web_app import LOCAL_HOSTS, Limits, application

if TYPE_CHECKING:
    from gender_smile.inference.pipeline import Pipeline

CONNECTIONS = 100  # at a time
HEADERS_SECONDS = 10.0  # for a request's headers to arrive
GRACE = 2  # seconds that Ctrl-C gives to answers in progress


class PageProtocol(H11Protocol):
    """uvicorn's protocol, which closes connections whose headers do not arrive and those beyond an address's share."""

    per_address: Optional[int] = CONNECTIONS // 4  # connections of one address at a time
    headers_timer: Optional[asyncio.TimerHandle] = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        clients = [getattr(other, "client", None) for other in self.connections]
        of_address = [client for client in clients if client and self.client and client[0] == self.client[0]]
        if self.per_address is not None and len(of_address) > self.per_address:
            self.connections.discard(self)  # else it counts until the event loop's next round, and others get 503
            transport.close()
        else:
            self._expect_headers(True)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_headers(self.cycle is None or self.cycle.response_complete)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._expect_headers(False)
        super().connection_lost(exc)

    def _expect_headers(self, expected: bool) -> None:
        if expected and self.headers_timer is None:
            self.headers_timer = self.loop.call_later(HEADERS_SECONDS, self.transport.close)
        elif not expected and self.headers_timer is not None:
            self.headers_timer.cancel()
            self.headers_timer = None


class ProxiedProtocol(PageProtocol):
    """Behind a proxy, all connections come from its address."""

    per_address = None


def make_server(pipeline: "Pipeline", host: str, port: int, limits: Optional[Limits] = None,
                proxy_headers: bool = False) -> Tuple[uvicorn.Server, socket.socket]:
    """The server of a pipeline's page and the socket that it is to run on.

    proxy_headers: take clients' addresses from X-Forwarded-For, as a reverse proxy on this computer states them; without
    one, any client could state any address. Raises OSError where the port is not available.
    """
    app = application(pipeline, limits, (*LOCAL_HOSTS, host) if is_local(host) else ("*",))
    listener = listen(host, port)
    config = uvicorn.Config(app, http=ProxiedProtocol if proxy_headers else PageProtocol, log_level="warning", access_log=False,
                            limit_concurrency=CONNECTIONS, server_header=False, timeout_graceful_shutdown=GRACE,
                            proxy_headers=proxy_headers)
    return uvicorn.Server(config), listener


def is_local(host: str) -> bool:
    """True where only this computer reaches an address: other names that lead to it are refused then."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address(host: str, port: int) -> str:
    """What to type into a browser. Of a server that listens at every address: the one that other devices reach."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            host = own_address() or socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def own_address() -> str:
    """This computer's address in the network that its default route leads to; "" without one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("203.0.113.1", 9))  # of a network that documentation uses; UDP connects without a packet
        return str(probe.getsockname()[0])
    return ""


def qr_code(url: str, colored: bool) -> str:
    """A QR code for a terminal, white on black where `colored`, else in the terminal's own. Raises ImportError."""
    import segno

    text = io.StringIO()
    segno.make(url, micro=False).terminal(out=text, border=2, compact=True)
    start, end = ("\033[97;40m", "\033[0m") if colored else ("", "")
    return "\n".join(f"{start}{line}{end}" for line in text.getvalue().splitlines())


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at a port. Raises OSError (text: what to do)."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = reason.partition(" (while attempting")[0]  # Python adds the address to some
        raise OSError(f"cannot listen at {host}, port {port} ({reason}); --port (PORT=) takes another") from None
    return listener
