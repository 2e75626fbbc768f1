"""Passes of the images through the networks: their features, and what they cost."""

import numpy as np

from ..feature_extraction import (
    ImageSeconds,
    errors_at,
    extract_layers,
    seconds_per_image,
)

_N_TIMED = 64  # images


class Passes:
    """Runs networks on the images of a problem.

    Parameters
    ----------
    problem : Problem
        Images that cannot be read are added to its failures.

    Attributes
    ----------
    speeds : dict of Network to ImageSeconds
        Those that were measured.
    depths : dict of Network to dict of str to float
        The share of the operations up to each layer, after the first extraction.
    """

    def __init__(self, problem):
        self._problem = problem
        self.speeds = {}
        self.depths = {}
        self._first_seconds = {}

    def extract(self, network, n):
        """Return the `LayerFeatures` of all stages, for the first n images in order."""
        problem = self._problem
        indices = problem.order[:n]
        with errors_at(indices):
            found = extract_layers(
                network.extractor,
                problem.images(indices),
                "stages",
                n_images=len(problem),
                warns=False,
            )
        for failure in found.failures:
            index = int(indices[failure.index])
            problem.failures[index] = failure.at(index, failure.origin)
        self.depths[network] = dict(zip(found.names, found.depths, strict=True))
        return found

    def measure_speed(self, network):
        """Measure a network; of several measurements, the fastest counts.

        Other programs make a network slower for some seconds, and never faster.
        """
        found = self._time(network, "stages")
        known = self.speeds.get(network, found)
        self.speeds[network] = ImageSeconds(
            min(known.alone, found.alone), min(known.now, found.now)
        )

    def seconds_of_layer(self, network, layer):
        """Return the seconds for one image.

        Only the first layer and the neck are measured, because the network is compiled
        for each measured layer. Other layers are interpolated by their operations.
        """
        whole = self.speeds[network].alone
        if layer == "neck":
            return whole
        depths = self.depths[network]
        first = min(depths, key=depths.get)
        if network not in self._first_seconds:
            self._first_seconds[network] = self._time(network, [first]).alone
        known = [min(self._first_seconds[network], whole), whole]
        return float(np.interp(depths[layer], [depths[first], depths["neck"]], known))

    def _time(self, network, layers):
        problem = self._problem
        # The first images are a fair sample.
        indices = problem.order[:_N_TIMED]
        X = problem.images(indices)
        with errors_at(indices):
            return seconds_per_image(network.extractor, X, len(problem), layers)
