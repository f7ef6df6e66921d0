"""The CoCa weights that are known to be published: open_clip's names for LAION's, and Apple's repositories."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Weights that can be named.

    Attributes:
        name: what to give for `--model_path`.
        repository: where they are, and the page that says what they may be used for.
        config: the packaged config of the architecture; a longer context is in the repository's own.
        context: the longest text, in tokens.
        about: what they are good for.
    """

    name: str
    repository: str
    config: str
    context: int
    about: str


# open_clip.pretrained: model -> tag -> repository
_LAION = {
    f"coca_{size}": {
        f"{tag}laion2b_s13b_b90k": f"laion/{tag}CoCa-{size}-laion2B-s13B-b90k" for tag in ("", "mscoco_finetuned_")
    }
    for size in ("ViT-B-32", "ViT-L-14")
}
_LAION_CONTEXT = 76

_APPLE = "apple/mobileclip2_coca_dfn2b_s13b_"
_APPLE_CONFIG = "coca_vit-l-14"
# What the names of Apple's repositories end with: data that they were finetuned on, and the contexts there are.
_APPLE_ENDINGS = {
    "": (77,),
    "mscoco38k_s12m_": (77,),
    **{f"{data}_s12m_": (77, 128, 256) for data in ("dci-complete", "dci-extended", "dci-short", "docci")},
    "recap-coco-30k_s12m_": (77, 128, 256),
    "gbc1m-short_": (77,),
    "gbc1m-long_": (256,),
    "gbc10m-short-relation_": (256,),
    "gbc10m-long_": (256,),
}


def _laion() -> list[Published]:
    return [
        Published(
            f"{model}/{tag}",
            repository,
            model.lower(),
            _LAION_CONTEXT,
            "short captions: finetuned on COCO" if tag.startswith("mscoco") else "pretrained: features, finetuning",
        )
        for model, tags in _LAION.items()
        for tag, repository in tags.items()
    ]


def _apple() -> list[Published]:
    return [
        Published(
            f"hf:{_APPLE}{ending}context{context}",
            f"{_APPLE}{ending}context{context}",
            _APPLE_CONFIG,
            context,
            f"captions in the manner of {ending.split('_')[0]}" if ending else "pretrained: captions, finetuning",
        )
        for ending, contexts in _APPLE_ENDINGS.items()
        for context in contexts
    ]


OPEN_CLIP = _laion()
APPLE = _apple()
