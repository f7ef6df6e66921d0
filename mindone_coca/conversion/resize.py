"""Image position embeddings for another patch grid."""

import numpy as np

_SUPPORT = 2.0  # the cubic kernel reaches two pixels to each side


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -0.5, which torch and Pillow use when they antialias."""
    a, x = -0.5, np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _weights(size: int, new_size: int) -> np.ndarray:
    """The matrix (new_size, size) that resamples one axis; shrinking widens the kernel (antialiasing)."""
    scale = size / new_size
    stretch = max(scale, 1.0)
    rows = np.zeros((new_size, size))
    for row in range(new_size):
        centre = scale * (row + 0.5)
        first = max(int(centre - _SUPPORT * stretch + 0.5), 0)
        last = min(int(centre + _SUPPORT * stretch + 0.5), size)
        rows[row, first:last] = _cubic((np.arange(first, last) - centre + 0.5) / stretch)
    return rows / rows.sum(axis=1, keepdims=True)


def resize_positions(embedding: np.ndarray, grid: tuple[int, int], new_grid: tuple[int, int]) -> np.ndarray:
    """Resample position embeddings (1 + rows * columns, width), float32, to another grid of patches.

    Bicubic with antialiasing; the class token's row is kept. Source: open_clip.model.resize_pos_embed, which
    assumes a square old grid; here it is given.

    Returns:
        (1 + new rows * new columns, width), float32.
    """
    token, image = embedding[:1], embedding[1:].reshape(*grid, -1)
    image = np.einsum("ih,hwc->iwc", _weights(grid[0], new_grid[0]), image.astype(np.float64))
    image = np.einsum("jw,iwc->ijc", _weights(grid[1], new_grid[1]), image)
    return np.concatenate([token, image.reshape(-1, embedding.shape[1]).astype(np.float32)])
