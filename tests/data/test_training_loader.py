"""Batches: a function of (seed, epoch) only, the same however the work is split, with bad samples replaced."""

import gc
import logging
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from mindone_coca.config import PreprocessCfg
from mindone_coca.data.loader import TrainingData, open_data
from mindone_coca.data.settings import DataConfig
from mindone_coca.errors import InputError
from mindone_coca.preprocess.augment import AugmentConfig
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import create_train_transforms, create_transforms
from mindone_coca.training.job import Augmented
from tests.data.training_samples import open_one, write_csv, write_images, write_layouts

ROOT = Path(__file__).parents[2]
TOKENIZER = Tokenizer()


def make(sources, *, size=16, **options):
    defaults = {"batch_size": 4, "context_length": 12, "seed": 5, "num_workers": 0}
    plain = create_transforms(size)
    drawn = Augmented(create_train_transforms(size), plain, PreprocessCfg(), AugmentConfig())  # crops and operations
    transform = drawn if options.get("training", True) else plain
    return TrainingData(sources, TOKENIZER, transform, **{**defaults, **options})


def assert_same(batches, expected):
    assert len(batches) == len(expected)
    for one, other in zip(batches, expected, strict=True):
        assert one.images.tobytes() == other.images.tobytes() and one.images.shape == other.images.shape
        assert one.text.tobytes() == other.text.tobytes()
        assert (one.names, one.captions) == (other.names, other.captions)


@pytest.fixture
def source(tmp_path):
    """Thirty images with two captions each."""
    return open_one(write_layouts(tmp_path, 30)[0]["jsonl"])


def test_shapes_types_and_contents(source):
    data = make([source])
    assert len(data) == data.batches_per_epoch == 7
    batches = list(data.epoch(0))
    assert len(batches) == 7
    for batch in batches:
        assert (batch.images.shape, batch.images.dtype) == ((4, 3, 16, 16), np.float32)
        assert (batch.text.shape, batch.text.dtype) == ((4, 12), np.int32)
        assert batch.text.tolist() == TOKENIZER(batch.captions, context_length=12).tolist()
        for name, caption in zip(batch.names, batch.captions, strict=True):
            assert caption.startswith(f"picture {int(Path(name).stem)}, said")
    assert len({name for batch in batches for name in batch.names}) == 28


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_change_nothing(source, num_workers, monkeypatch):
    monkeypatch.setattr("mindone_coca.data.batches.CHUNK_BYTES", 3 * 4 * 3 * 16 * 16)  # pieces of 3 and 1
    assert_same(list(make([source], num_workers=num_workers).epoch(1)), list(make([source]).epoch(1)))


def test_workers_inherit_no_garbage(source):
    """What a worker frees may wait for a thread that its process never had, as a filter graph of FFmpeg does."""

    class Round:
        def __init__(self) -> None:
            self.itself = self

    gc.disable()
    try:
        alive = weakref.ref(Round())
        list(make([source], num_workers=2).epoch(0))
        assert alive() is None
    finally:
        gc.enable()


def test_threads_where_shared_memory_is_small(source, monkeypatch, caplog):
    expected = list(make([source], num_workers=2).epoch(0))
    assert not caplog.records
    monkeypatch.setattr("mindone_coca.data.batches.CHUNKS_AHEAD", 10**12)
    assert_same(list(make([source], num_workers=2).epoch(0)), expected)
    assert "using threads" in caplog.text


def _failing_transform(image, seed):
    if image.size != (8, 8):
        raise TypeError("a mistake in the transform")
    return np.zeros((3, 4, 4), np.float32)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_programming_error_in_a_worker_surfaces(source, num_workers):
    data = TrainingData(
        [source], TOKENIZER, _failing_transform, batch_size=4, context_length=8, num_workers=num_workers
    )
    with pytest.raises((TypeError, RuntimeError), match="a mistake in the transform"):
        list(data.epoch(0))


def test_seed_and_epoch_decide(source):
    first = list(make([source]).epoch(0))
    assert_same(list(make([source]).epoch(0)), first)
    for other in (make([source]).epoch(1), make([source], seed=6).epoch(0)):
        assert [batch.names for batch in other] != [batch.names for batch in first]


