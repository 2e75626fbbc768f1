"""Checkpoints: kill -9, damage, full disks."""

import json
import os
import pathlib
import signal
import stat
import textwrap

import numpy as np
import pytest
import safetensors.torch
import torch
from child import forbid_writing, in_child, limit_files

from benchmarks._forks import run_python
from skdeepfeat.exceptions import BadFileError
from skdeepfeat.training._checkpoint import (
    load_checkpoint,
    read_checkpoint_header,
    save_checkpoint,
)
from skdeepfeat.training._tensor_file import dump_tensors, parse_tensors

HERE = pathlib.Path(__file__).parent

# A process that trains the network of conftest.py and is shot on the way; the same
# again ends it.
TRAIN = textwrap.dedent(
    """
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    import safetensors.torch, torch
    import conftest as c
    from skdeepfeat.training._checkpoint import (
        load_checkpoint, read_checkpoint_header, save_checkpoint
    )
    from skdeepfeat.training._state import copy_state

    torch.set_num_threads(1)
    path, result, optimizer, deadly = sys.argv[2:6]
    net = c.make_net(batch_norm=True, dropout=0.3)
    data = c.make_pixels(22, "trivial")
    run = c.make_run(
        net, decay=0.8, optimizer=optimizer, n_epochs=6, schedule="one_cycle",
        n_iter_no_change=5, mixup=0.3, max_grad_norm=1.0, seed=3,
    )
    if read_checkpoint_header(path) is not None:
        load_checkpoint(path, run)
        print("resumed after", run.epoch)
    batch, calls = data.batch, [0]

    def deadly_batch(*args):
        calls[0] += 1
        if calls[0] == int(deadly):
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(*args)

    data.batch = deadly_batch
    scores = [0.1, 0.9, 0.3, 0.2, 0.4, 0.5]
    run.fit(
        data,
        lambda model: (0.5, scores[run.epoch]),
        lambda run: save_checkpoint(path, run, {"seed": 3}),
    )
    safetensors.torch.save_file(
        {**copy_state(net), **{f"raw.{k}": v for k, v in run.average.tensors.items()}},
        result,
        {"history": str([(h["epoch"], h["train_loss"]) for h in run.history]),
         "best": f"{run.best_epoch} {run.best_score}"},
    )
    """
)


def train(checkpoint, result, optimizer="adamw", deadly=0):
    return run_python(["-c", TRAIN, HERE, checkpoint, result, optimizer, deadly])


def content_of(path):
    with safetensors.safe_open(path, "pt") as file:
        return safetensors.torch.load_file(path), file.metadata()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_killed_in_an_epoch_and_continued_it_ends_the_same(
    tmp_path, optimizer, assert_same
):
    done = train(tmp_path / "a.ckpt", tmp_path / "a.safetensors", optimizer)
    assert done.returncode == 0, done.stderr
    # Three steps an epoch: the second step of the third epoch, then of the fifth.
    for deadly, before in ((8, ""), (8, "resumed after 2\n")):
        shot = train(tmp_path / "b.ckpt", tmp_path / "b.safetensors", optimizer, deadly)
        assert shot.returncode == -signal.SIGKILL
        assert not (tmp_path / "b.safetensors").exists()
        assert before == "" or read_checkpoint_header(tmp_path / "b.ckpt")
    done = train(tmp_path / "b.ckpt", tmp_path / "b.safetensors", optimizer)
    assert done.stdout == "resumed after 4\n", done.stderr
    wanted, words = content_of(tmp_path / "a.safetensors")
    found, found_words = content_of(tmp_path / "b.safetensors")
    assert_same(found, wanted)
    assert found_words == words
    assert words["best"] == "2 0.9"


