"""Features of a Ray data set, by workers that load the network once.

On a cluster with GPUs, add ``num_gpus=1`` to `map_batches` and name more workers; on
one machine one worker is enough, if it is given all cores.

Run: python examples/ray_data.py   (needs pip install 'ray[data]')
"""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before ray is imported

import numpy as np
import ray
from _photographs import make_views
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import FeatureMapper, PretrainedFeatureExtractor


def main():
    # A worker runs as many threads as the CPUs that it asks for, one unless it says so.
    # Ray is told of one CPU more: with none left to the tasks that read the data, it
    # would wait for ever. They take little time, so that the cores are not short.
    n_cpus = os.cpu_count()
    ray.init(num_cpus=n_cpus + 1, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    images, labels, names = make_views(60)
    data = ray.data.from_items(
        [
            {"image": image, "label": label}
            for image, label in zip(images, labels, strict=True)
        ]
    )
    data = data.map_batches(
        FeatureMapper,
        fn_constructor_args=[PretrainedFeatureExtractor(image_size=96, cache=None)],
        batch_size=16,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=n_cpus,
    )
    frame = data.drop_columns(["image"]).to_pandas()
    X = np.stack(frame["features"].tolist())
    y = frame["label"].to_numpy()
    train = np.arange(len(y)) % 8 < 4
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(X[train], y[train])
    print(f"{len(y)} views of {', '.join(names)}: {model.score(X[~train], y[~train])}")
    ray.shutdown()


if __name__ == "__main__":
    main()
