"""Batches for the downstream tasks: pictures or frames, questions or statements, and labels."""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from mindone_coca.data.batches import Batches, Reading
from mindone_coca.data.reading import FrameReader
from mindone_coca.data.settings import DataConfig
from mindone_coca.data.sources import source_configs
from mindone_coca.errors import InputError
from mindone_coca.tasks.rows import TaskRows, open_task_rows
from mindone_coca.tasks.spec import TASKS
from mindone_coca.typed_mapping import nearest
from mindone_coca.video.pictures import DEFAULT_RULES, PictureRules


@dataclass(frozen=True)
class TaskBatch:
    """The part of a batch that one rank gets."""

    # (B, n, 3, S, S) float32; n is 2 for nlvr2 (left, right), the number of frames for video_classification (with V
    # views V times as many, one clip after the other), else 1
    images: np.ndarray
    text: np.ndarray | None  # (B, T) int32; None where the task has no sentence. With captions (B, 2, T)
    labels: np.ndarray  # (B,) int32; -1 for an answer (vqa) that is none of the known ones
    names: list[str]  # of the files; nlvr2's two with a comma between
    sentences: list[str]  # what `text` says, empty where the task has none
    answers: list[list[str]]  # the label's name; for vqa all that people answered, commonest first


class TaskData(Batches):
    """The batches of each epoch of a task, which depend on the arguments and the epoch's number only (see Batches).

    Args:
        sources: rows of the task.
        labels: names of the classes in order; only a vqa row may have another one.
        tokenizer: `tokenizer([sentence], context_length=T)` -> (1, T) int32; None where the task has no sentence.
        captions: the ids of the sentence are followed by those of sentence and label as one text.
        transform: `transform(image, seed)` -> (3, S, S) float32 when training, else `transform(image)`. All pictures
            of a row share one seed, so that a random crop leaves them comparable.
        training: shuffle, and draw frames and crops by (seed, epoch, place in the order). Otherwise the samples come
            in order, all of them: the last batch may be smaller, and is missing on ranks that nothing is left for.
        frame_type, num_frames: of a video; "multi_frames" for n frames spread evenly, as the paper samples them.
        rules: how still pictures are read.
        views: clips of num_frames each, whose frames lie between one another's.
        options: batch_size, weights, rank, world_size, num_workers, max_bad_share of Batches.
    """

    def __init__(
        self,
        sources: Sequence[TaskRows],
        labels: Sequence[str],
        tokenizer: Callable[..., np.ndarray] | None,
        transform: Callable[..., np.ndarray],
        *,
        context_length: int,
        seed: int = 0,
        training: bool = True,
        frame_type: str = "middle",
        num_frames: int = 16,
        rules: PictureRules = DEFAULT_RULES,
        views: int = 1,
        captions: bool = False,
        **options,
    ):
        self.labels = list(labels)
        self.rows_refused = sum(source.account.refused for source in sources)
        self._has_text, self._captions = tokenizer is not None, captions
        reader = _TaskReader(
            sources,
            self.labels,
            tokenizer,
            FrameReader(
                transform, training=training, frame_type=frame_type, num_frames=num_frames * views, rules=rules
            ),
            text_length=context_length if self._has_text else 0,
            seed=seed,
            views=views,
            captions=captions,
        )
        super().__init__(reader, seed=seed, training=training, keep_rest=not training, **options)

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[TaskBatch, None, None]:
        """The batches of an epoch from number `start_batch` on, bit for bit those of an uninterrupted epoch.

        Close the iterator when an epoch is left early. Samples that cannot be read are treated as TrainingData does.
        """
        with closing(self._read_epoch(epoch, start_batch)) as batches:
            for images, text, notes in batches:
                columns = {key: [note[key] for note in notes] for key in ("name", "sentence", "answers")}
                labels = np.array([note["label"] for note in notes], np.int32)
                if self._captions:
                    text = text.reshape(len(text), 2, -1)
                yield TaskBatch(images, text if self._has_text else None, labels, *columns.values())


