"""Messages of Pillow and libtiff are not printed, except for other users of them."""

import io
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from benchmarks._forks import run_python
from skdeepfeat.exceptions import BadImageError
from skdeepfeat.images import make_image_source
from skdeepfeat.images._decoder_messages import collect_messages


@pytest.fixture
def damaged_tiff(encode):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    data = bytearray(encode(pixels, "TIFF", compression="tiff_lzw"))
    data[200:60000] = bytes(59800)
    return bytes(data)


@pytest.fixture
def odd_jpeg(encode, rgb):
    # A tag whose value lies far behind the end of the block.
    entry = b"\x0f\x01\x02\0\x90\1\0\0\x88\x13\0\0"
    exif = b"Exif\0\0II*\0\x08\0\0\0" + b"\x28\0" + entry
    return encode(rgb, "JPEG", exif=exif)


SCRIPT = """
import sys, warnings, numpy as np
from PIL import Image
from skdeepfeat import PretrainedFeatureExtractor
Image.MAX_IMAGE_PIXELS = 150
extractor = PretrainedFeatureExtractor(image_size=32, cache=None, on_error="nan")
with warnings.catch_warnings(action="ignore"):
    X = [*sys.argv[1:], Image.open(sys.argv[2])]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    rows = extractor.fit_transform(X)
[warning] = [one for one in caught if hasattr(one.message, "failures")]
print(warning.message)
sys.stdout.flush()
rows = extractor.fit_transform(X[1:])
warnings.warn("mine")
"""


@pytest.mark.slow
def test_nothing_is_on_the_terminal(damaged_tiff, odd_jpeg, tmp_path):
    paths = [tmp_path / "damaged.tif", tmp_path / "odd.jpg"]
    paths[0].write_bytes(damaged_tiff)
    paths[1].write_bytes(odd_jpeg)
    done = run_python(["-c", SCRIPT, *paths])
    assert done.returncode == 0, done.stderr
    assert "damaged.tif" in done.stdout
    # Only what is not about images.
    [line] = [line for line in done.stderr.splitlines() if line.strip()][:1]
    assert line.endswith("UserWarning: mine")


def test_libtiff_tells_why(damaged_tiff, capfd):
    with pytest.raises(BadImageError) as caught:
        make_image_source([damaged_tiff]).pixels(0)
    if sys.platform == "linux":
        assert "Using code not yet in table" in caught.value.cause
        assert capfd.readouterr().err == ""


def test_others_hear_libtiff_as_before(damaged_tiff, capfd):
    with pytest.raises(BadImageError):
        make_image_source([damaged_tiff]).pixels(0)
    with pytest.raises(OSError):
        Image.open(io.BytesIO(damaged_tiff)).load()
    assert "not yet in table" in capfd.readouterr().err


def test_warnings_are_logged_with_the_name(odd_jpeg, tmp_path, caplog, recwarn):
    path = tmp_path / "odd.jpg"
    path.write_bytes(odd_jpeg)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with caplog.at_level("INFO", "skdeepfeat"):
            make_image_source([str(path)]).pixels(0)
    assert not recwarn.list
    assert f"{path}: Pillow says: " in caplog.text


def test_others_warn_as_before():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with collect_messages() as messages:
            warnings.warn("collected", stacklevel=1)
        warnings.warn("shown", stacklevel=1)
    assert messages == ["collected"]
    assert [str(one.message) for one in caught] == ["shown"]


def test_a_filter_of_the_user_that_shows_warnings_elsewhere(monkeypatch):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda *args: shown.append(args))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *args: shown.append(args)
        with collect_messages() as messages:
            warnings.warn("collected", stacklevel=1)
        warnings.warn("shown", stacklevel=1)
    assert messages == ["collected"]
    assert [str(args[0]) for args in shown] == ["shown"]
