"""The names of open_clip's state dict and ours.

Both sides nest the same modules; MindSpore's LayerNorm calls its weight and bias gamma and beta, and its Embedding
calls the weight embedding_table. Shapes and layouts are the same on both sides. Every name is listed: a name outside
the table is no CoCa parameter. `{i}` stands for the layer number.
"""

MARKER = "text.token_embedding.weight"

# (open_clip, MindSpore)
_SINGLE = [
    ("logit_scale", "logit_scale"),
    ("logit_bias", "logit_bias"),
    # image encoder
    ("visual.conv1.weight", "visual.conv1.weight"),
    ("visual.class_embedding", "visual.class_embedding"),
    ("visual.positional_embedding", "visual.positional_embedding"),
    ("visual.ln_pre.weight", "visual.ln_pre.gamma"),
    ("visual.ln_pre.bias", "visual.ln_pre.beta"),
    ("visual.ln_post.weight", "visual.ln_post.gamma"),
    ("visual.ln_post.bias", "visual.ln_post.beta"),
    ("visual.proj", "visual.proj"),
    ("visual.temporal_embedding", "visual.temporal_embedding"),  # not in open_clip: of a model trained on videos
    # unimodal text decoder
    ("text.token_embedding.weight", "text.token_embedding.embedding_table"),
    ("text.positional_embedding", "text.positional_embedding"),
    ("text.cls_emb", "text.cls_emb"),
    ("text.ln_final.weight", "text.ln_final.gamma"),
    ("text.ln_final.bias", "text.ln_final.beta"),
    ("text.text_projection", "text.text_projection"),  # a matrix, or with proj_bias the layer below
    ("text.text_projection.weight", "text.text_projection.weight"),
    ("text.text_projection.bias", "text.text_projection.bias"),
    # multimodal decoder
    ("text_decoder.ln_final.weight", "text_decoder.ln_final.gamma"),
    ("text_decoder.ln_final.bias", "text_decoder.ln_final.beta"),
    ("text_decoder.text_projection", "text_decoder.text_projection"),
]

_POOLERS = ("visual.attn_pool", "visual.attn_pool_contrastive")
_POOLER = [
    ("query", "query"),
    ("attn.in_proj_weight", "attn.in_proj_weight"),  # packed, when image width and pooler width agree
    ("attn.q_proj_weight", "attn.q_proj_weight"),  # else three
    ("attn.k_proj_weight", "attn.k_proj_weight"),
    ("attn.v_proj_weight", "attn.v_proj_weight"),
    ("attn.in_proj_bias", "attn.in_proj_bias"),
    ("attn.out_proj.weight", "attn.out_proj.weight"),
    ("attn.out_proj.bias", "attn.out_proj.bias"),
    ("ln_q.weight", "ln_q.gamma"),
    ("ln_q.bias", "ln_q.beta"),
    ("ln_k.weight", "ln_k.gamma"),
    ("ln_k.bias", "ln_k.beta"),
]

_SELF_BLOCKS = ("visual.transformer.resblocks.{i}", "text.transformer.resblocks.{i}", "text_decoder.resblocks.{i}")
_CROSS_BLOCKS = ("text_decoder.cross_attn.{i}",)
_BLOCK = [
    ("ln_1.weight", "ln_1.gamma"),
    ("ln_1.bias", "ln_1.beta"),
    ("attn.in_proj_weight", "attn.in_proj_weight"),
    ("attn.in_proj_bias", "attn.in_proj_bias"),
    ("attn.out_proj.weight", "attn.out_proj.weight"),
    ("attn.out_proj.bias", "attn.out_proj.bias"),
    ("ls_1.gamma", "ls_1.gamma"),
    ("ln_2.weight", "ln_2.gamma"),
    ("ln_2.bias", "ln_2.beta"),
    ("mlp.c_fc.weight", "mlp.c_fc.weight"),
    ("mlp.c_fc.bias", "mlp.c_fc.bias"),
    ("mlp.c_proj.weight", "mlp.c_proj.weight"),
    ("mlp.c_proj.bias", "mlp.c_proj.bias"),
    ("ls_2.gamma", "ls_2.gamma"),
]
_CROSS_BLOCK = [
    *_BLOCK,
    ("ln_1_kv.weight", "ln_1_kv.gamma"),
    ("ln_1_kv.bias", "ln_1_kv.beta"),
]

NAMES: list[tuple[str, str]] = _SINGLE + [
    (f"{module}.{open_clip}", f"{module}.{mindspore}")
    for modules, rows in ((_POOLERS, _POOLER), (_SELF_BLOCKS, _BLOCK), (_CROSS_BLOCKS, _CROSS_BLOCK))
    for module in modules
    for open_clip, mindspore in rows
]
