"""Files that are written as a whole or not at all."""

import pytest

from skdeepfeat._utils._atomic_file import write_atomically


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError, match="folder") as caught:
        write_atomically(tmp_path, b"content")
    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.parent.glob(f".{tmp_path.name}*")) == []
