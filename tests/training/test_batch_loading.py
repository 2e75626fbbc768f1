"""Batches that a thread prepares while a device computes."""

import threading

import pytest

from skdeepfeat.training import _batch_loading


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_batches_that_a_thread_prepares_are_the_same(
    mixup, make_net, make_pixels, make_run, weights_of, assert_same, monkeypatch
):
    def train():
        net = make_net()
        run = make_run(net, n_epochs=2, batch_size=4, mixup=mixup)
        run.fit(data)
        return weights_of(net), run.history[-1]["train_loss"]

    data = make_pixels(19)
    threads, batch = set(), data.batch

    def noted(*args):
        threads.add(threading.current_thread().name)
        return batch(*args)

    monkeypatch.setattr(data, "batch", noted)
    expected, expected_loss = train()
    assert threads == {threading.current_thread().name}
    threads.clear()
    monkeypatch.setattr(_batch_loading, "_LOADING_IN_PLACE", ())
    weights, loss = train()
    assert all(name.startswith("skdeepfeat-batches") for name in threads)
    assert_same(weights, expected)
    assert loss == expected_loss


def test_an_error_of_the_thread_that_prepares_batches_is_raised(
    make_net, make_pixels, make_run, monkeypatch
):
    monkeypatch.setattr(_batch_loading, "_LOADING_IN_PLACE", ())
    data, calls = make_pixels(40), []

    def failing(*args):
        calls.append(args)
        if len(calls) == 3:
            raise ValueError("no such image")
        return type(data).batch(data, *args)

    monkeypatch.setattr(data, "batch", failing)
    with pytest.raises(ValueError, match="no such image"):
        make_run(make_net(), n_epochs=1, batch_size=4).fit(data)
    assert "skdeepfeat-batches" not in str(threading.enumerate())
    assert len(calls) < 10
