"""Files that a user names: links are followed, and nothing is waited for."""

import os

import pytest

from skdeepfeat import FineTuneClassifier
from skdeepfeat._utils._plain_file import read_file_of_user
from skdeepfeat.exceptions import BadFileError
from skdeepfeat.training._checkpoint import read_checkpoint_header


def test_a_file_and_a_link_to_it(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    assert read_file_of_user(tmp_path / "a") == read_file_of_user(tmp_path / "b")


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
