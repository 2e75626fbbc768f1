"""Networks with known weights, and what they are compared with."""

import numpy as np
import pytest
import safetensors.torch
import torch

from skdeepfeat.networks.running import _loaded_networks

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_networks():
    """Let no test profit from another's loaded network."""
    yield
    _loaded_networks._entries.clear()


@pytest.fixture
def batch():
    """Return a function that makes a batch of random pixels."""

    def make(n, height, width=None, seed=0):
        rng = np.random.default_rng(seed)
        shape = (n, height, width or height, 3)
        return rng.integers(0, 256, shape, dtype=np.uint8)

    return make


@pytest.fixture
def normalised():
    """Return a function that does by hand what the runner does on the device."""

    def make(pixels, mean, std):
        images = torch.from_numpy(pixels.astype(np.float32) / 255)
        images = (images - torch.tensor(mean)) / torch.tensor(std)
        return images.permute(0, 3, 1, 2).contiguous()

    return make


@pytest.fixture
def randomise():
    """Return a function that leaves no weight of a network at a trivial value.

    Fresh networks have zero biases, unit variances and empty heads, behind which
    mistakes hide.
    """

    def change(network, seed=0):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.02 * noise)
            for name, buffer in network.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_(0, 0.1, generator=generator)
                elif name.endswith("running_var"):
                    buffer.uniform_(0.7, 1.4, generator=generator)
        return network.eval()

    return change


@pytest.fixture
def saved(tmp_path):
    """Return a function that writes a network's weights; the file goes afterwards."""
    paths = []

    def save(network, name="weights.safetensors"):
        path = tmp_path / name
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(state, path)
        else:
            torch.save(state, path)
        paths.append(path)
        return path

    yield save
    for path in paths:
        path.unlink(missing_ok=True)


@pytest.fixture
def assert_close():
    """Return a function that compares rows with an oracle's, relative to its scale."""

    def compare(found, wanted, tolerance=1e-5):
        found = np.asarray(found)
        wanted = np.asarray(wanted.detach().numpy())
        assert found.shape == wanted.shape
        assert found.dtype == np.float32
        scale = np.abs(wanted).max()
        assert np.isfinite(scale) and scale > 0
        assert np.abs(found - wanted).max() / scale < tolerance

    return compare
