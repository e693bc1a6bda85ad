"""An EfficientNet-Lite0 with random weights: the shapes of the real one, nothing to download."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from genba.learn import backbone_lite

Weights = dict[str, npt.NDArray[np.float32]]
NAME = "efficientnet-lite0"


@lru_cache(maxsize=1)
def random_weights() -> Weights:
    """Return the same random weights every time."""
    rng = np.random.default_rng(0)
    found: Weights = {}

    def layer(name: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        shape = (outputs, inputs, kernel, kernel)
        scale = np.sqrt(2.0 / (inputs * kernel * kernel))
        found[f"{name}.weight"] = (scale * rng.standard_normal(shape)).astype(np.float32)
        for part, low in (("weight", 0.5), ("bias", -0.2), ("running_mean", -0.2)):
            found[f"{norm}.{part}"] = rng.uniform(low, low + 1.0, outputs).astype(np.float32)
        found[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, outputs).astype(np.float32)

    layer("_conv_stem", "_bn0", 32, 3, 3)
    for number, block in enumerate(backbone_lite.blocks(*backbone_lite.VARIANTS[NAME])):
        prefix, wide = f"_blocks.{number}.", block.inputs * block.expansion
        if block.expansion > 1:
            layer(f"{prefix}_expand_conv", f"{prefix}_bn0", wide, block.inputs, 1)
        layer(f"{prefix}_depthwise_conv", f"{prefix}_bn1", wide, 1, block.kernel)
        layer(f"{prefix}_project_conv", f"{prefix}_bn2", block.outputs, wide, 1)
    layer("_conv_head", "_bn1", backbone_lite.HEAD, 320, 1)
    return found
