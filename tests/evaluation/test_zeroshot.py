"""Zero-shot classification is open_clip's, live, on the same weights and pictures."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage import data

import evaluate
from mindone_coca.captioning import captioner
from mindone_coca.evaluation.zeroshot import class_weights, classify, read_templates
from mindone_coca.model.families import load_model_config
from mindone_coca.preprocess.transforms import create_transforms
from tests.evaluation.conftest import CLASSES, CONFIG, EACH
from tests.reference import open_clip, torch

NAMES = [name.replace("_", " ") for name in sorted(CLASSES)]
TEMPLATES = ["a photo of a {}", "{} in the wild", "one {}, or two"]


@pytest.fixture(scope="module")
def theirs(reference, pictures):
    """open_clip's classifier (D, C), image features (N, D), and labels (N,)."""
    tokenizer = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    weights = open_clip.build_zero_shot_classifier(reference, tokenizer, NAMES, TEMPLATES)
    files = sorted((pictures / "classes").rglob("*.png"))
    images = torch.from_numpy(np.stack([create_transforms(32)(Image.open(file)) for file in files]))
    with torch.no_grad():
        features = reference.encode_image(images, normalize=True)
    return weights, features, torch.tensor([sorted(CLASSES).index(file.parent.name) for file in files])


def write_templates(folder, templates=TEMPLATES):
    path = folder / "templates.yaml"
    path.write_text(json.dumps({"templates": templates}))
    return str(path)


def run(capfd, *arguments: str) -> dict[str, float]:
    code = evaluate.main(list(arguments))
    output = capfd.readouterr()
    assert code == 0, output.err
    return {name: float(value) for name, value in map(str.split, output.out.splitlines())}


@pytest.mark.graphs
def test_class_weights_are_open_clips(model, theirs):
    config = load_model_config(model[1])
    ours = class_weights(captioner.VideoCaptioner(config, model[3], "float32", 16, "mean"), NAMES, TEMPLATES)
    assert np.abs(ours - theirs[0].numpy().T).max() < 1e-6


@pytest.mark.graphs
def test_photographs(model, reference, tmp_path, capfd):
    """scikit-image's photographs, each its own class: the right ones are right in open_clip too."""
    names = ["astronaut", "cat", "coffee", "rocket"]
    photographs = [data.astronaut(), data.cat(), data.coffee(), data.rocket()]
    for name, pixels in zip(names, photographs):
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "classes" / name / "photograph.png")
    templates = write_templates(tmp_path)
    metrics = run(capfd, "zeroshot", *model, "--data", str(tmp_path / "classes"), "--templates", templates)
    tokenizer = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    weights = open_clip.build_zero_shot_classifier(reference, tokenizer, names, TEMPLATES)
    images = torch.from_numpy(np.stack([create_transforms(32)(pixels) for pixels in photographs]))
    with torch.no_grad():
        guesses = (reference.encode_image(images, normalize=True) @ weights).argmax(1)
    assert metrics["top1"] == (guesses == torch.arange(4)).float().mean().item()
    assert metrics["samples"] == 4


@pytest.mark.graphs
@pytest.mark.parametrize("layout", ["folder", "csv"])
def test_accuracies_are_open_clips(model, pictures, theirs, tmp_path, capfd, layout):
    from open_clip_train.zero_shot import accuracy

    weights, features, labels = theirs
    logits = 100 * features @ weights
    gaps = np.diff(np.sort(logits.numpy()))
    assert gaps.min() > 1e-3  # no class is decided by rounding
    top1, top5 = (float(value) / len(labels) for value in accuracy(logits, labels, topk=(1, 5)))
    given = ["--data", str(pictures / "classes")]
    if layout == "csv":
        (tmp_path / "names.json").write_text(json.dumps({name: name.replace("_", " ") for name in CLASSES}))
        given = ["--data", str(pictures / "single.csv"), "--class_names", str(tmp_path / "names.json")]
    out = tmp_path / "out"
    metrics = run(capfd, "zeroshot", *model, *given, "--templates", write_templates(tmp_path), "--output_dir", str(out))
    content = json.loads((out / "metrics.json").read_bytes())
    assert content["metrics"]["top1"] == pytest.approx(top1, abs=1e-6)
    assert content["metrics"]["top5"] == pytest.approx(top5, abs=1e-6)
    assert 0 < top1 < top5 < 1  # neither is trivial
    assert metrics["top1"] == pytest.approx(top1, abs=1e-4)
    assert (metrics["samples"], metrics["classes"]) == (len(labels), len(CLASSES))
    right = (logits.argmax(1) == labels).numpy()
    assert [row["accuracy"] for row in content["per_class"]] == [right[labels == c].mean() for c in range(len(CLASSES))]
    assert content["metrics"]["mean_per_class"] == pytest.approx(top1)  # as many of each
    assert content["examples"] == {"shown": 24, "right": int(right.sum()), "wrong": int((~right).sum())}
    assert (out / "confusion.png").is_file() and "red fox" in (out / "examples.html").read_text()


