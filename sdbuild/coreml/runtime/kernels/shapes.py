"""Operations that move values without changing them: reshaping, slicing, joining, repeating."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from sdbuild.coreml.runtime.errors import RuntimeModelError
from sdbuild.coreml.runtime.kernels.registry import kernel


@kernel("identity", exact=True)
def identity(x: Tensor) -> Tensor:
    """The input itself."""
    return x


@kernel("reshape", exact=True)
def reshape(x: Tensor, shape: list[int]) -> Tensor:
    """Another shape; 0 keeps the size of the same dimension, −1 is worked out from the rest."""
    return x.reshape([x.shape[index] if size == 0 else size for index, size in enumerate(shape)])


@kernel("reshape_like", exact=True)
def reshape_like(
    x: Tensor, ref_tensors: list[Tensor], begins: tuple[int, ...], ends: tuple[int, ...], end_masks: tuple[bool, ...]
) -> Tensor:
    """The shape that pieces of other tensors' shapes make."""
    shape: list[int] = []
    for reference, begin, end, to_end in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape.extend(reference.shape[begin:] if to_end else reference.shape[begin:end])
    return x.reshape(shape)


@kernel("transpose", exact=True)
def transpose(x: Tensor, perm: list[int]) -> Tensor:
    """The dimensions in another order."""
    return x.permute(perm)


@kernel("expand_dims", exact=True)
def expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    """Dimensions of size one, placed by their position in the result."""
    rank = x.dim() + len(axes)
    shape = list(x.shape)
    for axis in sorted(axis % rank for axis in axes):
        shape.insert(axis, 1)
    return x.reshape(shape)


@kernel("squeeze", exact=True)
def squeeze(x: Tensor, axes: list[int] | None = None) -> Tensor:
    """Without the dimensions of size one (those among `axes`)."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@kernel("flatten2d", exact=True)
def flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    """A matrix: the dimensions before the axis, and those from it on."""
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@kernel("concat", exact=True)
def concat(values: list[Tensor], axis: int, interleave: bool = False) -> Tensor:
    """Tensors one behind the other along an axis, or taking turns if `interleave`."""
    if values[0].dim() == 0:
        return torch.stack(values)
    if interleave:
        axis %= values[0].dim()
        return torch.stack(values, dim=axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, dim=axis)


@kernel("stack", exact=True)
def stack(values: list[Tensor], axis: int) -> Tensor:
    """Tensors along a new axis."""
    return torch.stack(values, dim=axis)


@kernel("split", exact=True)
def split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None
) -> tuple[Tensor, ...]:
    """Pieces along an axis, equal unless sizes are given."""
    if split_sizes is not None:
        return tuple(torch.split(x, split_sizes, dim=axis))
    if num_splits is None:
        raise RuntimeModelError("split needs num_splits or split_sizes")
    return tuple(torch.split(x, x.shape[axis] // num_splits, dim=axis))


def slices(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None,
    begin_mask: list[bool] | None,
    end_mask: list[bool] | None,
    squeeze_mask: list[bool] | None,
) -> tuple[list[slice | int], list[int]]:
    """The index of each dimension for torch, which has no negative steps, and the dimensions to be reversed before."""
    index: list[slice | int] = []
    reversed_dimensions: list[int] = []
    for dimension in range(x.dim()):
        if squeeze_mask is not None and squeeze_mask[dimension]:
            index.append(begin[dimension])
            continue
        start = None if begin_mask is not None and begin_mask[dimension] else begin[dimension]
        stop = None if end_mask is not None and end_mask[dimension] else end[dimension]
        step = 1 if stride is None else stride[dimension]
        if step > 0:
            index.append(slice(start, stop, step))
            continue
        positions = range(x.shape[dimension])[slice(start, stop, step)]
        last = x.shape[dimension] - 1
        reversed_dimensions.append(dimension)
        index.append(slice(last - positions.start, last - positions.stop, -step) if positions else slice(0, 0))
    return index, reversed_dimensions


@kernel("slice_by_index", exact=True)
def slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """NumPy's basic slicing, with masks for open ends and for dimensions that are indexed and dropped."""
    index, reversed_dimensions = slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    source = torch.flip(x, reversed_dimensions) if reversed_dimensions else x
    return source[tuple(index)]


