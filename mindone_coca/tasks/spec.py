"""The downstream tasks (paper, section 4.2): everything that tells one from another, in one table."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["classification", "video_classification", "vqa", "entailment", "nlvr2"]


@dataclass(frozen=True)
class TaskSpec:
    """One task.

    Attributes:
        help: what evaluate.py does for it.
        sentence: the column with the text, a question or a statement; None where the head reads the image alone.
        label: the column with the label.
        pictures: the columns with images, where there is more than the usual one.
        video: a sample is a video of several frames, each with a temporal embedding in the head.
        frozen: by default only the head is trained; the paper finetunes the others.
        random_crop: trained on random crops by default; the paper's exceptions are not.
        class_folders: a folder of images for each class may stand for a list.
        several_answers: a row may have the answers of several people, the commonest of all rows are the classes, and
            others occur.
    """

    help: str
    sentence: str | None = None
    label: str = "label"
    pictures: tuple[str, ...] = ()
    video: bool = False
    frozen: bool = False
    random_crop: bool = True
    class_folders: bool = False
    several_answers: bool = False

    @property
    def reads_text(self) -> bool:
        return self.sentence is not None


TASKS: dict[str, TaskSpec] = {
    "classification": TaskSpec("classify images by a trained head", frozen=True, class_folders=True),
    "video_classification": TaskSpec(
        "classify videos by a trained head", video=True, frozen=True, random_crop=False, class_folders=True
    ),
    "vqa": TaskSpec(
        "answer questions about images by a trained head", sentence="question", label="answer", several_answers=True
    ),
    "entailment": TaskSpec("tell what an image says of a sentence by a trained head", sentence="sentence"),
    "nlvr2": TaskSpec(
        "judge sentences about two images by a trained head",
        sentence="sentence",
        pictures=("left", "right"),
        random_crop=False,
    ),
}
