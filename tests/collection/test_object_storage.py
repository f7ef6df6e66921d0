"""Inputs and outputs in S3, through a real server on this machine of which some requests fail."""

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from mindone_coca import storage
from tests.collection.clips import make_good
from tests.collection.test_caption_files import run  # noqa: F401 a fixture

pytest.importorskip("s3fs", reason="s3fs is not installed: pip install s3fs 'moto[server]' -c constraints-ray.txt")
pytest.importorskip("moto", reason="moto is not installed: pip install s3fs 'moto[server]' -c constraints-ray.txt")

pytestmark = pytest.mark.graphs


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
    fsspec.filesystem("s3").mkdir("bucket")
    yield server
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.close()


def objects(folder: str) -> dict[str, bytes]:
    """What an output folder in the bucket has, but for its journal."""
    system = fsspec.filesystem("s3")
    system.invalidate_cache()
    found = {path.removeprefix(f"bucket/{folder}/"): system.cat_file(path) for path in system.find(f"bucket/{folder}")}
    return {name: content for name, content in found.items() if not name.startswith("journal/")}


def test_inputs_and_outputs_while_requests_fail(server, run, tmp_path):  # noqa: F811
    files = make_good(tmp_path / "in", 5)
    (tmp_path / "in/broken.mp4").write_bytes(b"no video")
    fsspec.filesystem("s3").put(f"{tmp_path}/in/", "bucket/in/", recursive=True)
    arguments = ["--video_path", "s3://bucket/in", "--output_format", "json", "csv", "--save_features", "--output_dir"]
    code, _, errors, seen = run(*arguments, "s3://bucket/quiet")
    assert code == 1 and "error: s3://bucket/in/broken.mp4: cannot be read" in errors
    assert {Path(path).name for path in seen} == {path.name for path in files}
    quiet = objects("quiet")
    assert {"captions.json", "captions.csv", "features/img_emb/img_emb_0.npy", "features/model.json"} <= quiet.keys()

    chance = random.Random(3)
    server.fails = lambda method, path: chance.random() < 0.05
    before, server.failed = server.requests, 0
    code, _, errors, _ = run(*arguments, "s3://bucket/again")
    assert code == 1 and server.failed > 0.01 * (server.requests - before)
    assert objects("again") == quiet and "a-secret" not in errors

    # nothing is done twice, also on a machine that knows nothing of it yet
    code, _, errors, seen = run(*arguments, "s3://bucket/again")
    assert (code, seen) == (1, []) and "6 of 6 files were done before" in errors

    # an upload that breaks off: one line, nothing half, and the same command goes on
    server.fails = lambda method, path: method in ("PUT", "POST") and path.endswith("captions.csv")
    code, _, errors, _ = run(*arguments, "s3://bucket/broken")
    assert code == 2 and "error: s3://bucket/broken/captions.csv: cannot be reached" in errors
    assert "captions.csv" not in objects("broken")
    server.fails = lambda method, path: False
    assert run(*arguments, "s3://bucket/broken")[0] == 1
    assert objects("broken") == quiet
