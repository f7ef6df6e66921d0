"""A server on loopback that speaks the protocol of huggingface.co, as far as models are fetched by it.

Listing: GET /api/models/REPO[/revision/REV]. Files: HEAD and GET /REPO/resolve/REV/PATH, with the commit and the ETag
in the headers; large files are redirected to another server, which takes ranges, and their ETag is a sha256.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = 1000  # bytes, from which on a file is kept apart
TOKEN = "hf_of_the_tests"


@dataclass
class Repo:
    """A repository: the files of its revisions, by branch or tag."""

    revisions: dict[str, dict[str, bytes]]
    private: bool = False
    gated: bool = False

    def find(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and the files of a revision, a branch, tag or commit."""
        for name, files in self.revisions.items():
            commit = hashlib.sha1(name.encode() + b"".join(files.values())).hexdigest()
            if revision in (name, commit):
                return commit, files
        return None


@dataclass
class Hub:
    """What there is, and what goes wrong: `cut` more answers with contents end half way, `spoil` changes a byte."""

    url: str = ""
    storage: str = ""  # the other server's
    repos: dict[str, Repo] = field(default_factory=dict)
    cut: int = 0
    spoil: bool = False
    asked: list[str] = field(default_factory=list)  # "METHOD /path range"
    contents: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, files: dict[str, bytes], **more: bool) -> None:
        self.repos[name] = Repo({"main": files}, **more)


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.answer(status, X_Error_Code=code, X_Error_Message=message)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        if found := re.fullmatch("/large/([0-9a-f]{64})", path):
            return self.content(self.hub.contents[found[1]])
        if found := re.fullmatch("/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.within(found[1], found[2] or "main", None)
        if found := re.fullmatch("/([^/]+/[^/]+)/resolve/(refs/pr/[^/]+|[^/]+)/(.+)", path):
            return self.within(found[1], found[2], found[3])
        return self.refuse(404)

    do_HEAD = do_GET

    def within(self, name: str, revision: str, file: str | None) -> None:
        repo = self.hub.repos.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo is None or (repo.private and not known):
            return self.refuse(401, "RepoNotFound", "Invalid username or password.")
        if repo.gated and file is not None and not known:
            return self.refuse(403, "GatedRepo", f"Access to model {name} is restricted.")
        if (found := repo.find(revision)) is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        commit, files = found
        if file is None:
            siblings = [self.sibling(path, content) for path, content in files.items()]
            body = json.dumps({"_id": "1", "id": name, "modelId": name, "sha": commit, "siblings": siblings})
            return self.answer(200, body.encode(), Content_Type="application/json")
        if file not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        content = files[file]
        if len(content) < LARGE:
            etag = hashlib.sha1(content).hexdigest()
            return self.answer(200, content, X_Repo_Commit=commit, ETag=f'"{etag}"')
        sha256 = hashlib.sha256(content).hexdigest()
        self.hub.contents[sha256] = content
        return self.answer(
            302,
            Location=f"{self.hub.storage}/large/{sha256}",
            X_Repo_Commit=commit,
            X_Linked_Size=str(len(content)),
            X_Linked_ETag=f'"{sha256}"',
            ETag='"of the pointer"',
        )

    def sibling(self, path: str, content: bytes) -> dict:
        large = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 135}
        return {"rfilename": path, "size": len(content), **({"lfs": large} if len(content) >= LARGE else {})}

    def content(self, body: bytes) -> None:
        if self.hub.spoil:
            body = bytes([body[0] ^ 1]) + body[1:]
        start = 0
        if found := re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", "")):
            start = int(found[1])
        headers = {"Content_Length": str(len(body) - start), "Accept_Ranges": "bytes"}
        if found:
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        rest = body[start:]
        if self.command == "GET" and self.hub.cut:
            self.hub.cut -= 1
            rest, self.close_connection = rest[: len(rest) // 2], True
        self.answer(206 if found else 200, rest, **headers)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that listens, and the server of its large files, until the context ends."""
    hub = Hub()
    handler = type("Handler", (Handler,), {"hub": hub})
    # two hosts: within one, clients follow a redirection before they look at the headers
    servers = [ThreadingHTTPServer((host, 0), handler) for host in ("127.0.0.1", "127.0.0.2")]
    hub.url, hub.storage = ("http://{}:{}".format(*server.server_address) for server in servers)
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
