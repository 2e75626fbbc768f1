"""Few labeled texts: word vectors, and an encoder that your own texts have taught.

The texts are docstrings that installed packages ship, and the task is to tell what they
are about. Twelve of each topic have labels. Three kinds of features are compared: the
words themselves (TF-IDF), averages of word vectors, and these beside what a
`SentenceEncoder` has learned from all docstrings, without labels, about which sentences
follow each other.

    python examples/texts.py [--n-labeled 12] [--n-docstrings 2000]

Needs the extra ``[text]``.
"""

import argparse

import numpy as np
from _docstrings import load_docstrings
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from skdeepfeat.text import SentenceEncoder, WordVectorFeatures

N_TESTED = 40  # of each topic


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-labeled", type=int, default=12, help="of each topic")
    parser.add_argument("--n-docstrings", type=int, default=2000)
    parser.add_argument("--max-epochs", type=int, default=10)
    arguments = parser.parse_args(argv)

    topics = {
        "statistics": ["scipy.stats"],
        "optimization": ["scipy.optimize"],
        "machine learning": ["sklearn.ensemble", "sklearn.linear_model"],
        "tables": ["pandas.core"],
        "neural networks": ["torch.nn.modules"],
    }
    docstrings, labels = load_docstrings(topics)
    labels = np.array(labels)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    by_topic = [order[labels[order] == topic] for topic in topics]
    tested = np.concatenate([rows[:N_TESTED] for rows in by_topic])
    labeled = np.concatenate(
        [rows[N_TESTED : N_TESTED + arguments.n_labeled] for rows in by_topic]
    )
    # The encoder reads all but the tested docstrings, whole and without labels.
    read = np.setdiff1d(order[: arguments.n_docstrings], tested)
    sentences = [one for row in read for one in docstrings[row]]
    documents = [row for row in read for _ in docstrings[row]]
    encoder = SentenceEncoder(max_epochs=arguments.max_epochs, random_state=0)
    encoder.fit(sentences, groups=documents)
    print(f"{encoder.n_pairs_} pairs of sentences that follow each other")

    X = np.array([sentences[0] for sentences in docstrings], dtype=object)
    both = make_union(WordVectorFeatures(), FrozenEstimator(encoder))
    contenders = {
        "TF-IDF": make_pipeline(TfidfVectorizer(), LogisticRegression(C=10)),
        "word vectors": make_pipeline(
            WordVectorFeatures(), StandardScaler(), LogisticRegression(C=0.1)
        ),
        "word vectors and encoder": make_pipeline(
            both, StandardScaler(), LogisticRegression(C=0.1)
        ),
    }
    for name, pipeline in contenders.items():
        pipeline.fit(X[labeled], labels[labeled])
        accuracy = pipeline.score(X[tested], labels[tested])
        print(f"{name:25s} accuracy {accuracy:.2f}")


if __name__ == "__main__":
    main()
