"""Image preparation for whole batches (N, C, H, W): pure functions, random ones take a Generator.

None changes its argument. Floating images keep their dtype; integer ones become float32 where the
result is not an integer.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ...compiler.errors import DataError
from .dataset import Array, check_labels

_ROWS_AT_ONCE = 256


def channel_statistics(images: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and (population) standard deviation of each channel, float64 (C,).

    `images` is (N, C, *spatial). Computed in float64 a few rows at a time, in two passes, so that
    large data sets need no large copy and lose no digits.
    """
    if images.ndim < 2 or images.size == 0:
        raise DataError(f"channel_statistics: expected images (N, C, ...), found {images.shape}")
    axes = (0, *range(2, images.ndim))
    per_channel = images.size // images.shape[1]
    chunks = range(0, len(images), _ROWS_AT_ONCE)

    def mean_of(center: Array, power: int) -> NDArray[np.float64]:
        total = np.zeros(images.shape[1])
        for i in chunks:
            rows = images[i : i + _ROWS_AT_ONCE].astype(np.float64) - center
            total += np.sum(rows**power, axis=axes)
        result: NDArray[np.float64] = total / per_channel
        return result

    mean = mean_of(np.zeros(()), 1)
    variance = mean_of(_per_channel(mean, images), 2)
    return mean, np.sqrt(variance)


def normalize(images: Array, mean: ArrayLike, std: ArrayLike) -> Array:
    """(images - mean) / std, with mean and std per channel (C,) or one for all; any (N, C, ...)."""
    pixels = _floating(images)
    center, scale = np.asarray(mean, pixels.dtype), np.asarray(std, pixels.dtype)
    for what, array in (("mean", center), ("std", scale)):
        if array.shape not in ((), images.shape[1:2]):
            raise DataError(
                f"normalize: expected {what} of shape () or {images.shape[1:2]}, "
                f"found {array.shape} for images {images.shape}"
            )
    if not np.all(scale > 0):
        raise DataError(f"normalize: expected std > 0, found {scale.min()}")
    result: Array = (pixels - _per_channel(center, images)) / _per_channel(scale, images)
    return result


def random_crop(
    images: Array,
    rng: np.random.Generator,
    size: tuple[int, int] | None = None,
    padding: int = 0,
    mode: Literal["constant", "edge", "reflect", "wrap"] = "constant",
) -> Array:
    """A window (h, w) = `size` of each image at its own random place: (N, C, h, w).

    The images are padded by `padding` pixels on all four sides before (zeros, or `numpy.pad`'s
    `mode`). Without `size` the window has the image's own size.
    """
    _images(images, "random_crop")
    height, width = images.shape[2:] if size is None else size
    room_y, room_x = (
        old + 2 * padding - new for old, new in zip(images.shape[2:], (height, width), strict=True)
    )
    if padding < 0 or min(height, width) < 1 or min(room_y, room_x) < 0:
        raise DataError(
            f"random_crop: expected a window inside the images {images.shape[2:]} with their "
            f"padding {padding} >= 0, found {(height, width)}"
        )
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)), mode)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    top = rng.integers(0, room_y, len(images), endpoint=True)
    left = rng.integers(0, room_x, len(images), endpoint=True)
    result: Array = windows[np.arange(len(images)), :, top, left]
    return result


def random_horizontal_flip(images: Array, rng: np.random.Generator, p: float = 0.5) -> Array:
    """Each image mirrored left to right with probability `p`; (N, C, H, W)."""
    _images(images, "random_horizontal_flip")
    flipped = rng.random(len(images)) < p
    return np.where(flipped[:, None, None, None], images[..., ::-1], images)


