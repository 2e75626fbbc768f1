"""Images per second of fine-tuning: a plain torch loop, and FineTuneClassifier.

Both train the same network on the same stored images with the same augmentation and
batches. The loop is what people write: contiguous memory, float32 (on a GPU automatic
mixed precision and a DataLoader with workers), torch's AdamW as it comes. The frozen
layers are in evaluation mode and keep no graph. With data, both are scored, too.
"""

import time
from unittest import mock

import numpy as np
from _common import n_usable_cpus, serve

# Of random images.
N_CLASSES = 5


def make_images(job, part="train"):
    """Return images with the margin of the network, and labels.

    They are rows of ``job["data"]``, other ones for each ``job["seed"]``, or smooth
    random images. The part ``"test"`` is empty without data.
    """
    from PIL import Image

    n_images = job["n_images"]
    if "data" in job:
        with np.load(job["data"], allow_pickle=False) as data:
            small, labels = data[f"X_{part}"], data[f"y_{part}"]
        if part == "train":
            rows = np.random.default_rng(job["seed"]).permutation(len(small))
            small, labels = small[rows[:n_images]], labels[rows[:n_images]]
    else:
        n_images = n_images if part == "train" else 0
        rng = np.random.default_rng(0)
        small = rng.integers(0, 256, (n_images, 8, 8, 3), np.uint8)
        labels = np.arange(n_images) % N_CLASSES
    side = round(job["image_size"] / 0.875)
    images = [
        np.asarray(Image.fromarray(image).resize((side, side), Image.BICUBIC))
        for image in small
    ]
    return np.array(images, np.uint8).reshape(-1, side, side, 3), labels


def plain_loop(job):
    """Train a network as a script does, with the same frozen stages."""
    import torch
    from torch.utils.data import DataLoader

    from skdeepfeat.networks import resolve_neck
    from skdeepfeat.training import Augmentation

    seed = job.get("seed", 0)
    torch.manual_seed(seed)
    device = torch.device(job["device"])
    images, labels = make_images(job)
    neck = resolve_neck(
        job["network"], weights=_weights(job), image_size=job["image_size"]
    )
    body = neck.trainable().to(memory_format=torch.contiguous_format)
    body._memory_format = torch.contiguous_format
    first = 0 if job["unfreeze"] == "all" else body.n_stages - job["unfreeze"]
    body.train_parts(range(first, body.n_stages), freeze_statistics=True)
    head = torch.nn.Linear(body.n_features, labels.max() + 1)
    model = torch.nn.Sequential(body, head).to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    on_gpu = device.type == "cuda"
    augment = Augmentation("flip_crop", neck.preprocessing.crop)
    rng = np.random.default_rng(seed)

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
    test, wanted = make_images(job, "test")
    right = np.zeros(len(test), bool)
    center = Augmentation(None, neck.preprocessing.crop)
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(test), 250):
            rows = slice(start, start + 250)
            found = model(center(test[rows], rng).to(device)).argmax(1)
            right[rows] = found.cpu().numpy() == wanted[rows]
    return clock.rates(job["n_images"], right)


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
        random_state=job.get("seed", 0),
    )
    with mock.patch.object(TrainingRun, "_run_epoch", timed):
        classifier.fit(images, labels)
    test, wanted = make_images(job, "test")
    right = classifier.predict(test) == wanted if len(test) else np.zeros(0, bool)
    return clock.rates(job["n_images"], right)


class Clock:
    """Seconds of each epoch: those that pass, and those of the processor."""

    def __init__(self):
        self.seconds, self.cpu_seconds = [], []

    def __enter__(self):
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *error):
        self.seconds.append(time.perf_counter() - self._start[0])
        self.cpu_seconds.append(time.process_time() - self._start[1])

    def rates(self, n_images, right):
        """Return images/s over all epochs, and which test images were recognized.

        What happens once is in the first epoch.
        """
        n_seen = n_images * len(self.seconds)
        return {
            "images_per_s": n_seen / sum(self.seconds),
            "images_per_cpu_s": n_seen / sum(self.cpu_seconds),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "accuracy": float(right.mean()) if len(right) else None,
        }


def _weights(job):
    return "default" if job["network"] == "efficientnet_lite0" else "random"


if __name__ == "__main__":
    serve({"loop": plain_loop, "ours": ours})
