"""Gate: access, concurrency and time limits of requests, and the headers that every response has.

On the loopback interface, requests must use a host name of this machine: pages of other sites, which a browser would
let reach 127.0.0.1 under a name of their own (DNS rebinding) or by cross-site forms, are refused. A server that other
machines can reach requires a token.
"""

import asyncio
import hmac
import ipaddress
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from ribcage.server.counters import Counters
from ribcage.server.problem import INTERNAL, SOON, App, Message, Problem, Receive, Send

OPEN = ("/", "/docs", "/docs/style.css", "/openapi.json", "/healthz")
"""Paths that need no token: the page that asks for it must load without one."""
ALWAYS = ("/healthz", "/metrics")
"""Paths that also work while the server starts or stops."""
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
RAW = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


@dataclass(frozen=True)
class AccessRules:
    """Access, concurrency and time limits."""

    token: str
    """Empty: no token required."""
    loopback: bool
    """Whether only this machine can reach the server."""
    at_once: int
    """Concurrent requests with images; more get status 503."""
    seconds: float
    """Time limit of a request, from its head to the end of its response."""


class Gate:
    """An application with access control, and limits on concurrency and time."""

    def __init__(self, app: App, rules: AccessRules, counters: Counters) -> None:
        self.app, self.rules, self.counters = app, rules, counters
        self.routes = frozenset[str]()
        """Paths that metrics name; all others are counted as `other`."""
        self.state: Literal["starting", "ready", "stopping"] = "starting"
        self.inside = 0
        """Requests in progress."""
        self.at_work = 0
        """Requests with images in progress."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        body, began = _Body(scope, receive), time.perf_counter()
        response = _Response(send, body)
        self.inside += 1
        try:
            await self._respond(scope, body, response)
        finally:
            self.inside -= 1
            route = scope["path"] if scope["path"] in self.routes else "other"
            self.counters.requests.labels(route, str(response.status or "gone")).inc()
            self.counters.seconds.labels(route).observe(time.perf_counter() - began)

    async def _respond(self, scope: Message, receive: Receive, response: "_Response") -> None:
        try:
            self._check(scope)
            async with asyncio.timeout(self.rules.seconds):
                await self._let_in(scope, receive, response)
        except Problem as problem:
            await response.instead(problem)
        except TimeoutError:
            await response.instead(Problem(504, f"The request took more than {self.rules.seconds:g} s.", headers=SOON))
        except Exception as error:  # no request may end the server, and no client needs its internals
            place = traceback.extract_tb(error.__traceback__)[-1]
            print(f"ribcage: {type(error).__name__} at {place.filename}:{place.lineno}", file=sys.stderr)
            await response.instead(Problem(500, INTERNAL))

    async def _let_in(self, scope: Message, receive: Receive, response: "_Response") -> None:
        if scope["method"] != "POST":
            return await self.app(scope, receive, response)
        if self.at_work >= self.rules.at_once:
            raise Problem(
                503,
                f"{self.at_work} requests are in progress, which is the maximum for this server. Try again later.",
                headers=SOON,
            )
        self.at_work += 1
        self.counters.working.set(self.at_work)
        try:
            await self.app(scope, receive, response)
        finally:
            self.at_work -= 1
            self.counters.working.set(self.at_work)

    def _check(self, scope: Message) -> None:
        """Raise an error for a request that is not allowed."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path, host = scope["path"], headers.get("host", "")
        if self.rules.loopback and not is_loopback(_name(host)):
            raise Problem(403, "Use a host name of this machine, such as 127.0.0.1 or localhost.")
        if "origin" in headers and not _same(headers["origin"], host):
            raise Problem(403, "Requests from pages of other sites are not allowed.")
        page = path in OPEN or path.startswith("/viewer/")
        if self.rules.token and not page and not self._has_token(headers.get("authorization", "")):
            headers = {"WWW-Authenticate": "Bearer"}
            raise Problem(401, "This server requires a token in the header 'Authorization: Bearer …'.", headers=headers)
        if self.state != "ready" and path not in ALWAYS and not (page and self.state == "starting"):
            raise Problem(503, f"The server is {self.state}.", headers={"Retry-After": "2"})

    def _has_token(self, authorization: str) -> bool:
        """Whether the token is correct; compared in constant time."""
        kind, _, token = authorization.partition(" ")
        equal = hmac.compare_digest(token.strip().encode(), self.rules.token.encode())
        return equal and kind.lower() == "bearer"


class _Body:
    """The body of a request, with a flag that states whether it has been received completely."""

    def __init__(self, scope: Message, receive: Receive) -> None:
        headers = dict(scope["headers"])
        self.receive = receive
        self.unread = b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0") != b""

    async def __call__(self) -> Message:
        message = await self.receive()
        self.unread = self.unread and bool(message.get("more_body", False))
        return message


class _Response:
    """What is sent, with the headers that every response has.

    A response that comes before the end of the request's body is the last on its connection: the rest is not read.
    """

    def __init__(self, send: Send, body: _Body) -> None:
        self.send, self.body, self.status = send, body, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in RAW if pair[0] not in own)]
            if self.body.unread:
                message["headers"].append((b"connection", b"close"))
        await self.send(message)

    async def instead(self, problem: Problem) -> None:
        """Send an error response if nothing was sent yet; otherwise close the connection."""
        if not self.status:
            await problem.send(self)


def _name(host: str) -> str:
    """'localhost' of 'localhost:8000', '::1' of '[::1]:8000'; '' of an invalid host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    """Whether a host name refers to this machine."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same(origin: str, host: str) -> bool:
    """Whether a page was loaded from this server."""
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
