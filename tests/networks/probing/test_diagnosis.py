"""Networks that cannot be examined: the error names what is wrong, and the way out."""

import pathlib
import warnings

import numpy as np
import pytest
import timm
import torch
import torchvision
from sklearn.utils.fixes import parse_version
from torch import nn
from torchvision.transforms import v2

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.networks import resolve_neck

CPU = torch.device("cpu")


def squeezenet(n_channels=3):
    network = torchvision.models.squeezenet1_1(weights=None)
    network.features[0] = nn.Conv2d(n_channels, 64, 3, 2)
    return network


class Flat(nn.Module):
    """A linear layer on the pixels, which has no channels to look at."""

    def __init__(self, n_inputs):
        super().__init__()
        self.linear = nn.Linear(n_inputs, 5)

    def forward(self, x):
        return self.linear(x.flatten(1))


class Split(nn.Module):
    """Takes its channels apart, with no layer that says how many there are."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        one, two, three, four = x.unbind(1)
        return torch.stack([one + two, three + four], 1).mean((2, 3))


class Clip(nn.Module):
    def __init__(self):
        super().__init__()
        self.text_model = nn.Embedding(10, 3)
        self.vision_model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))

    def forward(self, input_ids=None, pixel_values=None):
        return self.text_model(input_ids), self.vision_model(pixel_values)


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 3)

    def forward(self, tokens):
        return self.embedding(tokens).mean(1)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image, mask):
        return self.conv(image) * mask


class Mistaken(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.convolution(x)


class Elsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.mean = torch.zeros(1, device="meta")

    def forward(self, x):
        if x.device.type == "meta":
            raise RuntimeError("Expected all tensors to be on the same device")
        return self.conv(x - self.mean)


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 4, 3).double()

    def forward(self, x):
        return self.second(self.first(x)).mean((2, 3))


class Number(nn.Module):
    def forward(self, x):
        return len(x)


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, *, pixel_values):
        return self.conv(pixel_values)


class Returning(nn.Module):
    """Returns what a function makes of features."""

    def __init__(self, make):
        super().__init__()
        self.conv, self.make = nn.Conv2d(3, 4, 3), make

    def forward(self, x):
        return self.make(self.conv(x).mean((2, 3)))


def traced(n_channels):
    images = torch.zeros(1, n_channels, 28, 28)
    network = nn.Sequential(nn.Flatten(), nn.Linear(n_channels * 784, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, but widely used
        return torch.jit.trace(network, images)


def no_channels():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is nothing to initialize
        return nn.Sequential(nn.Conv2d(0, 4, 3), nn.Flatten(), nn.Linear(9, 2))


def exported():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return torch.export.export(network, (torch.zeros(5, 3, 32, 32),)).module()


ONE_ROW = "one row of floating-point numbers"

CASES = {
    "gray": (lambda: squeezenet(1), "takes 1.*not supported.*Grayscale"),
    "no channels": (no_channels, "a network that takes a batch of images"),
    "nine channels": (lambda: squeezenet(9), r"takes 9.*Conv2d\(3, 9, 1\)"),
    "gray patches": (
        lambda: timm.create_model("test_vit", in_chans=1),
        "3 channels; this one takes 1",
    ),
    "gray pixels": (lambda: Flat(28 * 28), "3 channels; this one takes 1"),
    "unbound": (Split, "takes 4"),
    "clip": (Clip, r"pass model\.vision_model"),
    "text": (Text, "takes token ids"),
    "two inputs": (Two, "forward of this one takes 'image, mask'"),
    "mistake": (Mistaken, "no attribute 'convolution'"),
    "device": (Elsewhere, "register_buffer"),
    "types": (Mixed, r"model\.float\(\)"),
    "number": (Number, "returns a tensor"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), "Lazy modules have none"),
    "meta": (lambda: squeezenet().to("meta"), "meta device"),
    "lazy buffers": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyBatchNorm2d()),
        "Lazy modules have none",
    ),
    "8 bits": (lambda: squeezenet().to(torch.float8_e4m3fn), r"8 bits.*model\.float"),
    "keywords": (Keywords, "only keyword arguments.*with pixel_values=images"),
    "exported": (exported, "Guard failed|dynamic_shapes"),
    "array": (lambda: Returning(lambda x: x.detach().numpy()), "of type 'ndarray'"),
    "empty dict": (lambda: Returning(lambda x: {}), "type 'dict' without a tensor"),
    "sparse": (lambda: Returning(torch.Tensor.to_sparse), ONE_ROW),
    "no columns": (lambda: Returning(lambda x: x[:, :0]), ONE_ROW),
    "classes": (lambda: Returning(lambda x: x.argmax(1)), ONE_ROW),
    "message": (
        lambda: Returning(lambda x: exec("raise OSError('\\x1b[31m' + 'a' * 10**6)")),
        r"it said: \\x1b\[31maaa",
    ),
    "traced": (lambda: traced(1), "3 channels; this one takes 1"),
    "one dimension": (lambda: nn.Conv1d(3, 4, 3), "begins with a Conv1d"),
    "no rows": (lambda: nn.Flatten(0), "one row of floating-point numbers"),
    "recurrent": (lambda: nn.LSTM(10, 4), r"try model\(torch.zeros"),
}

# torch 2.9 embeds floats on the meta device, so nothing is found to be wrong.
if parse_version(torch.__version__) < parse_version("2.10"):
    del CASES["text"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_with_the_model(case):
    build, pattern = CASES[case]
    with pytest.raises(
        (ValueError, TypeError), match=f"(?s)^The 'model' .*{pattern}"
    ) as e:
        resolve_neck(build())
    assert "image_size" not in str(e.value) and len(str(e.value)) < 900


@pytest.mark.parametrize(
    ("build", "size", "pattern"),
    [
        (lambda: Flat(3 * 40 * 40), None, "such as 40 "),
        (lambda: nn.Conv2d(3, 4, 300), None, "such as 384"),
        (squeezenet, 8, "such as 224"),
        (lambda: "timm/test_vit", 15, "such as "),
        (lambda: torchvision.models.vit_b_16(), 64, "such as 224"),
    ],
)
def test_the_size_is_blamed_where_another_works(build, size, pattern):
    with pytest.raises(ValueError, match=f"^The 'image_size' .*{pattern}"):
        resolve_neck(build(), image_size=size)


def test_the_ways_out_work():
    gray = nn.Sequential(v2.Grayscale(), squeezenet(1))
    nine = nn.Sequential(nn.Conv2d(3, 9, 1), squeezenet(9))
    for network in (gray, nine, Clip().vision_model):
        neck = resolve_neck(network, image_size=64)
        with neck.loaded(CPU) as run:
            rows = run(np.zeros((2, 64, 64, 3), np.uint8))[0]
        assert rows.shape == (2, neck.n_features()[0])


def test_dicts_and_half_precision_are_fine():
    class Dict(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return {"features": self.conv(x).mean((2, 3)), "n": len(x)}

    assert resolve_neck(Dict()).n_features() == [4]
    assert resolve_neck(Dict().half()).n_features() == [4]


class Wrapper:
    """Holds a network, like the pipelines and trainers of other libraries."""

    def __init__(self):
        self.model = squeezenet()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (torchvision.models.resnet18, "call it and pass the result"),
        (torchvision.models.ResNet, "call it and pass the result"),
        (lambda images: images, "forward method of a torch.nn.Module"),
        (squeezenet().forward, "Pass the module instead of its method"),
        (squeezenet().state_dict(), "load_state_dict"),
        (pathlib.Path("a.pth"), "Pass a weights file as 'weights'"),
        ("models/a.safetensors", "Pass a weights file as 'weights'"),
        (torchvision.models.ResNet18_Weights.DEFAULT, "Pass weights as 'weights'"),
        (Wrapper(), "Pass its network, model.model."),
    ],
)
def test_what_to_pass_instead_of_an_object_that_is_no_network(model, words):
    extractor = PretrainedFeatureExtractor(model, cache=None)
    with pytest.raises(ValueError, match="'model'") as caught:
        extractor.fit(np.zeros((2, 8, 8, 3), np.uint8))
    assert words in str(caught.value) and len(str(caught.value)) < 500
