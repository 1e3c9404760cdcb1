"""Random shifts and flips of batches of images."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import RunProblem
from labkit.kernel.augment import random_flip, random_shift


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(pixels=st.integers(0, 9), height=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 99))
def test_each_image_is_moved_whole_by_at_most_so_many_pixels(pixels, height, width, seed):
    images = torch.arange(1.0, 1 + 4 * 2 * height * width).view(4, 2, height, width)
    moved = random_shift(images, pixels, generator(seed))
    assert moved.shape == images.shape and moved.is_contiguous()
    for before, after in zip(images, moved, strict=True):
        found = [
            (down, right)
            for down in range(-pixels, pixels + 1)
            for right in range(-pixels, pixels + 1)
            if torch.equal(after, shifted(before, down, right))
        ]
        assert found


def shifted(image, down, right):
    """One image moved, written out."""
    moved = torch.zeros_like(image)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            if 0 <= row - down < image.shape[1] and 0 <= column - right < image.shape[2]:
                moved[:, row, column] = image[:, row - down, column - right]
    return moved


def test_the_shifts_of_a_batch_differ_and_follow_the_generator():
    images = torch.ones(50, 1, 8, 8)
    moved = random_shift(images, 1, generator())
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 9
    assert torch.equal(moved, random_shift(images, 1, generator()))
    torch.manual_seed(5)
    first = random_shift(images, 1)
    torch.manual_seed(5)
    assert torch.equal(first, random_shift(images, 1)) and not torch.equal(first, moved)
    assert random_shift(images, 0) is images


def test_about_half_of_the_images_are_mirrored_and_the_rest_left():
    images = torch.arange(6.0).view(1, 1, 2, 3).expand(400, -1, -1, -1)
    seen = random_flip(images, generator())
    mirrored = seen[:, 0, 0, 0] == 2
    assert torch.equal(seen[mirrored], images[mirrored].flip(3)) and torch.equal(seen[~mirrored], images[~mirrored])
    assert 150 < mirrored.sum() < 250


def test_what_are_no_batches_of_images_and_negative_shifts_are_refused():
    for change in (lambda x: random_shift(x, 1), random_flip):
        with pytest.raises(RunProblem, match=r"shape \(8, 8\), expected \(batch, channels, height, width\)"):
            change(torch.zeros(8, 8))
    with pytest.raises(RunProblem, match="by -1 pixels"):
        random_shift(torch.zeros(1, 1, 8, 8), -1)
