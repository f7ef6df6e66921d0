"""File systems behind URLs for tests: one in memory, and S3 through a real server on this machine."""

import threading
import urllib.request
from collections.abc import Callable, Iterator

import fsspec
import pytest

from mindone_coca import storage


@pytest.fixture
def memory(monkeypatch):
    """A file system in memory, empty; waits between tries take no time."""
    monkeypatch.setattr(storage, "FIRST_WAIT", 0)
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    return system


class Server:
    """S3 on loopback. `fails(method, path)` says which requests are answered by an error."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self._app = DomainDispatcherApplication(create_backend_app)
        self.fails: Callable[[str, str], bool] = lambda method, path: False
        self.requests = self.failed = 0
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        # clients keep connections open; named so, as the types of the library know no server of threads
        for name, value in (("block_on_close", False), ("daemon_threads", True)):
            setattr(self._server, name, value)
        self.url = f"http://127.0.0.1:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ, start):
        self.requests += 1
        if self.fails(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            self.failed += 1
            start("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        return self._app(environ, start)

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[Server]:
    server = Server()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("MINDONE_COCA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # ours are tested
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "retries", 1)
    # what earlier tests put there is kept by the process
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/moto-api/reset", method="POST")).close()
    fsspec.filesystem("s3").mkdir("bucket")
    yield server
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.close()
