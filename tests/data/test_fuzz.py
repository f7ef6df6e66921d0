"""Damaged sources: each gives what its fuzzer says, every row accounted for, or one line that says what is wrong."""

import shutil
import signal

import numpy as np
import pytest

from mindone_coca.data.loader import TrainingData
from mindone_coca.data.samples import BadSample, Source
from mindone_coca.data.settings import DataConfig, SourceConfig
from mindone_coca.data.sources import open_unlabelled
from mindone_coca.errors import InputError
from mindone_coca.preprocess.tokenizer import Tokenizer
from tests.data.fuzz_pictures import PictureMutant
from tests.data.fuzzer import Fuzzer
from tests.data.mutants import Mutant

SECONDS = 10  # for one source
LONGEST_LINE = 2000  # characters


def refusal(mutant: Mutant, max_bad_share: float) -> str:
    """The message with which the source is refused."""
    with pytest.raises(InputError) as caught:
        open_unlabelled(SourceConfig(**mutant.settings), DataConfig(train=None, max_bad_share=max_bad_share))
    message = str(caught.value)
    assert "\n" not in message and len(message) < LONGEST_LINE
    return message


def check(mutant: Mutant) -> None:
    if mutant.samples is None:
        message = refusal(mutant, 1.0)
        assert all(word in message for word in mutant.words), message
        return
    source = open_unlabelled(SourceConfig(**mutant.settings), DataConfig(train=None, max_bad_share=1.0))
    check_samples(source, mutant.samples, mutant.bad)
    account = source.account
    assert (account.read, account.refused) == (len(mutant.samples), mutant.refused), account.summary()
    assert dict(account.passed_over) == mutant.passed_over, account.summary()
    for word in mutant.words[:3]:  # so many reasons are given
        assert word in account.summary()
    assert "\n" not in account.summary() and len(account.summary()) < LONGEST_LINE
    if mutant.refused:
        message = refusal(mutant, 0.0)
        total = len(mutant.samples) + mutant.refused
        assert f"{mutant.refused} of {total} " in message, message


def check_samples(source: Source, samples: list[tuple[str, list[str], bytes]], bad: set[int]) -> None:
    assert len(source) == len(samples)
    for index, (name, captions, content) in enumerate(samples):
        if index in bad:
            with pytest.raises(BadSample) as caught:
                source[index]
            assert "\n" not in str(caught.value)
            continue
        sample = source[index]
        assert sample.name.endswith(name) and list(sample.captions) == captions
        if content:
            assert sample.read() == content


def check_pictures(mutant: PictureMutant) -> None:
    source = open_unlabelled(SourceConfig(**mutant.settings), DataConfig(train=None))
    data = TrainingData(
        [source],
        Tokenizer(),
        lambda image: np.full((3, 1, 1), np.asarray(image.convert("RGB")).mean(), np.float32),
        context_length=8,
        training=False,
        batch_size=len(mutant.greys),
        num_workers=0,
        max_bad_share=1.0,
    )
    good = {name: grey for name, grey in mutant.greys.items() if grey is not None}
    [batch] = data.epoch(0)
    bad = {name for name in mutant.greys if name not in good}
    assert {name[name.index("img/") :] for name in data.bad_samples} == bad
    assert all("\n" not in reason for reason in data.bad_samples.values())
    read = {name[name.index("img/") :]: float(image.mean()) for name, image in zip(batch.names, batch.images)}
    assert set(read) == set(good)
    assert all(abs(read[name] - grey) < 2 for name, grey in good.items())


def run(numbers: range, folder) -> None:
    fuzzer, failures = Fuzzer(folder), []

    def too_long(signum, frame):
        raise TimeoutError(f"took more than {SECONDS} s")

    handler = signal.signal(signal.SIGALRM, too_long)
    try:
        for number in numbers:
            kind, mutant = fuzzer.make(number)
            signal.alarm(SECONDS)
            try:
                check(mutant)
                if isinstance(mutant, PictureMutant):
                    check_pictures(mutant)
            except BaseException as error:
                failures.append(f"{number} {kind}: {type(error).__name__}: {str(error)[:400]}")
            signal.alarm(0)
            shutil.rmtree(folder / str(number))
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert not failures, "\n".join([f"{len(failures)} of {len(numbers)}:", *failures[:20]])


def test_a_hundred_damaged_sources(tmp_path):
    run(range(100), tmp_path)


@pytest.mark.slow
def test_a_thousand_damaged_sources(tmp_path):
    run(range(1000), tmp_path)
