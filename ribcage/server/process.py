"""Process: the server on a socket, until a signal ends it – after it has finished what was begun."""

import contextlib
import logging
import os
import socket
import threading
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ribcage.server.app import Service, make
from ribcage.server.gate import RAW
from ribcage.server.problem import Problem

PATIENCE = 20.0
"""Seconds for the head of a request, counted from the connection or from the last answer on it."""
CONNECTIONS = 400
"""At once; more are closed."""


class Connection(H11Protocol):
    """One that does not wait for ever: not for a request that never comes, nor for a body that was refused."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
        self._await()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._await()

    def _await(self) -> None:
        self.loop.call_later(PATIENCE, self._give_up, self.cycle)

    def _give_up(self, last: object) -> None:
        if self.cycle is last and not self.transport.is_closing():
            self.transport.close()
            self.loop.call_later(PATIENCE, self.transport.abort)  # who does not take the answer either

    def send_400_response(self, msg: str) -> None:
        """To what is no HTTP."""
        body = Problem(400, "This is no HTTP request that is understood.").body
        head = [(b"content-type", b"application/json"), (b"connection", b"close"), *RAW]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (h11.Response(status_code=400, headers=head), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn, with an end in two steps: first nothing new, then nothing."""

    def __init__(self, service: Service) -> None:
        self.service, self.gate = service, make(service)
        self.fault: Exception | None = None
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what is wrong with a form is answered
        super().__init__(
            uvicorn.Config(
                self.gate, http=Connection, ws="none", lifespan="off", log_config=None, access_log=False,
                log_level=logging.CRITICAL, server_header=False, proxy_headers=False, timeout_keep_alive=10,
                timeout_graceful_shutdown=round(service.settings.rules.seconds),
            )
        )  # fmt: skip

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal: finish; a second one: stop."""
        if self.gate.state == "stopping":
            self.should_exit = self.force_exit = True
        self.gate.state = "stopping"

    async def on_tick(self, counter: int) -> bool:
        """Whether to end, asked ten times a second."""
        ended = await super().on_tick(counter)
        return ended or (self.gate.state == "stopping" and self.gate.inside == 0)

    def prepare(self) -> None:
        """Make the models ready; a fault ends the server."""
        try:
            self.service.prepare()
        except Exception as error:
            self.fault, self.gate.state = error, "stopping"
        if self.gate.state == "starting":
            self.gate.state = "ready"

    def serve_on(self, listening: socket.socket) -> None:
        """Until it is ended; raises what it could not begin with."""
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
        made = socket.socket(kind, stream, protocol)  # where it is not said to be TCP, asyncio lets answers wait 40 ms
        if os.name == "posix":  # elsewhere it would let two programs listen
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(128)
    except (OSError, OverflowError) as error:
        if made:
            made.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(f"{host}:{port} cannot be listened on ({reason}). Choose another --port or --host.") from None
    return made
