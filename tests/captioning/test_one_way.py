"""One way from frames to captions: a file alone, a folder, the library, evaluation and validation pages all take it."""

import dataclasses
import inspect
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

from mindone_coca import VideoCaptioner
from mindone_coca.captioning.batches import BatchCaptioner, Encoded
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.captioning.reading import PassageReader
from mindone_coca.cli import caption, evaluate
from mindone_coca.errors import InputError
from mindone_coca.generation.generate import generate
from mindone_coca.generation.settings import GenerationOptions
from mindone_coca.model.base import ImageTextModel

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "models" / "coca_tiny.safetensors"
SPIED = {
    "read": (PassageReader, "__call__"),
    "encode": (BatchCaptioner, "encode"),
    "caption": (BatchCaptioner, "_caption"),
    "generate": (ImageTextModel, "generate"),
}


@pytest.fixture
def passed(monkeypatch) -> set[str]:
    """The steps of SPIED that were taken."""
    taken: set[str] = set()

    def spy(step, function):
        def spying(*arguments, **options):
            taken.add(step)
            return function(*arguments, **options)

        return spying

    for step, (owner, name) in SPIED.items():
        monkeypatch.setattr(owner, name, spy(step, getattr(owner, name)))
    return taken


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The bundled video beside pictures of its frames."""
    folder = tmp_path_factory.mktemp("media")
    shutil.copy(ROOT / "assets" / "demo.mp4", folder)
    for number, crop in enumerate(((0, 0, 400, 80), (0, 0, 80, 80), (160, 0, 240, 80))):
        Image.open(ROOT / "docs" / "images" / "demo_frames.png").convert("RGB").crop(crop).save(
            folder / f"{number}.png"
        )
    return folder


def caption_into(target: Path, *paths: Path) -> dict[str, tuple[str, float, np.ndarray]]:
    """Caption paths and save features; -> caption, score and image feature of each file."""
    arguments = ["--model_path", WEIGHTS, "--video_path", *paths, "--output_dir", target, "--save_features"]
    assert caption.main([*map(str, arguments)]) == 0
    rows = json.loads((target / "captions.json").read_text())["results"]
    features = np.load(target / "features" / "img_emb" / "img_emb_0.npy")
    return {row["path"]: (row["caption"], row["score"], feature) for row, feature in zip(rows, features, strict=True)}


@pytest.mark.graphs
def test_a_file_alone_and_in_a_folder(folder, passed, tmp_path):
    together = caption_into(tmp_path / "all", folder)
    assert passed == SPIED.keys() and len(together) == 4
    for number, path in enumerate(sorted(folder.iterdir())):
        passed.clear()
        [(text, score, feature)] = caption_into(tmp_path / str(number), path).values()
        assert passed == SPIED.keys()
        want_text, want_score, want_feature = together[str(path)]
        assert text == want_text and abs(score - want_score) <= 1e-4
        np.testing.assert_allclose(feature, want_feature, rtol=0, atol=1e-5)


@pytest.mark.graphs
def test_the_library_and_evaluation_take_it_too(folder, passed, tmp_path, capsys):
    captioner = VideoCaptioner("coca_tiny", WEIGHTS)
    assert captioner(folder / "demo.mp4") == "a large red star above a small yellow ring"
    assert passed == SPIED.keys()
    passed.clear()
    (tmp_path / "list.csv").write_text(f"filepath,title\n{folder / '1.png'},a shape\n")
    assert evaluate.main(["captioning", "--model_path", str(WEIGHTS), "--data", str(tmp_path / "list.csv")]) == 0
    assert passed >= SPIED.keys() - {"read"}  # rows of lists and shards have a reader of their own
    assert "images 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("num_beam", "unknown argument 'num_beam'; did you mean 'num_beams'?"),
        ("frame_typ", "unknown argument 'frame_typ'; did you mean 'frame_type'?"),
        ("num_frames", "unknown argument 'num_frames'; give it when you make the captioner"),
        ("promt", "unknown argument 'promt'; did you mean 'prompt'?"),
        ("return_scores", "unknown argument 'return_scores'"),  # the captioner asks for them itself
    ],
)
def test_a_wrong_argument_is_named_before_the_file_is_read(wrong, message):
    with pytest.raises(InputError, match="^VideoCaptioner: " + re.escape(message)):
        VideoCaptioner("coca_tiny", WEIGHTS)("no such file.mp4", **{wrong: 4})


def test_one_path_at_a_time():
    with pytest.raises(InputError, match=r"^video_path: must be the path of one file, got list"):
        VideoCaptioner("coca_tiny", WEIGHTS)(["a.mp4", "b.mp4"])


@pytest.mark.parametrize("sampled", [False, True])
def test_captions_keep_the_score_that_orders_them(sampled):
    ids = np.array([[1], [2], [3], [4]])
    scores, ranks = np.array([-2.0, -1.0, -1.5, -3.0]), np.array([9.0, 8.123456, 7.0, 6.5])
    given = {}

    def generated(*_, **options):
        given.update(options)
        return Tensor(ids), Tensor(scores), Tensor(ranks * np.nan if sampled else ranks)

    tokenizer = SimpleNamespace(decode=lambda row, skip_special_tokens: f"caption\n{row[0]}")
    captioner = BatchCaptioner(SimpleNamespace(generate=generated), tokenizer, CaptionOptions())
    first, second = captioner._caption([Encoded(None, np.zeros(2), np.zeros((1, 2)))] * 2)
    assert given["return_scores"] and given["return_rank_scores"]
    assert (first.text, first.score, first.alternatives[0].text) == ("caption 1", -2.0, "caption 2")
    assert (first.rank_score, first.alternatives[0].rank_score) == ((None, None) if sampled else (9.0, 8.1235))
    assert second.rank_score == (None if sampled else 7.0) and len(second.alternatives) == 1


def test_no_option_is_forgotten_by_the_journal():
    settings = [
        CaptionOptions(),
        CaptionOptions("multi_frames"),
        CaptionOptions("segments"),
        CaptionOptions("segments", segment_seconds=2.0),
    ]
    kept = set().union(*(options.as_dict() for options in settings))
    assert kept == {spec.name for spec in dataclasses.fields(CaptionOptions)} - {"generation"}
    assert CaptionOptions(generation={"seq_len": 9}).as_dict()["seq_len"] == 9


def test_generation_options_are_the_arguments_of_generate():
    parameters = inspect.signature(generate).parameters
    for spec in dataclasses.fields(GenerationOptions):
        assert parameters[spec.name].default == spec.default, spec.name
    others = {
        "model",
        "image",
        "text",
        "stopping_criteria",
        "image_embs",
        "return_scores",
        "return_rank_scores",
        "uniforms",
    }
    assert parameters.keys() == {spec.name for spec in dataclasses.fields(GenerationOptions)} | others