@pytest.mark.graphs
def test_classes_without_images_compete(model, pictures, tmp_path, capfd):
    (tmp_path / "more.json").write_text(json.dumps({"red_fox": "vixen", "extra": "something else"}))
    metrics = run(
        capfd,
        "zeroshot",
        *model,
        "--data",
        str(pictures / "classes"),
        "--class_names",
        str(tmp_path / "more.json"),
        "--templates",
        write_templates(tmp_path, ["{}"]),
    )
    assert metrics["classes"] == len(CLASSES) + 1


@pytest.mark.graphs
def test_top5_needs_six_classes(model, pictures, tmp_path, capfd):
    (tmp_path / "two").mkdir()
    for name in CLASSES[:2]:
        (tmp_path / "two" / name).symlink_to(pictures / "classes" / name)
    code = evaluate.main(
        ["zeroshot", *model, "--data", str(tmp_path / "two"), "--templates", write_templates(tmp_path, ["{}"])]
    )
    output = capfd.readouterr()
    assert code == 0 and "top5 is left out" in output.err
    assert [line.split()[0] for line in output.out.splitlines()] == ["top1", "mean_per_class", "samples", "classes"]


def test_ties_count_against_the_model():
    similarity = np.array([[0.5, 0.5, 0.1], [0.2, 0.9, 0.9], [0.3, 0.2, 0.1]], np.float32)
    ranks, predicted = classify(similarity, np.array([0, 1, 0]))
    assert ranks.tolist() == [1, 1, 0]
    assert predicted.tolist() == [1, 2, 0]


def test_packaged_templates():
    templates = read_templates("zeroshot_templates")
    assert len(templates) == len(set(templates)) >= 40
    assert all(template.count("{}") == 1 for template in templates)
    assert not set(templates) & {template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES}


def broken(tmp_path, pictures, mistake: str) -> tuple[list[str], str]:
    """Arguments with a mistake, and what is to be said of it."""
    folder = tmp_path / "data"
    for name in CLASSES[:2]:
        (folder / name).mkdir(parents=True)
        for file in sorted((pictures / "classes" / name).iterdir())[: EACH // 2]:
            (folder / name / file.name).write_bytes(file.read_bytes())
    good = ["--data", str(folder)]
    if mistake == "empty class":
        (folder / "zebra").mkdir()
        return good, "zebra: no images in this class's folder"
    if mistake == "damaged picture":
        (folder / CLASSES[0] / "x.png").write_bytes(b"no picture")
        return good, "x.png: cannot be read"
    if mistake == "same names":
        (folder / "red fox").mkdir()
        (folder / "red fox" / "x.png").write_bytes((folder / "red_fox" / "00.png").read_bytes())
        return good, "are both called 'red fox'"
    if mistake == "template":
        return [*good, "--templates", write_templates(tmp_path, ["a {}", "a dog"])], "'a dog': put {} where"
    if mistake == "unknown key":
        (tmp_path / "t.yaml").write_text("template: [x]")
        return [*good, "--templates", str(tmp_path / "t.yaml")], "did you mean 'templates'"
    if mistake == "no templates":
        return [*good, "--templates", write_templates(tmp_path, [])], "the list is empty"
    if mistake == "class names":
        return [*good, "--class_names", "no.json"], "no.json: no such file"
    if mistake == "label key":
        return ["--data", str(pictures / "single.csv"), "--label_key", "lable"], "did you mean 'label'"
    if mistake == "several labels":
        return ["--data", str(pictures / "captions.csv"), "--label_key", "title"], "it has several labels"
    if mistake == "coco":
        return ["--data", str(pictures / "coco.json")], "captions, no labels"
    if mistake == "useless option":
        return [*good, "--image_root", "x"], "image_root says nothing about this folder source"
    assert mistake == "missing"
    return ["--data", "nothing"], "nothing: the name tells no format; there is no such file or folder"


@pytest.mark.parametrize(
    "mistake",
    [
        "empty class",
        "damaged picture",
        "same names",
        "template",
        "unknown key",
        "no templates",
        "class names",
        "label key",
        "several labels",
        "coco",
        "useless option",
        "missing",
    ],
)
def test_a_mistake_gives_one_clear_line(model, pictures, tmp_path, capfd, mistake):
    arguments, message = broken(tmp_path, pictures, mistake)
    arguments = arguments if "--templates" in arguments else [*arguments, "--templates", write_templates(tmp_path)]
    assert evaluate.main(["zeroshot", *model, *arguments]) == 2
    output = capfd.readouterr()
    lines = [line for line in output.err.splitlines() if line and not line.startswith(("warning:", "top5 is"))]
    assert output.out == "" and len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], output.err
