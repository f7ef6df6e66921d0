"""Weights from a hub: the real client against a server on loopback, and every way in which it can fail."""

import importlib
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from mindone_coca.cli.main import main
from mindone_coca.config import find_config
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model, find_config_and_weights
from mindone_coca.hub.names import HubName, hub_name
from mindone_coca.hub.published import APPLE, OPEN_CLIP
from mindone_coca.model.families import load_model_config
from mindone_coca.weights.hub import local_weights
from mindone_coca.weights.source import open_weights
from tests.models import make_config
from tests.reference import open_clip, random_reference, torch
from tests.weights.hub_server import TOKEN, Repo, running_hub

ROOT = Path(__file__).parents[2]
CONFIG = make_config(text={"context_length": 20}, multimodal={"context_length": 18})  # no shape tells the second
NAME = "a/coca"
OPEN_CLIP_CONFIG = "open_clip_config.json"


@pytest.fixture(scope="module")
def server():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def client(server):
    """The constants of huggingface_hub as it is in a process that was started with this hub as HF_ENDPOINT."""
    loaded = [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]
    before = {name: sys.modules.pop(name) for name in loaded}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.url)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HTTP_PROXY", "http_proxy"):
            patch.delenv(name, raising=False)
        yield importlib.import_module("huggingface_hub.constants")
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def hub(server, client, tmp_path, monkeypatch):
    """The hub, empty, and a client with an empty cache."""
    monkeypatch.setattr(client, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    server.repos.clear()
    server.asked.clear()
    server.cut, server.spoil = 0, False
    return server


@pytest.fixture(scope="module")
def state():
    return {name: value.numpy() for name, value in random_reference(CONFIG).state_dict().items()}


@pytest.fixture(scope="module")
def weights(state) -> bytes:
    """As open_clip_pytorch_model.bin."""
    file = io.BytesIO()
    torch.save({name: torch.from_numpy(value) for name, value in state.items()}, file)
    return file.getvalue()


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        local_weights(name)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{name}: ") and len(text) < 700
    return text


def downloads(hub) -> list[str]:
    return [line for line in hub.asked if line.startswith("GET") and ("/large/" in line or "/resolve/" in line)]


@pytest.mark.parametrize(
    ("text", "parts"),
    {
        "hf:a/b": ("a/b", None, None),
        "hf:a/b@v1.0": ("a/b", "v1.0", None),
        "hf:a/b@refs/pr/3/c.bin": ("a/b", "refs/pr/3", "c.bin"),
        "hf:a/b@new%2Fidea": ("a/b", "new/idea", None),
        "hf:a/b/c/d.bin": ("a/b", None, "c/d.bin"),
        "hf:a/b/": ("a/b", None, None),
    }.items(),
)
def test_names(text, parts):
    assert hub_name(text) == hub_name(Path(text.rstrip("/")) if not text.endswith("/") else text)
    assert hub_name(text) == HubName(text, *parts)


@pytest.mark.parametrize("text", ["hf:", "hf:a", "ms:a", "hf:a/b@", "hf:a/b/../c", "hf:a b/c", "hf:/a/b"])
def test_wrong_names_are_refused(text):
    with pytest.raises(InputError, match=r"no name of a repository; write (hf|ms):OWNER/NAME"):
        hub_name(text)


def test_paths_are_no_names(tmp_path, monkeypatch):
    assert hub_name("models/coca.ckpt") is hub_name({"embed_dim": 3}) is hub_name(None) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coca_ViT-L-14").mkdir()
    assert hub_name("coca_ViT-L-14/mine.bin") is None
    Path("hf:a").mkdir()
    assert hub_name("hf:a") is None
    assert local_weights("x.bin") == Path("x.bin")


def test_open_clips_names_are_open_clips(tmp_path, monkeypatch):
    theirs = {}
    for model, tag in open_clip.list_pretrained():
        if model.startswith("coca"):
            theirs[f"{model}/{tag}"] = open_clip.get_pretrained_cfg(model, tag)["hf_hub"].rstrip("/")
    assert {weights.name: weights.repository for weights in OPEN_CLIP} == theirs
    for known in OPEN_CLIP:
        model = open_clip.get_model_config(known.name.split("/")[0])
        assert load_model_config(known.config) == load_model_config(model)
        assert known.context == load_model_config(model).context_length
        assert hub_name(known.name).repository == hub_name(known.name.lower()).repository == known.repository
    with pytest.raises(InputError, match="did you mean 'coca_ViT-L-14/laion2b_s13b_b90k'"):
        hub_name("coca_ViT-L-14/laion2b_s13b")


def test_models_are_listed(capsys):
    assert main(["models"]) == 0
    out, err = capsys.readouterr()
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert err == "" and len(APPLE) == 21 and lines.keys() >= {known.name for known in (*OPEN_CLIP, *APPLE)}
    line = lines["coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k"]
    assert all(part in line for part in ("638 M", "2.55 GB", "76 tokens", "COCO"))
    assert "256 tokens" in lines["hf:apple/mobileclip2_coca_dfn2b_s13b_gbc10m-short-relation_context256"]
    assert "Licences: see the model page" in out and all(known.repository in out for known in OPEN_CLIP)
    for known in (*OPEN_CLIP, *APPLE):
        assert hub_name(known.name).repository == known.repository


@pytest.mark.parametrize("layout", ["open_clip_config.json", "config.json", "none"])
def test_fetched_with_its_config(layout, hub, weights, state, recwarn):
    """The config is the repository's, else inferred; another program's config.json is no CoCa's."""
    files = {"README.md": b"-", "open_clip_pytorch_model.bin": weights, "config.json": b'{"model_type": "clip"}'}
    if layout == "open_clip_config.json":
        files[layout] = json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5] * 3}}).encode()
    elif layout == "config.json":
        files[layout] = json.dumps(CONFIG).encode()
    hub.add(NAME, files)
    config, path = find_config_and_weights(None, f"hf:{NAME}")
    assert path.name == "open_clip_pytorch_model.bin" and open_weights(path).keys() == state.keys()
    assert config.context_length == (18 if layout != "none" else 20)
    assert config.preprocess.mean[0] == (0.5 if layout == "open_clip_config.json" else 0.48145466)
    warned = [str(warning.message) for warning in recwarn if "no config beside it" in str(warning.message)]
    assert len(warned) == (layout == "none")
    assert not [line for line in downloads(hub) if "README" in line]
    hub.asked.clear()
    assert find_config_and_weights(f"hf:{NAME}", None) == (config, path)  # -c alone means the weights, too
    assert not downloads(hub)
    if layout == "none":
        with pytest.raises(InputError, match=f"hf:{NAME}: no model config in the repository"):
            find_config(f"hf:{NAME}")
    else:
        assert find_config(f"hf:{NAME}") == path.parent / layout == find_config(path.parent / layout)


