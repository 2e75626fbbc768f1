"""Few labeled texts: averages of word vectors compared with word counts.

The texts are WordNet's definitions of things, as timm ships them. The task is to tell
an animal from an artifact, a food, a person or a plant, with few labels of each.

    python examples/texts.py [--n-labeled 8]

Needs the extra ``[text]``.
"""

import argparse

import numpy as np
from _definitions import load_definitions
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat.text import WordVectorFeatures


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-labeled", type=int, default=8, help="of each kind")
    arguments = parser.parse_args(argv)
    texts, labels = load_definitions()
    texts, labels = np.array(texts, dtype=object), np.array(labels)
    kinds = np.unique(labels)
    rng = np.random.default_rng(0)
    chosen = np.concatenate(
        [rng.choice(np.flatnonzero(labels == kind), 200, False) for kind in kinds]
    )
    texts_train, texts_test, labels_train, labels_test = train_test_split(
        texts[chosen],
        labels[chosen],
        train_size=arguments.n_labeled * len(kinds),
        stratify=labels[chosen],
        random_state=0,
    )
    contenders = {
        "TF-IDF": make_pipeline(TfidfVectorizer(), LogisticRegression(C=10)),
        "word vectors, mean": make_pipeline(
            WordVectorFeatures(), StandardScaler(), LogisticRegression(C=0.01)
        ),
        "word vectors, sif": make_pipeline(
            WordVectorFeatures(pooling="sif"),
            StandardScaler(),
            LogisticRegression(C=0.01),
        ),
    }
    for name, pipeline in contenders.items():
        pipeline.fit(texts_train, labels_train)
        accuracy = pipeline.score(texts_test, labels_test)
        print(f"{name:20s} accuracy {accuracy:.2f}")


if __name__ == "__main__":
    main()
