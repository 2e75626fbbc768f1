"""A network with its head, while it is made smaller."""

from torch import nn

from ..networks import change_layer, copy_network, floating_dtype, is_linear
from ._layers import LayerUse, observe_layers, owners_of_parameters, runs


class Model(nn.Module):
    """From images to outputs, on the CPU, in evaluation mode and without gradients.

    Parameters
    ----------
    body : TrainableNeck
    head : Module
        An identity for features.
    """

    def __init__(self, body, head):
        super().__init__()
        self.body = body
        self.head = head
        # Fitted attributes of an estimator whose training led here.
        self.training_record = {}
        self.cpu().eval().requires_grad_(False)

    def forward(self, images):
        """Return the outputs of images, uint8 or floats in [0, 1]."""
        return self.head(self.body(images))

    @property
    def n_bytes(self):
        """Bytes of the parameters and buffers of network and head."""
        tensors = [
            *self.network.parameters(), *self.network.buffers(), *self.head.parameters()
        ]  # fmt: skip
        return sum(one.numel() * one.element_size() for one in tensors)

    @property
    def network(self):
        """The network in the body."""
        return self.body.network


def drop_unused_head(model, images):
    """Keep one output of each linear layer after the neck, which is not used.

    The network keeps the layer, so that it is found again as the old head.

    Parameters
    ----------
    model : Model
        It is changed.
    images : Tensor of uint8, shape (n_images, 3, height, width)
    """
    network = model.network
    linear = [
        LayerUse(name, module)
        for name, module in network.named_modules()
        if is_linear(module) and module.out_features > 1
    ]
    used = observe_layers(model.body, linear, [images], lambda *call: None)
    owners = owners_of_parameters(network)
    pixels = (images.float() / 255).to(floating_dtype(network))
    for use in linear:
        if use in used or len(owners[id(use.layer.weight)]) > 1:
            continue
        n_in = use.layer.in_features
        change = {"layer": use.name, "kind": "resized", "inputs": n_in, "outputs": 1}
        tensors = {name: value[:1] for name, value in use.layer.named_parameters()}
        trial = copy_network(network)
        change_layer(trial, change, tensors)
        if runs(trial, pixels):
            change_layer(network, change, tensors)
