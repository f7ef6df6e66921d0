"""Collections from the command line: what is printed and written, in any order, and found again by text."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

import inference
from mindone_coca.captioning import captioner as captioners
from mindone_coca.captioning.batches import BatchCaptioner, Encoded, merge_similar
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.captioning.reading import Passage, PassageReader
from mindone_coca.model.families import load_model_config
from tests.collection.clips import make_collection
from tests.video.clips import REAL_CLIPS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return make_collection(tmp_path_factory.mktemp("in"), good=10, damaged=2)


@pytest.fixture(scope="module")
def run(model_arguments, tmp_path_factory):
    """Run inference.py's main here; returns exit code, lines on standard output, standard error."""

    def call(capfd, *arguments: str | Path) -> tuple[int, list[str], str]:
        capfd.readouterr()
        code = inference.main([*model_arguments, *map(str, arguments)])
        output = capfd.readouterr()
        return code, output.out.splitlines(), output.err

    return call


@pytest.mark.graphs
def test_captions_depend_neither_on_order_nor_on_company(collection, run, capfd, tmp_path):
    good, broken = collection
    paths = [*good, *broken]
    code, lines, errors = run(capfd, "--video_path", *paths)
    assert code == 1
    assert [line.split("\t")[0] for line in lines] == [str(path) for path in good]  # in the order given
    assert all(f"error: {path}" in errors for path in broken)
    assert "12 files, 10 captions, 2 failed" in errors
    assert "device idle" in errors
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths[::-1]))
    assert run(capfd, "--video_path", tmp_path / "list.txt")[1] == lines[::-1]
    captions = dict(line.split("\t") for line in lines)
    assert len(set(captions.values())) > 3
    for path in good[:2]:
        assert run(capfd, "--video_path", path)[:2] == (0, [captions[str(path)]])


@pytest.mark.graphs
def test_one_file_s_segments_and_alternatives(run, capfd):
    arguments = ["--video_path", REAL_CLIPS[0], "--frame_type", "segments", "--segment_seconds", "3"]
    code, lines, _ = run(capfd, *arguments, "--merge_similarity", "1")
    assert code == 0
    assert [line.split("\t")[0] for line in lines] == [
        "00:00:00.000 --> 00:00:03.000",
        "00:00:03.000 --> 00:00:06.000",
        "00:00:06.000 --> 00:00:10.000",
    ]
    assert all(len(line.split("\t")) == 2 for line in lines)
    code, merged, _ = run(capfd, *arguments, "--merge_similarity", "-1")
    assert merged == [lines[0].replace("03.000\t", "10.000\t")]
    code, lines, _ = run(capfd, "--video_path", REAL_CLIPS[0], "--num_beams", "3", "--num_return_sequences", "3")
    assert (code, len(set(lines))) == (0, 3)


@pytest.mark.graphs
def test_files_features_and_search(collection, run, capfd, tmp_path, model_folder):
    good, broken = collection
    output = ["--output_dir", tmp_path / "out"]
    options = ["--num_beams", "2", "--num_return_sequences", "2", "--frame_type", "multi_frames", "--num_frames", "3"]
    code, lines, _ = run(capfd, "--video_path", *good, *broken, *output, *options, "--save_features")
    assert (code, lines) == (1, [])
    written = json.loads((tmp_path / "out/captions.json").read_text())
    rows = written["results"]
    assert [row["path"] for row in rows] == [str(path) for path in [*good, *broken]]
    assert [row["error"] is None for row in rows] == [True] * 10 + [False] * 2
    assert all(row["score"] >= row["alternatives"][0]["score"] - 10 for row in rows[:10])
    assert all(row["rank_score"] >= row["alternatives"][0]["rank_score"] for row in rows[:10])
    assert {len(row["times"]) for row in rows[:10] if row["duration"]} == {3}
    assert written["options"]["num_frames"] == 3
    assert written["model"].startswith("coca.safetensors ")

    captioner = captioners.VideoCaptioner(
        load_model_config(model_folder / "config.yaml"), model_folder / "coca.safetensors", "float32"
    )
    features = np.load(tmp_path / "out/features/img_emb/img_emb_0.npy")
    text_features = np.load(tmp_path / "out/features/text_emb/text_emb_0.npy")
    path = good[4]
    images = np.stack([captioner.transform(frame.image) for frame in inference_frames(path)])
    want = captioner.model.encode_image(images).asnumpy().mean(0)
    want /= np.linalg.norm(want)
    assert np.abs(features[4] - want).max() < 1e-5
    tokens = captioner.tokenizer([rows[4]["caption"]], 16)
    assert np.abs(text_features[4] - captioner.model.encode_text(tokens).asnumpy()[0]).max() < 1e-5

    query = captioner.model.encode_text(captioner.tokenizer(["a dog on a beach"], 16)).asnumpy()[0]
    code, found, _ = run(capfd, *output, "--query", "a dog on a beach", "--top", "4")
    assert code == 0
    order = np.argsort(-(features @ query))[:4]
    assert [line.split("\t")[1] for line in found] == [rows[row]["path"] for row in order]
    assert [float(line.split("\t")[0]) for line in found] == pytest.approx((features @ query)[order], abs=1e-4)

    # the features name their model, so that the query need not
    assert inference.main([*map(str, output), "--query", "a dog on a beach", "--top", "4"]) == 0
    assert capfd.readouterr().out.splitlines() == found
    note = tmp_path / "out/features/model.json"
    moved = note.read_text().replace("coca.safetensors", "moved.safetensors")
    note.write_text(moved)
    assert inference.main([*map(str, output), "--query", "a dog on a beach"]) == 2
    errors = capfd.readouterr().err
    assert "moved.safetensors any more; give --model_path" in errors and errors.count("\n") == 1

    code, _, errors = run(capfd, "--video_path", *good, *output, *options, "--save_features", "--seed", "3")
    assert code == 2
    assert "was begun with seed null, now it is 3" in errors


