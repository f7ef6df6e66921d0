"""Random weights and images for what is measured."""

import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def draw_weights(config: str | Path, folder: Path) -> Path:
    """Draw a config's weights into a file in `folder`; returns its path."""
    weights = folder / "coca.safetensors"
    make = [ROOT / "tools/make_random_model.py", "-c", config, "--target", weights]
    subprocess.run([sys.executable, *map(str, make)], check=True)
    return weights


def draw_images(config: str | Path, count: int) -> np.ndarray:
    """Preprocessed images (count, 3, H, W), float32, of the size that a config's model takes."""
    from mindone_coca.model.families import load_model_config

    shape = (count, 3, *load_model_config(config).image_hw)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
