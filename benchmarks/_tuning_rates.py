"""Images per second of fine-tuning: a plain torch loop, and FineTuneClassifier.

Both train the same network on the same stored images with the same augmentation and
batches. The loop is what people write: contiguous memory, float32 (on a GPU automatic
mixed precision and a DataLoader with workers), torch's AdamW as it comes. The frozen
layers are in evaluation mode and keep no graph.
"""

import time
from unittest import mock

import numpy as np
from _common import n_usable_cpus, serve

N_CLASSES = 5


def make_images(job):
    """Return smooth random images with the margin of the network, and labels."""
    from PIL import Image

    rng = np.random.default_rng(0)
    side = round(job["image_size"] / 0.875)
    images = np.stack(
        [
            np.asarray(Image.fromarray(small).resize((side, side), Image.BICUBIC))
            for small in rng.integers(0, 256, (job["n_images"], 8, 8, 3), np.uint8)
        ]
    )
    return images, np.arange(job["n_images"]) % N_CLASSES


def plain_loop(job):
    """Train a network as a script does, with the same frozen stages."""
    import torch
    from torch.utils.data import DataLoader

    from skdeepfeat.networks import resolve_neck
    from skdeepfeat.training import Augmentation

    torch.manual_seed(0)
    device = torch.device(job["device"])
    neck = resolve_neck(
        job["network"], weights=_weights(job), image_size=job["image_size"]
    )
    body = neck.trainable().to(memory_format=torch.contiguous_format)
    body._memory_format = torch.contiguous_format
    first = 0 if job["unfreeze"] == "all" else body.n_stages - job["unfreeze"]
    body.train_parts(range(first, body.n_stages), freeze_statistics=True)
    head = torch.nn.Linear(body.n_features, N_CLASSES)
    model = torch.nn.Sequential(body, head).to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    on_gpu = device.type == "cuda"
    augment = Augmentation("flip_crop", neck.preprocessing.crop)
    images, labels = make_images(job)
    rng = np.random.default_rng(0)

    def collate(rows):
        return augment(images[rows], rng), torch.from_numpy(labels[rows])

    loader = DataLoader(
        np.arange(len(images)),
        job["batch_size"],
        shuffle=True,
        num_workers=n_usable_cpus() - 1 if on_gpu else 0,
        persistent_workers=on_gpu,
        pin_memory=on_gpu,
        collate_fn=collate,
    )
    clock = Clock()
    for _ in range(job["epochs"]):
        with clock:
            for pixels, wanted in loader:
                optimizer.zero_grad()
                with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
                    found = model(pixels.to(device, non_blocking=True))
                    loss = torch.nn.functional.cross_entropy(
                        found.float(), wanted.to(device), label_smoothing=0.1
                    )
                loss.backward()
                optimizer.step()
            loss.item()
    return clock.rates(job["n_images"])


def ours(job):
    """Fit a classifier; the clock runs in the epochs of phase two."""
    from skdeepfeat import FineTuneClassifier
    from skdeepfeat.training import TrainingRun

    clock = Clock()
    run_epoch = TrainingRun._run_epoch

    def timed(run, data):
        if run.settings.phase != "body":
            return run_epoch(run, data)
        with clock:
            return run_epoch(run, data)

    images, labels = make_images(job)
    classifier = FineTuneClassifier(
        job["network"],
        weights=_weights(job),
        image_size=job["image_size"],
        unfreeze=job["unfreeze"],
        n_views=job.get("n_views"),
        precision=job["precision"],
        batch_size=job["batch_size"],
        max_epochs=job["epochs"],
        device=job["device"],
        cache=None,
        random_state=0,
    )
    with mock.patch.object(TrainingRun, "_run_epoch", timed):
        classifier.fit(images, labels)
    return clock.rates(job["n_images"])


class Clock:
    """Seconds of each epoch: those that pass, and those of the processor."""

    def __init__(self):
        self.seconds, self.cpu_seconds = [], []

    def __enter__(self):
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *error):
        self.seconds.append(time.perf_counter() - self._start[0])
        self.cpu_seconds.append(time.process_time() - self._start[1])

    def rates(self, n_images):
        """Return images/s over all epochs; what happens once is in the first."""
        n_seen = n_images * len(self.seconds)
        return {
            "images_per_s": n_seen / sum(self.seconds),
            "images_per_cpu_s": n_seen / sum(self.cpu_seconds),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }


def _weights(job):
    return "default" if job["network"] == "efficientnet_lite0" else "random"


if __name__ == "__main__":
    serve({"loop": plain_loop, "ours": ours})
