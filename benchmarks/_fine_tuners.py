"""Fine-tuning of the same network on the same rows: as people do it, and ours.

Each contender trains on CIFAR-10 images resized to one input size and is scored on the
test images after each epoch; what the scoring takes is not counted.
"""

import time

import numpy as np
from _common import serve
from sklearn.model_selection import train_test_split

BATCH_SIZE = 64


def load_rows(job):
    """Return training images, labels, test images and labels.

    With ``job["held_out"]`` the latter are so many of the training images, and the test
    images are not looked at.
    """
    with np.load(job["data"], allow_pickle=False) as data:
        X, y, X_test, y_test = (
            data[key] for key in ("X_train", "y_train", "X_test", "y_test")
        )
    if job["held_out"]:
        X, X_test, y, y_test = train_test_split(
            X, y, test_size=job["held_out"], stratify=y, random_state=0
        )
    rows = np.random.default_rng(0).permutation(len(X))[
        : job["n_train"] - job["held_out"]
    ]
    return X[rows], y[rows], X_test, y_test


def make_network():
    """Return the embedded network under timm's name, with ten new outputs."""
    import timm
    import torch
    from _networks import read_embedded

    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(read_embedded())
    network.classifier = torch.nn.Linear(1280, 10)
    return network.to(memory_format=torch.channels_last)


def resized(images, size):
    """Return images as normalised float tensors, as the plain recipe prepares them."""
    import torch
    from PIL import Image

    stack = np.stack(
        [
            np.asarray(Image.fromarray(image).resize((size, size), Image.BICUBIC))
            for image in images
        ]
    )
    tensor = torch.from_numpy(stack).permute(0, 3, 1, 2).float()
    return ((tensor / 255 - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)


def accuracy(network, images, labels):
    """Return the share of right labels."""
    import torch

    network.eval()
    with torch.inference_mode():
        found = torch.cat([network(part).argmax(1) for part in images.split(250)])
    return float((found.numpy() == labels).mean())


def flip_and_shift(images, margin, rng):
    """Mirror every other image and move each by up to `margin` pixels."""
    import torch

    padded = torch.nn.functional.pad(images, [margin] * 4, mode="reflect")
    size = images.shape[-1]
    result = torch.empty_like(images)
    for i in range(len(images)):
        top, left = rng.integers(0, 2 * margin + 1, 2)
        window = padded[i, :, top : top + size, left : left + size]
        result[i] = window.flip(2) if rng.integers(2) else window
    return result


def plain_recipe(job):
    """Train a head for one epoch, then all with AdamW, one-cycle, flips and shifts."""
    import torch

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    X, y, X_test, y_test = load_rows(job)
    start = time.perf_counter()
    network, size = make_network(), job["image_size"]
    images, labels = resized(X, size), torch.from_numpy(y).long()
    elapsed = time.perf_counter() - start
    test_images = resized(X_test, size)
    curve = []

    def run(n_epochs, parameters, rate, elapsed):
        n_steps = -(-len(images) // BATCH_SIZE)
        optimizer = torch.optim.AdamW(parameters, lr=rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, total_steps=n_epochs * n_steps
        )
        for _ in range(n_epochs):
            start = time.perf_counter()
            network.train()
            for rows in torch.randperm(len(images)).split(BATCH_SIZE):
                batch = flip_and_shift(images[rows], size // 8, rng)
                loss = torch.nn.functional.cross_entropy(
                    network(batch), labels[rows], label_smoothing=0.1
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            elapsed += time.perf_counter() - start
            curve.append([elapsed, accuracy(network, test_images, y_test)])
        return elapsed

    head = list(network.classifier.parameters())
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for parameter in head:
        parameter.requires_grad_(True)
    elapsed = run(1, head, 1e-2, elapsed)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    run(job["epochs"], network.parameters(), job["learning_rate"], elapsed)
    return {"curve": curve}


def skorch_tutorial(job):
    """Follow PyTorch's transfer-learning tutorial, with skorch as the loop.

    Random resized crops and mirror images, SGD 0.001 with momentum 0.9, a tenth of the
    rate after 7 epochs. Batches of 32 instead of 4, which take four times as long.
    """
    import torch
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback, LRScheduler
    from torchvision.transforms import v2

    torch.manual_seed(0)
    X, y, X_test, y_test = load_rows(job)
    size = job["image_size"]
    curve = []
    test_images = resized(X_test, size)

    class Images(torch.utils.data.Dataset):
        transform = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomResizedCrop(size, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return self.transform(X[i]), int(y[i])

    class Score(Callback):
        elapsed = 0.0

        def on_epoch_begin(self, net, **kwargs):
            self.start = time.perf_counter()

        def on_epoch_end(self, net, **kwargs):
            self.elapsed += time.perf_counter() - self.start
            curve.append([self.elapsed, accuracy(net.module_, test_images, y_test)])

    net = NeuralNetClassifier(
        make_network(),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.001,
        batch_size=32,
        max_epochs=job["epochs"],
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[
            ("rate", LRScheduler("StepLR", step_size=7, gamma=0.1)),
            ("score", Score()),
        ],
    )
    net.fit(Images(), None)
    return {"curve": curve}


def ours(job):
    """Fit FineTuneClassifier with its default settings, or so many epochs."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor

    X, y, X_test, y_test = load_rows(job)
    settings = {"image_size": job["image_size"], "device": job["device"]}
    clf = FineTuneClassifier(
        max_epochs=job["epochs"] or "auto",
        random_state=0,
        **settings,
        **job.get("parameters", {}),
    )
    start = time.perf_counter()
    clf.fit(X, y, X_val=X_test, y_val=y_test)
    total = time.perf_counter() - start
    history = clf.history_
    # What is not in an epoch (decoding, features of the frozen body for the training
    # and the test images) counts as passed before the first one, the scoring as well:
    # to our disadvantage.
    before = total - history["seconds"].sum()
    seconds = before + history["seconds"].cumsum()
    curve = np.column_stack([seconds, history["validation_score"]]).tolist()
    extractor = PretrainedFeatureExtractor(**settings)
    frozen = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": [0.0003, 0.001, 0.003, 0.01]},
        cv=3,
    ).fit(extractor.transform(X), y)
    return {
        "curve": curve,
        "test_accuracy": float(clf.score(X_test, y_test)),
        "frozen_accuracy": float(frozen.score(extractor.transform(X_test), y_test)),
        "n_epochs": clf.n_epochs_,
    }


if __name__ == "__main__":
    serve({"plain": plain_recipe, "skorch": skorch_tutorial, "ours": ours})
