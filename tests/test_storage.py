"""Files behind URLs: read by ranges, tried again, and never half written."""

import os
import random
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindone_coca import remote, storage
from mindone_coca.account import Account
from mindone_coca.collection import inputs
from mindone_coca.collection.mirror import Mirror
from mindone_coca.errors import InputError
from mindone_coca.remote import Remote, RemoteFile
from mindone_coca.video.frames import read_frames
from mindone_coca.video.media import Encoded
from tests.collection.clips import ENCODINGS
from tests.data.training_samples import open_one
from tests.video.clips import REAL_CLIPS, run_ffmpeg


class Flaky:
    """A file system of which each request fails with a chance, or the first so many do."""

    def __init__(self, system, chance: float = 0.0, first: int = 0, error: Exception | None = None) -> None:
        self._system, self._chance, self.first = system, chance, first
        self._random, self._error = random.Random(5), error or OSError("503 slow down")
        self.calls = 0

    def __getattr__(self, name):
        found = getattr(self._system, name)

        def call(*arguments, **options):
            self.calls += 1
            self.first -= 1
            if self.first >= 0 or self._random.random() < self._chance:
                raise self._error
            return found(*arguments, **options)

        return call


def flaky(monkeypatch, memory, **options) -> Flaky:
    system = Flaky(memory, **options)
    monkeypatch.setattr(storage, "system_of", lambda url: (system, url.removeprefix("memory:/")))
    return system


@pytest.mark.parametrize(("suffix", "encoding"), [ENCODINGS[number] for number in (0, 1, 4, 6)])
def test_frames_are_those_of_the_file(memory, monkeypatch, tmp_path, suffix, encoding):
    monkeypatch.setattr(remote, "BLOCK", 5000)
    clip = tmp_path / f"clip{suffix}"
    run_ffmpeg("-t", "1.6", "-i", str(REAL_CLIPS[1]), "-an", "-s", "160x90", "-r", "25", *encoding.split(), clip)
    memory.pipe(f"/in/clip{suffix}", clip.read_bytes())
    for kind in ("middle", "multi_frames"):
        ours = read_frames(f"memory://in/clip{suffix}", kind, 5)
        theirs = read_frames(clip, kind, 5)
        assert [(frame.index, frame.time) for frame in ours] == [(frame.index, frame.time) for frame in theirs]
        assert all(np.array_equal(one.rgb, other.rgb) for one, other in zip(ours, theirs))


def test_a_frame_costs_little_of_a_long_video(memory, tmp_path):
    clip = tmp_path / "clip.mp4"
    noise = ["-f", "lavfi", "-i", "color=gray:s=1280x720:r=25:d=4,noise=alls=90:allf=t", "-pix_fmt", "yuv420p"]
    run_ffmpeg(*noise, "-c:v", "mpeg4", "-q:v", "2", clip)
    memory.pipe("/clip", clip.read_bytes())
    file = Remote("memory://clip")
    [ours] = read_frames(Encoded(file, "clip"))
    [theirs] = read_frames(clip)
    assert np.array_equal(ours.rgb, theirs.rgb)
    # FFmpeg looks into the first 5 MB to know the codec
    assert file.size > 20e6 and file.fetched < 12e6, f"{file.fetched:,} of {file.size:,} bytes"


