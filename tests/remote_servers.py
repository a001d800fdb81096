"""A real S3 server on loopback (moto), and a proxy in front of it that makes the faults of networks and stores."""

import base64
import contextlib
import hashlib
import http.client
import json
import time
import urllib.parse
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread

import pytest

from ribcage.runtime.remote import objects

BUCKET = "xray"
EXPIRED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"""


class FaultProxy:
    """Forwards requests to an S3 server; each `fault` befalls the next requests whose line contains a text."""

    def __init__(self, port: int) -> None:
        self.behind = port
        self.requests: list[str] = []
        self._faults: list[tuple[str, str, int]] = []
        self._lock = Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None:
                pass

            def answer(self) -> None:
                proxy.answer(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def fault(self, kind: str, *, where: str = "GET", times: int = 1) -> None:
        """cut, slow, short, busy or expired, for so many of the next requests whose line contains `where`."""
        with self._lock:
            self._faults.append((kind, where, times))

    def heal(self) -> None:
        """No more faults; forget the requests."""
        with self._lock:
            self._faults, self.requests = [], []

    def store(self, folder: Path, address: str) -> None:
        """Put all files of a local folder on the server, without the client that is tested."""
        bucket, _, key = address.removeprefix("s3://").partition("/")
        server = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=30)
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = f"{key}/{file.relative_to(folder).as_posix()}".lstrip("/")
                server.request("PUT", f"/{bucket}/{urllib.parse.quote(name)}", file.read_bytes())
                reply = server.getresponse()
                reply.read()
                assert reply.status == 200
        server.close()

    def listing(self, bucket: str) -> str:
        """The server's own listing of a bucket, as XML."""
        server = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=30)
        server.request("GET", f"/{bucket}?list-type=2")
        text = server.getresponse().read().decode()
        server.close()
        return text

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        line = f"{request.command} {request.path}"
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        with self._lock:
            self.requests.append(line)
            place = next((at for at, (_, where, times) in enumerate(self._faults) if where in line and times), None)
            kind = ""
            if place is not None:
                kind, where, times = self._faults[place]
                self._faults[place] = (kind, where, times - 1)
        with contextlib.suppress(ConnectionError):  # the client has given up
            if kind == "drop":  # nothing at all, before the request has had an effect
                request.close_connection = True
                return
            if kind in ("expired", "busy"):
                code, data = (400, EXPIRED) if kind == "expired" else (503, b"<Error><Code>SlowDown</Code></Error>")
                self._send(request, code, [("Content-Type", "application/xml")], data)
                return
            upstream = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=30)
            upstream.request(request.command, request.path, body, dict(request.headers))
            reply = upstream.getresponse()
            data = reply.read()
            upstream.close()
            headers = [(name, value) for name, value in reply.getheaders()
                       if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server")]  # fmt: skip
            if request.command == "HEAD":
                headers.append(("Content-Length", reply.getheader("Content-Length") or "0"))
            self._send(request, reply.status, headers, data, kind)

    @staticmethod
    def _send(
        request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], data: bytes, kind: str = ""
    ) -> None:
        data = data[: len(data) // 2] if kind == "short" else data
        request.send_response(status)
        for name, value in headers:
            request.send_header(name, value)
        if request.command != "HEAD":
            request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command == "HEAD":
            return
        if kind == "cut":
            request.wfile.write(data[: len(data) // 2])
            request.wfile.flush()
            request.close_connection = True
        elif kind == "slow":
            for at in range(len(data)):
                request.wfile.write(data[at : at + 1])
                request.wfile.flush()
                time.sleep(0.05)
        else:
            request.wfile.write(data)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@contextlib.contextmanager
def running_s3() -> Iterator[FaultProxy]:
    """An S3 server with an empty bucket, behind a proxy."""
    import logging

    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    proxy = FaultProxy(server.get_host_and_port()[1])
    objects.forget_connections()
    try:
        yield proxy
    finally:
        proxy.stop()
        server.stop()


class Stub:
    """A server on loopback; `reply` makes its replies, `fault` is a fault of all replies with content of files."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.token, self.fault = "", ""
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                stub.requests.append(f"{self.command} {self.path}")
                status, data, more = stub.reply(self.command, self.path, self.headers, body)
                self.send_response(status)
                cut = stub.fault == "cut" and bool(stub.wanted(self.headers))
                for name, value in {**more, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(b"" if self.command == "HEAD" else data[: len(data) // 2] if cut else data)
                    self.close_connection = cut

            do_GET = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def reply(self, command: str, path: str, headers: Message, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        raise NotImplementedError

    @staticmethod
    def wanted(headers: Message) -> tuple[int, int] | None:
        """The first and the last byte of a request for a range."""
        text = headers.get("Range", "")
        first, _, last = text.removeprefix("bytes=").partition("-")
        return (int(first), int(last)) if text else None

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class HubStub(Stub):
    """The requests of the Hugging Face Hub that a repository of datasets needs; `files` are its files."""

    def reply(self, command: str, path: str, headers: Message, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        place = urllib.parse.unquote(urllib.parse.urlsplit(path).path)
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            why = "Invalid credentials in Authorization header"
            return 401, json.dumps({"error": why}).encode(), {"X-Error-Message": why}
        if "/datasets/lung/xray" not in place:
            return 404, b"{}", {"X-Error-Code": "RepoNotFound"}
        place = place.partition("/datasets/lung/xray")[2]
        if place.startswith("/tree/main"):
            return self.tree(place.removeprefix("/tree/main").strip("/"), "recursive=true" in path.lower())
        if place.startswith("/resolve/main/"):
            return self.content(place.removeprefix("/resolve/main/"), self.wanted(headers))
        if place.startswith("/preupload/"):
            names = [one["path"] for one in json.loads(body)["files"]]
            return (
                200,
                json.dumps(
                    {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
                ).encode(),
                {},
            )
        if place.startswith("/commit/"):
            for one in map(json.loads, body.splitlines()):
                if one["key"] == "file":
                    self.files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
                elif one["key"] == "deletedFile":
                    del self.files[one["value"]["path"]]
            return (
                200,
                json.dumps({"commitUrl": f"{self.url}/datasets/lung/xray/commit/0", "commitOid": "0"}).encode(),
                {},
            )
        return 200, json.dumps({"id": "lung/xray", "sha": "0" * 40, "siblings": [], "tags": []}).encode(), {}

    def tree(self, folder: str, recursive: bool) -> tuple[int, bytes, dict[str, str]]:
        above = f"{folder}/" if folder else ""
        found: dict[str, dict[str, object]] = {}
        for name, data in self.files.items():
            rest = name.removeprefix(above).split("/") if name.startswith(above) else []
            for depth in range(1, len(rest) + 1 if recursive else min(2, len(rest) + 1)):
                kind = "file" if depth == len(rest) else "directory"
                place = above + "/".join(rest[:depth])
                found[place] = {"type": kind, "path": place, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if not found and folder:
            return 404, b"{}", {"X-Error-Code": "EntryNotFound"}
        return 200, json.dumps(list(found.values())).encode(), {}

    def content(self, name: str, wanted: tuple[int, int] | None) -> tuple[int, bytes, dict[str, str]]:
        if name not in self.files:
            return 404, b"{}", {"X-Error-Code": "EntryNotFound"}
        if not wanted:
            return 200, self.files[name], {}
        return 206, self.files[name][wanted[0] : wanted[1] + 1], {}


class ModelHubStub(Stub):
    """The requests of the Hugging Face Hub that a download of lung/rad-dino needs; `files` are its files.

    `gated`: the files, but not their names, need a token. `down`: the status of all replies.
    """

    COMMIT = "0123456789abcdef0123456789abcdef01234567"
    OTHER = "f" * 40
    """The commit of the tag v1, which has the same files."""

    def __init__(self) -> None:
        super().__init__()
        self.gated, self.down = False, 0

    def reply(self, command: str, path: str, headers: Message, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        place = urllib.parse.unquote(urllib.parse.urlsplit(path).path)
        if self.down:
            return self.down, b"{}", {}
        if "/lung/rad-dino" not in place:  # as the Hub replies without a token
            return 401, b"{}", {"X-Error-Code": "RepoNotFound"}
        kind, _, rest = place.partition("/lung/rad-dino")
        commits = {"main": self.COMMIT, "v1": self.OTHER, self.COMMIT: self.COMMIT, self.OTHER: self.OTHER}
        word, revision, name = [*rest.strip("/").split("/", 2), "main", ""][:3] if rest else ("revision", "main", "")
        if revision not in commits:
            return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
        if kind == "/api/models" and word == "revision":
            names = [{"rfilename": one} for one in self.files]
            return 200, json.dumps({"id": "lung/rad-dino", "sha": commits[revision], "siblings": names}).encode(), {}
        if kind == "/api/models" and word == "tree":
            tree = [
                {"type": "file", "path": one, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for one, data in self.files.items()
            ]
            return 200, json.dumps(tree).encode(), {}
        if self.gated and headers.get("Authorization") != f"Bearer {self.token}":
            return 401, b"{}", {"X-Error-Code": "GatedRepo"}
        if name not in self.files:
            return 404, b"{}", {"X-Error-Code": "EntryNotFound"}
        data = self.files[name]
        return 200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commits[revision]}


class CloudStub(Stub):
    """The requests of the JSON API of Google Cloud Storage that one bucket, xray, needs; `files` are its objects."""

    def reply(self, command: str, path: str, headers: Message, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        parts = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            return 403, b'{"error": {"code": 403, "message": "The account SECRET does not have access."}}', {}
        if "/b/xray/o" not in parts.path:
            return 404, b'{"error": {"code": 404, "message": "The specified bucket does not exist."}}', {}
        name = urllib.parse.unquote(parts.path.partition("/b/xray/o")[2].removeprefix("/"))
        if parts.path.startswith("/upload/"):
            boundary = headers["Content-Type"].partition("boundary=")[2].strip("\"'").encode()
            _, described, content, _ = body.split(b"--" + boundary)
            name = json.loads(described.partition(b"\n\n")[2])["name"]
            self.files[name] = content.partition(b"\n\n")[2].removesuffix(b"\n")
            return 200, self.facts(name), {}
        if not name:
            return 200, self.listing(query.get("prefix", ""), query.get("delimiter", "")), {}
        if name not in self.files:
            return 404, b'{"error": {"code": 404, "message": "No such object"}}', {}
        if command == "DELETE":
            del self.files[name]
            return 204, b"", {}
        if query.get("alt") == "media":
            first, last = self.wanted(headers) or (0, len(self.files[name]))
            return 206, self.files[name][first : last + 1], {"Content-Type": "application/octet-stream"}
        return 200, self.facts(name), {}

    def facts(self, name: str) -> bytes:
        """What is said about an object."""
        data = self.files[name]
        mark = hashlib.sha1(data).hexdigest()
        said = {"name": name, "bucket": "xray", "size": str(len(data)), "generation": str(int(mark[:8], 16))}
        return json.dumps({**said, "updated": "2026-01-01T00:00:00Z", "etag": mark}).encode()

    def listing(self, prefix: str, delimiter: str) -> bytes:
        """The objects and folders below a prefix."""
        below = {name: name[len(prefix) :] for name in self.files if name.startswith(prefix)}
        deeper = {
            prefix + rest.partition(delimiter)[0] + delimiter
            for rest in below.values()
            if delimiter and delimiter in rest
        }
        items = [json.loads(self.facts(name)) for name, rest in below.items() if not (delimiter and delimiter in rest)]
        return json.dumps({"items": items, "prefixes": sorted(deeper)}).encode()


def connect(proxy: FaultProxy, patch: pytest.MonkeyPatch, cache: Path) -> None:
    """This process uses the server, with an empty bucket and an empty cache."""
    for name, value in {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": "KEYOFTHETEST",
        "AWS_SECRET_ACCESS_KEY": "SECRETOFTHETEST",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RIBCAGE_CACHE": str(cache),
    }.items():
        patch.setenv(name, value)
    patch.setattr(objects, "PAUSES", (0.01, 0.01))
    proxy.heal()
    reset = http.client.HTTPConnection("127.0.0.1", proxy.behind, timeout=30)
    reset.request("POST", "/moto-api/reset")
    reset.getresponse().read()
    reset.request("PUT", f"/{BUCKET}")
    assert reset.getresponse().status == 200
    reset.close()
