"""The names of coca-pytorch's state dict, its image encoders' included, and ours. `{i}` stands for the layer number.

Its state dict also holds what this package derives: the tied output projection, a second copy of the token embeddings,
and tensors without elements.
"""

from mindone_coca.model.open_clip.names import NAMES as OPEN_CLIP_NAMES

TOKENS = "token_emb.weight"
TIED = "to_logits.1.weight"

# (coca-pytorch, MindSpore)
_SINGLE = [
    ("temperature", "temperature"),
    ("img_queries", "visual.img_queries"),
    ("img_attn_pool_norm.gamma", "visual.img_attn_pool_norm.gamma"),
    ("img_attn_pool_norm.beta", "visual.img_attn_pool_norm.beta"),
    ("img_to_latents.to_latents.weight", "visual.img_to_latents.weight"),
    (TOKENS, "text.token_emb.weight"),
    ("text_cls_token", "text.text_cls_token"),
    ("text_cls_norm.gamma", "text.text_cls_norm.gamma"),
    ("text_cls_norm.beta", "text.text_cls_norm.beta"),
    ("text_to_latents.to_latents.weight", "text.text_to_latents.weight"),
    ("to_logits.0.gamma", "text_decoder.norm.gamma"),
    ("to_logits.0.beta", "text_decoder.norm.beta"),
]
_BLOCKS = [
    ("unimodal_layers.{i}.fn", "text.unimodal_layers.{i}"),
    ("multimodal_layers.{i}.0.fn", "text_decoder.multimodal_layers.{i}.self_attn"),
]
_BLOCK = [
    ("norm.gamma", "norm.gamma"),
    ("norm.beta", "norm.beta"),
    ("rotary_emb.inv_freq", "inv_freq"),
    ("fused_attn_ff_proj.weight", "fused_attn_ff_proj.weight"),
    ("attn_out.weight", "attn_out.weight"),
    ("ff_out.1.weight", "ff_out.weight"),
]
_CROSSES = [
    ("img_attn_pool", "visual.img_attn_pool"),
    ("multimodal_layers.{i}.1.fn", "text_decoder.multimodal_layers.{i}.cross_attn"),
]
_CROSS = [
    ("norm.gamma", "norm.gamma"),
    ("norm.beta", "norm.beta"),
    ("context_norm.gamma", "context_norm.gamma"),
    ("context_norm.beta", "context_norm.beta"),
    ("to_q.weight", "to_q.weight"),
    ("to_kv.weight", "to_kv.weight"),
    ("to_out.weight", "to_out.weight"),
    ("ff.0.weight", "ff_in.weight"),
    ("ff.2.weight", "ff_out.weight"),
]


# vit-pytorch's ViT and SimpleViT, which number the parts of a layer otherwise
_VIT = [
    ("cls_token", "cls_token"),
    ("pos_embedding", "pos_embedding"),
    ("to_patch_embedding.1.weight", "to_patch_embedding.1.gamma"),
    ("to_patch_embedding.1.bias", "to_patch_embedding.1.beta"),
    ("to_patch_embedding.2.weight", "to_patch_embedding.2.weight"),
    ("to_patch_embedding.2.bias", "to_patch_embedding.2.bias"),
    ("to_patch_embedding.3.weight", "to_patch_embedding.3.gamma"),
    ("to_patch_embedding.3.bias", "to_patch_embedding.3.beta"),
    ("transformer.norm.weight", "transformer.norm.gamma"),
    ("transformer.norm.bias", "transformer.norm.beta"),
    ("mlp_head.weight", "mlp_head.weight"),
    ("mlp_head.bias", "mlp_head.bias"),
    ("linear_head.weight", "linear_head.weight"),
    ("linear_head.bias", "linear_head.bias"),
]
_VIT_LAYER = [
    ("0.norm.weight", "0.norm.gamma"),
    ("0.norm.bias", "0.norm.beta"),
    ("0.to_qkv.weight", "0.to_qkv.weight"),
    ("0.to_out.weight", "0.to_out.weight"),
    ("0.to_out.0.weight", "0.to_out.0.weight"),
    ("0.to_out.0.bias", "0.to_out.0.bias"),
    ("1.net.0.weight", "1.net.0.gamma"),
    ("1.net.0.bias", "1.net.0.beta"),
    *((f"1.net.{n}.{part}", f"1.net.{n}.{part}") for n in (1, 3, 4) for part in ("weight", "bias")),
]
_LAYER = "transformer.layers.{i}"
_VIT += [(f"{_LAYER}.{theirs}", f"{_LAYER}.{ours}") for theirs, ours in _VIT_LAYER]

# open_clip's image tower as the image encoder
_ENCODER = [
    (theirs.replace("visual.", "img_encoder.", 1), ours.replace("visual.", "visual.img_encoder.", 1))
    for theirs, ours in OPEN_CLIP_NAMES
    if theirs.startswith("visual.") and "attn_pool" not in theirs and "temporal" not in theirs
]

NAMES: list[tuple[str, str]] = [
    *_SINGLE,
    *((f"{a}.{theirs}", f"{b}.{ours}") for a, b in _BLOCKS for theirs, ours in _BLOCK),
    *((f"{a}.{theirs}", f"{b}.{ours}") for a, b in _CROSSES for theirs, ours in _CROSS),
    *((f"img_encoder.vit.{theirs}", f"visual.img_encoder.vit.{ours}") for theirs, ours in _VIT),
    *((f"img_encoder.{theirs}", f"visual.img_encoder.{ours}") for theirs, ours in _VIT),
    *_ENCODER,
]
