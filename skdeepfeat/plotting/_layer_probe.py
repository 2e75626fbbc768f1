"""LayerProbeDisplay: the score of a linear model over the depth of a network."""

import numpy as np

from ..inspection import linear_probe
from ._axes import TURNED, set_axes
from ._pictures import plain_legend

# Names of layers with more characters than this in total are turned.
_LINE_LENGTH = 60


class LayerProbeDisplay:
    """Visualization of a linear probe of the layers of a network.

    It is recommended to use `from_estimator` or `from_result` to create one. All
    parameters are stored as attributes.

    Parameters
    ----------
    probe : DataFrame
        As `skdeepfeat.inspection.linear_probe` returns it.
    estimator_name : str or None, default=None
        Name in the legend.

    Attributes
    ----------
    line_ : matplotlib Line2D
        The mean scores, in the order of depth.
    errorbar_ : matplotlib ErrorbarContainer
        The scores with bars of one standard error to each side.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    skdeepfeat.inspection.linear_probe : The numbers without the plot.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.plotting import LayerProbeDisplay
    >>> digits = load_digits()
    >>> LayerProbeDisplay.from_estimator(
    ...     PretrainedFeatureExtractor(image_size=64),
    ...     digits.images[:100] / 16,
    ...     digits.target[:100],
    ...     cv=3,
    ... )
    <...>
    """

    def __init__(self, *, probe, estimator_name=None):
        self.probe = probe
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(
        cls,
        extractor,
        X,
        y,
        layers="stages",
        estimator=None,
        cv=5,
        *,
        groups=None,
        scoring=None,
        n_jobs=None,
        name=None,
        ax=None,
        **kwargs,
    ):
        """Probe the layers of a network and plot the scores.

        Parameters
        ----------
        extractor, X, y, layers, estimator, cv, groups, scoring, n_jobs :
            As for `skdeepfeat.inspection.linear_probe`.
        name : str or None, default=None
            Name in the legend.
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        **kwargs : dict
            Passed to matplotlib's `errorbar`.

        Returns
        -------
        display : LayerProbeDisplay
        """
        options = {"groups": groups, "scoring": scoring, "n_jobs": n_jobs}
        probe = linear_probe(extractor, X, y, layers, estimator, cv, **options)
        return cls.from_result(probe, name=name, ax=ax, **kwargs)

    @classmethod
    def from_result(cls, probe, *, name=None, ax=None, **kwargs):
        """Plot the result of a linear probe.

        Parameters
        ----------
        probe : DataFrame
            As `skdeepfeat.inspection.linear_probe` returns it.
        name, ax, **kwargs
            As for `from_estimator`.

        Returns
        -------
        display : LayerProbeDisplay
        """
        return cls(probe=probe, estimator_name=name).plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, name=None, **kwargs):
        """Plot the scores over the layers, from the first to the last.

        To compare two probes of the same layers, give the second one the axes of the
        first.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        name : str or None, default=None
            Name in the legend. None is `estimator_name`. Without a name there is no
            legend.
        **kwargs : dict
            Passed to matplotlib's `errorbar`.

        Returns
        -------
        display : LayerProbeDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        ax = set_axes(self, ax)
        probe = self.probe.sort_values("depth", kind="stable")
        name = self.estimator_name if name is None else name
        # Layers near the end have nearly the same depth: equal distances keep their
        # names apart.
        positions = np.arange(len(probe))
        style = {"marker": "o", "markersize": 4, "capsize": 3, "label": name}
        scores, errors = probe[["score", "standard_error"]].to_numpy().T
        self.errorbar_ = ax.errorbar(positions, scores, yerr=errors, **(style | kwargs))
        self.line_ = self.errorbar_.lines[0]
        labels = [
            f"{layer}\n{depth:.0%}"
            for layer, depth in zip(probe["layer"], probe["depth"], strict=True)
        ]
        turned = {}
        if sum(map(len, probe["layer"])) > _LINE_LENGTH:
            turned = TURNED
            labels = [label.replace("\n", ", ") for label in labels]
        ax.set_xticks(positions, labels, **turned)
        score = self.probe.attrs.get("scoring", "score")
        ax.set(
            xlabel="Layer, share of the network's operations up to it",
            ylabel=f"{score[:1].upper()}{score[1:]} of a linear model",
        )
        if name is not None:
            plain_legend(ax)
        return self
