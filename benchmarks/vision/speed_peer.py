"""The same classifier in eager torch, float32, one thread; runs in an environment of its own.

`python speed_peer.py WEIGHTS HEAD IMAGES OUT`: safetensors in, safetensors out. The first line of
standard input says which taps are averaged over which grids; every further one names a memory
layout, and is answered with the seconds of processor time per image of one round.
"""

import json
import sys
import time
from typing import Any

import torch  # not in Genba's environment
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]
from safetensors.torch import load_file, save_file

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Classifier(torch.nn.Module):  # type: ignore[misc]  # torch is not there to be checked
    """EfficientNet-Lite0 up to its last block, averages over a grid, a linear head."""

    def __init__(self, weights: str, head: str, grids: dict[str, int]) -> None:
        super().__init__()
        self.net = EfficientNet.from_name("efficientnet-lite0")
        self.net.load_state_dict(load_file(weights), strict=False)
        found = load_file(head)
        self.weight, self.offset = found["weight"], found["offset"]
        self.grids = grids
        self.eval()

    def forward(self, image: Any) -> Any:
        """Return probabilities of uint8 images [N, height, width, 3]."""
        x = (image.permute(0, 3, 1, 2).float() - 127.0) / 128.0
        if self.layout is torch.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.net._swish(self.net._bn0(self.net._conv_stem(x)))
        taps: dict[str, Any] = {}
        for block in self.net._blocks:
            if max(block._depthwise_conv.stride) > 1 and all(tap in taps for tap in self.grids):
                break  # cut where Genba cuts
            x = block(x)
            taps[str(image.shape[1] // x.shape[2])] = x
        parts = [F.adaptive_avg_pool2d(taps[t], g).flatten(1) for t, g in self.grids.items()]
        return torch.softmax(torch.cat(parts, 1) @ self.weight + self.offset, 1)


def once(model: Any, images: Any) -> tuple[float, list[Any]]:
    """Return processor seconds per image and the answers, one image at a time."""
    start = time.process_time()
    answers = [model(images[i : i + 1]) for i in range(len(images))]
    return (time.process_time() - start) / len(images), answers


def main(weights: str, head: str, images: str, out: str) -> None:
    """Warm up in every layout, keep the answers of the first, then time round by round."""
    torch.set_num_threads(1)
    given = load_file(images)["image"]
    grids = json.loads(sys.stdin.readline())
    models = {}
    with torch.inference_mode():
        for name, layout in LAYOUTS.items():
            models[name] = Classifier(weights, head, grids).to(memory_format=layout)
            models[name].layout = layout
            _, answers = once(models[name], given)
            if name == "contiguous":
                save_file({"probability": torch.cat(answers)}, out)
        print(torch.__version__, flush=True)
        for line in sys.stdin:
            print(once(models[line.strip()], given)[0], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
