"""The names and shapes of every parameter of a model config, without building the model."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mindone_coca.config import CLIPVisionCfg, ModelConfig
from mindone_coca.errors import InputError
from mindone_coca.model.coca_pytorch.config import ParallelConfig, ViTCfg
from mindone_coca.model.coca_pytorch.names import TIED, TOKENS, is_derived

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


def vision_shapes(cfg: CLIPVisionCfg, embed_dim: int, temporal_frames: int = 0) -> Iterator[Item]:
    """The parameters of open_clip's image tower."""
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


def expected_shapes(config: ModelConfig | ParallelConfig) -> Shapes:
    """Every entry of the original's state dict for a config: open_clip's, or coca-pytorch's, name -> shape."""
    if isinstance(config, ParallelConfig):
        return parallel_shapes(config)
    scalar = (1,) if config.nonscalar_logit_scale else ()
    shapes: Shapes = {"logit_scale": scalar}
    if config.init_logit_bias is not None:
        shapes["logit_bias"] = scalar
    shapes.update(vision_shapes(config.vision_cfg, config.embed_dim, config.temporal_frames))
    for part in (_text, _decoder):
        shapes.update(part(config))
    return shapes


def _gain(name: str, width: int) -> Iterator[Item]:
    yield f"{name}.gamma", (width,)
    yield f"{name}.beta", (width,)


def _parallel_block(name: str, config: ParallelConfig) -> Iterator[Item]:
    dim, inner, hidden = config.dim, config.heads * config.dim_head, config.dim * config.ff_mult
    yield from _gain(f"{name}.norm", dim)
    yield f"{name}.rotary_emb.inv_freq", (config.dim_head // 2,)
    yield f"{name}.fused_attn_ff_proj.weight", (inner + 2 * config.dim_head + 2 * hidden, dim)
    yield f"{name}.attn_out.weight", (dim, inner)
    yield f"{name}.ff_out.1.weight", (dim, hidden)


def _cross_attention(name: str, config: ParallelConfig, context: int) -> Iterator[Item]:
    dim, inner = config.dim, config.heads * config.dim_head
    yield from _gain(f"{name}.norm", dim)
    yield f"{name}.to_q.weight", (inner, dim)
    yield f"{name}.to_kv.weight", (2 * config.dim_head, context)
    yield f"{name}.to_out.weight", (dim, inner)


def _vit(name: str, cfg: ViTCfg) -> Iterator[Item]:
    patch_dim, inner = 3 * cfg.patch_hw[0] * cfg.patch_hw[1], cfg.heads * cfg.dim_head
    simple = cfg.type == "simple_vit"
    if not simple:
        yield f"{name}.cls_token", (cfg.class_tokens, cfg.dim)
        yield f"{name}.pos_embedding", (cfg.grid_hw[0] * cfg.grid_hw[1] + cfg.class_tokens, cfg.dim)
    yield from _norm(f"{name}.to_patch_embedding.1", patch_dim)
    yield from _linear(f"{name}.to_patch_embedding.2", patch_dim, cfg.dim)
    yield from _norm(f"{name}.to_patch_embedding.3", cfg.dim)
    for layer in range(cfg.depth):
        attn, ff = f"{name}.transformer.layers.{layer}.0", f"{name}.transformer.layers.{layer}.1"
        yield from _norm(f"{attn}.norm", cfg.dim)
        yield f"{attn}.to_qkv.weight", (3 * inner, cfg.dim)
        if simple:
            yield f"{attn}.to_out.weight", (cfg.dim, inner)
        elif cfg.projects_out:
            yield from _linear(f"{attn}.to_out.0", inner, cfg.dim)
        yield from _norm(f"{ff}.net.0", cfg.dim)
        yield from _linear(f"{ff}.net.1", cfg.dim, cfg.mlp_dim)
        yield from _linear(f"{ff}.net.{3 if simple else 4}", cfg.mlp_dim, cfg.dim)
    yield from _norm(f"{name}.transformer.norm", cfg.dim)
    if simple or cfg.num_classes:
        yield from _linear(f"{name}.{'linear' if simple else 'mlp'}_head", cfg.dim, cfg.num_classes)


def parallel_shapes(config: ParallelConfig) -> Shapes:
    """Every entry of coca-pytorch's state dict, buffers, copies and tensors without elements included."""
    dim, latents = config.dim, config.dim_latents or config.dim
    shapes: Shapes = {"temperature": (1,), "img_queries": (config.num_img_queries + 1, dim)}
    if config.img_encoder is not None:
        shapes.update(_vit("img_encoder.vit" if config.img_encoder.extractor else "img_encoder", config.img_encoder))
    else:
        shapes.update(
            (name.replace("visual.", "img_encoder.", 1), shape)
            for name, shape in vision_shapes(config.vision_cfg, config.image_dim)
        )
    shapes.update(_cross_attention("img_attn_pool", config, config.image_dim))
    shapes.update(_gain("img_attn_pool.context_norm", config.image_dim))
    shapes.update(_gain("img_attn_pool_norm", dim))
    shapes["img_to_latents.to_latents.weight"] = (latents, dim)
    shapes[TOKENS] = shapes[TIED] = (config.num_tokens, dim)
    shapes["text_cls_token"] = (dim,)
    shapes.update(_gain("text_cls_norm", dim))
    shapes["text_to_latents.to_latents.weight"] = (latents, dim)
    for layer in range(config.unimodal_depth):
        shapes.update(_parallel_block(f"unimodal_layers.{layer}.fn", config))
    for layer in range(config.multimodal_depth):
        name = f"multimodal_layers.{layer}"
        shapes.update(_parallel_block(f"{name}.0.fn", config))
        shapes.update(_cross_attention(f"{name}.1.fn", config, dim))
        shapes[f"{name}.1.fn.ff.0.weight"] = (2 * config.ff_mult * dim, dim)
        shapes[f"{name}.1.fn.ff.2.weight"] = (dim, config.ff_mult * dim)
    shapes.update(_gain("to_logits.0", dim))
    return shapes


def parameter_shapes(config: ModelConfig | ParallelConfig) -> Shapes:
    """The same without what a coca-pytorch model derives: each entry is one parameter here."""
    return {name: shape for name, shape in expected_shapes(config).items() if not is_derived(name, shape)}


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
