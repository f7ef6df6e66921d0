"""What every model is to the rest of the package: all members that are called from outside its family, with shapes."""

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Protocol

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindone_coca import batch_sizes, device, graph_cache
from mindone_coca.argument_names import names_arguments
from mindone_coca.config import Dtype
from mindone_coca.errors import InputError
from mindone_coca.generation.engine import DecodeCells, DecodeEngine
from mindone_coca.generation.generate import generate
from mindone_coca.graph_cache import model_tag, tag_cell
from mindone_coca.model.family import FamilyConfig
from mindone_coca.tensors import as_tensor, image_tensor, normalize
from mindone_coca.token_ids import id_tensor

Graphs = dict[str, tuple[nn.Cell, dict[str, Tensor], dict[str, Tensor]]]  # name -> cell, inputs, outputs, by name


class ImageTower(Protocol):
    """`model.visual`, a cell: images (B, 3, H, W) -> a feature (B, E), not normalised, and the decoder's tokens
    (B, K, D)."""

    dtype: ms.Type  # of activations
    image_hw: tuple[int, int] | None  # pixels; None where the encoder judges for itself
    feature_width: int  # E

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]: ...

    def patch_tokens(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> the encoder's tokens before any pooling (B, N, C)."""

    def video_tokens(self, frames: Tensor) -> Tensor:
        """Frames of videos (B, F, 3, H, W) -> those of all of them (B, F N, C)."""

    def pool(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's tokens (B, N, C) -> what a call gives: a feature (B, E) and decoder tokens (B, K, D)."""


class TextTower(Protocol):
    """`model.text`, a cell: ids (B, T) -> a feature (B, E), not normalised, and token embeddings (B, T, D)."""

    dtype: ms.Type  # of activations
    vocab_size: int
    context_length: int  # the longest text
    causal: bool  # no token sees a later one

    def __call__(self, text: Tensor) -> tuple[Tensor, Tensor]: ...


class TextDecoder(Protocol):
    """`model.text_decoder`, a cell: decoder tokens (B, K, D), token embeddings (B, T, D) -> logits (B, T, V)."""

    width: int  # D

    def __call__(self, image_embs: Tensor, text_embs: Tensor) -> Tensor: ...

    def hidden(self, image_embs: Tensor, text_embs: Tensor) -> Tensor:
        """Decoder tokens (B, K, D), token embeddings (B, T, D) -> what becomes logits (B, T, D), float32."""

    def projection(self) -> Tensor:
        """What `hidden` is multiplied by to become logits, (D, V)."""


class ImageTextModel(nn.Cell):
    """A model of any family. Its class names the family and its parts, and fills in what is not written out here."""

    family: str  # the key of its family
    config: FamilyConfig  # of all but models of parts that the caller made
    visual: ImageTower
    text: TextTower
    text_decoder: TextDecoder
    logit_scale: Parameter  # the contrastive temperature's logarithm, () or (1,)
    logit_bias: Parameter | None
    pad_id: int  # padding of captions
    pads_text: bool = False  # pad_id is also what the text tower takes for padding
    context_length: int  # the longest text that the decoder takes
    text_reads_all: bool  # in training the text tower reads the last token too, which else is a label alone

    # what numbers a block in a parameter's name (`resblocks.3.`), and the names of what comes before a tower's first
    block_names: tuple[str, ...]
    input_names: frozenset[str]

    def __init__(self) -> None:
        super().__init__()
        device.ensure_configured()
        self.recomputes = False
        self._decode_engine: DecodeEngine | None = None

    # --- features and captions

    def check_images(self, images: Tensor | np.ndarray) -> Tensor:
        """Images (B, 3, H, W) as a tensor. Raises InputError for what the image tower does not take, such as pictures
        that nobody transformed."""
        return as_tensor(images) if self.visual.image_hw is None else image_tensor(images, self.visual.image_hw)

    def check_text(self, text: Tensor | np.ndarray) -> Tensor:
        """Ids (B, T) as int32. Raises InputError for what the text tower does not take, such as text or other ids."""
        return id_tensor("text", text, self.text.vocab_size)

    def encode_image_tokens(self, images: Tensor | np.ndarray, normalize_latent: bool = True) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) -> feature (B, embed_dim) and tokens for the decoder (B, K, D)."""
        images = self.check_images(images)
        if images.shape[0] in batch_sizes.encoded_at_once():
            latent, tokens = graph_cache.call(self.visual, images)
        else:
            encoded = [graph_cache.call(self.visual, images[part]) for part in batch_sizes.parts(images.shape[0])]
            latent, tokens = (ops.concat(part, 0) for part in zip(*encoded))
        return normalize(latent) if normalize_latent else latent.astype(ms.float32), tokens

    @names_arguments
    def encode_image(self, images: Tensor | np.ndarray, normalize: bool = True) -> Tensor:
        """Images (B, 3, H, W) -> features (B, embed_dim), of unit length unless `normalize` is False."""
        return self.encode_image_tokens(images, normalize)[0]

    @names_arguments
    def encode_text(self, text: Tensor | np.ndarray, normalize: bool = True) -> Tensor:
        """Ids (B, T) -> features (B, embed_dim). The class token sits after T tokens, so padding changes the result."""
        latent = graph_cache.call(self.text, self.check_text(text))[0]
        return _normalize(latent) if normalize else latent.astype(ms.float32)

    generate = generate  # images (B, 3, H, W) -> captions (B, L), int32

    def outputs(self, image: np.ndarray, text: np.ndarray) -> dict[str, Tensor]:
        """Images (B, 3, H, W) and ids (B, T) -> `image_features` and `text_features` (B, embed_dim), of unit length,
        and `logits` (B, T or T - 1, V), those that `Family.run_original` gives."""
        (latent, tokens), (feature, embs) = self.visual(self.check_images(image)), self.text(self.check_text(text))
        logits = self.text_decoder(tokens, embs)
        return {"image_features": normalize(latent), "text_features": normalize(feature), "logits": logits}

    @property
    def pools_frames(self) -> bool:
        """Whether a pooler can read several frames' tokens at once."""
        raise NotImplementedError

    def decode_cells(self) -> DecodeCells:
        """The decoder in the three pieces of a cached decoding."""
        raise NotImplementedError

    @property
    def decode_engine(self) -> DecodeEngine:
        """The compiled decoder, made at its first use."""
        if self._decode_engine is None:
            self._decode_engine = DecodeEngine(
                self.visual,
                self.decode_cells(),
                limit=min(self.text.context_length, self.context_length),
                vocab_size=self.text.vocab_size,
                width=self.text_decoder.width,
                dtype=self.visual.dtype,
                causal=self.text.causal,
                tag=self.graph_tag,
            )
        return self._decode_engine

    def export_graphs(self, batch_size: int, beams: int, cache_length: int) -> Graphs:
        """The graphs of fixed shapes that a deployment needs. Raises InputError where a family has none."""
        raise InputError(f"family: {self.family} cannot be exported, only open_clip's CoCa")

    # --- training

    def set_compute_dtype(self, name: Dtype) -> None:
        """Compute in `float32`, `float16` or `bfloat16` from now on, whatever the parameters' type: training keeps
        float32 parameters. Call it before the model is first run."""
        self.visual.dtype = self.text.dtype = device.compute_dtype(name, training=True)
        self.tag(self.config)

    def add_temporal_embedding(self, frames: int) -> None:
        """Tell the frames of a video apart by a learned embedding each, 0 at first, which changes nothing. Call it
        before the model is first run. Raises InputError where a family has none."""
        raise InputError(f"temporal_embedding: family {self.family} has no embeddings of frames; set it to false")

    def recomputed_cells(self) -> Iterable[nn.Cell]:
        """The cells whose activations `set_grad_checkpointing` does not keep.

        The operator that makes a cell's output, which is kept, has to be in one of its methods: MindSpore does not find
        it in a function, and would recompute all cells as one.
        """
        raise NotImplementedError

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass instead of keeping them.

        Raises:
            RuntimeError: when it is on and shall be turned off, which MindSpore cannot do for a built model.
        """
        if self.recomputes and not enable:
            raise RuntimeError("recomputation cannot be turned off again in MindSpore; build the model anew")
        if enable and not self.recomputes:
            for cell in self.recomputed_cells():
                cell.recompute()
            self.recomputes = True

    def unused_parameters(self, caption_weight: float, contrastive_weight: float) -> list[str]:
        """Patterns of the names of parameters that the two losses, so weighted, do not depend on."""
        raise NotImplementedError

    def blocks_after(self, name: str) -> int:
        """How many blocks of its tower come after the parameter of that name; 0 for what is behind the last."""
        block, tower = self._block.search(name), name.split(".")[0]
        if block:
            return self._tower_blocks[tower] - 1 - int(block[1])
        return self._tower_blocks.get(tower, 0) if self.input_names & set(name.split(".")) else 0

    def in_block(self, name: str) -> bool:
        """Whether a parameter or cell of that name is in a block of a tower."""
        return bool(self._block.search(name))

    @cached_property
    def _block(self) -> re.Pattern:
        return re.compile(rf"\.(?:{'|'.join(self.block_names)})\.(\d+)\.")

    @cached_property
    def _tower_blocks(self) -> dict[str, int]:
        """Blocks of each tower, by `visual`, `text` and `text_decoder`."""
        blocks: dict[str, int] = {}
        for parameter in self.get_parameters():
            if block := self._block.search(parameter.name):
                tower = parameter.name.split(".")[0]
                blocks[tower] = max(blocks.get(tower, 0), int(block[1]) + 1)
        return blocks

    # --- heads of tasks

    def head_widths(self, reads_text: bool) -> tuple[int, int]:
        """The width of a task's head, and that of the tokens it reads: the encoder's, or the decoder's outputs."""
        raise NotImplementedError

    @property
    def pooler_heads(self) -> int:
        """Attention heads of the model's own pooler."""
        raise NotImplementedError

    def unread_by_head(self, reads_text: bool) -> list[str]:
        """Patterns of the names of parameters that a task's head does not depend on."""
        raise NotImplementedError

    # --- compiled graphs

    def tag(self, origin: Any) -> None:
        """Allow this model's graphs to be kept, under what they depend on: `origin`, the towers' types, the cells."""
        tag = model_tag(self, f"{origin!r} {self.visual.dtype} {self.text.dtype}")
        for cell in (self, self.visual, self.text):
            tag_cell(cell, tag)


_normalize = normalize  # `encode_text` has an argument of that name