def test_open_clips_name_without_a_config_has_the_packaged_one(hub, weights):
    hub.add("laion/CoCa-ViT-L-14-laion2B-s13B-b90k", {"open_clip_pytorch_model.bin": weights})
    assert find_config("coca_ViT-L-14/laion2b_s13b_b90k") == find_config("coca_vit-l-14")
    assert local_weights("coca_ViT-L-14/laion2b_s13b_b90k").read_bytes() == weights


def test_revision_folder_and_file(hub, state):
    versions = {}
    for tag in ("main", "v1", "refs/pr/7"):
        versions[tag] = save({"logit_scale": np.float32([len(tag)])} | dict(list(state.items())[:3]))
    hub.repos[NAME] = Repo(
        {
            tag: {
                "open_clip_model.safetensors": content,
                "small/a.safetensors": versions["v1"],
                "small/b.safetensors": content,
                "only/coca.safetensors": content,
                "only/coca.json": json.dumps(CONFIG).encode(),
                "config.json": json.dumps({**CONFIG, "quick_gelu": True}).encode(),
            }
            for tag, content in versions.items()
        }
    )
    assert local_weights(f"hf:{NAME}").read_bytes() == versions["main"]
    commit = hub.repos[NAME].find("v1")[0]
    for revision in ("v1", commit):
        assert local_weights(f"hf:{NAME}@{revision}").read_bytes() == versions["v1"]
    assert local_weights(f"hf:{NAME}@refs/pr/7/small/b.safetensors").read_bytes() == versions["refs/pr/7"]
    assert local_weights(f"hf:{NAME}@v1/only").name == "coca.safetensors"
    assert find_config(f"hf:{NAME}/only/coca.safetensors").name == "coca.json"
    assert load_model_config(f"hf:{NAME}/small/a.safetensors").quick_gelu  # that of the folder around it
    assert not load_model_config(f"hf:{NAME}/only/coca.json").quick_gelu
    several = "small: there are 2 weights files (a.safetensors, b.safetensors); name one, as"
    assert several in refusal(f"hf:{NAME}/small")
    assert "other.bin is not in the repository" in refusal(f"hf:{NAME}/other.bin")
    assert "no revision 'v2'" in refusal(f"hf:{NAME}@v2")