def test_a_file_behind_a_url_reads_as_any(memory, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK", 7)
    monkeypatch.setattr(remote, "_KEPT_BLOCKS", 2)
    content = bytes(range(100))
    memory.pipe("/x", content)
    file = RemoteFile(Remote("memory://x"), "x")
    assert file.read() == content and file.read(5) == b""
    for position, count in ((0, 3), (95, 10), (6, 15), (50, 0)):
        file.seek(position)
        assert file.read(count) == content[position : position + count]
    assert file.seek(-4, os.SEEK_END) == 96 and file.read(2) == content[96:98] and file.tell() == 98


def test_a_small_file_is_one_request(memory, monkeypatch):
    memory.pipe({"/small": b"content", "/empty": b"", "/large": bytes(remote.BLOCK)})
    system = flaky(monkeypatch, memory)
    assert Remote("memory://small").read(0, 99) == b"content" and system.calls == 1
    assert Remote("memory://empty").size == 0
    assert Remote("memory://large").size == remote.BLOCK and system.calls == 4
    with pytest.raises(InputError, match="memory://gone: no such file"):
        Remote("memory://gone")


def test_a_server_without_ranges_and_one_that_gives_none_of_nothing(memory, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK", 8)
    content = bytes(range(30))
    memory.pipe({"/x": content, "/empty": b""})
    give = type(memory).cat_file

    def whole(self, path, start=None, end=None, **_):
        if path == "/empty":
            raise OSError("416 range not satisfiable")
        return give(self, path)

    monkeypatch.setattr(type(memory), "cat_file", whole)
    file = Remote("memory://x")
    assert file.size == 30 and file.read(5, 27) == content[5:27]
    assert Remote("memory://empty").size == 0


def test_requests_are_tried_again_and_then_named_without_secrets(memory, monkeypatch):
    memory.pipe("/x", b"content")
    system = flaky(monkeypatch, memory, first=storage.TRIES - 1)
    assert storage.read("memory://x") == b"content" and system.calls == storage.TRIES
    system.first, system.calls = storage.TRIES, 0
    url = "https://user:word@host/x?X-Amz-Signature=abc"
    system._error = OSError(f"503 for {url}")
    with pytest.raises(InputError, match="https://host/x: cannot be reached") as error:
        storage.read(url)
    assert system.calls == storage.TRIES and "word" not in str(error.value) and "abc" not in str(error.value)
    assert error.value.__cause__ is None
    # what will not change is not asked again
    system.first, system.calls = 1, 0
    system._error = FileNotFoundError("x")
    with pytest.raises(InputError, match="no such file"):
        storage.read("memory://x")
    assert system.calls == 1
    monkeypatch.undo()
    with pytest.raises(InputError, match="nosuch://x: fsspec cannot open nosuch://"):
        storage.read("nosuch://x")


class Web(SimpleHTTPRequestHandler):
    """A server that knows no ranges; what is called after a status has it."""

    def do_GET(self) -> None:
        if self.path[1:4].isdigit():
            self.send_error(int(self.path[1:4]))
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def test_what_http_says(tmp_path, monkeypatch):
    """A server that is away or busy is no missing file; and it is asked again."""
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install s3fs -c constraints-ray.txt")
    monkeypatch.setattr(storage, "FIRST_WAIT", 0)
    Image.effect_noise((20, 16), 50).save(tmp_path / "a.png")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Web, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asked: list[int] = []
    ask = storage.system_of
    monkeypatch.setattr(storage, "system_of", lambda url: asked.append(1) or ask(url))
    host = f"127.0.0.1:{server.server_port}"
    [frame] = read_frames(f"http://user:word@{host}/a.png?sig=abc")
    assert frame.image.size == (20, 16) and len(asked) == 1
    for name, words, tries in (
        ("404.png?sig=abc", "404.png: no such file", 1),
        ("403.png", "403.png: access is denied", 1),
        ("503.png", "503.png: cannot be reached", storage.TRIES),
    ):
        asked.clear()
        with pytest.raises(InputError) as error:
            read_frames(f"http://user:word@{host}/{name}")
        assert str(error.value).startswith(f"http://{host}/{words}") and "abc" not in str(error.value)
        assert len(asked) == tries
    server.shutdown()
    server.server_close()
    for ask_of in (read_frames, storage.size, storage.state):
        with pytest.raises(InputError, match="cannot be reached"):
            ask_of(f"http://{host}/a.png")
    assert storage.shown(str(tmp_path / "a?b.png")) == str(tmp_path / "a?b.png")


def test_waits_grow(memory, monkeypatch):
    flaky(monkeypatch, memory, first=99)
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.5)
    waits: list[float] = []
    monkeypatch.setattr(storage.time, "sleep", waits.append)
    with pytest.raises(InputError):
        storage.read("memory://x")
    assert waits == [0.5, 1, 2, 4, 8]


def test_folders_patterns_and_lists(memory):
    for name in ("a.mp4", "b/c.png", "b/.hidden.png", "b/notes.txt", "d.mkv"):
        memory.pipe(f"/in/{name}", b"x")
    memory.pipe("/list.txt", b"memory://in/d.mkv\nmemory://in/a.mp4\n/here/e.mp4\n")
    names = ("a.mp4", "b/c.png", "d.mkv")
    assert inputs.list_inputs(["memory://in"]).paths == [f"memory://in/{name}" for name in names]
    assert inputs.list_inputs(["memory://in/*.m*"]).paths == ["memory://in/a.mp4", "memory://in/d.mkv"]
    listed = inputs.list_inputs(["memory://list.txt"])
    assert listed.paths == ["memory://in/d.mkv", "memory://in/a.mp4", "/here/e.mp4"] and not listed.single
    assert inputs.list_inputs(["memory://in/a.mp4"]).single
    with pytest.raises(InputError, match="memory://in/nothing: no such file"):
        inputs.list_inputs(["memory://in/nothing"])
    account = Account("memory://in", "file")
    list(inputs._expand("memory://in", account))
    assert account.passed_over == {"hidden": 1, ".txt": 1}


def test_nothing_half_appears(memory, monkeypatch, tmp_path):
    """An upload that breaks off leaves what was there; the next one replaces it."""
    (tmp_path / "x").write_bytes(b"new and longer")
    memory.pipe("/out/x", b"old")
    put = memory.put_file

    def broken(file, path, **_):
        memory.pipe(path, b"new a")
        raise OSError("connection lost")

    monkeypatch.setattr(type(memory), "put_file", lambda self, *rest, **more: broken(*rest, **more))
    with pytest.raises(InputError):
        storage.upload(tmp_path / "x", "memory://out/x")
    assert memory.cat_file("/out/x") == b"old"
    monkeypatch.setattr(type(memory), "put_file", lambda self, *rest, **more: put(*rest, **more))
    storage.upload(tmp_path / "x", "memory://out/x")
    assert memory.cat_file("/out/x") == b"new and longer" and memory.find("/out") == ["/out/x"]


def test_lists_of_training_may_name_urls(memory, tmp_path):
    picture = BytesIO()
    Image.effect_noise((20, 16), 50).save(picture, "PNG")
    memory.pipe("/in/a.png", picture.getvalue())
    (tmp_path / "list.csv").write_text("filepath,title\nmemory://in/a.png,a\nmemory://in/gone.png,b\n")
    source = open_one(str(tmp_path / "list.csv"))
    assert source[0].captions == ["a"] and source[0].read() == picture.getvalue()
    [frame] = read_frames(source[0].encoded)
    assert frame.image.size == (20, 16)
    with pytest.raises(InputError, match=r"memory://in/gone\.png: no such file"):
        source[1].read()


@pytest.fixture
def mirror(memory, monkeypatch, tmp_path) -> Mirror:
    monkeypatch.setenv("MINDONE_COCA_CACHE", str(tmp_path / "cache"))
    return Mirror("memory://out/")


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_an_output_folder_elsewhere(mirror, memory, capsys):
    with mirror.open():
        write(mirror.folder, "journal/0-of-1.jsonl", "1\n")
        assert mirror.sync() == 0  # not so soon
        mirror._last -= 100
        assert mirror.sync() == 1 and mirror.sync() == 0
        write(mirror.folder, "captions.json", "{}")
    assert memory.find("/out") == ["/out/captions.json", "/out/journal/0-of-1.jsonl"]
    assert "sent 1 file to memory://out" in capsys.readouterr().err

    # a stop sends too; the journal that is ahead here stays, the longer one there is fetched
    with pytest.raises(KeyboardInterrupt), Mirror("memory://out").open():
        write(mirror.folder, "journal/0-of-1.jsonl", "1\n2\n")
        raise KeyboardInterrupt
    assert memory.cat_file("/out/journal/0-of-1.jsonl") == b"1\n2\n"
    write(mirror.folder, "journal/0-of-1.jsonl", "1\n2\n3\n")
    with Mirror("memory://out").open():
        assert (mirror.folder / "journal/0-of-1.jsonl").read_text() == "1\n2\n3\n"
    memory.pipe("/out/journal/0-of-1.jsonl", b"1\n2\n3\n4\n")
    with Mirror("memory://out").open():
        assert (mirror.folder / "journal/0-of-1.jsonl").read_text() == "1\n2\n3\n4\n"

    memory.rm("/out", recursive=True)  # whoever removes the folder begins anew
    with Mirror("memory://out").open():
        assert list(mirror.folder.iterdir()) == []


def test_what_is_newer_there_stays(mirror, memory):
    """Another machine went on: what this one has of it is old, and is not sent, whatever comes of this run."""
    with mirror.open():
        write(mirror.folder, "journal/0-of-1.jsonl", "1\n")
        write(mirror.folder, "captions.json", "old")
    memory.pipe("/out/journal/0-of-1.jsonl", b"1\n2\n")
    memory.pipe("/out/captions.json", b"new")
    with pytest.raises(KeyboardInterrupt), Mirror("memory://out").open() as again:
        assert (again.folder / "journal/0-of-1.jsonl").read_text() == "1\n2\n"
        raise KeyboardInterrupt
    assert memory.cat_file("/out/captions.json") == b"new"
    assert memory.cat_file("/out/journal/0-of-1.jsonl") == b"1\n2\n"


def test_a_part_alone_is_fetched_and_nothing_is_sent(mirror, memory):
    memory.pipe("/out/features/model.json", b"{}")
    write(mirror.folder, "journal/0-of-1.jsonl", "1\n")
    assert Mirror("memory://out").pull("features") == 1
    assert (mirror.folder / "features/model.json").read_bytes() == b"{}"
    assert (mirror.folder / "journal/0-of-1.jsonl").exists() and memory.find("/out") == ["/out/features/model.json"]


def test_what_the_journal_says_is_there(mirror, memory, monkeypatch):
    """Outputs are sent before the journal that counts them."""
    sent: list[str] = []
    monkeypatch.setattr(storage, "upload", lambda path, url: sent.append(url))
    with mirror.open():
        for name in ("journal/done.jsonl", "jsonl/captions_0.jsonl", "zz.txt"):
            write(mirror.folder, name, "x")
    assert sent == [f"memory://out/{name}" for name in ("jsonl/captions_0.jsonl", "zz.txt", "journal/done.jsonl")]
