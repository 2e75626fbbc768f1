"""Files that a user names: links are followed, and nothing is waited for."""

import os

import numpy as np
import pytest
from networks import SmallNet

from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor
from skdeepfeat._utils._plain_file import read_file_of_user, write_atomically
from skdeepfeat.exceptions import BadFileError
from skdeepfeat.text import WordVectorFeatures
from skdeepfeat.training._checkpoint import read_checkpoint_header


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "a"
    write_atomically(path, b"one")
    path.chmod(0o600)
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    for suffix in (".npy", ".parquet"):
        file = tmp_path / f"f{suffix}"
        for seed in (0, 1):
            extractor = PretrainedFeatureExtractor(
                "timm/test_resnet", weights="random", random_state=seed, image_size=32,
                cache=None, device="cpu",
            )  # fmt: skip
            extractor.extract_to(pixels, file, overwrite=True)
            if seed == 0:
                file.chmod(0o600)
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_and_a_link_to_it(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    assert read_file_of_user(tmp_path / "a") == read_file_of_user(tmp_path / "b")


def test_addresses_are_not_taken_for_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fitted = FineTuneClassifier(SmallNet(), cache=None, unfreeze=None, image_size=32)
    fitted.fit(np.zeros((4, 32, 32), np.uint8), [0, 1, 0, 1])
    address = "s3://me:hunter2@bucket/model.onnx"
    for call in (
        lambda: fitted.save(address),
        lambda: fitted.to_onnx(address),
        lambda: FineTuneClassifier.load(address),
        lambda: read_checkpoint_header(address),
        lambda: WordVectorFeatures(f"{address}.vec").fit(["a"]),
    ):
        with pytest.raises(ValueError, match="on a local disk") as caught:
            call()
        assert "hunter2" not in str(caught.value)
    for call in (
        lambda: fitted.save(""),
        lambda: FineTuneClassifier.load(""),
        lambda: read_checkpoint_header(""),
        lambda: WordVectorFeatures("").fit(["a"]),
    ):
        with pytest.raises(ValueError, match="' parameter must be .*Got ''"):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(params=["pipe", "device", "folder"])
def special(request, tmp_path):
    if request.param == "pipe":
        os.mkfifo(tmp_path / "pipe")
        return tmp_path / "pipe"
    return {"device": "/dev/zero", "folder": tmp_path}[request.param]


def test_what_has_no_end_is_not_read(special):
    with pytest.raises(OSError, match="a pipe or a device"):
        read_file_of_user(special)
    with pytest.raises(OSError, match="a pipe or a device"):
        FineTuneClassifier.load(special)
    with pytest.raises(BadFileError, match="'checkpoint' .*a pipe or a device"):
        read_checkpoint_header(special)


@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_replaced(make, is_linked, tmp_path):
    """Not with a real device: root would lose it if this failed."""
    path = tmp_path / "special"
    make(path)
    if is_linked:
        path = tmp_path / "link"
        path.symlink_to("special")
    before = sorted((one.name, one.lstat().st_mode) for one in tmp_path.iterdir())
    with pytest.raises(FileExistsError, match="not replaced.*(special|link)"):
        write_atomically(path, b"content")
    after = sorted((one.name, one.lstat().st_mode) for one in tmp_path.iterdir())
    assert after == before
