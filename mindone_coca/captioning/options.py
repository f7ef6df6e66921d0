"""What a run over a collection is asked to do."""

from dataclasses import dataclass, field
from typing import Any

from mindone_coca.errors import InputError
from mindone_coca.video.segments import SCENE_THRESHOLD

FRAME_TYPES = ("middle", "multi_frames", "mutil_frames", "segments")  # the third is the older port's spelling


@dataclass(frozen=True)
class CaptionOptions:
    """All that the captions depend on besides model and files.

    Attributes:
        frame_type: `middle`, `multi_frames` (`num_frames` of them, fused by `fusion`) or `segments`.
        segment_seconds: length of segments; None cuts at scene changes, `scene_threshold` as in `iter_segments`.
        merge_similarity: a segment whose frame is as similar as that to the one before (cosine of the image features)
            is part of it; 1 merges none.
        generation: arguments of `CoCa.generate`.
    Raises:
        InputError: values out of range, by name.
    """

    frame_type: str = "middle"
    num_frames: int = 16
    fusion: str = "mean"
    segment_seconds: float | None = None
    scene_threshold: float = SCENE_THRESHOLD
    merge_similarity: float = 0.95
    prompt: str | None = None
    generation: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def require(holds: bool, message: str) -> None:
            if not holds:
                raise InputError(message)

        require(
            self.frame_type in FRAME_TYPES,
            f"frame_type: must be one of {', '.join(FRAME_TYPES)}, got {self.frame_type!r}",
        )
        require(self.num_frames >= 1, f"num_frames: must be at least 1, got {self.num_frames}")
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
    def frames_each(self) -> int:
        """Frames of one caption, at most."""
        return self.num_frames if self.frame_type in ("multi_frames", "mutil_frames") else 1

    def as_dict(self) -> dict[str, Any]:
        """The options that matter for this frame type, for files and to compare."""
        frame_type = "multi_frames" if self.frame_type == "mutil_frames" else self.frame_type
        chosen: dict[str, Any] = {"frame_type": frame_type}
        if frame_type == "multi_frames":
            chosen |= {"num_frames": self.num_frames, "fusion": self.fusion}
        if self.in_segments:
            chosen["segment_seconds"] = self.segment_seconds
            if self.segment_seconds is None:
                chosen["scene_threshold"] = self.scene_threshold
            chosen["merge_similarity"] = self.merge_similarity
        return chosen | {"prompt": self.prompt, **self.generation}
