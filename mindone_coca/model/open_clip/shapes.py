"""The names and shapes of every entry of open_clip's state dict for a config, without building the model."""

from collections.abc import Iterator

from mindone_coca.model.family import Shape, Shapes
from mindone_coca.model.open_clip.config import CLIPVisionCfg, ModelConfig

Item = tuple[str, Shape]


def norm_shapes(name: str, width: int) -> Iterator[Item]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def linear_shapes(name: str, width: int, out: int) -> Iterator[Item]:
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
    yield from linear_shapes(f"{name}.out_proj", width, width)


def _blocks(name: str, layers: int, width: int, mlp_ratio: float, scaled: bool, cross: bool = False) -> Iterator[Item]:
    for layer in range(layers):
        block = f"{name}.{layer}"
        yield from norm_shapes(f"{block}.ln_1", width)
        if cross:
            yield from norm_shapes(f"{block}.ln_1_kv", width)
        yield from _attention(f"{block}.attn", width, width)
        yield from norm_shapes(f"{block}.ln_2", width)
        yield from linear_shapes(f"{block}.mlp.c_fc", width, int(width * mlp_ratio))
        yield from linear_shapes(f"{block}.mlp.c_proj", int(width * mlp_ratio), width)
        if scaled:
            yield f"{block}.ls_1.gamma", (width,)
            yield f"{block}.ls_2.gamma", (width,)


def _pooler(name: str, width: int, context: int, queries: int) -> Iterator[Item]:
    yield f"{name}.query", (queries, width)
    yield from _attention(f"{name}.attn", width, context)
    yield from norm_shapes(f"{name}.ln_q", width)
    yield from norm_shapes(f"{name}.ln_k", context)


def vision_shapes(cfg: CLIPVisionCfg, embed_dim: int, temporal_frames: int = 0) -> Iterator[Item]:
    """The parameters of open_clip's image tower."""
    rows, columns = cfg.grid_hw
    yield "visual.conv1.weight", (cfg.width, 3, *cfg.patch_hw)
    yield "visual.class_embedding", (cfg.width,)
    yield "visual.positional_embedding", (rows * columns + 1, cfg.width)
    if not cfg.no_ln_pre:
        yield from norm_shapes("visual.ln_pre", cfg.width)
    scaled = cfg.ls_init_value is not None
    yield from _blocks("visual.transformer.resblocks", cfg.layers, cfg.width, cfg.mlp_ratio, scaled)
    pooled = cfg.width
    if cfg.attentional_pool:
        pooled = embed_dim
        yield from _pooler("visual.attn_pool", embed_dim, cfg.width, cfg.attn_pooler_queries)
    if isinstance(cfg.attentional_pool, str):
        yield from _pooler("visual.attn_pool_contrastive", embed_dim, cfg.width, 1)
    yield from norm_shapes("visual.ln_post", pooled)
    yield "visual.proj", (pooled, embed_dim)
    if temporal_frames:
        yield "visual.temporal_embedding", (temporal_frames, cfg.width)


def _text(config: ModelConfig) -> Iterator[Item]:
    cfg, embed_dim = config.text_cfg, config.embed_dim
    yield "text.token_embedding.weight", (cfg.vocab_size, cfg.width)
    yield "text.positional_embedding", (cfg.context_length + cfg.embed_cls, cfg.width)
    if cfg.embed_cls:
        yield "text.cls_emb", (cfg.width,)
    scaled = cfg.ls_init_value is not None
    yield from _blocks("text.transformer.resblocks", cfg.layers, cfg.width, cfg.mlp_ratio, scaled)
    yield from norm_shapes("text.ln_final", cfg.width)
    if cfg.proj_type == "linear" and cfg.proj_bias:
        yield from linear_shapes("text.text_projection", cfg.width, embed_dim)
    elif cfg.proj_type == "linear":
        yield "text.text_projection", (cfg.width, embed_dim)


def _decoder(config: ModelConfig) -> Iterator[Item]:
    cfg = config.multimodal_cfg
    scaled = cfg.ls_init_value is not None
    # open_clip passes the decoder no mlp_ratio: it is 4 whatever the config says.
    yield from _blocks("text_decoder.resblocks", cfg.layers, cfg.width, 4.0, scaled)
    yield from _blocks("text_decoder.cross_attn", cfg.layers, cfg.width, 4.0, scaled, cross=True)
    yield from norm_shapes("text_decoder.ln_final", cfg.width)
    yield "text_decoder.text_projection", (cfg.width, config.text_cfg.vocab_size)


def state_shapes(config: ModelConfig) -> Shapes:
    """Every entry of the state dict, name -> shape."""
    scalar = (1,) if config.nonscalar_logit_scale else ()
    shapes: Shapes = {"logit_scale": scalar}
    if config.init_logit_bias is not None:
        shapes["logit_bias"] = scalar
    shapes.update(vision_shapes(config.vision_cfg, config.embed_dim, config.temporal_frames))
    for part in (_text, _decoder):
        shapes.update(part(config))
    return shapes
