import numpy as np
import pytest
from coremltools.optimize._utils import pack_elements_into_bits, restore_elements_from_packed_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from sdbuild.coreml.packing import BITS, PackingError, pack, packed_size


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(BITS), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_bytes_are_those_of_coremltools(bits, count, seed):
    elements = np.random.default_rng(seed).integers(0, 1 << bits, count).astype(np.uint8)

    packed = pack(elements, bits)

    assert packed.tobytes() == pack_elements_into_bits(elements, bits).tobytes()
    assert len(packed) == packed_size(count, bits)
    assert restore_elements_from_packed_bits(packed, bits, count).tolist() == elements.tolist()


@pytest.mark.parametrize("bits", BITS)
def test_long_arrays_are_packed_piece_by_piece(bits):
    elements = np.random.default_rng(bits).integers(0, 1 << bits, 300_005).astype(np.uint8)

    assert pack(elements, bits).tobytes() == pack_elements_into_bits(elements, bits).tobytes()


def test_writes_into_a_given_place():
    out = np.full(3, 255, np.uint8)

    assert pack(np.zeros(4, np.uint8), 6, out) is out
    assert out.tolist() == [0, 0, 0]


def test_unknown_width():
    with pytest.raises(PackingError, match="5 bits cannot be packed"):
        pack(np.zeros(8, np.uint8), 5)
