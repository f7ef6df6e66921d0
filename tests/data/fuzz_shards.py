"""Damaged shards. Where each member stands is counted here, in blocks of 512 bytes."""

import gzip
import io
import random
import tarfile
from pathlib import Path

from tests.data.mutants import Mutant, Pictures, some_places

END = bytes(1024)


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    """One member as it stands in a tar file."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, target
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


class Shard:
    """Members, and the samples that they make."""

    def __init__(self, rng: random.Random, pictures: Pictures) -> None:
        self.rng, self.pictures = rng, pictures
        self.folder = rng.choice(["", "./", "a/", "./a/b/"])
        self.rows = pictures.rows(rng)
        self.members: list[tuple[str, bytes]] = []
        self.samples = []
        for place, (number, caption) in enumerate(self.rows):
            files = [(f"{self.key(place)}.{rng.choice(['jpg', 'JPG', 'jpeg'])}", pictures.bytes[number])]
            files.append((f"{self.key(place)}.txt", self.text(caption)))
            self.samples.append((files[0][0], [caption], files[0][1]))
            self.members += files if rng.random() < 0.5 else files[::-1]
        self.places = some_places(rng, len(self.rows))

    def key(self, place: int) -> str:
        return f"{self.folder}{place:03}"

    def text(self, caption: str) -> bytes:
        return (caption + self.rng.choice(["", "\n"])).encode(self.rng.choice(["utf-8", "utf-8-sig", "utf-16"]))

    def write(self, content: bytes, name: str = "x.tar", **expected) -> Mutant:
        path = self.pictures.folder / name
        path.write_bytes(content)
        return Mutant({"path": str(path)}, **{"samples": self.samples, **expected})

    def mutant(self, **expected) -> Mutant:
        return self.write(b"".join(member(*pair) for pair in self.members) + END, **expected)

    def of(self, place: int) -> list[int]:
        """Where the members of a sample stand, the picture first."""
        mine = [n for n, (name, _) in enumerate(self.members) if name.startswith(self.key(place) + ".")]
        return sorted(mine, key=lambda n: self.members[n][0].endswith(".txt"))


def kind_intact(rng, pictures):
    return Shard(rng, pictures).mutant()


def kind_members_apart(rng, pictures):
    """Sorted by kind or at random; samples come in the order of their first members."""
    shard = Shard(rng, pictures)
    rng.shuffle(shard.members)
    if rng.random() < 0.5:
        shard.members.sort(key=lambda pair: pair[0].rpartition(".")[2].lower())
    order = list(dict.fromkeys(name.partition(".txt")[0].rpartition(".")[0] or name for name, _ in shard.members))
    firsts: dict[str, int] = {}
    for place, (name, _) in enumerate(shard.members):
        firsts.setdefault(Path(name).stem, place)
    assert len(order) >= len(firsts)
    shard.samples.sort(key=lambda sample: firsts[Path(sample[0]).stem])
    return shard.mutant()


def kind_keys_twice(rng, pictures):
    """The whole shard follows itself, with other captions; each is a sample."""
    shard = Shard(rng, pictures)
    again = [(name, b"again" if name.endswith(".txt") else content) for name, content in shard.members]
    shard.members += again
    for name, _, content in shard.samples[:]:
        head, _, extension = name.rpartition(".")
        shard.samples.append((f"{head} (2).{extension.lower()}" if extension != "JPG" else "", ["again"], content))
    return shard.mutant()


def kind_keys_twice_with_other_files(rng, pictures):
    """Which text belongs to which picture is unclear, so both are refused."""
    shard = Shard(rng, pictures)
    for place in shard.places:
        shard.members.insert(rng.choice(shard.of(place)) + rng.randrange(2), (f"{shard.key(place)}.txt", b"another"))
    samples = [sample for place, sample in enumerate(shard.samples) if place not in shard.places]
    words = [f"{shard.key(shard.places[0])}.", "its key is there 2 times"]
    return shard.mutant(samples=samples or None, refused=2 * len(shard.places), words=words)


def kind_keys_differ_by_case(rng, pictures):
    shard = Shard(rng, pictures)
    picture = shard.samples[0][2]
    for name in ("k", "K"):
        shard.members += [(f"{name}.jpg", picture), (f"{name}.txt", name.encode())]
        shard.samples.append((f":{name}.jpg", [name], picture))
    return shard.mutant()


def kind_members_dropped(rng, pictures):
    shard = Shard(rng, pictures)
    gone = [rng.choice(shard.of(place)) for place in shard.places]
    shard.members = [pair for number, pair in enumerate(shard.members) if number not in gone]
    samples = [sample for place, sample in enumerate(shard.samples) if place not in shard.places]
    words = [f"{shard.key(shard.places[0])}."] if samples else ["no sample with an image and a .txt"]
    return shard.mutant(samples=samples or None, refused=len(shard.places), words=words)


def kind_hidden_and_other_members(rng, pictures):
    shard = Shard(rng, pictures)
    hidden = [f"{shard.folder}._000.jpg", ".DS_Store", "__MACOSX/000.txt", ".ipynb_checkpoints/000.jpg"]
    hidden = rng.sample(hidden, 3)
    others = [f"{shard.key(place)}.json" for place in shard.places]
    for name in [*hidden, *others]:
        shard.members.insert(rng.randrange(len(shard.members) + 1), (name, b"{}"))
    firsts: dict[str, int] = {}
    for place, (name, _) in enumerate(shard.members):
        firsts.setdefault(name.removeprefix("./").partition(".")[0], place)
    shard.samples.sort(key=lambda sample: firsts[sample[0].removeprefix("./").partition(".")[0]])
    return shard.mutant(passed_over={"hidden": 3, ".json": len(others)})


def kind_folders_and_links(rng, pictures):
    shard = Shard(rng, pictures)
    blocks = [member(*pair) for pair in shard.members]
    picture, text = shard.of(0)
    blocks += [
        member("more", kind=tarfile.DIRTYPE),
        member("more/x.jpg", kind=tarfile.LNKTYPE, target=shard.members[picture][0]),
        member("more/x.txt", kind=tarfile.LNKTYPE, target=shard.members[text][0]),
        member("more/y.jpg", kind=tarfile.SYMTYPE, target="x.jpg"),
        member("more/z.jpg", kind=tarfile.LNKTYPE, target="nowhere"),
        member("more/pipe", kind=tarfile.FIFOTYPE),
    ]
    shard.samples.append(("more/x.jpg", *shard.samples[0][1:]))
    return shard.write(b"".join(blocks) + END, passed_over={"linked": 2, "special": 1})


def kind_dots_in_keys(rng, pictures):
    shard = Shard(rng, pictures)
    count = rng.randrange(50, 500)
    shard.members = [(f"img.{n:05}.{suffix}", b"x") for n in range(count) for suffix in ("jpg", "txt")]
    words = ["no sample with an image and a .txt", f"and {2 * count - 10:,} more", "first dot"]
    return shard.mutant(samples=None, words=words)


def kind_cut(rng, pictures):
    """At a random byte. What is whole before a cut between members is read."""
    shard = Shard(rng, pictures)
    blocks = [member(*pair) for pair in shard.members]
    content = b"".join(blocks) + END
    cut = rng.choice([rng.randrange(len(content)), sum(map(len, blocks[: rng.randrange(len(blocks))]))])
    position, whole = 0, 0
    while whole < len(blocks) and position + len(blocks[whole]) <= cut:
        position += len(blocks[whole])
        whole += 1
    if cut == 0:
        return shard.write(b"", samples=None, words=["empty"])
    if whole < len(blocks) and cut != position:
        return shard.write(content[:cut], samples=None, words=["cut short"])
    names = [name for name, _ in shard.members[:whole]]
    samples, refused = [], 0
    for place, sample in enumerate(shard.samples):
        found = [n for n in shard.of(place) if n < whole]
        samples += [sample] if len(found) == 2 else []
        refused += len(found) == 1
    words = ["end mark"] if samples and cut <= position else []
    words = words if samples or not names else ["no sample with an image"]
    return shard.write(content[:cut], samples=samples or None, refused=refused, words=words)


def kind_header_flipped(rng, pictures):
    """A bit of what a header's checksum covers."""
    shard = Shard(rng, pictures)
    blocks = [member(*pair) for pair in shard.members]
    number = rng.randrange(len(blocks))
    spot = rng.choice([*range(148), *range(156, 512)])
    block = bytearray(blocks[number])
    block[spot] ^= 1 << rng.randrange(8)
    content = b"".join([*blocks[:number], bytes(block), *blocks[number + 1 :]]) + END
    start = sum(map(len, blocks[:number]))
    return shard.write(content, samples=None, words=["damaged", f"at byte {start:,}" if number == 0 else "byte"])


