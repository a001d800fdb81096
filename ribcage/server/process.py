"""Process: serve on a socket until a signal arrives, then finish the requests in progress."""

import asyncio
import contextlib
import logging
import os
import socket
import threading
from types import FrameType
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ribcage.runtime import progress
from ribcage.server.app import Service, make_app
from ribcage.server.gate import RAW
from ribcage.server.problem import Problem

PATIENCE = 20.0
"""Seconds for the head of a request, from the start of the connection or the last response on it."""
CONNECTIONS = 400
"""Maximum number of open connections; further connections are closed."""
LINGER = 2.0
"""Seconds in which a client whose body was refused can read the response."""
PIECES, PIECE = 1000, 256
"""A body may have PIECES chunks, and one more per PIECE bytes."""


class Pieces(h11.Connection):
    """HTTP with a limit on the number of chunks: each costs far more than the bytes in it."""

    def __init__(self, limit: int) -> None:
        super().__init__(h11.SERVER, limit)
        self.pieces = self.received = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event; a body of tiny chunks is refused."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.pieces = self.received = 0
        if isinstance(event, h11.Data):
            self.pieces, self.received = self.pieces + 1, self.received + len(event.data)
            if self.pieces > PIECES + self.received // PIECE:
                raise h11.RemoteProtocolError("The request body has too many small chunks.")
        return event


class Lingering:
    """A transport that closes without losing the response.

    While the client still sends a body, it is discarded unread, for `LINGER` seconds at most.
    """

    def __init__(self, transport: Any, connection: "Connection") -> None:
        self._transport, self._connection, self.lingers = transport, connection, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether the connection is closing."""
        return self.lingers or bool(self._transport.is_closing())

    def close(self) -> None:
        """Close the connection."""
        if self.lingers or self._transport.is_closing():
            return
        if self._connection.conn.their_state is not h11.SEND_BODY:
            return self._transport.close()
        self.lingers = True
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._connection.loop.call_later(LINGER, self._transport.abort)


class Connection(H11Protocol):
    """A connection with time limits, for requests that never arrive and bodies that were refused."""

    def __init__(self, *options: Any, **more: Any) -> None:
        super().__init__(*options, **more)
        self.conn = Pieces(self.config.h11_max_incomplete_event_size or 1 << 16)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time limit."""
        super().connection_made(cast(Any, Lingering(transport, self)))
        if len(self.connections) > CONNECTIONS:
            cast(asyncio.Transport, transport).abort()
        self._await()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; after a refusal they are discarded."""
        if not self.transport.is_closing():
            super().data_received(data)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._await()

    def _await(self) -> None:
        self.loop.call_later(PATIENCE, self._give_up, self.cycle)

    def _give_up(self, last: object) -> None:
        if self.cycle is last and not self.transport.is_closing():
            self.transport.close()
            self.loop.call_later(PATIENCE, self.transport.abort)  # a client that does not read the response either

    def send_400_response(self, msg: str) -> None:
        """Respond to a malformed request."""
        small = isinstance(self.conn, Pieces) and self.conn.pieces > PIECES + self.conn.received // PIECE
        text = "The request body has too many small chunks." if small else "The HTTP request is malformed."
        body = Problem(400, text).body
        head = [(b"content-type", b"application/json"), (b"connection", b"close"), *RAW]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (h11.Response(status_code=400, headers=head), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn that stops in two steps: no new requests, then none at all."""

    def __init__(self, service: Service) -> None:
        self.service, self.gate = service, make_app(service)
        self.fault: Exception | None = None
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # errors of forms are sent as responses
        super().__init__(
            uvicorn.Config(
                self.gate, http=Connection, ws="none", lifespan="off", log_config=None, access_log=False,
                log_level=logging.CRITICAL, server_header=False, proxy_headers=False, timeout_keep_alive=10,
                timeout_graceful_shutdown=round(service.settings.rules.seconds),
            )
        )  # fmt: skip

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the first signal, finish the requests in progress; on the second, stop immediately."""
        if self.gate.state == "stopping":
            self.should_exit = self.force_exit = True
        self.gate.state = "stopping"

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop, checked ten times a second."""
        ended = await super().on_tick(counter)
        return ended or (self.gate.state == "stopping" and self.gate.inside == 0)

    def prepare(self) -> None:
        """Prepare the models; an error stops the server."""
        try:
            with progress.working("preparing the models"):
                self.service.prepare()
        except Exception as error:
            self.fault, self.gate.state = error, "stopping"
        if self.gate.state == "starting":
            self.gate.state = "ready"

    def serve_on(self, listening: socket.socket) -> None:
        """Serve until stopped; raises an error of the start."""
        thread = threading.Thread(target=self.prepare, daemon=True)
        thread.start()
        with contextlib.suppress(KeyboardInterrupt):
            self.run([listening])
        self.service.end()
        if self.fault:
            raise self.fault


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there."""
    made: socket.socket | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        kind, stream, protocol, _, place = found
        made = socket.socket(kind, stream, protocol)  # without IPPROTO_TCP, asyncio delays responses by 40 ms
        if os.name == "posix":  # elsewhere it would let two programs listen
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(128)
    except (OSError, OverflowError) as error:
        if made:
            made.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(f"Cannot listen on {host}:{port} ({reason}). Choose another --port or --host.") from None
    return made