def mixup(
    inputs: Array, labels: Array, rng: np.random.Generator, class_count: int, alpha: float = 0.2
) -> tuple[Array, Array]:
    """Each row mixed with the one before it, inputs and classes alike (Zhang et al., 2018).

    One share for the batch is drawn from Beta(alpha, alpha). Of labels (N,), targets are shares of
    classes (N, class_count); already mixed ones are mixed again.
    """
    share = rng.beta(alpha, alpha)
    targets = _shares(labels, class_count)
    return _mixed(_floating(inputs), share), _mixed(targets, share)


def cutmix(
    images: Array, labels: Array, rng: np.random.Generator, class_count: int, alpha: float = 1.0
) -> tuple[Array, Array]:
    """A box of each image (N, C, H, W) from the one before it; the classes' shares are those of the
    area (Yun et al., 2019).

    The share that is kept is drawn from Beta(alpha, alpha), the middle of the box from all pixels.
    """
    _images(images, "cutmix")
    extents = np.array(images.shape[2:])
    half = np.sqrt(1 - rng.beta(alpha, alpha)) * extents / 2
    middle = rng.integers(0, extents)
    top, left = np.maximum(middle - half, 0).astype(int)
    bottom, right = np.minimum(middle + half, extents).astype(int)
    result = images.copy()
    result[..., top:bottom, left:right] = np.roll(images, 1, 0)[..., top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / extents.prod()
    return result, _mixed(_shares(labels, class_count), kept)


def _mixed(rows: Array, share: float) -> Array:
    result: Array = (rows * share + np.roll(rows, 1, 0) * (1 - share)).astype(rows.dtype)
    return result


def _shares(labels: Array, class_count: int) -> Array:
    return labels if labels.ndim == 2 else one_hot(labels, class_count)


def one_hot(labels: Array, class_count: int, dtype: DTypeLike = np.float32) -> Array:
    """Integer labels (N,) as rows (N, class_count) with a one at the label and zeros elsewhere."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"one_hot: expected integer labels (N,), found {labels.dtype}{labels.shape}"
        )
    check_labels(labels, class_count, "one_hot")
    rows = np.zeros((len(labels), class_count), dtype)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def resize(
    images: Array, size: tuple[int, int], method: Literal["area", "bilinear"] = "bilinear"
) -> Array:
    """Images (N, C, H, W) at another `size` (h, w).

    "bilinear" interpolates between pixel centres, without antialiasing (PyTorch's `interpolate`
    with align_corners=False); "area" averages what each new pixel covers of the old ones. Both are
    separable: a weight matrix for the rows, one for the columns.
    """
    _images(images, "resize")
    if min(size) < 1 or min(images.shape[2:]) < 1:
        raise DataError(f"resize: expected sizes of at least 1, found {images.shape[2:]} to {size}")
    weights = {"area": _area_weights, "bilinear": _bilinear_weights}
    if method not in weights:
        raise DataError(f"resize: expected method area or bilinear, found '{method}'")
    pixels = _floating(images)
    rows, columns = (
        weights[method](old, new).astype(pixels.dtype)
        for old, new in zip(images.shape[2:], size, strict=True)
    )
    result: Array = rows @ pixels @ columns.T
    return result


def _bilinear_weights(old: int, new: int) -> NDArray[np.float64]:
    center = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(center[:, None] - np.arange(old)))
    return weights


def _area_weights(old: int, new: int) -> NDArray[np.float64]:
    step = old / new
    start = np.arange(new)[:, None] * step
    pixel = np.arange(old)
    overlap = np.minimum(start + step, pixel + 1) - np.maximum(start, pixel)
    weights: NDArray[np.float64] = np.maximum(0, overlap) / step
    return weights


def _per_channel(values: Array, images: Array) -> Array:
    return values.reshape(values.shape + (1,) * (images.ndim - 2)) if values.ndim else values


def _floating(images: Array) -> NDArray[np.floating[Any]]:
    return images if images.dtype.kind == "f" else images.astype(np.float32)


def _images(images: Array, function: str) -> None:
    if images.ndim != 4:
        raise DataError(f"{function}: expected images (N, C, H, W), found {images.shape}")
