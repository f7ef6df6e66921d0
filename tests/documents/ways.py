"""The ways in which pieces of the documents are tried: what they need, and what is done with them."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from mindone_coca import device
from mindone_coca.cli.evaluate import EVALUATIONS
from mindone_coca.cli.main import COMMANDS
from mindone_coca.data.settings import DataConfig
from mindone_coca.data.sources import source_configs
from mindone_coca.hub.names import hub_name
from mindone_coca.model.families import load_model_config
from mindone_coca.typed_mapping import from_dict
from tests.documents.checkout import Checkout
from tests.documents.messages import is_of_sources
from tests.documents.reading import ROOT, Piece
from tests.documents.walk import How, replaced
from tests.parallel_models import build_reference
from tests.reference import random_reference, torch

# ViT-L/14's image size, context and vocabulary, in one layer for each tower
SMALL = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": 224,
        "layers": 1,
        "width": 64,
        "patch_size": 56,
        "attentional_pool": True,
        "attn_pooler_heads": 8,
        "attn_pooler_queries": 16,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 76,
        "vocab_size": 49408,
        "width": 64,
        "heads": 1,
        "layers": 1,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {
        "context_length": 76,
        "vocab_size": 49408,
        "width": 64,
        "heads": 1,
        "layers": 1,
        "attn_pooler_heads": 8,
    },
    "custom_text": True,
}
FEW_SCENES = "--train 2 --single 2 --held_out 2 --videos 1 --workers 1"
LINE = r"[^\n]+\n"
DEMO_CAPTION = "a large red star above a small yellow ring\n"
METRICS = r"([\w@]+ [\d.]+\n)+"
ROW = r"[^\t\n]+(\t[^\t\n]*)+\n"


def published_weights(checkout: Checkout) -> None:
    """A small model stands for ViT-L/14, in its config and in the file that one fetches."""
    checkout.path("configs/coca_vit-l-14.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    weights = checkout.path("open_clip_pytorch_model.bin")
    if not weights.exists():
        torch.save(random_reference(SMALL, seed=3, logit_std=3.0).state_dict(), weights)
    checkout.forget_weights()
    for name in ("VIDEO", "clip.mp4"):
        if not checkout.path(name).exists():
            shutil.copy(checkout.path("assets/demo.mp4"), checkout.path(name))


def collection(checkout: Checkout) -> None:
    """A folder of one video, so that no graphs for larger batches are compiled."""
    folder = checkout.path("FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(checkout.path("assets/demo.mp4"), folder / "clip.mp4")


def scale(checkout: Checkout) -> None:
    published_weights(checkout)
    collection(checkout)
    checkout.path("list.txt").write_text("FOLDER/clip.mp4\n")


def write_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).resize((80, 64)).save(path)


def finetune_data(checkout: Checkout) -> None:
    """Pictures in the place of COCO; the recipes take the checkout's model config, not the packaged one."""
    published_weights(checkout)
    for recipe in ("finetune_captioning", "finetune_captioning_lora"):
        text = (ROOT / f"configs/{recipe}.yaml").read_text()
        text = replaced(text, {"config: coca_vit-l-14\n": "config: configs/coca_vit-l-14.yaml\n"})
        checkout.path(f"configs/{recipe}.yaml").write_text(text)
    for part in ("train", "val"):
        coco = checkout.path("data/coco")
        write_coco(coco / f"annotations/captions_{part}2014.json", coco / f"{part}2014")


