"""What a network has learned and looks at, as arrays and DataFrames.

Nothing here needs matplotlib: `skdeepfeat.plotting` draws these numbers.
"""

from ._confusion_examples import confusion_examples
from ._embedding import embedding
from ._gradient_norms import relative_gradient_norms
from ._hypersphere import alignment, uniformity
from ._linear_probe import linear_probe
from ._predictions import predict_graded
from ._similarity import cka, similarity
from ._top_losses import top_losses
from ._trajectories import Trajectories, trajectories
from ._transfer_scores import transfer_scores

__all__ = [
    "Trajectories",
    "alignment",
    "cka",
    "confusion_examples",
    "embedding",
    "linear_probe",
    "predict_graded",
    "relative_gradient_norms",
    "similarity",
    "top_losses",
    "trajectories",
    "transfer_scores",
    "uniformity",
]
