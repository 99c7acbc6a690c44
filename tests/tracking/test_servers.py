"""Tracking servers: how they are reached, and which are refused."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from lockstep.config.errors import Refused
from lockstep.tracking import opening
from lockstep.tracking.store import Store

EXPERIMENTS, MODELS = "/api/2.0/mlflow/experiments/search", "/api/2.0/mlflow/logged-models/search"
NO_PAGE = "<!doctype html><title>404 Not Found</title>"


@pytest.fixture
def serve(monkeypatch):
    """Serve answers by path; as a proxy too. Every other path is no page."""
    servers = []

    def start(answers):
        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = answers.get(urlsplit(self.path).path)
                self.send_response(404 if body is None else 200)
                self.end_headers()
                text = NO_PAGE if body is None else body if isinstance(body, str) else json.dumps(body)
                self.wfile.write(text.encode())

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/version": "2.9.2", EXPERIMENTS: {}}, "the server has MLflow 2.9.2; Lockstep needs"),
        ({"/version": "1.30.0", EXPERIMENTS: {}, MODELS: {}}, "the server has MLflow 1.30.0; Lockstep needs"),
        ({EXPERIMENTS: {}}, "the server has no logged models; Lockstep needs"),
        ({"/version": "<html>sign in</html>", EXPERIMENTS: {}}, "the server has no logged models"),
        ({}, "404"),
    ],
)
def test_a_server_that_is_too_old_is_refused(serve, answers, said):
    with pytest.raises(Refused) as caught:
        Store(serve(answers))
    assert said in str(caught.value)
    assert "<" not in str(caught.value)


@pytest.mark.parametrize(
    "answers",
    [
        {"/version": "3.17.2\n", EXPERIMENTS: {}},
        {EXPERIMENTS: {}, MODELS: {}},
        {"/base/version": "4.0.0rc1", f"/base{EXPERIMENTS}": {}},
    ],
)
def test_a_server_that_is_new_enough_is_opened_directly_or_by_a_proxy(serve, answers, monkeypatch):
    base = "/base/" if any(path.startswith("/base") for path in answers) else ""
    address = serve(answers)
    assert Store(address + base).address == address + base
    monkeypatch.setenv("http_proxy", address)
    assert Store(f"http://only-the-proxy-knows.invalid:5000{base}")


def test_a_server_that_is_not_there_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(opening, "_answering", lambda uri: pytest.fail("MLflow was asked"))
    with pytest.raises(Refused, match=r"127\.0\.0\.1:9: this store can't be used: .*Connection refused"):
        Store("http://127.0.0.1:9")
