"""The names and shapes of every parameter of a model config, without building the model."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mindone_coca.config import ModelConfig
from mindone_coca.errors import InputError

Shapes = dict[str, tuple[int, ...]]
Item = tuple[str, tuple[int, ...]]

_SHOWN = 3  # names listed of each kind of mistake


def _norm(name: str, width: int) -> Iterator[Item]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _linear(name: str, width: int, out: int) -> Iterator[Item]:
    yield f"{name}.weight", (out, width)
    yield f"{name}.bias", (out,)


def _attention(name: str, width: int, context: int) -> Iterator[Item]:
    if context == width:
        yield f"{name}.in_proj_weight", (3 * width, width)
    else:
        yield f"{name}.q_proj_weight", (width, width)
        yield f"{name}.k_proj_weight", (width, context)
        yield f"{name}.v_proj_weight", (width, context)
    yield f"{name}.in_proj_bias", (3 * width,)
    yield from _linear(f"{name}.out_proj", width, width)


def _blocks(name: str, layers: int, width: int, mlp_ratio: float, scaled: bool, cross: bool = False) -> Iterator[Item]:
    for layer in range(layers):
        block = f"{name}.{layer}"
        yield from _norm(f"{block}.ln_1", width)
        if cross:
            yield from _norm(f"{block}.ln_1_kv", width)
        yield from _attention(f"{block}.attn", width, width)
        yield from _norm(f"{block}.ln_2", width)
        yield from _linear(f"{block}.mlp.c_fc", width, int(width * mlp_ratio))
        yield from _linear(f"{block}.mlp.c_proj", int(width * mlp_ratio), width)
        if scaled:
            yield f"{block}.ls_1.gamma", (width,)
            yield f"{block}.ls_2.gamma", (width,)


def _pooler(name: str, width: int, context: int, queries: int) -> Iterator[Item]:
    yield f"{name}.query", (queries, width)
    yield from _attention(f"{name}.attn", width, context)
    yield from _norm(f"{name}.ln_q", width)
    yield from _norm(f"{name}.ln_k", context)


def _vision(config: ModelConfig) -> Iterator[Item]:
    cfg, embed_dim = config.vision_cfg, config.embed_dim
    rows, columns = cfg.grid_hw
    yield "visual.conv1.weight", (cfg.width, 3, *cfg.patch_hw)
    yield "visual.class_embedding", (cfg.width,)
    yield "visual.positional_embedding", (rows * columns + 1, cfg.width)
    if not cfg.no_ln_pre:
        yield from _norm("visual.ln_pre", cfg.width)
    scaled = cfg.ls_init_value is not None
    yield from _blocks("visual.transformer.resblocks", cfg.layers, cfg.width, cfg.mlp_ratio, scaled)
    pooled = cfg.width
    if cfg.attentional_pool:
        pooled = embed_dim
        yield from _pooler("visual.attn_pool", embed_dim, cfg.width, cfg.attn_pooler_queries)
    if isinstance(cfg.attentional_pool, str):
        yield from _pooler("visual.attn_pool_contrastive", embed_dim, cfg.width, 1)
    yield from _norm("visual.ln_post", pooled)
    yield "visual.proj", (pooled, embed_dim)
    if config.temporal_frames:
        yield "visual.temporal_embedding", (config.temporal_frames, cfg.width)


def _text(config: ModelConfig) -> Iterator[Item]:
    cfg, embed_dim = config.text_cfg, config.embed_dim
    yield "text.token_embedding.weight", (cfg.vocab_size, cfg.width)
    yield "text.positional_embedding", (cfg.context_length + cfg.embed_cls, cfg.width)
    if cfg.embed_cls:
        yield "text.cls_emb", (cfg.width,)
    scaled = cfg.ls_init_value is not None
    yield from _blocks("text.transformer.resblocks", cfg.layers, cfg.width, cfg.mlp_ratio, scaled)
    yield from _norm("text.ln_final", cfg.width)
    if cfg.proj_type == "linear" and cfg.proj_bias:
        yield from _linear("text.text_projection", cfg.width, embed_dim)
    elif cfg.proj_type == "linear":
        yield "text.text_projection", (cfg.width, embed_dim)


def _decoder(config: ModelConfig) -> Iterator[Item]:
    cfg = config.multimodal_cfg
    scaled = cfg.ls_init_value is not None
    # open_clip passes the decoder no mlp_ratio: it is 4 whatever the config says.
    yield from _blocks("text_decoder.resblocks", cfg.layers, cfg.width, 4.0, scaled)
    yield from _blocks("text_decoder.cross_attn", cfg.layers, cfg.width, 4.0, scaled, cross=True)
    yield from _norm("text_decoder.ln_final", cfg.width)
    yield "text_decoder.text_projection", (cfg.width, config.text_cfg.vocab_size)


def expected_shapes(config: ModelConfig) -> Shapes:
    """Every parameter of open_clip's CoCa for a config: open_clip's name -> shape."""
    scalar = (1,) if config.nonscalar_logit_scale else ()
    shapes: Shapes = {"logit_scale": scalar}
    if config.init_logit_bias is not None:
        shapes["logit_bias"] = scalar
    for part in (_vision, _text, _decoder):
        shapes.update(part(config))
    return shapes


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(name[:80] for name in names[:_SHOWN])}{more})"


def same_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether shapes agree; for the logit scale and bias, () and (1,) are the same, as in open_clip."""
    if name in ("logit_scale", "logit_bias"):
        return {found, expected} <= {(), (1,)}
    return found == expected


def check_shapes(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Compare names and shapes strictly; both sides use the same naming.

    Raises:
        InputError: one line with how many entries are missing, unexpected or of another shape, and the first few.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshaped = [
        f"{name} {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and not same_shape(name, found[name], shape)
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
    wrong = "; ".join(f"{kind}: {_some(names)}" for kind, names in kinds if names)
    if wrong:
        raise InputError(f"{path}: does not fit the model config: {wrong}; use the config these weights were made with")
