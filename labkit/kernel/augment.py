"""Augmentation of batches of images: shifts and flips, each image by its own draw."""

from __future__ import annotations

import torch
from torch import Tensor

from labkit.errors import RunProblem


def random_shift(images: Tensor, pixels: int, generator: torch.Generator | None = None) -> Tensor:
    """Returns each image moved by up to `pixels` down or up and right or left; what comes in is 0.

    Args:
        images: (batch, channels, height, width).
        pixels: The greatest shift in each direction; 0 changes nothing.
        generator: Of the draws, on the CPU, so that they are the same on every device; by default PyTorch's own.

    Raises:
        RunProblem: The images have other axes, or `pixels` is negative.
    """
    count, height, width = _sizes(images)
    if pixels < 0:
        raise RunProblem(f"images cannot be shifted by {pixels} pixels: 0 or more")
    if pixels == 0:
        return images
    padded = torch.nn.functional.pad(images, (pixels, pixels, pixels, pixels))
    corner = torch.randint(2 * pixels + 1, (count, 2), generator=generator)  # (batch, row and column)
    corner = corner.to(images.device, non_blocking=True)
    rows = corner[:, :1] + torch.arange(height, device=images.device)  # (batch, height)
    columns = corner[:, 1:] + torch.arange(width, device=images.device)  # (batch, width)
    picked = torch.arange(count, device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[
        picked, rows[:, :, None], columns[:, None, :]
    ]  # (batch, height, width, channels)
    return moved.permute(0, 3, 1, 2).contiguous()


def random_flip(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Returns each image as it is or, for one in two, with left and right exchanged.

    Args:
        images: (batch, channels, height, width).
        generator: As in `random_shift`.

    Raises:
        RunProblem: The images have other axes.
    """
    count, _, _ = _sizes(images)
    flipped = torch.rand(count, generator=generator).lt(0.5).to(images.device, non_blocking=True)  # (batch,)
    return torch.where(flipped[:, None, None, None], images.flip(3), images)


def _sizes(images: Tensor) -> tuple[int, int, int]:
    if images.ndim != 4:
        raise RunProblem(f"images have the shape {tuple(images.shape)}, expected (batch, channels, height, width)")
    return images.shape[0], images.shape[2], images.shape[3]
