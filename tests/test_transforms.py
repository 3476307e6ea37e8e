"""Image preparation for whole batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quern.compiler.errors import DataError
from quern.runtime.data import (
    channel_statistics,
    normalize,
    one_hot,
    random_crop,
    random_horizontal_flip,
    resize,
)


def test_normalized_images_have_mean_zero_and_deviation_one(rng: np.random.Generator) -> None:
    images = (rng.random((600, 3, 5, 4)) * [[[[2]], [[3]], [[4]]]] + 5).astype(np.float32)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.astype(np.float64).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, images.astype(np.float64).std((0, 2, 3)), rtol=1e-12)
    done = normalize(images, mean, std)
    assert done.dtype == np.float32
    np.testing.assert_allclose(done.mean((0, 2, 3), np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(done.std((0, 2, 3), np.float64), 1, atol=1e-5)
    assert normalize(np.array([[3]], np.uint8), 1, 2).tolist() == [[1.0]]


@given(
    seed=st.integers(0, 100),
    size=st.none() | st.tuples(st.integers(1, 7), st.integers(1, 6)),
    padding=st.integers(0, 2),
    mode=st.sampled_from(["constant", "edge", "reflect", "wrap"]),
)
def test_a_random_crop_is_a_window_of_the_padded_image(
    seed: int, size: tuple[int, int] | None, padding: int, mode: Any
) -> None:
    images = np.arange(1, 4 * 2 * 7 * 6 + 1, dtype=np.float32).reshape(4, 2, 7, 6)
    rng = np.random.Generator(np.random.Philox(seed))
    cropped = random_crop(images, rng, size, padding, mode)
    height, width = size or (7, 6)
    assert cropped.shape == (4, 2, height, width)
    for image, window in zip(images, cropped, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode)
        assert any(
            (padded[:, y : y + height, x : x + width] == window).all()
            for y in range(padded.shape[1] - height + 1)
            for x in range(padded.shape[2] - width + 1)
        )
    again = random_crop(images, np.random.Generator(np.random.Philox(seed)), size, padding, mode)
    np.testing.assert_array_equal(cropped, again)


def test_random_crops_reach_every_place(rng: np.random.Generator) -> None:
    images = np.broadcast_to(np.arange(9).reshape(3, 3), (300, 1, 3, 3))
    assert set(random_crop(images, rng, (1, 1)).ravel()) == set(range(9))


def test_a_random_flip_mirrors_some_images(rng: np.random.Generator) -> None:
    images = rng.random((200, 3, 4, 5), np.float32)
    flipped = random_horizontal_flip(images, rng)
    mirrored = (flipped == images[..., ::-1]).all((1, 2, 3))
    kept = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 60 < mirrored.sum() < 140
    np.testing.assert_array_equal(random_horizontal_flip(images, rng, 0), images)
    np.testing.assert_array_equal(random_horizontal_flip(images, rng, 1), images[..., ::-1])


def test_one_hot_rows() -> None:
    assert one_hot(np.array([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert one_hot(np.array([1]), 2, np.float64).dtype == np.float64


def test_resizing_by_known_numbers() -> None:
    images = np.array([[[[0, 4], [8, 12]]]], np.float32)
    grown = resize(images, (4, 4))
    assert grown.dtype == np.float32
    assert grown[0, 0, 0].tolist() == [0, 1, 3, 4]
    assert grown[0, 0, :, 0].tolist() == [0, 2, 6, 8]
    assert resize(images, (1, 1), "area").ravel().tolist() == [6]
    thirds = resize(np.array([[[[0, 3, 9]]]], np.float64), (1, 2), "area")
    np.testing.assert_allclose(thirds.ravel(), [1, 7])
    assert resize(np.array([[[[2, 4]]]], np.uint8), (1, 1), "area").ravel().tolist() == [3]


@given(old=st.integers(1, 9), new=st.integers(1, 9), method=st.sampled_from(["area", "bilinear"]))
@example(old=5, new=5, method="area")
def test_resizing_keeps_flat_images_and_the_same_size(old: int, new: int, method: Any) -> None:
    flat = np.full((1, 2, old, old), 3.0)
    np.testing.assert_allclose(resize(flat, (new, new), method), 3, rtol=1e-12)
    ramp = np.arange(old * old, dtype=np.float64).reshape(1, 1, old, old)
    np.testing.assert_allclose(resize(ramp, (old, old), method), ramp, rtol=1e-12)
    whole = resize(ramp, (new, new), "area")
    np.testing.assert_allclose(whole.mean(), ramp.mean(), rtol=1e-12)


def test_bilinear_resizing_agrees_with_pytorch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    images = rng.random((2, 3, 7, 10))
    expected = torch.nn.functional.interpolate(torch.from_numpy(images), (5, 13), mode="bilinear")
    np.testing.assert_allclose(resize(images, (5, 13)), expected.numpy(), rtol=1e-12)


ONE = np.zeros((1, 3, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: normalize(ONE, [1, 2], 1), r"mean of shape \(\) or \(3,\), found \(2,\)"),
        (lambda rng: normalize(ONE, 0, [1, 0, 1]), r"expected std > 0, found 0.0"),
        (lambda rng: random_crop(ONE, rng, (5, 4)), r"window inside .*\(4, 4\).*found \(5, 4\)"),
        (lambda rng: random_crop(ONE, rng, padding=-1), r"padding -1 >= 0"),
        (lambda rng: random_horizontal_flip(ONE[0], rng), r"\(N, C, H, W\), found \(3, 4, 4\)"),
        (lambda rng: one_hot(np.array([0, 3]), 3), r"labels from 0 to 2, found 3 in row 1"),
        (lambda rng: one_hot(np.array([0.5]), 3), r"integer labels \(N,\), found float64\(1,\)"),
        (lambda rng: resize(ONE, (0, 4)), r"sizes of at least 1, found \(4, 4\) to \(0, 4\)"),
        (lambda rng: channel_statistics(ONE[:0]), r"images \(N, C, ...\), found \(0, 3, 4, 4\)"),
    ],
)
def test_image_preparation_refuses_what_does_not_fit(
    call: Callable[[np.random.Generator], Any], message: str, rng: np.random.Generator
) -> None:
    with pytest.raises(DataError, match=message):
        call(rng)
