"""Rows of a list are read as inference reads files: by their content, upright, with frames by one clock."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.data.loader import TrainingData
from mindone_coca.data.settings import DataConfig
from mindone_coca.evaluation.samples import Samples
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import create_transforms
from mindone_coca.typed_mapping import from_dict
from mindone_coca.video.frames import read_frames
from mindone_coca.video.pictures import DEFAULT_RULES, PictureRules
from tests.data.training_samples import open_one, write_csv, write_tar

CASES = Path(__file__).parents[1] / "video" / "cases"
TOKENIZER = Tokenizer()
TRANSFORM = create_transforms(32)


def animation() -> bytes:
    data = BytesIO()
    images = [Image.new("RGB", (24, 24), colour) for colour in ("red", "lime", "blue", "white", "black")]
    images[0].save(data, "GIF", save_all=True, append_images=images[1:], duration=[100, 5000, 20, 20, 300])
    return data.getvalue()


def photo_on_its_side() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    data, exif = BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(data, "PNG", exif=exif)
    return data.getvalue()


def deep() -> bytes:
    data = BytesIO()
    Image.fromarray(np.linspace(0, 65535, 1024).reshape(32, 32).astype(np.uint16)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name in ("clip.ts", "phone.3gp", "dvd1.mpg", "exif_text_number.jpg", "exif_bad.jpg", "IMG_0001.HEIC"):
        (folder / name).write_bytes((CASES / name).read_bytes())
    (folder / "no_suffix").write_bytes((CASES / "hold.mp4").read_bytes())
    (folder / "animation.gif").write_bytes(animation())
    (folder / "turned.png").write_bytes(photo_on_its_side())
    (folder / "deep.png").write_bytes(deep())
    return folder


@pytest.fixture(scope="module")
def source(files, tmp_path_factory):
    rows = [(str(path), path.name) for path in sorted(files.iterdir())]
    return open_one(str(write_csv(tmp_path_factory.mktemp("lists") / "list.csv", rows)))


def as_inference_reads(source, frame_type, count=1, rules=DEFAULT_RULES):
    for sample in source:
        frames = [TRANSFORM(frame.image) for frame in read_frames(sample.content, frame_type, count, rules)]
        yield np.stack([frames[number * len(frames) // count] for number in range(count)])


def batch_of(source, **options):
    options |= {"batch_size": len(source), "context_length": 8, "num_workers": 0, "training": False}
    data = TrainingData([source], TOKENIZER, TRANSFORM, **options)
    [batch] = data.epoch(0)
    assert not data.bad_samples
    return batch.images


@pytest.mark.parametrize("rules", [DEFAULT_RULES, PictureRules(False, False)])
def test_training_shows_what_inference_shows(source, rules):
    middle = np.concatenate(list(as_inference_reads(source, "middle", rules=rules)))
    np.testing.assert_array_equal(batch_of(source, rules=rules), middle)
    several = np.stack(list(as_inference_reads(source, "multi_frames", 3, rules)))
    np.testing.assert_array_equal(batch_of(source, frame_type="multi_frames", num_frames=3, rules=rules), several)


@pytest.mark.parametrize("frame_type", ["middle", "multi_frames"])
def test_evaluation_shows_what_inference_shows(source, frame_type):
    samples = Samples(source)
    for number, sample in enumerate(source):
        shown = samples.frames(number, CaptionOptions(frame_type, num_frames=3))
        want = read_frames(sample.content, frame_type, 3)
        for image, frame in zip(shown, want, strict=True):
            np.testing.assert_array_equal(np.asarray(image), np.asarray(frame.image))


def test_members_of_archives_are_read_by_their_content(source, files, tmp_path):
    samples = [{f"{n}.mp4": sample.read(), f"{n}.txt": b"x"} for n, sample in enumerate(source)]
    packed = open_one(str(write_tar(tmp_path / "x.tar", samples)))
    np.testing.assert_array_equal(batch_of(packed), batch_of(source))


def test_a_random_frame_of_an_animation(files, tmp_path):
    source = open_one(str(write_csv(tmp_path / "list.csv", [(str(files / "animation.gif"), "x")])))
    colours = {tuple(batch_of(source, frame_type="random", seed=seed)[0, :, 0, 0].tolist()) for seed in range(12)}
    assert len(colours) > 2


def test_the_settings_of_open_clip_s_numbers():
    config = from_dict(DataConfig, {"train": "x", "exif_orientation": False, "deep_pictures": "clip"}, "data")
    assert config.picture_rules == PictureRules(exif_orientation=False, scale_deep=False)
    assert DataConfig("x").picture_rules == DEFAULT_RULES == PictureRules(True, True)


def test_a_bad_row_is_named_once_and_without_addresses(files, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture" * 20)
    rows = [(str(tmp_path / "bad.png"), "x"), (str(files / "turned.png"), "y")]
    bad = open_one(str(write_csv(tmp_path / "list.csv", rows)))
    options = {"batch_size": 2, "context_length": 8, "num_workers": 0, "training": False, "max_bad_share": 0.6}
    data = TrainingData([bad], TOKENIZER, TRANSFORM, **options)
    list(data.epoch(0))
    [(name, reason)] = data.bad_samples.items()
    assert name == str(tmp_path / "bad.png") and "at 0x" not in reason and name not in reason
