"""Streams of random numbers: the same in pieces, and no trace of them outside."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from skdeepfeat._utils._random import RandomStream, seeded


def draw(n):
    # Of several kinds: the normal ones are drawn in pairs and one of them kept.
    return torch.cat([torch.rand(n), torch.randn(n), torch.randperm(n).float()])


@pytest.fixture(autouse=True)
def untouched():
    """See that the global generator is where it was."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def test_pieces_are_those_of_one_piece():
    with seeded(3):
        wanted = [draw(n) for n in (5, 1, 17)]
    stream = RandomStream(3)
    for n, one in zip((5, 1, 17), wanted, strict=True):
        with stream.drawing():
            assert torch.equal(draw(n), one)
        with seeded(4):
            draw(2)
    with seeded(4):
        assert not torch.equal(draw(5), wanted[0])


def test_streams_inside_each_other():
    outer, inner = RandomStream(1), RandomStream(2)
    with outer.drawing():
        first = draw(3)
        with inner.drawing():
            other = draw(3)
        second = draw(3)
    with seeded(1):
        assert torch.equal(draw(3), first)
        assert torch.equal(draw(3), second)
    with seeded(2):
        assert torch.equal(draw(3), other)


def test_a_stream_goes_on_after_an_error():
    with seeded(5):
        draw(3)
        wanted = draw(3)
    stream = RandomStream(5)
    with pytest.raises(KeyError), stream.drawing():
        draw(3)
        raise KeyError
    with stream.drawing():
        assert torch.equal(draw(3), wanted)


def test_threads_that_take_turns_have_their_own_numbers():
    barrier = threading.Barrier(2)

    def take_turns(seed):
        stream, found = RandomStream(seed), []
        for n in range(1, 6):
            barrier.wait(timeout=120)
            with stream.drawing():
                found.append(draw(n))
        return found

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(take_turns, (6, 7)))
    for seed, found in zip((6, 7), both, strict=True):
        with seeded(seed):
            for n, one in enumerate(found, start=1):
                assert torch.equal(draw(n), one)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_accelerator_takes_part():
    device = torch.device("cuda", 0)
    before = torch.cuda.get_rng_state(device)
    stream = RandomStream(8, device)
    found = []
    for _ in range(2):
        with stream.drawing():
            found.append(torch.rand(4, device=device))
    with seeded(8, device):
        wanted = torch.rand(4, device=device), torch.rand(4, device=device)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(torch.cuda.get_rng_state(device), before)