@kernel("slice_update", exact=True)
def slice_update(
    x: Tensor,
    update: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """A copy of `x` whose slice holds `update`."""
    index, reversed_dimensions = slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    result = torch.flip(x, reversed_dimensions) if reversed_dimensions else x.clone()
    target = result[tuple(index)]
    target.copy_(update.reshape(target.shape))
    return torch.flip(result, reversed_dimensions) if reversed_dimensions else result


@kernel("slice_by_size", exact=True)
def slice_by_size(x: Tensor, begin: list[int], size: list[int]) -> Tensor:
    """A box by its corner and sizes; −1 reaches to the end."""
    for dimension, (start, length) in enumerate(zip(begin, size, strict=True)):
        start = start + x.shape[dimension] if start < 0 else start
        x = x.narrow(dimension, start, x.shape[dimension] - start if length == -1 else length)
    return x


@kernel("tile", exact=True)
def tile(x: Tensor, reps: list[int]) -> Tensor:
    """The tensor repeated along each dimension."""
    return x.repeat(reps)


@kernel("reverse", exact=True)
def reverse(x: Tensor, axes: list[int] | None = None) -> Tensor:
    """Some axes (all by default) backwards."""
    return torch.flip(x, axes if axes is not None else list(range(x.dim())))


@kernel("reverse_sequence", exact=True)
def reverse_sequence(x: Tensor, lengths: list[int], seq_axis: int = 0, batch_axis: int = 0) -> Tensor:
    """For each entry of the batch axis, its first elements along the sequence axis backwards."""
    result = x.clone()
    for entry, length in enumerate(lengths):
        target = result.movedim((batch_axis, seq_axis), (0, 1))[entry, :length]
        source = x.movedim((batch_axis, seq_axis), (0, 1))[entry, :length]
        target.copy_(torch.flip(source, (0,)))
    return result


@kernel("pad", exact=True)
def pad(x: Tensor, pad: list[int], mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Elements before and after the last dimensions: a constant, a reflection, or the edge repeated."""
    amounts = [(pad[index], pad[index + 1]) for index in range(0, len(pad), 2)]
    first = x.dim() - len(amounts)
    if mode == "constant":
        return functional.pad(x, [n for pair in reversed(amounts) for n in pair], value=constant_val)
    for offset, (before, after) in enumerate(amounts):
        dimension = first + offset
        positions = torch.arange(-before, x.shape[dimension] + after)
        last = x.shape[dimension] - 1
        if mode == "reflect":
            positions = last - (last - positions.abs()).abs()
        elif mode == "replicate":
            positions = positions.clamp(0, last)
        else:
            raise RuntimeModelError(f"pad has no mode {mode!r}")
        if before or after:
            x = x.index_select(dimension, positions)
    return x


@kernel("band_part", exact=True)
def band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """Zeros outside a band around the diagonal; a negative width keeps that whole triangle."""
    result = x if lower < 0 else torch.triu(x, -lower)
    return result if upper < 0 else torch.tril(result, upper)


@kernel("depth_to_space", exact=True)
def depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """Channels into blocks of pixels; a block's position is the slower part of the channel number."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, block_size, block_size, c // block_size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // block_size**2, h * block_size, w * block_size)


@kernel("space_to_depth", exact=True)
def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    """The inverse of `depth_to_space`."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // block_size, block_size, w // block_size, block_size).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * block_size**2, h // block_size, w // block_size)


@kernel("pixel_shuffle", exact=True)
def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """Channels into blocks of pixels; a block's position is the faster part of the channel number."""
    return functional.pixel_shuffle(x, upscale_factor)


@kernel("pixel_unshuffle", exact=True)
def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """The inverse of `pixel_shuffle`."""
    return functional.pixel_unshuffle(x, downscale_factor)


@kernel("space_to_batch", exact=True)
def space_to_batch(x: Tensor, block_shape: list[int], paddings: list[list[int]]) -> Tensor:
    """Blocks of the padded image become samples; the position in the block is the slower part of the number."""
    (top, bottom), (left, right) = paddings
    x = functional.pad(x, [left, right, top, bottom])
    n, c, h, w = x.shape
    rows, columns = block_shape
    blocks = x.reshape(n, c, h // rows, rows, w // columns, columns).permute(3, 5, 0, 1, 2, 4)
    return blocks.reshape(n * rows * columns, c, h // rows, w // columns)


@kernel("batch_to_space", exact=True)
def batch_to_space(x: Tensor, block_shape: list[int], crops: list[list[int]]) -> Tensor:
    """The inverse of `space_to_batch`, with borders cut away."""
    n, c, h, w = x.shape
    rows, columns = block_shape
    samples = n // (rows * columns)
    blocks = x.reshape(rows, columns, samples, c, h, w).permute(2, 3, 4, 0, 5, 1)
    image = blocks.reshape(samples, c, h * rows, w * columns)
    (top, bottom), (left, right) = crops
    return image[:, :, top : h * rows - bottom, left : w * columns - right]
