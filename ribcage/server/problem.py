"""Problem: an error response, as a status and one sentence."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
SOON = {"Retry-After": "1"}
"""Header of responses when the server is overloaded."""
INTERNAL = "An internal error occurred; see the log of the server."


class Problem(Exception):  # noqa: N818 – it is a response, not an error of the program
    """An error response: a status, a sentence, and further fields (`more`)."""

    def __init__(self, status: int, sentence: str, *, headers: dict[str, str] | None = None, **more: object) -> None:
        super().__init__(sentence)
        self.status, self.headers, self.more = status, headers or {}, more

    @property
    def body(self) -> bytes:
        """The body of the response."""
        return dump({"error": str(self), **self.more})

    async def send(self, send: Send) -> None:
        """Send the response without the web framework, for requests that do not reach it."""
        body = self.body
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **self.headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


def dump(value: object) -> bytes:
    """JSON without NaN; unpaired surrogates become '?'."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
