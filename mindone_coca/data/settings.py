"""The `data:` section of a training config: every key, its meaning and its default."""

from dataclasses import dataclass, field
from typing import Any, Literal

from mindone_coca.config import Fusion
from mindone_coca.preprocess.augment import AugmentConfig
from mindone_coca.video.pictures import PictureRules


@dataclass
class SourceConfig:
    """One set of samples. Only `path` is needed; a key left at None takes the value of `data:` or of the format."""

    # The list file, folder of classes or of pictures with caption files, or shards: a file, a folder of .tar files, or
    # a pattern such as "shard-{000..010}.tar" or "part-*.tar"; or the URL of any of these. Text is UTF-8, or UTF-16 or
    # 32 with its mark.
    path: str
    # By default from the path's suffix, for .json from what is in it (a list of objects is "json", as LAVIS writes
    # it); a folder is one of .tar files or has one folder per class.
    format: Literal["csv", "tsv", "jsonl", "json", "coco", "webdataset", "mindrecord", "folder"] | None = None
    # Share of the samples drawn from this source, relative to the other sources' weights. Either all sources have
    # one or none has: without weights every sample is seen once an epoch.
    weight: float | None = None
    # Where relative image paths start; by default the folder of the list file.
    image_root: str | None = None
    # csv, tsv, jsonl, json: the column or field with the image's or video's path. mindrecord: the column with its
    # bytes.
    image_key: str | None = None
    # csv, tsv, jsonl, json, mindrecord: the column with the caption (in jsonl and json also a list of captions, in
    # mindrecord also JSON text of such a list). webdataset: the extension of the caption file ("txt"), or "json.FIELD".
    # In a downstream task: the column with the question ("question") or statement ("sentence"). An empty field, null
    # and JSON's NaN are no caption; the letters "nan" in a table are text, as pandas writes what is missing as nothing.
    caption_key: str | None = None
    # csv, tsv: the character between columns; by default the one of tab, comma, semicolon and | with which the header
    # line has the columns.
    separator: str | None = None
    # folder: pictures have caption files with this extension beside them (".txt" for a.txt beside a.jpg) instead of
    # being in one folder per class.
    caption_extension: str | None = None
    # With caption_extension: each line of a caption file is a caption; otherwise its whole text is one.
    caption_lines: bool = False
    # webdataset: a folder to keep the shards' index in, so that a later start need not go through them again.
    index_dir: str | None = None
    # Makes the source a labelled one: as caption_key, but it names a class label ("cls" in webdataset). In a downstream
    # task: the column with the label ("label"; of vqa "answer", in jsonl also a list "answers").
    label_key: str | None = None
    # JSON file {label: name} for labels that are numbers or codes; "7.0", as pandas may write a 7, has the name of "7".
    label_names: str | None = None
    # Sentences with {} for the name of the class; one is drawn for each sample in each epoch.
    label_template: list[str] = field(default_factory=lambda: ["{}"])
    # Text put before the sentence, to let the model tell labels from captions.
    label_prefix: str = ""


@dataclass
class DataConfig:
    """What to train on. `train` and `val` are a path, a mapping with a source's keys, or a list of these."""

    train: Any  # shuffled anew in each epoch
    # Read in order, without augmentation, first caption only.
    val: Any = None
    # Defaults for the sources in csv, tsv and jsonl files; open_clip's names.
    image_key: str = "filepath"
    caption_key: str = "title"  # as image_key
    separator: str | None = None  # as image_key
    # Parallel decoders for each training process, at most one for each core; 0 decodes in that process itself.
    num_workers: int = 4
    # The run ends when more than this share of the samples cannot be read, or of a list's rows cannot be used.
    max_bad_share: float = 0.05
    # Train on random crops of 90 to 100 % of a picture, as open_clip does. None: yes, but for the tasks
    # video_classification and nlvr2, as in the paper.
    random_crop: bool | None = None
    # RandAugment (arXiv 1909.13719) after the crop, {num_ops: 2, magnitude: 9} by default; None: none. Another for each
    # picture in each epoch, the same for all pictures of one sample.
    augment: AugmentConfig | None = None
    # Of a video: its middle frame, a random one, or num_frames spread evenly (an image then stands for each of them).
    frame_type: Literal["middle", "random", "multi_frames"] = "middle"
    num_frames: int = 16  # of a video, with multi_frames
    # Turn pictures upright as their EXIF data says; open_clip does not, so its numbers want false.
    exif_orientation: bool = True
    # Pictures of 16 bits: scaled to 8, or clipped to 0..255 (nearly all of them white) as open_clip does.
    deep_pictures: Literal["scale", "clip"] = "scale"
    # Of captions: the lengths, start and end token included, of which a batch's labels have the smallest that all of
    # its captions on all devices fit into, else the context's. Each is a graph, compiled before the first step. Empty:
    # multiples of 16, and of 2 below that, each compiled when it is first met; on the CPU, with more than 1 GiB of
    # weights, the context's alone, because each length takes memory of its own.
    label_lengths: list[int] = field(default_factory=list)
    # How multi_frames become one: the mean of their tokens and features, or the attentional pooler over all of them.
    fusion: Fusion = "mean"
    # A folder for what an image tower of which nothing is trained says of each picture, so that each is encoded once;
    # random_crop has to be false and augment left out. 0.8 MB a picture for ViT-L/14. It may be deleted at any time.
    cache: str | None = None

    @property
    def picture_rules(self) -> PictureRules:
        return PictureRules(self.exif_orientation, self.deep_pictures == "scale")