def write_coco(path: Path, pictures: Path, count: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        write_picture(pictures / f"{number}.jpg", number)
        images.append({"id": number, "file_name": f"{number}.jpg"})
        annotations.append({"id": number, "image_id": number, "caption": f"a picture with the number {number}"})
    path.write_text(json.dumps({"images": images, "annotations": annotations}))


def evaluation_data(checkout: Checkout) -> None:
    published_weights(checkout)
    checkout.run("python tools/model_conversion/coca_convert.py --source open_clip_pytorch_model.bin")
    write_coco(checkout.path("captions_val2014.json"), checkout.path("val2014"), 1)
    write_picture(checkout.path("imagenet/val/n01440764/0.jpg"), 0)
    names = {"n01440764": "tench", "n01443537": "goldfish", "n01484850": "great white shark"}
    checkout.path("names.json").write_text(json.dumps(names))


def exported_model(checkout: Checkout) -> None:
    shutil.copy(checkout.path("configs/coca_vit-l-14.yaml"), checkout.path("CONFIG"))
    shutil.copy(checkout.path("models/coca_model.ckpt"), checkout.path("WEIGHTS"))


def convert_source(checkout: Checkout) -> None:
    shutil.copy(checkout.path("open_clip_pytorch_model.bin"), checkout.path("SOURCE"))


def smaller(text: str) -> str:
    """A block of the other family with one layer where it has six, and narrow."""
    for old, new in (("depth=6", "depth=1"), ("depth: 6", "depth: 1"), ("2048", "64"), ("1024", "64"), ("512", "64")):
        text = text.replace(old, new)
    return text


def published_name(checkout: Checkout, piece: Piece) -> None:
    """The name is one of a hub, from which no test fetches; a file stands for it."""
    [name] = re.findall(r"coca_ViT-L-14/\w+", piece.text)
    assert hub_name(name) is not None
    checkout.check(replaced(piece.text, {name: "open_clip_pytorch_model.bin"}))


def converted_caption(checkout: Checkout, piece: Piece) -> None:
    """The config that the converter infers is that of the weights."""
    printed = checkout.run(piece.text)
    assert re.search(r"wrote models/coca_model\.ckpt: \d+ entries", printed), printed
    assert load_model_config(checkout.path("models/coca_model.yaml")).to_dict()["vision_cfg"]["image_size"] == 224


def all_formats(checkout: Checkout, piece: Piece) -> None:
    """OUT holds what the page lists after this command."""
    checkout.run(piece.text)
    out = checkout.path("OUT")
    for suffix in ("txt", "json", "jsonl", "csv", "html"):
        assert (out / f"captions.{suffix}").stat().st_size, suffix
    for name in ("srt/clip.srt", "vtt/clip.vtt", "journal"):
        assert (out / name).exists(), name
    for name in ("img_emb/img_emb_0.npy", "text_emb/text_emb_0.npy", "metadata/metadata_0.parquet"):
        assert (out / "features" / name).is_file()
    assert len(json.loads((out / "captions.json").read_text())["results"]) == 1


def sidecar(folder: str) -> How:
    def how(checkout: Checkout, piece: Piece) -> None:
        checkout.run(piece.text)
        assert checkout.path(f"{folder}/clip.txt").read_text().strip()

    return how


def library(checkout: Checkout, piece: Piece) -> None:
    shutil.copy(checkout.path("assets/demo.mp4"), checkout.path("clip.mp4"))
    code = replaced(piece.text, {"num_beams=4": "num_beams=2"})  # as many rows as by default: the same graph
    names = checkout.execute(code, pil_image=Image.new("RGB", (300, 200), "red"))
    assert names["image"].shape == (1, 3, 224, 224) and names["ids"].shape[0] == 1
    assert names["features"].shape == (1, SMALL["embed_dim"])
    assert abs(np.linalg.norm(names["features"].asnumpy()) - 1) < 1e-5
    assert names["similarity"].shape == (1, 2)
    assert len(names["printed"].splitlines()) == 2


def convert_usage(checkout: Checkout, piece: Piece) -> None:
    """The synopsis without what stands in brackets, with all of it, and with that of the outer ones."""
    outer = re.sub(r" \[(\w+)\]", "", piece.text)
    bare = re.sub(r" \[[^][]*\]", "", outer)
    whole = re.sub(r"[][]", "", piece.text)
    assert len(bare) < len(outer) < len(piece.text) and not re.search(r"[][]", bare), bare
    for command in (bare, whole):
        checkout.check(command)
    printed = checkout.run(re.sub(r"[][]", "", outer))
    assert printed.startswith("wrote FILE_OR_FOLDER/coca_model.ckpt"), printed


def listed_entries(checkout: Checkout, piece: Piece) -> None:
    for line in checkout.run(piece.text).splitlines():
        assert re.fullmatch(r"[\w.]+\t(scalar|\d+(x\d+)*)\tfloat32", line), line


def deep_export(checkout: Checkout, piece: Piece) -> None:
    checkout.run(piece.text)
    manifest = json.loads(checkout.path("mindir/manifest.json").read_text())
    assert manifest["graphs"].keys() == {"image_encoder", "text_encoder", "decode_step"}


def caption_by_graphs(checkout: Checkout, piece: Piece) -> None:
    picture = ROOT / "assets" / "demo.mp4"
    printed = checkout.run(piece.text.replace("PICTURE...", str(picture)))
    assert printed.startswith(f"{picture}\t"), printed


def all_commands(checkout: Checkout, piece: Piece) -> None:
    """`mindone-coca A|B|C` names every command, and none else."""
    assert piece.text.removeprefix("mindone-coca ").split("|") == list(COMMANDS)


def each_command(checkout: Checkout, piece: Piece) -> None:
    assert piece.text.removeprefix("mindone-coca ") in (*COMMANDS, "COMMAND")


def each_task(checkout: Checkout, piece: Piece) -> None:
    """`evaluate.py TASK` with every task that the table has."""
    checkout.path("final.yaml").touch()
    for task in EVALUATIONS:
        checkout.check(piece.text.replace("TASK", f"{task} -c final.yaml --data final.yaml"))


def digits(checkout: Checkout) -> None:
    """The digits model with one layer in each tower."""
    config = checkout.path("configs/coca_digits.yaml")
    config.write_text(re.sub(r"layers: \d", "layers: 1", config.read_text()))


def untrained_digits(checkout: Checkout, piece: Piece) -> None:
    """Tests of training train; here the commands that follow get a model as it is before."""
    checkout.check(piece.text)
    checkout.write_untrained("coca_digits", "outputs/digits")


def other_family(checkout: Checkout, piece: Piece) -> None:
    rng = np.random.default_rng(0)
    device.configure(mode="pynative")  # four calls, each another graph
    try:
        names = checkout.execute(
            smaller(piece.text),
            text=rng.integers(1, 20000, (2, 12)).astype(np.int32),
            images=rng.standard_normal((2, 3, 256, 256)).astype(np.float32),
            tokens=rng.standard_normal((2, 64, 64)).astype(np.float32),
        )
    finally:
        device.configure()
    assert names["logits"].shape == (2, 12, 20000) and names["loss"].shape == ()
    assert names["text_embeds"].shape == names["image_embeds"].shape == (2, 64)


def other_config(checkout: Checkout, piece: Piece) -> None:
    """The block is a config, and for the commands after it there is a smaller one with weights of the original."""
    checkout.path("my_coca.yaml").write_text(piece.text)
    load_model_config(checkout.path("my_coca.yaml"))
    small = smaller(piece.text)
    checkout.path("my_coca.yaml").write_text(small)
    torch.save(build_reference(yaml.safe_load(small)).state_dict(), checkout.path("coca.pt"))
    checkout.forget_weights()


def data_settings(checkout: Checkout, piece: Piece) -> None:
    """The block is the data section of a training config, whose files are elsewhere."""
    data = from_dict(DataConfig, yaml.safe_load(piece.text)["data"], "data")
    assert source_configs(data.train, "data.train")


def captioned_demo(checkout: Checkout, piece: Piece) -> None:
    """Lines of Python that caption the bundled video by the demo model."""
    assert checkout.execute(piece.text)["printed"] == DEMO_CAPTION


def built_pages(checkout: Checkout, piece: Piece) -> None:
    """`.ci/run` builds them; the environment for that is no part of this one."""
    printed = checkout.run_process("make -n docs DOCS_VENV=nowhere")
    assert "mkdocs build --strict\n" in printed and checkout.path("mkdocs.yml").is_file()


def message(checkout: Checkout, piece: Piece) -> None:
    """A message of the package, word for word but for the names and numbers in it."""
    assert piece.kind == "text" and is_of_sources(piece.text), piece.text


def shown_only(checkout: Checkout, piece: Piece) -> None:
    """Text that is neither command nor code."""
    assert piece.kind == "text"


def starts(words: str) -> How:
    """A target of make that takes long or needs what is not here: it would start this."""

    def how(checkout: Checkout, piece: Piece) -> None:
        command = ["make", "-n", "-f", str(ROOT / "Makefile"), *shlex.split(piece.text)[1:]]
        done = subprocess.run(command, cwd=checkout.folder, check=True, capture_output=True, text=True)
        assert words in done.stdout, done.stdout

    return how
