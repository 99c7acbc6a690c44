"""A tracking server that misbehaves: a proxy in front of a real one, which spoils some of the requests."""

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Fault = Callable[["Request"], None]
"""Answers a request wrongly, or not at all."""

PAGE = "<!doctype html><html><head><title>Sign in</title></head><body>Welcome to the hotel.</body></html>"
HTML = {"Content-Type": "text/html"}


class Request(BaseHTTPRequestHandler):
    """One request to the proxy. Each has a connection of its own."""

    def forward(self):
        """Let the real server carry it out; return its status, headers and body."""
        real = http.client.HTTPConnection(urlsplit(self.server.target).netloc, timeout=60)
        real.request(self.command, self.path, self.sent, dict(self.headers))
        answer = real.getresponse()
        body = answer.read()
        real.close()
        kept = {
            key: value
            for key, value in answer.getheaders()
            if key.lower() not in ("transfer-encoding", "date")
        }
        return answer.status, kept | {"Content-Length": str(len(body))}, body

    def answer(self, status, headers, body):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self):
        self.sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.next_fault(f"{self.command} {self.path}", self.sent.decode("latin-1"))
        try:
            if fault is None:
                self.answer(*self.forward())
            else:
                fault(self)
        except OSError:  # the client does not wait any longer, or the real server is away
            pass

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def log_message(self, *_):
        pass


@dataclass
class Rule:
    """Requests that meet a fault: of those whose `<method> <path> <body>` matches `asks`, every `every`-th
    from the `first` to the `last`.
    """

    fault: Fault
    asks: str = ""
    every: int = 1
    first: int = 1
    last: float = float("inf")
    seen: int = field(default=0, init=False)

    def meets(self, request):
        if not re.search(self.asks, request):
            return False
        self.seen += 1
        return self.first <= self.seen <= self.last and (self.seen - self.first) % self.every == 0


class Proxy(ThreadingHTTPServer):
    """A proxy in front of the server at `target`, which behaves well as long as it has no rules.

    Attributes:
        uri: where it serves.
        asked: the requests so far, as `<method> <path>`.
        spoiled: those of them that met a fault.
    """

    daemon_threads = True

    def __init__(self, target, *rules):
        super().__init__(("127.0.0.1", 0), Request)
        self.target, self.uri = target, f"http://127.0.0.1:{self.server_port}"
        self.asked, self.spoiled, self._lock = [], [], threading.Lock()
        self.rules = rules
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def next_fault(self, line, body):
        with self._lock:
            self.asked.append(line)
            met = [rule.fault for rule in self.rules if rule.meets(f"{line} {body}")]
            self.spoiled += [line] * bool(met)
        return met[0] if met else None

    def shutdown_request(self, request):
        self.close_request(request)  # without the FIN of socketserver's own, which would come before an RST


def slow(seconds):
    """Answer right, but late."""

    def fault(request):
        time.sleep(seconds)
        request.answer(*request.forward())

    return fault


def drop(request):
    """Close the connection; the request is not carried out."""


def lose_answer(request):
    """Close the connection once the request is carried out."""
    request.forward()


def reset(request):
    """Reset the connection; the request is not carried out."""
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def says(status, body=PAGE, **headers):
    """Answer with this; the request is not carried out."""
    content = body if isinstance(body, bytes) else body.encode()

    def fault(request):
        request.answer(status, {**HTML, "Content-Length": str(len(content)), **headers}, content)

    return fault


def garbage(request):
    """Answer with what is not HTTP; the request is not carried out."""
    request.wfile.write(bytes(range(256)) * 4)


def truncated(request):
    """Carry the request out, and cut the answer in half."""
    status, headers, body = request.forward()
    request.answer(status, headers, body[: len(body) // 2])