def kind_put_together(rng, pictures):
    """Two tar files by `cat`: tar stops at the end mark of the first."""
    shard = Shard(rng, pictures)
    half = 2 * rng.randrange(1, len(shard.rows))
    parts = [b"".join(member(*pair) for pair in part) for part in (shard.members[:half], shard.members[half:])]
    return shard.write(parts[0] + END + bytes(512 * rng.randrange(4)) + parts[1] + END)


def kind_garbage_after_the_end(rng, pictures):
    shard = Shard(rng, pictures)
    content = b"".join(member(*pair) for pair in shard.members) + END + rng.randbytes(rng.randrange(512, 2000))
    return shard.write(content, samples=None, words=["damaged"])


def kind_compressed(rng, pictures):
    shard = Shard(rng, pictures)
    name = rng.choice(["x.tar", "x.tar.gz", "x.tgz"])
    content = gzip.compress(b"".join(member(*pair) for pair in shard.members) + END, mtime=0)
    return shard.write(content, name, samples=None, words=["gzip -d"])


def kind_no_tar(rng, pictures):
    content = rng.choice([rng.randbytes(3000), b"<html>not found</html>", b"version https://git-lfs", bytes(700)])
    words = ["there are no files in it"] if not content.strip(b"\0") else ["not a plain tar"]
    return Shard(rng, pictures).write(content, samples=None, words=words)


