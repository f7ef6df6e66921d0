"""What a caption is made from and how: each field is an option of the programs and a setting of the journal."""

from dataclasses import dataclass, field, fields
from typing import Any, get_args

from mindone_coca.config import FrameType, Fusion, SeveralFrames
from mindone_coca.errors import InputError
from mindone_coca.typed_mapping import option
from mindone_coca.video.segments import SCENE_THRESHOLD


def _several(options: "CaptionOptions") -> bool:
    return options.frame_type in get_args(SeveralFrames)


def _always(options: "CaptionOptions") -> bool:
    return True


def _segments(options: "CaptionOptions") -> bool:
    return options.in_segments


@dataclass(frozen=True)
class CaptionOptions:
    """All that the captions depend on besides model and files.

    A field's `matters` tells whether they depend on it at all, given the other fields; without it they do.

    Attributes:
        frame_type: `middle`, `multi_frames` (`num_frames` of them, fused by `fusion`) or `segments`.
        segment_seconds: length of segments; None cuts at scene changes, `scene_threshold` as in `iter_segments`.
        merge_similarity: a segment whose frame is as similar as that to the one before (cosine of the image features)
            is part of it; 1 merges none.
        generation: arguments of `CoCa.generate`.
    Raises:
        InputError: values out of range, by name.
    """

    frame_type: FrameType = option(
        "middle",
        "what a caption is made from: the middle frame, several frames, or a frame for each segment of the video",
    )
    num_frames: int = option(16, "frames that multi_frames takes, first to last", matters=_several)
    fusion: Fusion = option("mean", "how multi_frames become one", matters=_several)
    segment_seconds: float | None = option(
        None, "length of segments (default: from one scene change to the next)", matters=_segments
    )
    scene_threshold: float = option(
        SCENE_THRESHOLD,
        "how much a frame must stand out to begin a scene; lower finds more",
        matters=lambda options: options.in_segments and options.segment_seconds is None,
    )
    merge_similarity: float = option(
        0.95,
        "segments whose images have this cosine similarity with the one before become part of it; 1 merges none",
        matters=_segments,
    )
    prompt: str | None = option(None, "text that the caption continues")
    batch_size: int | None = option(
        None, "frames, and captions, that the model takes at a time, of several files (default 8 on the CPU, else 64)"
    )
    generation: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def require(holds: bool, message: str) -> None:
            if not holds:
                raise InputError(message)

        for name, known in (("frame_type", get_args(FrameType)), ("fusion", get_args(Fusion))):
            value = getattr(self, name)
            require(value in known, f"{name}: must be one of {', '.join(known)}, got {value!r}")
        require(self.num_frames >= 1, f"num_frames: must be at least 1, got {self.num_frames}")
        require((self.batch_size or 1) >= 1, f"batch_size: must be at least 1, got {self.batch_size}")
        seconds = self.segment_seconds
        require(seconds is None or seconds > 0, f"segment_seconds: must be positive, got {seconds}")
        require(self.scene_threshold > 0, f"scene_threshold: must be positive, got {self.scene_threshold}")
        require(
            -1 <= self.merge_similarity <= 1, f"merge_similarity: must be from -1 to 1, got {self.merge_similarity}"
        )

    @property
    def in_segments(self) -> bool:
        return self.frame_type == "segments"

    @property
    def batch(self) -> int:
        """`batch_size`, or the usual one of the device. Files that share batches are so many, too."""
        from mindone_coca import batch_sizes  # needs MindSpore, without which programs tell their options

        return self.batch_size or batch_sizes.usual()

    @property
    def frames_each(self) -> int:
        """Frames of one caption, at most."""
        return self.num_frames if _several(self) else 1

    def as_dict(self) -> dict[str, Any]:
        """The options that matter given the others, for files and to compare."""
        own = [spec for spec in fields(self) if spec.name != "generation"]
        chosen = {spec.name: getattr(self, spec.name) for spec in own if spec.metadata.get("matters", _always)(self)}
        chosen["frame_type"] = "multi_frames" if _several(self) else self.frame_type
        return chosen | self.generation