def test_captions_and_crops_are_drawn_anew_each_epoch(source):
    data = make([source], batch_size=30)
    epochs = [next(iter(data.epoch(epoch))) for epoch in range(8)]
    said = [dict(zip(batch.names, batch.captions, strict=True)) for batch in epochs]
    pixels = [dict(zip(batch.names, batch.images, strict=True)) for batch in epochs]
    for name in said[0]:
        assert len({p[name].tobytes() for p in pixels}) > 2  # small images have few crops
    again = sum(said[e][name].endswith('"again"') for e in range(8) for name in said[0])
    assert 90 <= again <= 150  # of 240, 120 expected, standard deviation 7.7


@pytest.mark.parametrize("num_workers", [0, 2])
def test_continues_mid_epoch(source, num_workers):
    whole = list(make([source]).epoch(3))
    for start in (0, 1, 5, 7):
        assert_same(list(make([source], num_workers=num_workers).epoch(3, start)), whole[start:])


def test_ranks_see_together_what_one_process_sees(source):
    single = list(make([source], batch_size=6).epoch(2))
    ranks = [list(make([source], batch_size=2, rank=rank, world_size=3).epoch(2)) for rank in range(3)]
    assert len(single) == 5
    for batch, *parts in zip(single, *ranks, strict=True):
        assert batch.images.tobytes() == b"".join(part.images.tobytes() for part in parts)
        assert batch.text.tobytes() == b"".join(part.text.tobytes() for part in parts)


def test_validation_goes_in_order_without_draws(source):
    data = make([source], training=False)
    batches = list(data.epoch(0))
    assert [int(Path(name).stem) for batch in batches for name in batch.names] == list(range(28))
    assert all(caption.endswith("said once") for batch in batches for caption in batch.captions)
    assert_same(list(data.epoch(4)), batches)
    expected = create_transforms(16)(Image.open(batches[1].names[2]))
    assert batches[1].images[2].tobytes() == expected.tobytes()


@pytest.mark.graphs
def test_captioned_and_labelled_sources_mix_by_weight(tmp_path):
    captioned, _ = write_layouts(tmp_path, 12)
    write_images(tmp_path / "classes" / "red_square", 4)
    write_images(tmp_path / "classes" / "disc", 4)
    labels = {"path": str(tmp_path / "classes"), "label_template": ["a {}", "one {}"], "label_prefix": "label: "}
    config = DataConfig(
        train=[{**captioned["webdataset"], "weight": 1}, {**labels, "weight": 3}], val=captioned["csv"], num_workers=2
    )
    data = open_data(config, TOKENIZER, create_train_transforms(16), batch_size=5, context_length=12)
    captions = [caption for epoch in range(4) for batch in data.epoch(epoch) for caption in batch.captions]
    assert len(captions) == 80
    assert sum(caption.startswith("picture") for caption in captions) == 20
    assert {caption for caption in captions if not caption.startswith("picture")} == {
        f"label: {article} {name}" for article in ("a", "one") for name in ("red square", "disc")
    }
    val = open_data(config, TOKENIZER, create_transforms(16), batch_size=5, context_length=12, training=False)
    assert len(val) == 2


