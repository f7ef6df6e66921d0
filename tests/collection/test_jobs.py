"""Who gets which group, and how a file that kills workers is found, without any worker."""

import random

import pytest

from mindone_coca.collection.jobs import DEATHS, Job, Jobs

GROUPS = [[f"{group}{file}" for file in "abcd"] for group in range(6)]


def captioned(job: Job) -> list[dict]:
    """The records of a job; a caption tells the batch that it was made in, as a real one's last digits may."""
    batch = [path for path in job.group if path not in job.without]
    return [
        {"path": path, "error": job.without.get(path), "segments": [] if path in job.without else [batch]}
        for path in job.group
    ]


def play(groups, kills, workers: int = 3) -> tuple[dict[str, dict], int]:
    """Work off groups with workers of two jobs each, which die as `kills` says. -> records by path, deaths."""
    jobs, deaths = Jobs(groups), 0
    found: dict[str, dict] = {}
    held: list[list[Job]] = [[] for _ in range(workers)]

    def take(finished: list[tuple]) -> None:
        for group, records in finished:
            assert [record["path"] for record in records] == group
            for record in records:
                assert record["path"] not in found, "twice"
                found[record["path"]] = record

    for _ in range(10_000):
        for mine in held:
            while len(mine) < 2 and not any(job.suspect for job in mine) and (not mine or not jobs.suspects):
                if (job := jobs.take(idle=not mine)) is None:
                    break
                assert not job.suspect or not mine, "a suspect shares its worker"
                mine.append(job)
        if jobs.finished:
            return found, deaths
        for mine in held:
            if mine and kills(mine):
                deaths += 1
                take(jobs.died(mine))
                mine.clear()
            elif mine:
                job = mine.pop(0)
                take(jobs.done(job, captioned(job)))
    raise AssertionError("no end")


def test_without_deaths_each_group_is_done_once_in_order():
    jobs = Jobs(GROUPS)
    assert not jobs.finished
    taken = []
    while (job := jobs.take(idle=True)) is not None:
        taken.append(job.group)
        assert not jobs.finished
        assert jobs.done(job, captioned(job)) == [(job.group, captioned(job))]
    assert taken == GROUPS and jobs.finished


def test_deaths_by_chance_lose_nothing():
    quiet, _ = play(GROUPS, lambda mine: False)
    as_quiet = 0
    for seed in range(30):
        chance = random.Random(seed)
        found, deaths = play(GROUPS, lambda mine, chance=chance: chance.random() < 0.2)
        assert found.keys() == quiet.keys()
        as_quiet += found == quiet and deaths > 0
    assert as_quiet > 15  # in the others a file had bad luck again and again
    assert play(GROUPS, _first(3)) == (quiet, 3)


def _first(count: int):
    left = [count]

    def kills(mine) -> bool:
        left[0] -= 1
        return left[0] >= 0

    return kills


@pytest.mark.parametrize("poisons", [{"2c"}, {"0a", "0d", "5b"}, {"3a", "3b", "3c", "3d"}])
def test_files_that_kill_are_named_and_the_rest_is_done_in_the_batches_without_them(poisons):
    def kills(mine) -> bool:
        return any(path in poisons and path not in job.without for job in mine for path in job.group)

    found, deaths = play(GROUPS, kills)
    assert found.keys() == {path for group in GROUPS for path in group}
    for path, record in found.items():
        if path in poisons:
            assert record["error"].startswith(f"{path}: ") and not record["segments"]
        else:
            batch = [other for other in next(group for group in GROUPS if path in group) if other not in poisons]
            assert record["error"] is None and record["segments"] == [batch]
    # each is tried alone, and its group twice before that
    assert deaths <= DEATHS * len(poisons) + DEATHS * len({path[0] for path in poisons})


def test_a_group_that_a_worker_died_with_goes_to_one_that_has_nothing_else():
    jobs = Jobs(GROUPS[:2])
    first = jobs.take(idle=True)
    assert jobs.died([first]) == [] and jobs.suspects == 1
    assert jobs.take(idle=False).group == GROUPS[1]
    assert jobs.take(idle=False) is None and not jobs.finished
    assert jobs.take(idle=True) is first


def test_a_group_of_one_file_is_tried_no_further():
    found, deaths = play([["a"], ["x"], ["b"]], lambda mine: any("x" in job.group for job in mine), workers=1)
    assert deaths == 1 + DEATHS  # the first with another file
    assert [path for path, record in found.items() if record["error"]] == ["x"]


def test_a_file_is_not_blamed_for_what_it_shared_a_worker_with():
    """It was with a killer at first, and alone with a node that went: one death that may be its own."""
    jobs = Jobs([["poison"], ["bystander"]])
    assert jobs.died([jobs.take(idle=True), jobs.take(idle=False)]) == []
    poison, bystander = jobs.take(idle=True), jobs.take(idle=True)
    assert jobs.died([bystander]) == jobs.died([poison]) == []
    assert jobs.take(idle=True) is bystander
    assert jobs.done(bystander, captioned(bystander)) == [(["bystander"], captioned(bystander))]
    [(group, [record])] = jobs.died([jobs.take(idle=True)])
    assert group == ["poison"] and record["error"].startswith("poison: 2 processes died with it alone")
    assert jobs.take(idle=True) is None and jobs.finished


def test_a_group_that_kills_only_as_a_whole_keeps_the_captions_of_its_files_alone():
    found, _ = play(GROUPS, lambda mine: any(job.group == GROUPS[1] for job in mine))
    assert all(record["error"] is None for record in found.values())
    assert [found[path]["segments"] for path in GROUPS[1]] == [[[path]] for path in GROUPS[1]]


def test_jobs_put_back_come_again_without_blame():
    jobs = Jobs(GROUPS[:1])
    job = jobs.take(idle=True)
    jobs.put_back([job])
    assert jobs.take(idle=False) is job and not job.deaths
