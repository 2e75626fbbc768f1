"""The preprocessing record keeps its ratio at other sizes and describes itself."""

import json

import pytest

from skdeepfeat import Preprocessing


@pytest.mark.parametrize(
    ("resize", "crop", "size", "new_resize", "new_crop"),
    [
        (256, (224, 224), 112, 128, (112, 112)),
        (256, (224, 224), (448, 224), 256, (448, 224)),
        (232, (224, 224), 224, 232, (224, 224)),
        ((224, 224), (224, 224), (96, 128), (96, 128), (96, 128)),
    ],
)
def test_another_size_keeps_the_ratio(resize, crop, size, new_resize, new_crop):
    record = Preprocessing(resize=resize, crop=crop, mean=(0.5,) * 3)
    new = record.with_crop(size)
    assert (new.resize, new.crop) == (new_resize, new_crop)
    assert new.mean == record.mean


def test_description_is_json():
    record = Preprocessing(resize=256, crop=(224, 224))
    assert json.loads(json.dumps(record.describe())) == record.describe()
    assert Preprocessing(**record.describe()).describe() == record.describe()
