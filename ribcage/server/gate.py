"""Gate: who may ask, how many at once, for how long; and the headers that every answer has.

On the machine itself the server answers whoever asks by a name of this machine: a page of another site, which a browser
would let ask 127.0.0.1 under a name of its own (DNS rebinding) or send forms across, is refused. Reached from elsewhere
it wants a token.
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
from ribcage.server.problem import SOON, App, Message, Problem, Receive, Send

OPEN = ("/", "/docs", "/docs/style.css", "/openapi.json", "/healthz")
"""What needs no token: a page must be there to ask for it."""
ALWAYS = ("/healthz", "/metrics")
"""What is answered while the server starts or stops."""
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
class Rules:
    """What the gate goes by."""

    token: str
    """Empty: none is needed."""
    loopback: bool
    """Whether only this machine can ask."""
    at_once: int
    """Requests with images that are worked on; more are asked to come again."""
    seconds: float
    """For one request, from its head to the end of its answer."""


class Gate:
    """An application, guarded."""

    def __init__(self, app: App, rules: Rules, counters: Counters) -> None:
        self.app, self.rules, self.counters = app, rules, counters
        self.routes = frozenset[str]()
        """Paths that are counted by their name; others are `other`, for they may be anything."""
        self.state: Literal["starting", "ready", "stopping"] = "starting"
        self.inside = 0
        """Requests that are being answered."""
        self.at_work = 0
        """Those with images."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body, began = _Body(scope, receive), time.perf_counter()
        answer = _Answer(send, body)
        self.inside += 1
        try:
            await self._answered(scope, body, answer)
        finally:
            self.inside -= 1
            route = scope["path"] if scope["path"] in self.routes else "other"
            self.counters.requests.labels(route, str(answer.status or "gone")).inc()
            self.counters.seconds.labels(route).observe(time.perf_counter() - began)

    async def _answered(self, scope: Message, receive: Receive, answer: "_Answer") -> None:
        try:
            self._check(scope)
            async with asyncio.timeout(self.rules.seconds):
                await self._let_in(scope, receive, answer)
        except Problem as problem:
            await answer.instead(problem)
        except TimeoutError:
            await answer.instead(Problem(504, f"The answer took more than {self.rules.seconds:g} s.", headers=SOON))
        except Exception as error:  # nobody's request may end the server, and nobody needs its inside
            place = traceback.extract_tb(error.__traceback__)[-1]
            print(f"ribcage: {type(error).__name__} at {place.filename}:{place.lineno}", file=sys.stderr)
            await answer.instead(Problem(500, "This is a fault in Ribcage; what it prints says where."))

    async def _let_in(self, scope: Message, receive: Receive, answer: "_Answer") -> None:
        if scope["method"] != "POST":
            return await self.app(scope, receive, answer)
        if self.at_work >= self.rules.at_once:
            raise Problem(503, f"{self.at_work} requests are being answered, which is all at once.", headers=SOON)
        self.at_work += 1
        self.counters.working.set(self.at_work)
        try:
            await self.app(scope, receive, answer)
        finally:
            self.at_work -= 1
            self.counters.working.set(self.at_work)

    def _check(self, scope: Message) -> None:
        """Raise where a request may not come in."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path, host = scope["path"], headers.get("host", "")
        if self.rules.loopback and not is_loopback(_name(host)):
            raise Problem(403, "This server is asked by a name of this machine, such as 127.0.0.1 or localhost.")
        if "origin" in headers and not _same(headers["origin"], host):
            raise Problem(403, "Pages of other sites may not ask this server.")
        page = path in OPEN or path.startswith("/viewer/")
        if self.rules.token and not page and not self._knows(headers.get("authorization", "")):
            told = {"WWW-Authenticate": "Bearer"}
            raise Problem(401, "This server wants its token: 'Authorization: Bearer …'.", headers=told)
        if self.state != "ready" and path not in ALWAYS and not (page and self.state == "starting"):
            raise Problem(503, f"The server is {self.state}.", headers={"Retry-After": "2"})

    def _knows(self, said: str) -> bool:
        """Whether this is the token, in a time that tells nothing of it."""
        kind, _, token = said.partition(" ")
        equal = hmac.compare_digest(token.strip().encode(), self.rules.token.encode())
        return equal and kind.lower() == "bearer"


class _Body:
    """The body of a request, and whether some of it is still to come."""

    def __init__(self, scope: Message, receive: Receive) -> None:
        headers = dict(scope["headers"])
        self.receive = receive
        self.unread = b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0") != b""

    async def __call__(self) -> Message:
        message = await self.receive()
        self.unread = self.unread and bool(message.get("more_body", False))
        return message


class _Answer:
    """What is sent, with the headers that everything has.

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
        """Say what went wrong, if nothing else was said; else the answer breaks off, and so does the connection."""
        if not self.status:
            await problem.send(self)


def _name(host: str) -> str:
    """'localhost' of 'localhost:8000', '::1' of '[::1]:8000'; '' of what is no host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    """Whether a name is one of this machine."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same(origin: str, host: str) -> bool:
    """Whether a page comes from this very server."""
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
