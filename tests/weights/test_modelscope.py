"""Weights from ModelScope: its real client, where it is installed, against a server on loopback."""

import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from safetensors.numpy import save

from mindone_coca.errors import InputError
from mindone_coca.factory import find_config_and_weights
from mindone_coca.weights.hub import local_weights
from tests.models import make_config

TOKEN = "of-the-tests"
CONFIG = make_config()
WEIGHTS = save({"logit_scale": np.arange(30000, dtype=np.float32)})
FILES = {"open_clip_model.safetensors": WEIGHTS, "config.json": json.dumps(CONFIG).encode()}


class Handler(BaseHTTPRequestHandler):
    """GET /api/v1/models/REPO/repo/files lists, /api/v1/models/REPO/repo?FilePath= gives contents, also by ranges."""

    protocol_version = "HTTP/1.1"
    cut, spoil = 0, False
    asked: list[tuple] = []

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        headers["Content_Length"] = str(len(body) if length is None else length)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        found = re.fullmatch("/api/v1/models/([^/]+/[^/]+)/repo(/files)?", url.path)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.asked.append((url.path, query.get("FilePath"), self.headers.get("Range")))
        if not found or found[1] not in ("a/coca", "a/private") or (found[1] == "a/private" and not known):
            refusal = {"Code": 10010205001, "Success": False, "Message": "not found"}
            return self.answer(404, json.dumps(refusal).encode(), Content_Type="application/json")
        if found[2]:
            files = [
                {"Path": path, "Size": len(body), "Type": "blob", "Sha256": hashlib.sha256(body).hexdigest()}
                for path, body in FILES.items()
            ]
            listing = {"Code": 200, "Success": True, "Data": {"Files": files}}
            return self.answer(200, json.dumps(listing).encode(), Content_Type="application/json")
        body = FILES[query["FilePath"]]
        if self.spoil:
            body = bytes([body[0] ^ 1]) + body[1:]
        start = int(re.findall(r"\d+", self.headers.get("Range", "bytes=0-"))[0])
        rest = body[start:]
        headers: dict[str, Any] = (
            {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if "Range" in self.headers else {}
        )
        if type(self).cut:
            type(self).cut -= 1
            self.close_connection = True
            return self.answer(206 if headers else 200, rest[: len(rest) // 2], len(rest), **headers)
        return self.answer(206 if headers else 200, rest, **headers)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    client = pytest.importorskip("modelscope_hub")
    handler = type("OneHandler", (Handler,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
    client.set_default_config(None)
    handler.stop = lambda: (server.shutdown(), server.server_close())
    yield handler
    handler.stop()
    client.set_default_config(None)


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        local_weights(name)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{name}: ")
    return str(caught.value)


@pytest.mark.graphs
def test_fetched_broken_off_and_offline(hub, monkeypatch):
    hub.cut = 1
    config, path = find_config_and_weights(None, "ms:a/coca")
    assert path.read_bytes() == WEIGHTS and config.embed_dim == CONFIG["embed_dim"]
    assert find_config_and_weights("ms:a/coca", None) == (config, path)
    hub.stop()
    with pytest.warns(UserWarning, match="taking what the cache has"):
        assert local_weights("ms:a/coca") == path
    import modelscope_hub

    def unreachable(*_: object, **__: object) -> None:
        raise modelscope_hub.NetworkError("no route")  # as it does after seconds of trying

    monkeypatch.setattr(modelscope_hub.HubApi, "list_repo_files", unreachable)
    message = refusal("ms:a/other/x.bin")
    assert "cannot be fetched" in message and "fetch x.bin" in message and "into a folder" in message


def test_a_wrong_checksum_is_refused(hub, tmp_path):
    hub.spoil = True
    assert "was damaged on its way" in refusal("ms:a/coca")
    hub.spoil = False
    assert local_weights("ms:a/coca").read_bytes() == WEIGHTS


def test_a_private_repository(hub, monkeypatch):
    import modelscope_hub

    assert "or a private one: check the name, or set MODELSCOPE_API_TOKEN" in refusal("ms:a/private")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    modelscope_hub.set_default_config(None)
    assert local_weights("ms:a/private").read_bytes() == WEIGHTS


def test_without_its_library_the_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    assert "pip install 'mindone-coca[modelscope]'" in refusal("ms:a/coca")
