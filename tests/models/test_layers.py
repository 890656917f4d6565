"""The layers' arithmetic, in float32 against torch's own and in float16 where its range is the question."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from sdbuild.models.errors import ModelError
from sdbuild.models.layers import ChannelNorm, GroupNorm, Sinusoid, WideRangeGroupNorm
from sdbuild.models.parity import psnr


def filled(layer: nn.Module, original: nn.Module) -> nn.Module:
    """The layer with the original's weights."""
    state = layer.state_dict()
    weights = {name: tensor.reshape(state[name].shape) for name, tensor in original.state_dict().items()}
    layer.to_empty(device="cpu").load_state_dict(weights)
    return layer


def group_norm() -> nn.GroupNorm:
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 12, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 1e2, 1e4])
@pytest.mark.parametrize("layer", [GroupNorm, WideRangeGroupNorm])
def test_group_norm(layer: type[GroupNorm], scale: float) -> None:
    original = group_norm()
    values = scale * (torch.randn(2, 12, 5, 7) + 0.5)
    assert psnr(original(values), filled(layer(original), original)(values)) > 120


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2, 1e4, 1.2e4])
def test_wide_range_group_norm_in_half_precision(scale: float) -> None:
    original = group_norm()
    values = (scale * torch.randn(2, 12, 5, 7)).half()
    layer = filled(WideRangeGroupNorm(original), original).half()
    assert psnr(original(values.float()), layer(values).float()) > 55
    if scale > 256:
        plain = filled(GroupNorm(original), original).half()
        assert psnr(original(values.float()), plain(values).float()) < 20, "then the wide range would not be needed"


def test_wide_range_group_norm_of_an_outlier_and_of_a_constant() -> None:
    original = group_norm()
    layer = filled(WideRangeGroupNorm(original), original)
    values = torch.randn(1, 12, 8, 8)
    values[:, :, 3, 3] = 30000.0
    half = values.half()
    assert psnr(original(half.float()), layer.half()(half).float()) > 50
    constant = torch.full((1, 12, 8, 8), 500.0, dtype=torch.float16)
    assert torch.equal(layer(constant), original.bias.half().reshape(1, 12, 1, 1).expand(1, 12, 8, 8))


def test_channel_norm() -> None:
    torch.manual_seed(0)
    original = nn.LayerNorm(24)
    nn.init.normal_(original.weight)
    nn.init.normal_(original.bias)
    values = 3 * torch.randn(2, 24, 1, 9) + 1
    wanted = original(values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert psnr(wanted, filled(ChannelNorm(original), original)(values)) > 120


@pytest.mark.parametrize(("cosine_first", "shift"), [(True, 0), (False, 1)])
def test_sinusoid_is_diffusers_to_the_last_bit(cosine_first: bool, shift: int) -> None:
    from diffusers.models.embeddings import get_timestep_embedding

    timesteps = torch.tensor([0.0, 1.0, 500.5, 999.0])
    sinusoid = Sinusoid(32, cosine_first, shift)
    weight = sinusoid.constant("time_proj")["time_proj.frequencies"]
    sinusoid.to_empty(device="cpu").frequencies.copy_(torch.from_numpy(weight.read()))
    wanted = get_timestep_embedding(timesteps, 32, flip_sin_to_cos=cosine_first, downscale_freq_shift=shift)
    assert torch.equal(sinusoid(timesteps), wanted)


def test_odd_timestep_embeddings_are_refused() -> None:
    with pytest.raises(ModelError, match="33 channels"):
        Sinusoid(33, True, 0)


@pytest.mark.parametrize("length", [5, 12, 13])
@pytest.mark.parametrize("chunk", [1, 4, 6, 12, 50])
def test_attention_agrees_with_torch(length: int, chunk: int) -> None:
    from sdbuild.models.attention import attention_function

    torch.manual_seed(0)
    query, key, value = torch.randn(2, 8, 1, 12), torch.randn(2, 8, 1, length), torch.randn(2, 8, 1, length)
    heads = [tensor.reshape(2, 4, 2, -1).transpose(2, 3) for tensor in (query, key, value)]
    wanted = functional.scaled_dot_product_attention(*heads, scale=1.0).transpose(2, 3).reshape(query.shape)
    for name in ("ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "SDPA"):
        assert psnr(wanted, attention_function(name, chunk)(query, key, value, 4)) > 120