@pytest.fixture
def make_trained(make_net, make_pixels, make_run):
    """Return a function that trains for some epochs and writes a checkpoint."""

    def make(path=None, n=2, decay=0.8, **settings):
        run = make_run(make_net(batch_norm=True), decay=decay, n_epochs=n, **settings)
        scores = iter(range(99))
        run.fit(
            make_pixels(22),
            lambda model: (0.5, next(scores)),
            lambda run: path and save_checkpoint(path, run, {"of": "this"}),
        )
        return run

    return make


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("decay", [0.0, 0.8])
def test_a_new_run_goes_on(
    tmp_path, make_net, make_pixels, make_run, make_trained, weights_of, assert_same,
    optimizer, decay,
):  # fmt: skip
    path = tmp_path / "run.ckpt"
    wanted = make_trained(n=4, decay=decay, optimizer=optimizer)
    make_trained(path, n=2, decay=decay, optimizer=optimizer)
    assert read_checkpoint_header(path) == {"of": "this"}
    net = make_net(seed=1, batch_norm=True)
    run = make_run(net, decay=decay, n_epochs=4, optimizer=optimizer)
    load_checkpoint(path, run)
    assert (run.epoch, run.best_epoch, run.best_score) == (2, 2, 1)
    run.fit(make_pixels(22), lambda model: (0.5, run.epoch))
    assert_same(weights_of(net), weights_of(wanted.model))
    assert_same(run.best_state, wanted.best_state)
    for one, other in zip(run.history, wanted.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_kernels_with_channels_last_go_on(
    tmp_path, make_net, make_pixels, make_run, weights_of, assert_same, optimizer
):
    """As those of named networks are: fused steps need their state in this order."""

    def run(seed=0, checkpoint=None):
        net = make_net(seed).to(memory_format=torch.channels_last)
        run = make_run(net, n_epochs=4, optimizer=optimizer)
        if checkpoint is not None:
            load_checkpoint(checkpoint, run)
        run.fit(
            make_pixels(22),
            after_epoch=lambda run: (
                run.epoch == 2 and save_checkpoint(tmp_path / "run.ckpt", run, {})
            ),
        )
        return weights_of(net)

    wanted = run()
    assert_same(run(seed=1, checkpoint=tmp_path / "run.ckpt"), wanted)


def test_a_run_that_is_done_stays_done(
    tmp_path, make_net, make_pixels, make_run, make_trained, weights_of, assert_same
):
    wanted = make_trained(tmp_path / "run.ckpt", n=2)
    run = make_run(make_net(seed=1, batch_norm=True), decay=0.8, n_epochs=2)
    load_checkpoint(tmp_path / "run.ckpt", run)
    run.fit(make_pixels(22), lambda model: pytest.fail("there is nothing to do"))
    assert_same(weights_of(run.model), weights_of(wanted.model))


def test_tied_weights_and_shared_memory(tmp_path, make_run):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(3, 3)
            self.second = torch.nn.Linear(3, 3)
            self.second.weight = self.first.weight
            self.register_buffer("whole", torch.arange(6.0))
            self.register_buffer("part", self.whole[2:4])

    run = make_run(Tied())
    save_checkpoint(tmp_path / "run.ckpt", run, {})
    other = make_run(Tied())
    load_checkpoint(tmp_path / "run.ckpt", other)
    assert torch.equal(other.model.second.weight, run.model.first.weight)
    assert other.model.second.weight is other.model.first.weight


# -- Files that are no checkpoint


def test_no_file(tmp_path):
    assert read_checkpoint_header(tmp_path / "none.ckpt") is None


def damaged(name, path):
    """Write something over a good checkpoint."""
    good = path.read_bytes()
    if name == "empty":
        path.write_bytes(b"")
    elif name == "truncated":
        path.write_bytes(good[:-100])
    elif name == "header cut off":
        path.write_bytes(good[:50])
    elif name == "text":
        path.write_text("epoch 3 of 10\n" * 100)
    elif name == "pickle":
        torch.save({"epoch": 3}, path)
    elif name == "other safetensors":
        safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    elif name == "no json":
        tensors = {"weight": torch.zeros(3)}
        safetensors.torch.save_file(tensors, path, {"skdeepfeat": "{"})
    elif name == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    "name",
    [
        "empty", "truncated", "header cut off", "text", "pickle", "other safetensors",
        "no json", "folder",
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path, make_trained, name):
    path = tmp_path / "run.ckpt"
    make_trained(path)
    damaged(name, path)
    with pytest.raises(ValueError, match="The 'checkpoint' file .*run.ckpt.*Delete it"):
        read_checkpoint_header(path)


def damages(content, n, seed=0):
    """Yield `n` damaged forms: flipped bits, cuts and bytes that were put in."""
    generator = np.random.default_rng(seed)
    for number in range(n):
        place = int(generator.integers(len(content)))
        damaged = bytearray(content)
        if number % 3 == 0:
            damaged[place] ^= 1 << place % 8
        elif number % 3 == 1:
            del damaged[place:]
        else:
            damaged[place:place] = b"[" * (place % 9 + 1)
        yield bytes(damaged)


def test_damage_anywhere_is_one_error(tmp_path, make_trained):
    path = tmp_path / "run.ckpt"
    make_trained(path)
    for content in damages(path.read_bytes(), 90):
        path.write_bytes(content)
        with pytest.raises(BadFileError, match="The 'checkpoint' file .*run.ckpt"):
            read_checkpoint_header(path)


CHANGES = {
    "epoch": -1,
    "history": [1],
    "best_score": "high",
    "best_epoch": 2.5,
    "n_average": True,
    "scale": [],
    "header": None,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_no_run_writes_is_refused(tmp_path, make_trained, name):
    """The checksum is right, as whoever makes a file to do harm sees to it."""
    path = tmp_path / "run.ckpt"
    make_trained(path)
    text, tensors = parse_tensors(path.read_bytes())
    progress = json.loads(text)
    for change in ({**progress, name: CHANGES[name]}, progress):
        if change is progress:
            del progress[name]
        path.write_bytes(dump_tensors(tensors, json.dumps(change)))
        with pytest.raises(BadFileError, match=f"damaged: its '{name}' is"):
            read_checkpoint_header(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.update({"optimizer.0.exp_avg": torch.zeros(1, 2)}),
        lambda tensors: tensors.update({"optimizer.99.step": torch.zeros(())}),
        lambda tensors: tensors.update({"optimizer.x.y.z": torch.zeros(2)}),
        lambda tensors: tensors.update({"stray": torch.zeros(2)}),
        lambda tensors: tensors.pop(next(k for k in tensors if k.startswith("best."))),
    ],
)
def test_other_tensors_change_nothing(
    tmp_path, make_net, make_run, make_trained, weights_of, assert_same, change
):
    path = tmp_path / "run.ckpt"
    make_trained(path)
    text, tensors = parse_tensors(path.read_bytes())
    change(tensors)
    path.write_bytes(dump_tensors(tensors, text))
    run = make_run(make_net(batch_norm=True, seed=1), decay=0.8)
    before = weights_of(run.model)
    with pytest.raises(ValueError, match="The 'checkpoint' file .*another network"):
        load_checkpoint(path, run)
    assert_same(weights_of(run.model), before)


@pytest.mark.parametrize("progress", [{"format": "skdeepfeat-checkpoint-99"}, [1], {}])
def test_another_version_is_refused(tmp_path, progress):
    path = tmp_path / "run.ckpt"
    path.write_bytes(dump_tensors({"weight": torch.zeros(3)}, json.dumps(progress)))
    with pytest.raises(ValueError, match="written by another version"):
        read_checkpoint_header(path)


@pytest.mark.parametrize("other", ["wider", "deeper", "averaged"])
def test_another_network_is_refused_before_anything_is_changed(
    tmp_path, make_net, make_run, make_trained, weights_of, assert_same, other
):
    path = tmp_path / "run.ckpt"
    make_trained(path, decay=0.0)
    net = make_net(batch_norm=other != "deeper", n_outputs=7 if other == "wider" else 3)
    before = weights_of(net)
    run = make_run(net, decay=0.8 if other == "averaged" else 0.0)
    with pytest.raises(ValueError, match="The 'checkpoint' file .* another network"):
        load_checkpoint(path, run)
    assert_same(weights_of(net), before)
    assert run.epoch == 0


# -- Writing


@pytest.mark.slow
def test_a_full_disk_is_one_warning_and_the_training_goes_on(
    tmp_path, make_net, make_pixels, make_run, weights_of, assert_same
):
    path = tmp_path / "run.ckpt"

    def train():
        torch.set_num_threads(1)  # as the fixture of all tests here does
        net, plain = make_net(), make_net()
        run = make_run(net, n_epochs=4)
        good = []

        def after_epoch(run):
            if run.epoch == 2:
                good.append(path.read_bytes())
                limit_files(4096)
            save_checkpoint(path, run, {})

        message = "run.ckpt.* after epoch 2: .*continues"
        with pytest.warns(RuntimeWarning, match=message) as w:
            run.fit(make_pixels(22), after_epoch=after_epoch)
        assert len(w) == 1
        assert isinstance(run.checkpoint_error, OSError)
        assert run.epoch == 4
        # The last good one is still there, and no half of another.
        assert path.read_bytes() == good[0]
        assert os.listdir(tmp_path) == ["run.ckpt"]
        make_run(plain, n_epochs=4).fit(make_pixels(22))
        assert_same(weights_of(net), weights_of(plain))

    in_child(train)


@pytest.mark.slow
def test_a_disk_with_space_again_is_written_to(tmp_path, make_trained):
    def train():
        path, run = tmp_path / "run.ckpt", make_trained()
        limit_files(4096)
        with pytest.warns(RuntimeWarning):
            save_checkpoint(path, run, {})
        limit_files(None)
        save_checkpoint(path, run, {"of": "this"})
        assert read_checkpoint_header(path) == {"of": "this"}

    in_child(train)


def test_a_path_that_cannot_be(tmp_path, make_trained):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="could not be written"):
        run = make_trained(tmp_path / "file" / "run.ckpt")
    assert run.epoch == 2