def damage(tmp_path, numbers, count=20):
    """A list of images of which some are damaged, each in another way."""
    folder = tmp_path / "images"
    images = write_images(folder, count)
    ways = [images[0][: len(images[0]) // 2], b"", b"not an image", None]
    for turn, number in enumerate(numbers):
        way = ways[turn % len(ways)]
        (folder / f"{number:02}.jpg").unlink() if way is None else (folder / f"{number:02}.jpg").write_bytes(way)
    rows = [(f"images/{number:02}.jpg", f"picture {number}") for number in range(count)]
    return open_one(str(write_csv(tmp_path / "list.csv", rows)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_samples_are_named_once_and_replaced_by_the_next(tmp_path, caplog, num_workers):
    source = damage(tmp_path, [3, 4, 9, 19])
    data = make([source], max_bad_share=0.3, num_workers=num_workers)
    good = make([damage(tmp_path / "good", [])])
    with caplog.at_level(logging.WARNING):
        batches = list(data.epoch(0)) + list(data.epoch(1))
    stands_in = {3: 5, 4: 5, 9: 10, 19: 0}
    for batch, whole in zip(batches, [*good.epoch(0), *good.epoch(1)], strict=True):
        numbers = [int(Path(name).stem) for name in whole.names]
        assert batch.captions == [f"picture {stands_in.get(number, number)}" for number in numbers]
        kept = [place for place, number in enumerate(numbers) if number not in stands_in]
        assert batch.images[kept].tobytes() == whole.images[kept].tobytes()  # the others' draws stay
    assert sorted(int(Path(name).stem) for name in data.bad_samples) == [3, 4, 9, 19]
    for number in stands_in:
        assert sum(f"{number:02}.jpg cannot be read" in record.message for record in caplog.records) == 1
    assert_same(list(make([source], max_bad_share=0.3, num_workers=num_workers).epoch(1, 2)), batches[7:])


def test_too_many_bad_samples_end_the_run(tmp_path):
    source = damage(tmp_path, [3, 4, 9, 19])
    with pytest.raises(InputError, match=r"samples cannot be read.*max_bad_share 0\.1.*images.\d\d\.jpg") as caught:
        list(make([source], max_bad_share=0.1, num_workers=2).epoch(0))
    assert "\n" not in str(caught.value)


def test_nothing_readable_ends_the_run(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        list(make([damage(tmp_path, range(20))], max_bad_share=1.0).epoch(0))


def test_a_sample_without_caption_is_a_bad_one(tmp_path):
    write_images(tmp_path, 4)
    source = open_one(str(write_csv(tmp_path / "a.csv", [(f"{n:02}.jpg", "" if n == 2 else "x") for n in range(4)])))
    data = make([source], max_bad_share=0.5)
    list(data.epoch(0))
    assert list(data.bad_samples.values()) == ["it has no caption"]


def test_fewer_samples_than_a_batch(source):
    with pytest.raises(InputError, match="batch_size: 16 on each of 2 devices is more than the 30 samples"):
        make([source], batch_size=16, world_size=2)


@pytest.mark.parametrize("wrong", [{"num_workers": -1}, {"max_bad_share": 5.0}])
def test_wrong_settings(source, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        make([source], **wrong)


def children():
    return len(psutil.Process().children())


def test_workers_end_with_the_epoch_also_when_left_early(source):
    before = children()
    list(make([source], num_workers=2).epoch(0))
    batches = make([source], num_workers=2).epoch(0)
    next(batches)
    assert children() > before
    batches.close()
    deadline = time.monotonic() + 10
    while children() > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert children() == before


PROGRAM = """
import sys, hashlib
from mindspore.communication import get_group_size, get_rank, init
from tests.data.test_training_loader import make
from tests.data.training_samples import open_one
if sys.argv[2] == "msrun":
    init()
    rank, ranks = get_rank(), get_group_size()
else:
    rank, ranks = 0, 1
data = make([open_one(sys.argv[1])], batch_size=4 // ranks, rank=rank, world_size=ranks, num_workers=2)
for epoch in range(2):
    for number, batch in enumerate(data.epoch(epoch)):
        for place, (image, name) in enumerate(zip(batch.images, batch.names)):
            place += rank * len(batch.names)
            print("sample", epoch, number, place, name, hashlib.md5(image).hexdigest(), flush=True)
print("done", flush=True)
"""


def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    return path, {
        "env": environment,
        "cwd": tmp_path,
        "text": True,
        "timeout": 120,
        "capture_output": True,
        "check": True,
    }


def samples_in(text):
    return sorted(line for line in text.splitlines() if line.startswith("sample"))


@pytest.mark.slow
def test_under_msrun_two_processes_read_the_single_one_s_batches(tmp_path):
    settings = write_layouts(tmp_path, 13)[0]["tsv"]["path"]
    path, options = program(tmp_path)
    single = subprocess.run([sys.executable, path, settings, "alone"], **options).stdout
    assert len(samples_in(single)) == 24
    port = 20000 + os.getpid() % 20000
    msrun = [
        "msrun",
        "--worker_num=2",
        "--local_worker_num=2",
        f"--master_port={port}",
        "--join=True",
        "--log_dir=logs",
    ]
    subprocess.run([*msrun, path, settings, "msrun"], **options)
    logs = [(tmp_path / "logs" / f"worker_{rank}.log").read_text() for rank in range(2)]
    assert all("done" in text.splitlines() for text in logs)
    assert samples_in("\n".join(logs)) == samples_in(single)


@pytest.mark.graphs
def test_workers_end_when_the_process_is_killed(tmp_path):
    settings = write_layouts(tmp_path, 13)[0]["tsv"]["path"]
    path, options = program(tmp_path)
    path.write_text(PROGRAM.replace("for epoch in range(2)", "for epoch in range(10**6)"))
    shared = set(os.listdir("/dev/shm"))
    command = [sys.executable, path, settings, "alone"]
    process = subprocess.Popen(command, env=options["env"], stdout=subprocess.PIPE, text=True)
    for _ in range(50):
        assert process.stdout.readline()
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert workers and not alive
    assert set(os.listdir("/dev/shm")) <= shared
