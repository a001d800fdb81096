"""Access and load of the server: hosts, origins, tokens, sizes, times."""

import contextlib
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from refusals import has_facts
from servers import Running, cloud, head, png, running

from ribcage.server import gate, process

pytestmark = pytest.mark.integration
TOKEN = "a-token-of-enough-letters"


@pytest.fixture(scope="module")
def bare() -> Iterator[Running]:
    """One that has no model, and small limits."""
    with running(max_megabytes=0.3, max_files=3, max_requests=2, max_seconds=2) as made:
        yield made


def test_a_body_whose_length_is_too_large_is_not_waited_for(bare: Running) -> None:
    answer = bare.raw(head())
    assert answer.startswith(b"HTTP/1.1 413") and b'{"error":"The request is larger than' in answer


def test_a_body_that_does_not_say_how_large_it_is_is_counted(bare: Running) -> None:
    start = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    part = f"{len(start):x}\r\n".encode() + start + b"\r\n" + (b"10000\r\n" + bytes(65536) + b"\r\n") * 6
    answer = bare.raw(head("Transfer-Encoding: chunked") + part)  # and never an end
    assert answer.startswith(b"HTTP/1.1 413")


def test_too_many_files_are_refused(bare: Running) -> None:
    answer = bare.post("/v1/image", *[png(cloud())] * 4)
    assert answer.status_code == 413 and "3 files" in answer.json()["error"]


def test_too_many_pixels_are_refused() -> None:
    with running(max_megapixels=0.005) as server:
        answer = server.post("/v1/image", ("p.png", png(cloud())))
    assert answer.status_code == 422 and has_facts(answer.json()["error"], "p.png", "90 x 70 pixels", "limit")


def test_a_slow_body_ends_in_504_and_others_do_not_wait_for_it(bare: Running) -> None:
    with socket.create_connection(bare.address, timeout=20) as line:
        line.sendall(head("Content-Length: 1000") + b"--b\r\n")
        assert bare.post("/v1/image", png(cloud())).status_code == 200
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 504")
    assert bare.server.gate.at_work == 0 and bare.service.uploads.held == 0


def test_who_comes_when_all_is_busy_is_told_when_to_come_again(bare: Running) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            line = stack.enter_context(socket.create_connection(bare.address, timeout=20))
            line.sendall(head("Content-Length: 1000") + b"--b\r\n")
        until = time.monotonic() + 10
        while bare.server.gate.at_work < 2 and time.monotonic() < until:
            time.sleep(0.01)
        answer = bare.post("/v1/image", png(cloud()))
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1 and "error" in answer.json()
        assert bare.get("/healthz").status_code == 200


def test_large_requests_at_once_are_not_all_held(bare: Running) -> None:
    bare.service.uploads.held = 4 * bare.service.uploads.most
    try:
        answer = bare.post("/v1/image", png(cloud()))
    finally:
        bare.service.uploads.held = 0
    assert answer.status_code == 503 and answer.headers["Retry-After"]


def test_a_connection_that_asks_nothing_is_closed(bare: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.3)
    for begun in (b"", b"GET /healthz HTTP/1.1\r\nHo"):
        with socket.create_connection(bare.address, timeout=20) as line:
            line.sendall(begun)
            assert line.recv(100) == b""


def test_a_body_that_was_refused_does_not_go_on_for_ever(bare: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.3)
    with socket.create_connection(bare.address, timeout=20) as line, pytest.raises(OSError):
        line.sendall(head())
        for _ in range(600):
            line.sendall(bytes(100))
            time.sleep(0.01)


def test_a_body_of_crumbs_is_refused_and_holds_nobody(bare: Running) -> None:
    """Each piece of a body costs far more than its byte: of 65,536 that come at once, a thousand are looked at."""
    with socket.create_connection(bare.address, timeout=20) as line:
        line.sendall(head("Transfer-Encoding: chunked") + b"1\r\na\r\n" * 65536)
        began = time.perf_counter()
        assert bare.get("/healthz").status_code == 200
        assert time.perf_counter() - began < 1.0  # far more, where all are looked at
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 400")


def test_who_is_refused_gets_the_answer_and_then_the_end_of_the_connection(bare: Running) -> None:
    """Also while still sending; the rest of the body is not read."""
    with socket.create_connection(bare.address, timeout=20) as line:
        line.sendall(head())
        found = b""
        while b"}" not in found:
            found += line.recv(1 << 16)
        assert found.startswith(b"HTTP/1.1 413") and b"connection: close" in found.lower()
        line.sendall(bytes(1 << 20))
        assert line.recv(100) == b""


def test_an_answer_does_not_wait_for_the_network(bare: Running) -> None:
    """A head and a body in two packets are 40 ms apart, each time, where they wait for each other."""
    with httpx.Client(base_url=bare.base, timeout=60) as client:
        client.get("/healthz")
        spent = []
        for _ in range(20):
            began = time.perf_counter()
            client.get("/healthz")
            spent.append(time.perf_counter() - began)
    assert min(spent) < 0.03


# ---- who may ask


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]", "", "10.0.0.1", "a[b"]
)
def test_only_names_of_this_machine_are_answered(host: str, bare: Running) -> None:
    assert bare.get("/v1/models", headers={"Host": host}).status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:8000", "LOCALHOST"])
def test_every_name_of_this_machine_is_answered(host: str, bare: Running) -> None:
    assert bare.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example", "x[y"]
)
def test_pages_of_other_sites_may_not_ask(origin: str, bare: Running) -> None:
    answer = bare.post("/v1/image", png(cloud()), headers={"Origin": origin})
    assert answer.status_code == 403 and set(answer.json()) == {"error"}


def test_its_own_page_may_ask(bare: Running) -> None:
    assert bare.post("/v1/image", png(cloud()), headers={"Origin": bare.base}).status_code == 200


def test_a_token_is_needed_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIBCAGE_TOKEN", TOKEN)
    with running(host="0.0.0.0") as server:
        assert server.get("/healthz").status_code == server.get("/docs").status_code == 200
        for said in (
            {},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "é"},
        ):
            for path in ("/v1/models", "/metrics", "/v1/nothing"):
                raw = [(name.encode(), value.encode("latin-1")) for name, value in said.items()]
                answer = server.get(path, headers=raw)
                assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        told = server.get("/v1/models", headers={"Authorization": f"Bearer {TOKEN}", "Host": "far.example"})
        assert told.status_code == 200 and told.json()["token_required"] is True


def test_every_answer_has_the_headers(bare: Running) -> None:
    answers = [bare.get(path) for path in ("/", "/docs", "/healthz", "/metrics", "/v1/models", "/nothing")]
    answers += [bare.get("/v1/models", headers={"Host": "evil.example"}), bare.post("/v1/image", b"x")]
    for answer in answers:
        for name, value in gate.HEADERS.items():
            assert answer.headers[name] == value, (answer.url, name)
    assert "script" not in gate.HEADERS["content-security-policy"]
