"""Two items have the same bytes exactly if they are the same item."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from skdeepfeat._utils._item_encoding import (
    NotEncodableError,
    decode_item,
    encode_item,
)

DIFFERENT = [
    1, 1.0, True, "1", b"1", 1j, None, "", b"", [], (), {}, [[]], [()], ["ab", "c"],
    ["a", "bc"], ("ab", "c"), ["ab", ["c"]], {"a": 1}, {"a": 1, "b": 2},
    {"b": 2, "a": 1}, -1, 255, -256, 2**70, 0.0, -0.0, float("nan"), "\ud800",
    np.float32(1), np.int64(1), np.array(1), np.array([1]), np.array([[1]]),
    np.array([1], np.int32), np.array([1], ">i4"), np.array([1.0]), np.array(["1"]),
    np.array([b"1"]), np.array([1], object), np.zeros(0), np.zeros((0, 2)),
    np.array(["ab", "c"], object), np.array(["a", "bc"], object),
    np.datetime64("2020-01-01"), torch.tensor(1), torch.tensor([1]),
    torch.tensor([1.0]), torch.tensor([1.0]).double(), torch.tensor([1.0]).bfloat16(),
    torch.zeros(0), torch.zeros(0, 2),
]  # fmt: skip


def test_different_items_differ():
    encoded = [encode_item(item) for item in DIFFERENT]
    assert len(set(encoded)) == len(DIFFERENT)


def test_items_come_back():
    for item in DIFFERENT:
        back = decode_item(encode_item(item))
        assert type(back) is type(item)
        assert encode_item(back) == encode_item(item)


def test_what_does_not_count():
    matrix = np.arange(6.0).reshape(2, 3)
    assert encode_item(np.asfortranarray(matrix)) == encode_item(matrix)
    assert encode_item(np.str_("a")) == encode_item("a")
    assert encode_item(torch.ones(2, requires_grad=True)) == encode_item(torch.ones(2))


SIMPLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st_numpy.arrays(st.sampled_from(["u1", "<i4", "<f8"]), st.integers(0, 3))
)
ITEMS = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


def same(one, two):
    if type(one) is not type(two):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return same(list(one.items()), list(two.items()))
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and one.tobytes() == two.tobytes()
    if isinstance(one, float):
        return np.float64(one).tobytes() == np.float64(two).tobytes()
    return one == two


@given(ITEMS, ITEMS)
def test_any_two_items(one, two):
    assert (encode_item(one) == encode_item(two)) == same(one, two)


@given(ITEMS)
def test_any_item_comes_back(item):
    assert encode_item(decode_item(encode_item(item))) == encode_item(item)


def cycle():
    found = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "item",
    [object(), {1, 2}, [object()], {"a": print}, cycle(), torch.zeros(2).to_sparse()],
)
def test_other_items_are_refused(item):
    with pytest.raises(NotEncodableError):
        encode_item(item)


@st.composite
def damaged(draw):
    """Draw the bytes of an item, some of which were overwritten."""
    data = bytearray(encode_item(draw(ITEMS | st.sampled_from(DIFFERENT))))
    values = st.sampled_from(b"sbntifcgaxlud\0\1\2\x08\xff") | st.integers(0, 255)
    for _ in range(draw(st.integers(1, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(values)
    return bytes(data)


@given(damaged() | st.binary(max_size=60))
def test_foreign_bytes_are_an_item_or_a_value_error(data):
    try:
        item = decode_item(data)
    except ValueError as error:
        assert str(error)
    else:
        assert encode_item(decode_item(encode_item(item))) == encode_item(item)


def tagged(tag, *values):
    """Return a tag before the bytes of values, as an array or a tensor has it."""
    content = b"".join(map(encode_item, values))
    return tag + len(content).to_bytes(8, "little") + content


FOREIGN = {
    "no flag": b"t" + bytes(8),
    "no such tag": b"?" + bytes(8),
    "number instead of bytes": tagged(b"a", "<f4", (1,), 2**62),
    "number instead of bytes of a tensor": tagged(b"x", "torch.uint8", (1,), 2**62),
    "odd number of bytes": tagged(b"x", "torch.float32", (1,), b"123"),
    "another shape": tagged(b"x", "torch.float32", (2,), b"1234"),
    "huge shape": tagged(b"x", "torch.float32", (0, 2**70), b""),
    "objects from bytes": tagged(b"a", "|O", (1,), b"12345678"),
    "structured": tagged(b"a", "i4,i4", (1,), b"12345678"),
    "dtype that is code": tagged(b"a", "(2,2),(", (1,), b"1234"),
    "no dtype": tagged(b"x", "torch.nn", (1,), b"1234"),
    "key that is a list": tagged(b"d", [], 1),
    "key without a value": tagged(b"d", 1),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_not_an_item(case):
    with pytest.raises(ValueError):
        decode_item(FOREIGN[case])


def test_damaged_bytes():
    data = encode_item({"a": np.arange(3), "b": [torch.ones(2), "text"]})
    for n in range(len(data)):
        with pytest.raises(ValueError):
            decode_item(data[:n])
