"""What a fuzzer makes: a damaged source, and what a reader must make of it, computed by whoever did the damage."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.data.training_samples import jpeg

ROWS = 10
WORDS = ["a", "red", "dog", "and", "two", "small", "cats", "under", "3", "trees,", "near", "water;", "it", "is", "wet"]
UNUSUAL = ['say "no"', "zwölf", "東京の猫", "a, b; c", "tab\there", "| bar", "5'6\" tall", "🐈 cat"]


@dataclass
class Mutant:
    """A source and what is to come of it.

    Attributes:
        settings: of the source.
        samples: (end of the sample's name, its captions, its bytes) in order; None: refused with an InputError.
        refused: rows that cannot be used.

        bad: samples of which reading raises BadSample, by place.
        words: what the error, or the account's summary, must say.
        passed_over: files, by suffix or kind.
    """

    settings: dict[str, Any]
    samples: list[tuple[str, list[str], bytes]] | None = field(default_factory=list)
    refused: int = 0
    bad: set[int] = field(default_factory=set)
    words: list[str] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)


class Pictures:
    """Small pictures in a folder, and captions for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = [jpeg(number, (6, 4)) for number in range(ROWS)]
        (folder / "img").mkdir(parents=True)
        for number, content in enumerate(self.bytes):
            (folder / self.name(number)).write_bytes(content)

    def name(self, number: int) -> str:
        return f"img/{number:02}.jpg"

    def caption(self, rng: random.Random, unusual: float = 0.4) -> str:
        words = rng.choices(WORDS, k=rng.randrange(1, 8))
        if rng.random() < unusual:
            words.insert(rng.randrange(1, len(words) + 1), rng.choice(UNUSUAL))
        return " ".join(words)

    def sample(self, number: int, *captions: str) -> tuple[str, list[str], bytes]:
        return self.name(number), list(captions), self.bytes[number]

    def rows(self, rng: random.Random, unusual: float = 0.4) -> list[tuple[int, str]]:
        """Numbers of pictures, each once, with a caption."""
        numbers = rng.sample(range(ROWS), rng.randrange(4, ROWS + 1))
        return [(number, self.caption(rng, unusual)) for number in numbers]


def some_places(rng: random.Random, count: int) -> list[int]:
    """One to three places, ascending."""
    return sorted(rng.sample(range(count), min(count, rng.randrange(1, 4))))
