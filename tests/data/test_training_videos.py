"""Rows that name videos: which frames they give, alone and beside images."""

import av
import numpy as np
import pytest
from PIL import Image

from mindone_coca.data.loader import TrainingData
from mindone_coca.data.mindrecord import write_mindrecord
from mindone_coca.errors import InputError
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import create_train_transforms, create_transforms
from mindone_coca.video.frames import read_frames
from tests.data.training_samples import open_one, write_csv, write_tar

TOKENIZER = Tokenizer()
FRAMES = 20


def write_video(path, frames=FRAMES, first=10):
    """Frame n is evenly grey, of value `first` + 10 n."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.bit_rate = 4_000_000
        for number in range(frames):
            picture = np.full((32, 32, 3), first + 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


@pytest.fixture
def source(tmp_path):
    """A video, an image, and a video of three frames."""
    write_video(tmp_path / "long.mp4")
    write_video(tmp_path / "short.MP4", frames=3)
    Image.new("RGB", (40, 32), (77, 77, 77)).save(tmp_path / "grey.png")
    rows = [("long.mp4", "a long video"), ("grey.png", "an image"), ("short.MP4", "a short video")]
    return open_one(str(write_csv(tmp_path / "list.csv", rows)))


def make(source, training=False, **options):
    mean, std = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # values are bytes then
    transform = create_train_transforms(8, mean, std) if training else create_transforms(8, mean, std)
    defaults = {"batch_size": 3, "context_length": 8, "num_workers": 0, "training": training}
    return TrainingData([source], TOKENIZER, transform, **{**defaults, **options})


def greys(images):
    """The mean of each frame."""
    return images.mean(axis=(-1, -2, -3))


def frame_numbers(images, first=10):
    numbers = (greys(images) - first) / 10
    assert np.abs(numbers - numbers.round()).max() < 0.3
    return numbers.round().astype(int).tolist()


def test_middle_frame(source):
    [batch] = make(source, num_workers=2).epoch(0)
    assert batch.images.shape == (3, 3, 8, 8)
    assert frame_numbers(batch.images[[0, 2]]) == [10, 1]
    np.testing.assert_allclose(greys(batch.images)[1], 77, atol=1e-3)


@pytest.mark.graphs
def test_random_frame_by_seed_and_epoch(source):
    def drawn(seed):
        data = make(source, training=True, frame_type="random", seed=seed)
        return [
            frame_numbers(batch.images[[batch.captions.index("a long video")]])[0]
            for epoch in range(40)
            for batch in data.epoch(epoch)
        ]

    numbers = drawn(0)
    assert numbers == drawn(0) != drawn(1)
    assert len(set(numbers)) > 10 and min(numbers) < 4 and max(numbers) >= FRAMES - 4


def test_multi_frames(source):
    [batch] = make(source, frame_type="multi_frames", num_frames=5).epoch(0)
    assert batch.images.shape == (3, 5, 3, 8, 8)
    assert frame_numbers(batch.images[0]) == [
        frame.index for frame in read_frames(source[0].content, "multi_frames", 5)
    ]
    assert np.abs(greys(batch.images[1]) - 77).max() < 1e-3
    assert frame_numbers(batch.images[2]) == [0, 0, 1, 1, 2]


def test_all_frames_of_a_video_share_a_crop(tmp_path):
    """A video of one picture: after a random crop its frames must still be alike."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (64, 64, 3))
    with av.open(str(tmp_path / "still.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.bit_rate = 8_000_000
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(ramp))))
        container.mux(stream.encode())
    still = open_one(str(write_csv(tmp_path / "a.csv", [("still.mp4", "x")])))
    data = make(still, training=True, batch_size=1, frame_type="multi_frames", num_frames=4)
    crops = [next(iter(data.epoch(epoch))).images[0] for epoch in range(6)]
    assert max(np.abs(frames - frames[0]).max() for frames in crops) < 4  # the codec's noise
    assert max(np.abs(frames[0] - crops[0][0]).max() for frames in crops) > 6  # another crop in another epoch


def test_videos_in_archives(tmp_path, source):
    [expected] = make(source, frame_type="multi_frames", num_frames=4).epoch(0)
    samples = [{f"{n}.{source[n].name.rpartition('.')[2]}": source[n].read(), f"{n}.txt": b"x"} for n in range(3)]
    write_mindrecord(source, tmp_path / "x.mindrecord")
    for path in (write_tar(tmp_path / "x.tar", samples), tmp_path / "x.mindrecord"):
        [batch] = make(open_one(str(path)), frame_type="multi_frames", num_frames=4).epoch(0)
        assert batch.images.tobytes() == expected.images.tobytes()


def test_a_damaged_video_is_a_bad_sample(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(write_video(tmp_path / "good.mp4").read_bytes()[:300])
    rows = [("bad.mp4", "bad"), ("good.mp4", "good")]
    for frame_type in ("middle", "random", "multi_frames"):
        data = make(
            open_one(str(write_csv(tmp_path / "list.csv", rows))),
            frame_type=frame_type,
            batch_size=2,
            max_bad_share=0.5,
        )
        [batch] = data.epoch(0)
        assert batch.captions == ["good", "good"]
        assert list(data.bad_samples) == [str(tmp_path / "bad.mp4")]


def test_wrong_frame_settings(source):
    with pytest.raises(InputError, match=r"frame_type.*'mean'.*middle"):
        make(source, frame_type="mean")
    with pytest.raises(InputError, match="num_frames: 0"):
        make(source, frame_type="multi_frames", num_frames=0)
