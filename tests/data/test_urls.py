"""Training's data, evaluation's inputs, configs and weights behind URLs read as the files that they are; what must be
on this machine is refused in a line."""

import argparse
import json

import pytest
import yaml

from mindone_coca import places, storage
from mindone_coca.cli import convert, evaluate, export
from mindone_coca.data.samples import BadSample
from mindone_coca.errors import InputError
from mindone_coca.factory import find_config_and_weights, load_config_and_weights
from mindone_coca.hub.names import hub_name
from mindone_coca.places import UrlPath
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.weights.hub import local_weights
from tests.data.cases import refused
from tests.data.training_samples import captions_of, open_one, write_images, write_layouts
from tests.training.runs import TINY


@pytest.fixture
def there(memory, tmp_path, monkeypatch):
    """A folder behind a URL, filled from this machine by `there(folder)`."""
    monkeypatch.setenv("MINDONE_COCA_CACHE", str(tmp_path / "cache"))

    def put(folder) -> str:
        for path in folder.rglob("*"):
            if path.is_file():
                memory.pipe(f"/in/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return "memory://in"

    return put


def contents(source) -> list[tuple]:
    samples = [source[number] for number in range(len(source))]
    return [(list(sample.captions), sample.read(), sample.image_id) for sample in samples]


def test_every_layout(there, tmp_path):
    folder = tmp_path / "data"
    layouts, images = write_layouts(folder)
    for number in range(7):
        (folder / f"images/{number:02}.txt").write_text(captions_of(number)[0])
    for number, label in enumerate(["a cat", "dog", "dog"]):
        (folder / "classes" / label / "deep").mkdir(parents=True, exist_ok=True)
        (folder / "classes" / label / f"deep/{number}.jpg").write_bytes(images[number])
    (folder / "classes/alone.jpg").write_bytes(images[0])
    layouts |= {
        "pattern": {"path": str(folder / "part-*.tar"), "caption_key": "json.said"},
        "captions": {"path": str(folder / "images"), "caption_extension": ".txt"},
        "classes": {"path": str(folder / "classes")},
    }
    for kind, settings in layouts.items():
        url = there(folder)
        remote = {key: value.replace(str(folder), url) for key, value in settings.items()}
        here = open_one(settings)
        theirs = open_one(remote)
        assert contents(theirs) == contents(here), kind
        assert theirs[0].name == here[0].name.replace(str(folder), url), kind
        assert theirs.account.passed_over == here.account.passed_over, kind


def test_a_folder_of_shards_its_saved_index_and_few_requests(there, memory, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    write_layouts(folder)
    url, index = there(folder), tmp_path / "index"
    settings = {"path": url, "caption_key": "json.said", "index_dir": str(index)}
    expected = contents(open_one(settings))
    assert len(list(index.iterdir())) == 2
    asked = []
    ranges = storage.read_range
    monkeypatch.setattr(storage, "read_range", lambda *range: asked.append(range) or ranges(*range))
    source = open_one(settings)
    assert asked == []  # by the index
    assert contents(source) == expected and len(asked) == len(source)  # picture and text are one request
    memory.pipe("/in/part-00.tar", memory.cat_file("/in/part-01.tar"))
    assert len(open_one(settings)) == 8  # a shard that changed is read anew


def test_a_list_here_of_pictures_there_and_the_other_way_round(there, tmp_path):
    images = write_images(tmp_path / "data", 2)
    url = there(tmp_path / "data")
    (tmp_path / "list.csv").write_text("filepath,title\n00.jpg,a\nx/../01.jpg,b\n")
    source = open_one({"path": str(tmp_path / "list.csv"), "image_root": url})
    assert [source[number].read() for number in (0, 1)] == images
    (tmp_path / "data/list.csv").write_text(f"filepath,title\n{tmp_path}/data/00.jpg,a\n")
    assert open_one(f"{there(tmp_path / 'data')}/list.csv")[0].read() == images[0]


def test_mistakes_are_one_line(there, memory, tmp_path):
    write_images(tmp_path / "data", 1)
    (tmp_path / "data/list.csv").write_text("filepath,title\nno.jpg,a\n")
    (tmp_path / "data/cut.tar").write_bytes(b"no shard")
    url = there(tmp_path / "data")
    assert refused(f"{url}/gone.csv") == f"{url}/gone.csv: no such file"
    assert refused(f"{url}/list.csv").startswith(f"{url}/list.csv: {url}/no.jpg does not exist")
    assert refused(f"{url}/part-{{00..01}}.tar").startswith(f"{url}/part-00.tar: no such file (from {url}/part-")
    assert "the name tells no format; there is no such file or folder" in refused(f"{url}/nothing")
    assert refused(f"{url}/cut.tar").startswith(f"{url}/cut.tar: not a plain tar file")
    assert refused({"path": url, "format": "folder"}).startswith(f"{url}: no images in folders in it")
    assert "must be on this machine" in refused(f"{url}/x.mindrecord")
    assert "index_dir" in refused({"path": f"{url}/cut.tar", "index_dir": url})
    (tmp_path / "data/00.txt").write_text("a")
    source = open_one({"path": there(tmp_path / "data"), "caption_extension": ".txt"})
    memory.rm("/in/00.txt")
    with pytest.raises(BadSample, match=r"its caption file memory://in/00\.txt cannot be read"):
        source[0]


def test_what_evaluate_measures(there, tmp_path):
    write_layouts(tmp_path / "data")
    url = there(tmp_path / "data")
    arguments = argparse.Namespace(task="captioning", data=f"{url}/captions.json", image_root=f"{url}/images")
    arguments.open_clip_pictures = False
    samples = evaluate.captioned_samples(arguments)
    assert [item.captions for item in samples.items] == [captions_of(number) for number in range(7)]
    assert samples.frames(0, evaluate.CaptionOptions())[0].size == (40, 32)


def test_config_and_weights(there, memory, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "final.yaml").write_text(yaml.safe_dump({**TINY, "checkpoint": "final.safetensors"}))
    (folder / "final.safetensors").write_bytes(b"weights")
    (folder / "other.txt").write_bytes(b"no weights")
    url = there(folder)
    assert hub_name(f"{url}/final.safetensors") is None
    assert hub_name("hf://owner/name/model.safetensors") is None
    for given in (
        (None, f"{url}/final.safetensors"),
        (None, url),
        (f"{url}/final.yaml", None),
        (f"{url}/final.yaml", f"{url}/final.safetensors"),
    ):
        config, weights = find_config_and_weights(*given)
        assert weights.read_bytes() == b"weights" and config.embed_dim == 16
    assert load_config_and_weights(f"{url}/final.yaml", None)[1] == weights
    copied = []
    download = storage.download
    monkeypatch.setattr(storage, "download", lambda url, target: copied.append(url) or download(url, target))
    local_weights(f"{url}/final.safetensors")
    assert copied == []
    memory.pipe("/in/final.safetensors", b"another")
    assert local_weights(f"{url}/final.safetensors").read_bytes() == b"another" and len(copied) == 1
    for wrong in ("gone.safetensors", "other.txt/x"):
        with pytest.raises(InputError, match=f"{url}/{wrong}: no such weights file"):
            local_weights(f"{url}/{wrong}")


def test_weights_in_shards(there, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    names = ("a.safetensors", "b.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(zip("xy", names))}))
    for name in names:
        (folder / name).write_bytes(name.encode())
    for url in (there(folder), f"{there(folder)}/model.safetensors.index.json"):
        index = local_weights(url)
        assert [(index.parent / name).read_bytes() for name in names] == [name.encode() for name in names]


def test_no_secret_is_shown_and_a_name_has_no_query():
    path = UrlPath("https://user:word@host/a/list.csv?sig=abc")
    assert (str(path), path.name, path.suffix) == ("https://host/a/list.csv", "list.csv", ".csv")
    assert str(path.parent) == "https://host/a" and path.parent.url == "https://user:word@host/a"
    assert (path.parent / "../b/c.jpg").url == "https://user:word@host/b/c.jpg"
    assert str(path.parent / "s3://x/y") == "s3://x/y" and str(path / "/here.jpg") == "/here.jpg"


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (evaluate.main, ["zeroshot", "--data", "x", "--output_dir"]),
        (evaluate.main, ["vqa", "-c", "x", "--data", "x", "--output_dir"]),
        (convert.main, ["--source", "x", "--target"]),
        (export.main, ["--target"]),
    ],
)
def test_what_is_written_here_alone(main, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "s3://user:word@bucket/out"])
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and "s3://bucket/out: written on this machine only; give a path" in errors


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("output.dir=s3://bucket/run", "output.dir: s3://bucket/run: must be on this machine; give a folder here"),
        ("head.cache=s3://bucket/x", "head.cache: outputs are kept on this machine only"),
    ],
)
def test_a_run_is_kept_here(override, words):
    with pytest.raises(InputError, match=words):
        load_train_config("configs/task_classification_digits.yaml", [override])


def test_ranges_of_a_file(memory, tmp_path):
    content = bytes(range(256)) * 1000
    memory.pipe("/x", content)
    (tmp_path / "x").write_bytes(content)
    for wanted in ([range(5, 9), range(20, 20)], [range(0, 3), range(200_000, 200_010)]):
        for path in (tmp_path / "x", UrlPath("memory://x")):
            assert places.read_ranges(path, wanted) == [content[one.start : one.stop] for one in wanted]
