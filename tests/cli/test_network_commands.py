"""`skdeepfeat models` and `skdeepfeat layers`."""

import json

import pandas as pd

from skdeepfeat import list_layers, list_models


def test_models(run):
    result = run("models", "ResNet1*", "--source", "torchvision")
    assert result.exit_code == 0
    assert result.stdout.split() == ["resnet101", "resnet152", "resnet18"]
    assert result.stderr == ""
    assert run("models").stdout.splitlines() == list_models()
    tagged = run("models", "resnet50.*", "--tags").stdout.splitlines()
    assert tagged == list_models("resnet50.*", tags=True)


def test_models_for_scripts(run):
    assert json.loads(run("models", "vit_b*", "--json").stdout) == list_models("vit_b*")


def test_no_such_model(run):
    result = run("models", "resnt50")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: No network matches 'resnt50'. Did you mean 'resnet50'" in (
        result.stderr
    )
    assert run("models", "--source", "torch").exit_code == 2


def test_layers(run):
    result = run("layers", "resnet18", "--image-size", "64x96")
    assert result.exit_code == 0
    frame = list_layers("resnet18", image_size=(64, 96))
    header, *lines = result.stdout.splitlines()
    assert header.split()[:5] == ["name", "kind", "shape", "layout", "stage"]
    assert [line.split()[0] for line in lines] == frame["name"].tolist()
    [layer4] = [line.split() for line in lines if line.startswith("layer4 ")]
    assert layer4[1:5] == ["Sequential", "512x2x3", "NCHW", "4"]
    assert layer4[5] == "8,393,728"
    assert len({line.index("NCHW") for line in lines if "NCHW" in line}) == 1


def test_stages(run):
    found = json.loads(run("layers", "resnet18", "--stages", "--json").stdout)
    names = {each["name"]: each["stage"] for each in found}
    layers = {f"layer{number}": number for number in (1, 2, 3, 4)}
    assert names == {"relu": 0, **layers, "neck": None, "output": None}
    lines = run("layers", "resnet18", "--stages").stdout.splitlines()
    assert len(lines) == 1 + len(names)


def test_layers_for_scripts(run):
    result = run("layers", "efficientnet_lite0", "--json")
    frame = list_layers()
    found = pd.DataFrame(json.loads(result.stdout))
    assert found.columns.tolist() == frame.columns.tolist()
    assert found["name"].tolist() == frame["name"].tolist()
    assert found["output_shape"].map(tuple).tolist() == frame["output_shape"].tolist()
    stages = found["stage"].astype("Int64")
    assert stages.equals(frame["stage"])


def test_layers_of_an_unknown_network(run):
    result = run("layers", "resnt18")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Did you mean 'resnet18'" in result.stderr
    assert run("layers").exit_code == 2