@pytest.mark.slow
def test_a_folder_without_permission(tmp_path, make_trained):
    def train():
        forbid_writing(tmp_path)
        with pytest.warns(RuntimeWarning, match="Permission denied"):
            run = make_trained(tmp_path / "run.ckpt")
        assert run.epoch == 2

    in_child(train)


def test_folders_are_made(tmp_path, make_trained):
    make_trained(tmp_path / "a" / "b" / "run.ckpt")
    assert read_checkpoint_header(tmp_path / "a" / "b" / "run.ckpt") == {"of": "this"}


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path, make_trained, monkeypatch):
    """The new one has its name only when it is complete and on the disk."""
    path = tmp_path / "run.ckpt"
    make_trained(path)
    events = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(handle):
        fsync(handle)
        events.append(("on disk", os.fstat(handle).st_size))
        assert read_checkpoint_header(path) == {"of": "this"}

    def noting_replace(source, target):
        events.append(("named", os.stat(source).st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    make_trained(path, n=1)
    size = path.stat().st_size
    assert events == [("on disk", size), ("named", size)]
    assert stat.S_ISREG(path.stat().st_mode)


def test_an_interrupted_write_leaves_nothing_behind(
    tmp_path, make_trained, monkeypatch
):
    path, run = tmp_path / "run.ckpt", make_trained()

    def interrupt(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, run, {})
    assert os.listdir(tmp_path) == []