class _TaskReader:
    """Rows of a task to arrays, as batches.Reader wants them."""

    def __init__(
        self,
        sources: Sequence[TaskRows],
        labels: Sequence[str],
        tokenizer: Callable[..., np.ndarray] | None,
        frames: FrameReader,
        *,
        text_length: int,
        seed: int,
        views: int,
        captions: bool,
    ):
        self._sources, self._tokenizer, self._frames, self._seed, self._views = sources, tokenizer, frames, seed, views
        self._numbers = {label: number for number, label in enumerate(labels)}
        self.lengths, self._length = [len(source) for source in sources], text_length
        self._captions, self.text_length = captions, 2 * text_length if captions else text_length

    def image_shape(self) -> tuple[int, ...]:
        return len(self._sources[0][0].pictures) * self._frames.count, *self._frames.image_shape()

    def read(self, source: int, index: int, epoch: int, slot: int) -> Reading:
        sample = self._sources[source][index]
        draws, crop_seed = np.random.default_rng((self._seed, 2, epoch, slot)), (self._seed, 3, epoch, slot)
        frames = [frame for picture in sample.pictures for frame in self._frames.read(picture, draws, crop_seed)]
        images = np.stack([frame for view in range(self._views) for frame in frames[view :: self._views]])
        text = np.zeros(0, np.int32)
        if self._tokenizer:
            said = [sample.sentence, f"{sample.sentence} {sample.label}"] if self._captions else [sample.sentence]
            text = self._tokenizer(said, context_length=self._length).reshape(-1)
        note = {
            "name": ", ".join(picture.name for picture in sample.pictures),
            "sentence": sample.sentence,
            "answers": sample.answers,
            "label": self._numbers.get(sample.label, -1),
        }
        return Reading(images, text, note)


def open_task_data(
    config: DataConfig,
    task: str,
    tokenizer: Callable[..., np.ndarray],
    transform: Callable[..., np.ndarray],
    *,
    labels: Sequence[str] | None,
    batch_size: int,
    context_length: int,
    seed: int = 0,
    training: bool = True,
    rank: int = 0,
    world_size: int = 1,
    max_labels: int | None = None,
    views: int = 1,
    captions: bool = False,
) -> TaskData:
    """The data of a config for a task: `train`, or with `training=False` its `val`.

    Args:
        task: one of TASKS.
        labels: names of the classes in order, as for validation those of the training data; None takes them from the
            rows: whole numbers by value, other names by the alphabet, answers of vqa by how often they occur.
        max_labels: without `labels`, so many of vqa's commonest answers.
        views: clips of a video, for testing.
        captions: see TaskData.

    Raises InputError naming the file or setting that is wrong, and the mend.
    """
    if task not in TASKS:
        raise InputError(f"task: {task!r} is none of {', '.join(TASKS)}")
    where = "data.train" if training else "data.val"
    spec = TASKS[task]
    if not spec.video and config.frame_type == "multi_frames":
        raise InputError(f"data.frame_type: multi_frames is for task video_classification, not {task}; use middle")
    if views > 1 and config.frame_type != "multi_frames":
        raise InputError("views: more than one needs data.frame_type multi_frames")
    configs = source_configs(config.train if training else config.val, where)
    sources = [open_task_rows(source, config, task, place) for place, source in configs.items()]
    if labels is None:
        labels = _labels_of(sources, by_count=spec.several_answers)[: max_labels if spec.several_answers else None]
    elif not spec.several_answers:
        _require_known(sources, labels)
    return TaskData(
        sources,
        labels,
        tokenizer if spec.reads_text else None,
        transform,
        batch_size=batch_size,
        context_length=context_length,
        seed=seed,
        weights=[source.weight for source in configs.values()],
        training=training,
        rank=rank,
        world_size=world_size,
        num_workers=config.num_workers,
        max_bad_share=config.max_bad_share,
        frame_type=config.frame_type,
        num_frames=config.num_frames,
        rules=config.picture_rules,
        views=views,
        captions=captions,
    )


def _labels_of(sources: Sequence[TaskRows], by_count: bool) -> list[str]:
    counts = sum((source.label_counts for source in sources), Counter())
    if by_count:
        return sorted(counts, key=lambda label: (-counts[label], label))
    if all(label.isdecimal() for label in counts):
        return sorted(counts, key=int)
    return sorted(counts)


def _require_known(sources: Sequence[TaskRows], labels: Sequence[str]) -> None:
    for source in sources:
        for label in source.label_counts:
            if label not in labels:
                hint = nearest(label, labels) or f"; they are {', '.join(labels[:10])}{', ...' * (len(labels) > 10)}"
                raise InputError(f"{source.list_file}: the label {label!r} is none of the {len(labels)} classes{hint}")
