"""ResNet-18 (He et al., "Deep residual learning for image recognition", 2015) in plain torch."""

from typing import Any

import torch
from torch import nn


class Block(nn.Module):  # type: ignore[misc]  # torch has no types here
    """Two convolutions and a shortcut."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.short: Any = None
        if stride > 1 or narrow != wide:
            self.short = nn.Sequential(
                nn.Conv2d(narrow, wide, 1, stride, bias=False), nn.BatchNorm2d(wide)
            )

    def forward(self, x: Any) -> Any:
        """Compute the block."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.short is None else self.short(x)))


class ResNet18(nn.Module):  # type: ignore[misc]
    """The network for images of 224 pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        widths = (64, 64, 128, 256, 512)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(Block(a, b, 1 if a == b else 2), Block(b, b, 1))
                for a, b in zip(widths, widths[1:], strict=False)
            )
        )
        self.fc = nn.Linear(512, classes)

    def features(self, x: Any) -> Any:
        """Return one row of numbers per image."""
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        return self.blocks(x).mean((2, 3))

    def forward(self, x: Any) -> Any:
        """Return the scores of the classes."""
        return self.fc(self.features(x))


class Attention(nn.Module):  # type: ignore[misc]
    """Two layers of a transformer's encoder without dropout."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "into": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "up": nn.Linear(width, 4 * width),
                    "down": nn.Linear(4 * width, width),
                    "first": nn.LayerNorm(width),
                    "second": nn.LayerNorm(width),
                }
            )
            for _ in range(2)
        )

    def forward(self, x: Any) -> Any:
        """Return one row of numbers per sequence."""
        for layer in self.layers:
            batch, length, width = x.shape
            parts = layer["into"](layer["first"](x)).reshape(batch, length, 3, self.heads, -1)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            scores = torch.softmax(q @ k.transpose(2, 3) / (width / self.heads) ** 0.5, dim=3)
            mixed = (scores @ v).transpose(1, 2).reshape(batch, length, width)
            x = x + layer["out"](mixed)
            x = x + layer["down"](torch.relu(layer["up"](layer["second"](x))))
        return x.mean(1)
