"""The names and shapes of every entry of coca-pytorch's state dict for a config, without building the model."""

from collections.abc import Iterator

from mindone_coca.model.coca_pytorch.config import ParallelConfig, ViTCfg
from mindone_coca.model.coca_pytorch.names import TIED, TOKENS
from mindone_coca.model.family import Shapes
from mindone_coca.model.open_clip.shapes import Item, linear_shapes, norm_shapes, vision_shapes


def _gain(name: str, width: int) -> Iterator[Item]:
    yield f"{name}.gamma", (width,)
    yield f"{name}.beta", (width,)


def _block(name: str, config: ParallelConfig) -> Iterator[Item]:
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
    yield from norm_shapes(f"{name}.to_patch_embedding.1", patch_dim)
    yield from linear_shapes(f"{name}.to_patch_embedding.2", patch_dim, cfg.dim)
    yield from norm_shapes(f"{name}.to_patch_embedding.3", cfg.dim)
    for layer in range(cfg.depth):
        attn, ff = f"{name}.transformer.layers.{layer}.0", f"{name}.transformer.layers.{layer}.1"
        yield from norm_shapes(f"{attn}.norm", cfg.dim)
        yield f"{attn}.to_qkv.weight", (3 * inner, cfg.dim)
        if simple:
            yield f"{attn}.to_out.weight", (cfg.dim, inner)
        elif cfg.projects_out:
            yield from linear_shapes(f"{attn}.to_out.0", inner, cfg.dim)
        yield from norm_shapes(f"{ff}.net.0", cfg.dim)
        yield from linear_shapes(f"{ff}.net.1", cfg.dim, cfg.mlp_dim)
        yield from linear_shapes(f"{ff}.net.{3 if simple else 4}", cfg.mlp_dim, cfg.dim)
    yield from norm_shapes(f"{name}.transformer.norm", cfg.dim)
    if simple or cfg.num_classes:
        yield from linear_shapes(f"{name}.{'linear' if simple else 'mlp'}_head", cfg.dim, cfg.num_classes)


def state_shapes(config: ParallelConfig) -> Shapes:
    """Every entry of the state dict, buffers, copies and tensors without elements included."""
    dim, latents = config.dim, config.dim_latents or config.dim
    shapes: Shapes = {"temperature": (1,), "img_queries": (config.num_img_queries + 1, dim)}
    encoder = config.encoder
    if isinstance(encoder, ViTCfg):
        shapes.update(_vit("img_encoder.vit" if encoder.extractor else "img_encoder", encoder))
    else:
        shapes.update(
            (name.replace("visual.", "img_encoder.", 1), shape)
            for name, shape in vision_shapes(encoder, config.image_dim)
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
        shapes.update(_block(f"unimodal_layers.{layer}.fn", config))
    for layer in range(config.multimodal_depth):
        name = f"multimodal_layers.{layer}"
        shapes.update(_block(f"{name}.0.fn", config))
        shapes.update(_cross_attention(f"{name}.1.fn", config, dim))
        shapes[f"{name}.1.fn.ff.0.weight"] = (2 * config.ff_mult * dim, dim)
        shapes[f"{name}.1.fn.ff.2.weight"] = (dim, config.ff_mult * dim)
    shapes.update(_gain("to_logits.0", dim))
    return shapes