def kind_texts_damaged(rng, pictures):
    """Texts that are no UTF-8 are bad samples; blank ones are no captions."""
    shard = Shard(rng, pictures)
    bad = set()
    for place in shard.places:
        text = rng.choice([b"", b"caf\xe9", b"\xff\xfea"])
        shard.members[shard.of(place)[1]] = (f"{shard.key(place)}.txt", text)
        shard.samples[place] = (shard.samples[place][0], [], shard.samples[place][2])
        bad |= {place} if text else set()
    return shard.mutant(bad=bad)


def kind_json_fields(rng, pictures):
    """Captions in a field of a JSON file, some of which cannot be read."""
    shard = Shard(rng, pictures)
    bad = set()
    for place, (number, caption) in enumerate(shard.rows):
        good = b'{"said": ["' + caption.encode("unicode_escape").replace(b'"', b"'").hex().encode() + b'"]}'
        wrong = rng.choice([b"{", b"[1]", b'{"other": 1}', b'{"said": {}}', b"[" * 100000])
        shard.members[shard.of(place)[1]] = (f"{shard.key(place)}.json", wrong if place in shard.places else good)
        said = caption.encode("unicode_escape").replace(b'"', b"'").hex()
        shard.samples[place] = (shard.samples[place][0], [said], pictures.bytes[number])
        bad |= {place} if place in shard.places else set()
    mutant = shard.mutant(bad=bad)
    mutant.settings["caption_key"] = "json.said"
    return mutant


def kind_pax_headers(rng, pictures):
    """Long names and letters beyond ASCII, as GNU tar and Python write them."""
    shard = Shard(rng, pictures)
    buffer = io.BytesIO()
    format = rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content in shard.members:
            info = tarfile.TarInfo("東京/" + "long/" * 40 + name.removeprefix("./"))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    samples = [("東京/" + "long/" * 40 + name.removeprefix("./"), *rest) for name, *rest in shard.samples]
    return shard.write(buffer.getvalue(), samples=samples)


def kind_odd_names(rng, pictures):
    """Names with line ends, and very long ones, of members that have no text: messages stay one line."""
    shard = Shard(rng, pictures)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        odd = [("a\nb.jpg", b"x"), ("long" * 5000 + ".jpg", b"x"), ("c.x\ny" * 900, b"x")]
        for name, content in [*shard.members, *odd]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return shard.write(buffer.getvalue(), refused=3, words=[r"a\nb.jpg has no .txt"])
