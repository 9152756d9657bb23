"""A Hub on 127.0.0.1 for the real client, with faults on request."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_routes import ROUTES, Answer, Request
from tests.hub_state import Fault, Refused, State


class Handler(BaseHTTPRequestHandler):
    """One request: faults first, then the route."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        state, asked = self.server.state, f"{self.command} {urlsplit(self.path).path}"
        with state.lock:
            state.log.append(asked)
            fault = state.fault_of(asked) or Fault("", "none")
        if fault.action == "cut":
            self.rfile.read(min(64, int(self.headers.get("Content-Length", 64 if self.chunked else 0))))
            return self.hang_up()
        body = self.read()
        time.sleep(fault.seconds)
        fault.work()
        headers: dict[str, str] = {}
        answer: Answer = b""
        status = 200
        try:
            if fault.action.isdigit():
                raise Refused(int(fault.action), fault.message or f"{fault.action}, as the test asked")
            with state.lock:
                headers, answer = self.answer(asked, body)
        except Refused as refusal:
            headers, answer, status = refusal.headers, refusal.body, refusal.status
        if fault.action == "lose":
            return self.hang_up()
        return self.send(status, headers, answer)

    do_POST = do_PUT = do_HEAD = do_GET

    def answer(self, asked: str, body: bytes) -> tuple[dict[str, str], Answer]:
        """What the route says, and headers."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        for pattern, work in ROUTES:
            if match := pattern.fullmatch(asked):
                found = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                request = Request(self.server.state, self.server.url, token, query, body, found)
                return request.headers, work(request)
        raise Refused(404, f"this server does not know {asked}")

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("Transfer-Encoding", "")

    def read(self) -> bytes:
        if not self.chunked:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def hang_up(self) -> None:
        """Ends the connection, whatever the client is doing."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def send(self, status: int, headers: dict[str, str], answer: Answer) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if (ranged := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) and status == 200:
            start, whole = int(ranged[1]), len(content)
            content, status = content[start:], 206
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        kind = "binary/octet-stream" if isinstance(answer, bytes) else "application/json"
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class HubServer(ThreadingHTTPServer):
    """The server and what it holds."""

    daemon_threads = True

    def __init__(self, state: State) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = state

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that a fault or the client ended is no error."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub(state: State) -> Iterator[HubServer]:
    """The server while the body runs."""
    server = HubServer(state)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