def inference_frames(path: Path):
    from mindone_coca.video.frames import read_frames

    return read_frames(path, "multi_frames", 3)


@pytest.mark.graphs
def test_a_changed_file_is_done_again_and_a_new_one_added(run, capfd, tmp_path):
    folder, output = tmp_path / "in", ["--output_dir", tmp_path / "out", "--output_format", "txt"]
    folder.mkdir()
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (64, 64), colour).save(folder / name)
    (folder / "c.png").write_bytes(b"no picture")
    assert run(capfd, "--video_path", folder, *output)[0] == 1
    before = (tmp_path / "out/captions.txt").read_text().splitlines()
    assert len(before) == 2
    Image.effect_noise((80, 80), 90).save(folder / "c.png")
    Image.effect_mandelbrot((90, 90), (-2, -1, 1, 1), 50).save(folder / "d.png")
    code, _, errors = run(capfd, "--video_path", folder, *output)
    assert code == 0
    assert "2 of 4 files were done before" in errors
    after = (tmp_path / "out/captions.txt").read_text().splitlines()
    assert after[:2] == before
    assert [line.split("\t")[0] for line in after[2:]] == [str(folder / "c.png"), str(folder / "d.png")]


def passage(number: int, feature: np.ndarray, path: str = "x") -> Encoded:
    return Encoded(Passage(path, number, number + 1, [number], [], []), feature, np.zeros(1))


def test_near_duplicates_are_merged_into_the_first():
    angles = np.radians([0, 10, 20, 30, 31, 90])
    items = [passage(n, np.array([np.cos(a), np.sin(a)])) for n, a in enumerate(angles)]
    merged = list(merge_similar(items, np.cos(np.radians(15))))
    # the third is near the second, but not near the first, which stands for both
    assert [(one.item.start, one.item.end) for one in merged] == [(0, 2), (2, 5), (5, 6)]
    # of another file, which shares the batch
    merged = list(merge_similar([passage(0, items[0].feature), passage(1, items[0].feature, "y")], 0.5))
    assert [(one.item.path, one.item.end) for one in merged] == [("x", 1), ("y", 2)]


@pytest.mark.parametrize("size", [None, 2, 5])
def test_stretches_of_several_files_share_batches(size):
    """Ten items are encoded and captioned `batch_size` at a time, whatever files they are of."""
    encoded, captioned = [], []

    class Model:
        def encode_image_tokens(self, images):
            encoded.append(len(images))
            return Tensor(np.zeros((len(images), 4), np.float32)), Tensor(np.zeros((len(images), 2, 4), np.float32))

        def generate(self, image, text, image_embs, **_):
            captioned.append(len(image_embs))
            scores = Tensor(np.zeros(len(image_embs), np.float32))
            return Tensor(np.zeros((len(image_embs), 3), np.int32)), scores, scores

    items = [Passage(f"{n % 3}", n, n + 1, [n], [np.zeros((3, 2, 2))], []) for n in range(10)]
    options = CaptionOptions("segments", merge_similarity=1, batch_size=size)
    tokenizer = SimpleNamespace(decode=lambda row, skip_special_tokens: "a caption")
    done = list(BatchCaptioner(Model(), tokenizer, options)(items))
    assert [item for item, _ in done] == items
    assert captioned == {None: [8, 2], 2: [2] * 5, 5: [5, 5]}[size]
    assert encoded == {None: [8, 1, 1], 2: [2] * 5, 5: [5, 5]}[size]


@pytest.mark.graphs
def test_pooled_frames_are_those_of_a_single_call(model_folder):
    weights = model_folder / "coca.safetensors"
    captioner = captioners.VideoCaptioner(model_folder / "config.yaml", weights, num_frames=3, fusion="pool")
    generation = {"seq_len": 8, "min_seq_len": 3}
    options = CaptionOptions("multi_frames", 3, "pool", generation=generation)
    read = PassageReader(options, captioner.transform, thumbnails=False)
    passages = [item for path in REAL_CLIPS[:2] for item in read(str(path))]
    captions = [caption.text for _, caption in captioner.batches(options)(passages)]
    assert captions == [captioner(path, "multi_frames", **generation) for path in REAL_CLIPS[:2]]


@pytest.mark.slow
def test_msrun_divides_the_work(collection, model_arguments, tmp_path, run, capfd):
    good, _ = collection
    arguments = [
        "--video_path",
        *map(str, good),
        "--frame_type",
        "segments",
        "--segment_seconds",
        "1",
        "--output_format",
        "json",
        "--output_dir",
    ]
    assert run(capfd, *arguments, tmp_path / "one")[0] == 0
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [
        "msrun",
        "--worker_num=2",
        "--local_worker_num=2",
        "--master_port=8217",
        f"--log_dir={tmp_path / 'log'}",
        "--join=True",
        str(ROOT / "inference.py"),
    ]
    subprocess.run(
        [*command, *model_arguments, *arguments, str(tmp_path / "two")], check=True, env=environment, timeout=300
    )
    assert {path.name for path in (tmp_path / "two/journal").glob("*.jsonl")} == {"0-of-2.jsonl", "1-of-2.jsonl"}
    one, two = ((tmp_path / name / "captions.json").read_bytes() for name in ("one", "two"))
    assert one == two
