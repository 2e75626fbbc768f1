"""TorchFeatureExtractor: any torch module over any items, as a transformer."""

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted
from torch.nn import Module

from .._utils._choices import ON_ERROR
from .._utils._public_function import public_function
from ..networks import N_PROBE_ITEMS, resolve_item_neck
from ._description import DescribedMixin
from ._extraction import open_extraction
from ._listed_items import ListedItems, list_items
from ._network_estimator import NetworkEstimatorMixin
from ._network_transformer import NetworkTransformerMixin
from ._settings import ExtractionSettings

# Number of items that are searched for some that `collate` accepts.
_N_EXAMPLES = 64


class TorchFeatureExtractor(
    DescribedMixin,
    NetworkEstimatorMixin,
    NetworkTransformerMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Extract features from any items with any torch module.

    The items can be texts, recordings, spectrograms, rows of a table, graphs given as
    dicts, or anything else. `PretrainedFeatureExtractor` does the same for images, and
    knows how to read, resize and batch them. Here, `collate` does that.

    Each item goes through the module once. Its features are stored in a cache on disk,
    with the content of the item and the identity of the module as the key. Other folds,
    candidates, processes and later runs read them from there.

    Parameters
    ----------
    model : torch.nn.Module
        Any module. It runs in evaluation mode and is not changed.

    collate : callable
        ``collate(list of items)`` returns the module's input: a tensor, a tuple of
        positional inputs, or a dict of keyword inputs. Floating-point inputs are
        converted to the type of the module's parameters, and all inputs are moved to
        the device. Two entries of a dict have a special meaning (see the Notes):
        ``"attention_mask"`` and ``"lengths"``.

    layer : str, list of str, or None, default=None
        The layer whose output is returned.

        * None or ``"neck"``: the features that enter the last linear layer, if the
          module ends with one, and the output of the module otherwise.
        * A name of ``model.named_modules()``: the output of that module.
        * ``"output"``: the output of the whole module.
        * A list: all of these layers, computed in one pass and concatenated.

        Layers after the last requested one do not run.

    pooling : {"auto", "avg", "max", "gem", "flatten", "cls", "mean"}, default="auto"
        How the output of a layer is reduced to one vector per item. ``"auto"`` means
        the average over maps and over the positions of a sequence, and the class token
        if there is one. ``"flatten"`` keeps every position, and needs items of equal
        length. The others are those of `PretrainedFeatureExtractor`.

    key : callable or None, default=None
        ``key(item)`` returns the identity of an item: a str, bytes, number, array,
        tensor, or a list, tuple or dict of these. None uses the item itself, if it is
        one of these. Otherwise the features are not cached, and one `CacheWarning` says
        so.

    batch_size : int or "auto", default="auto"
        Number of items that run through the module at once. ``"auto"`` means 32 on a
        CPU and 256 elsewhere. If the device runs out of memory, the batch is halved and
        the work continues.

    device : str, torch.device or list of these, default="auto"
        Where the module runs. ``"auto"`` selects the first of cuda, mps and xpu that is
        available, and the CPU otherwise. The devices of a list share the batches.

    cache : "default", path-like, FeatureCache, mapping or None, default="default"
        Where features are stored, as for `PretrainedFeatureExtractor`. None: nothing is
        stored.

    n_jobs : int or None, default=None
        Number of workers that compute the items not yet cached, through joblib. None
        means 1 unless in a `joblib.parallel_config` context, and -1 means all.

    on_error : {"raise", "nan"}, default="raise"
        What to do with an item for which `collate` or `key` fails. ``"raise"`` raises a
        `BadItemError` that names the index and the cause. ``"nan"`` returns a row of
        NaN and gives one `BadItemWarning` that lists all such items.

    verbose : int, default=0
        Above 0, a progress bar counts the items that go through the module.

    Attributes
    ----------
    layers_ : list of str
        The names of the layers whose output is returned.
    n_features_out_ : int
        Number of features.
    device_ : str, list of str, or None
        Where the module runs. A list if `device` is one. None if workers (`n_jobs`) run
        it.
    n_features_in_ : int
        Number of columns seen in `fit`. 1 if X is not a table.
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        The names of the columns, if X was a data frame.

    See Also
    --------
    PretrainedFeatureExtractor : The same for images and named networks.
    skdeepfeat.text.WordVectorFeatures : Texts as averages of word vectors.

    Notes
    -----
    X may be a list, tuple, Series, array or tensor of items, or a one-column frame. The
    items of a table of numbers are its rows, as arrays of shape (n_features_in_,).

    **Padding.** An item should have the same features whatever its neighbors in a
    batch. If `collate` returns a dict with ``"attention_mask"`` of shape (n_items,
    n_positions), nonzero where there is no padding, or with ``"lengths"`` of shape
    (n_items,), the pooling leaves the padding out. In float32 the features then agree
    to a relative 1e-4, unless the module itself mixes padding into the other positions.
    Either entry is passed on to the module only if its `forward` has a parameter of
    that name. For a layer with fewer positions, as after a convolution with a stride,
    the mask is shrunk. If an item is all padding, `collate` counts as failed for it.

    **What identifies the module.** Its code is not known, so a module is recognized by
    its tensors, and by its features for the first four items that were stored for it.
    The cache stores these items with their features. Each process computes them again
    once and compares them. It does so again after a change of a class, a function or a
    constant that the module or `collate` uses by name, as in a notebook. Two of the
    items also run alone, and if this changes their features, nothing is cached. Such a
    comparison cannot notice

    * a change of the code, of a constant or of `collate` that does not change the
      features of these four items, such as a rule for other languages or a larger
      ``max_length``;
    * a change during a process inside an object of an installed package, such as a
      tokenizer, inside one of more than 100,000 entries, such as a vocabulary, or in a
      file that the module reads each time.

    After such a change, use another cache, or `FeatureCache.clear`. Items without known
    content are not stored. With `key`, they are looked up in X, and if they are not in
    X, the module counts as a new one.

    Examples
    --------
    >>> import torch
    >>> from skdeepfeat import TorchFeatureExtractor
    >>> def collate(texts):
    ...     codes = [torch.tensor(list(text.encode())) for text in texts]
    ...     lengths = torch.tensor([len(one) for one in codes])
    ...     padded = torch.nn.utils.rnn.pad_sequence(codes, batch_first=True)
    ...     return {"input": padded, "lengths": lengths}
    >>> model = torch.nn.Embedding(256, 16)
    >>> extractor = TorchFeatureExtractor(model, collate, cache=None)
    >>> extractor.fit_transform(["short", "a longer text"]).shape
    (2, 16)
    """

    _parameter_constraints: dict = {
        **NetworkTransformerMixin._parameter_constraints,
        "model": [Module],
        "collate": [callable],
        "layer": [str, list, tuple, None],
        "key": [callable, None],
        "on_error": [StrOptions(set(ON_ERROR))],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model,
        collate,
        *,
        layer=None,
        pooling="auto",
        key=None,
        batch_size="auto",
        device="auto",
        cache="default",
        n_jobs=None,
        on_error="raise",
        verbose=0,
    ):
        self.model = model
        self.collate = collate
        self.layer = layer
        self.pooling = pooling
        self.key = key
        self.batch_size = batch_size
        self.device = device
        self.cache = cache
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.verbose = verbose

    @public_function
    def fit(self, X, y=None):
        """Check the parameters and the form of X. Nothing is learned.

        Parameters
        ----------
        X : array-like of items, shape (n_samples,), or table (n_samples, n_features_in)
            The items.
        y : Ignored
            Not used.

        Returns
        -------
        self : TorchFeatureExtractor
            The fitted estimator.

        Raises
        ------
        TypeError, ValueError
            If a parameter is wrong. The module has not run by then.
        """
        self._validate_params()
        items = self._check_items(X, reset=True)
        self._resolve_neck(())
        is_list = isinstance(self.layer, (list, tuple))
        self.layers_ = list(self.layer) if is_list else [self.layer or "neck"]
        self.device_ = self._resolve_device()
        # The outputs of the layers are only known after items have gone through them.
        self._examples = [items[i] for i in range(min(len(items), N_PROBE_ITEMS))]
        return self

    @public_function
    def transform(self, X):
        """Return the features of the items.

        Parameters
        ----------
        X : array-like of items, shape (n_samples,), or table (n_samples, n_features_in)
            The items.

        Returns
        -------
        features : ndarray of float32, shape (n_samples, n_features_out)
            Row i belongs to item i. With ``on_error="nan"``, the rows of items for
            which `collate` or `key` fails are NaN.

        Raises
        ------
        BadItemError
            If `collate` or `key` fails for an item, with ``on_error="raise"``.
        ValueError
            If `collate` takes each item alone, but not several together.
        NonFiniteOutputError
            If the module returns NaN or infinite values, whatever `on_error` is. The
            features of other items are in the cache.
        OutOfMemoryError
            If not even one item fits into the memory of the device.
        """
        source, neck, settings = self._inspected(X)
        with open_extraction(source, neck, self.cache, settings) as extraction:
            return extraction.features()

    def _inspected(self, X):
        """Return the items, the neck and the settings; without X those of the fit."""
        self._validate_params()
        if X is None:
            check_is_fitted(self, "layers_")
            X = self._examples
        items = X
        if not isinstance(X, ListedItems):
            items = ListedItems(self._check_items(X, reset=False), self.key)
        examples = [items.item(i) for i in range(min(len(items), _N_EXAMPLES))]
        return items, self._resolve_neck(examples), ExtractionSettings.of(self)

    def _check_items(self, X, *, reset):
        """Return the items of X; set or check the names and number of its columns."""
        items, is_frame = list_items(X), hasattr(X, "columns")
        is_table = is_frame or getattr(items, "ndim", 1) == 2
        self._note_columns(X if is_frame else items, is_table, reset=reset)
        return items

    def _resolve_neck(self, examples=None):
        if examples is None:
            check_is_fitted(self, "layers_")
            examples = self._examples
        neck = resolve_item_neck(
            self.model,
            self.collate,
            layer=self.layer,
            pooling=self.pooling,
            examples=examples,
        )
        return neck.snapshot() if examples else neck

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags
