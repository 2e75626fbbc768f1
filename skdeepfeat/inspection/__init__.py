"""What a network has learned and looks at, as arrays and DataFrames.

Nothing here needs matplotlib: `skdeepfeat.plotting` draws these numbers.
"""

from ._activation_maps import activation_maps, explain
from ._confusion_examples import confusion_examples
from ._dead_features import dead_features
from ._deconvnet import deconvnet, project_images
from ._embedding import embedding
from ._first_filters import first_filters
from ._gradient_norms import relative_gradient_norms
from ._hypersphere import alignment, refuse_zero_rows, uniformity
from ._labels import check_targets
from ._linear_probe import linear_probe, score_name
from ._predictions import predict_graded
from ._similarity import cka, similarity
from ._top_losses import top_losses
from ._top_patches import TopPatches, find_top_patches, project_patches, top_patches
from ._trajectories import Trajectories, trajectories
from ._transfer_scores import transfer_scores

__all__ = [
    "TopPatches",
    "Trajectories",
    "activation_maps",
    "alignment",
    "cka",
    "confusion_examples",
    "dead_features",
    "deconvnet",
    "embedding",
    "first_filters",
    "linear_probe",
    "relative_gradient_norms",
    "similarity",
    "top_losses",
    "top_patches",
    "trajectories",
    "transfer_scores",
    "uniformity",
    # Not public: for displays and `model_selection`.
    "check_targets",
    "explain",
    "find_top_patches",
    "predict_graded",
    "project_images",
    "project_patches",
    "refuse_zero_rows",
    "score_name",
]