def test_config_of_weights_in_a_folder_of_a_repository(hub, weights):
    hub.add(NAME, {"only/coca.bin": weights, "config.json": json.dumps(CONFIG).encode()})
    config, path = find_config_and_weights(None, f"hf:{NAME}/only/coca.bin")
    assert path.parent.name == "only" and config == load_model_config(CONFIG)


def test_shards(hub, state):
    names = list(state)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    files = {part: save({name: state[name] for name in inner}) for part, inner in parts.items()}
    weight_map = {name: part for part, inner in parts.items() for name in inner}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    hub.add(NAME, files)
    found = open_weights(local_weights(f"hf:{NAME}"))
    assert found.keys() == state.keys()
    np.testing.assert_array_equal(found[names[-1]].read(), state[names[-1]])


def test_a_broken_download_goes_on(hub, client, weights, monkeypatch, capsys):
    monkeypatch.setattr(client, "DOWNLOAD_CHUNK_SIZE", 1 << 12)
    hub.add(NAME, {"open_clip_pytorch_model.bin": weights})
    hub.cut = 2
    assert local_weights(f"hf:{NAME}").read_bytes() == weights
    ranges = [line.split("bytes=")[1].rstrip("-") for line in downloads(hub) if "bytes=" in line]
    assert len(ranges) == 2 and len(weights) // 3 < int(ranges[0]) < int(ranges[1]) < len(weights)
    err = capsys.readouterr().err
    assert f"fetching open_clip_pytorch_model.bin ({len(weights) / 1e6:.1f} MB) of hf:{NAME}" in err
    assert err.count("broke off") == 2


def test_what_breaks_off_again_and_again_is_told_and_goes_on_at_the_next_start(hub, client, weights, monkeypatch):
    monkeypatch.setattr(client, "DOWNLOAD_CHUNK_SIZE", 1 << 12)
    hub.add(NAME, {"open_clip_pytorch_model.bin": weights})
    hub.cut = 1000
    assert "cannot be fetched" in refusal(f"hf:{NAME}")
    hub.asked.clear()
    hub.cut = 0
    assert local_weights(f"hf:{NAME}").read_bytes() == weights
    assert len(downloads(hub)) == 1 and "bytes=" in downloads(hub)[0]


def test_a_wrong_checksum_is_refused(hub, client, weights):
    hub.add(NAME, {"open_clip_pytorch_model.bin": weights})
    hub.spoil = True
    message = refusal(f"hf:{NAME}")
    assert "open_clip_pytorch_model.bin was damaged on its way" in message and "removed" in message
    assert not [path for path in Path(client.HF_HUB_CACHE).rglob("*") if path.is_file() and path.stat().st_size > 999]
    hub.spoil = False
    assert local_weights(f"hf:{NAME}").read_bytes() == weights


def test_checked_once_and_again_when_it_changed(hub, weights, monkeypatch):
    hub.add(NAME, {"open_clip_pytorch_model.bin": weights})
    path = local_weights(f"hf:{NAME}").resolve()
    with monkeypatch.context() as patch:
        patch.setattr("mindone_coca.hub.checksums._sha256", lambda *_: pytest.fail("read again"))
        local_weights(f"hf:{NAME}")
    path.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert "was damaged" in refusal(f"hf:{NAME}") and not path.exists()


def test_without_network_the_cache_serves(hub, client, weights, monkeypatch):
    """Unreachable, and with HF_HUB_OFFLINE in a new process."""
    hub.add(NAME, {"open_clip_pytorch_model.bin": weights, "open_clip_config.json": json.dumps(CONFIG).encode()})
    path = local_weights(f"hf:{NAME}")
    del hub.repos[NAME]
    with pytest.warns(UserWarning, match="taking what the cache has"):
        assert local_weights(f"hf:{NAME}") == path
    assert "cannot be" not in refusal("hf:a/other")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": client.HF_HUB_CACHE}
    hub.asked.clear()
    run = [sys.executable, "-m", "mindone_coca", "convert", "--dry_run", "--source"]
    options = {"capture_output": True, "text": True, "cwd": ROOT, "env": environment}
    done = subprocess.run([*run, f"hf:{NAME}"], **options)
    assert done.returncode == 0 and done.stdout.startswith("would write models/coca_model.ckpt"), done.stderr
    assert f"note: config {path.parent / 'open_clip_config.json'}" in done.stderr and "warning" not in done.stderr
    done = subprocess.run([*run, "coca_ViT-L-14/laion2b_s13b_b90k"], **options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: coca_ViT-L-14/laion2b_s13b_b90k: HF_HUB_OFFLINE is set, and")
    page = "laion/CoCa-ViT-L-14-laion2B-s13B-b90k/tree/main"
    assert f"fetch open_clip_pytorch_model.bin, and the .json files beside it, from {hub.url}/{page}" in done.stderr
    assert not hub.asked


def test_no_network_and_nothing_in_the_cache(hub, client, monkeypatch):
    with socket.socket() as free:  # bound, but nobody listens
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(client, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        message = refusal(f"hf:{NAME}@v1/x/coca.bin")
    assert "cannot be fetched (Connection refused)" in message
    assert "fetch x/coca.bin" in message and f"/{NAME}/tree/v1 into a folder" in message and "HF_ENDPOINT" in message


@pytest.mark.parametrize("kind", ["private", "gated"])
def test_what_needs_a_token(kind, hub, weights, monkeypatch):
    hub.add(NAME, {"open_clip_pytorch_model.bin": weights}, **{kind: True})
    expected = {"private": "or a private one: check the name, or set HF_TOKEN", "gated": "accept the terms on"}[kind]
    assert expected in refusal(f"hf:{NAME}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert local_weights(f"hf:{NAME}").read_bytes() == weights


@pytest.mark.graphs
def test_a_caption_of_a_repository(hub, tmp_path, capsys):
    """In open_clip's layout: what the programs and the library make of its torch file is what they make of ours."""
    ours, theirs = ROOT / "models/coca_tiny.safetensors", tmp_path / "theirs"
    assert main(["convert", "--source", str(ours), "--reverse", "--target", str(theirs)]) == 0
    hub.add(NAME, {name: (theirs / name).read_bytes() for name in ("open_clip_pytorch_model.bin", OPEN_CLIP_CONFIG)})
    capsys.readouterr()
    assert main(["caption", "--model_path", f"hf:{NAME}", "--video_path", str(ROOT / "assets/demo.mp4")]) == 0
    assert capsys.readouterr().out == "a large red star above a small yellow ring\n"
    model, local = create_model(f"hf:{NAME}"), create_model(ours.with_suffix(".yaml"), ours)
    for fetched, own in zip(model.get_parameters(), local.get_parameters()):
        np.testing.assert_array_equal(fetched.asnumpy(), own.asnumpy())


def test_a_repository_without_weights(hub):
    hub.add(NAME, {"README.md": b"-"})
    assert "there are no weights in it" in refusal(f"hf:{NAME}")
