"""Few labeled texts: word vectors and sentence encoders beside TF-IDF.

The texts are those that installed packages ship: WordNet's definitions of five kinds
of things, or docstrings of nine topics, as their first sentence or whole. Eighty of
each topic are kept for the test. Of the others, the labels of a few are drawn, several
times. What learns without labels reads all others.

    python benchmarks/texts.py [--n-labeled 8 16 32] [--repeats 10] [--kinds ...]
        [--learned ...] [--max-epochs N] [--output FOLDER]
"""

import argparse
import logging
import pathlib
import sys
import time

import numpy as np
from _common import (
    describe_machine,
    machine_line,
    markdown_table,
    watch_others,
    write_results,
)
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler

from skdeepfeat.text import SentenceEncoder, Word2Vec, WordVectorFeatures

sys.path.append(str(pathlib.Path(__file__).parents[1] / "examples"))
from _definitions import load_definitions  # noqa: E402
from _docstrings import load_docstrings  # noqa: E402

N_TESTED = 80  # of each topic

logger = logging.getLogger("benchmarks.texts")

# Of logistic regression, chosen by cross-validation among the labeled texts.
STRENGTHS = [1e-3, 1e-2, 1e-1, 10]

# What learns without labels, the slowest last.
LEARNED = {
    "SentenceEncoder, mean": SentenceEncoder(encoder="mean"),
    "SentenceEncoder, gru": SentenceEncoder(),
    "Word2Vec": Word2Vec(),
    "SentenceEncoder, gru, vectors learned": SentenceEncoder("learned"),
    "SentenceEncoder, gru, decode": SentenceEncoder(decode=True),
}

KINDS = {
    "definitions": lambda sentences: sentences[0],
    "first sentences": lambda sentences: sentences[0],
    "whole docstrings": " ".join,
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--n-labeled", type=int, nargs="+", default=[8, 16, 32], help="of each topic")
    add("--repeats", type=int, default=10, help="draws of labeled texts")
    add("--max-epochs", type=int, help="of what learns without labels")
    add(
        "--learned",
        nargs="*",
        choices=list(LEARNED),
        default=[],
        help="what reads docstrings without labels",
    )
    add("--kinds", nargs="+", choices=list(KINDS), default=["definitions"])
    add("--n-docstrings", type=int, help="take so many of them instead of all")
    add("--output", type=pathlib.Path, default="bench_output")
    return parser.parse_args(argv)


def fit_without_labels(names, docstrings, max_epochs):
    """Return transformers, and the seconds that their fits took."""
    sentences = [one for docstring in docstrings for one in docstring]
    groups = np.repeat(np.arange(len(docstrings)), list(map(len, docstrings)))
    epochs = {} if max_epochs is None else {"max_epochs": max_epochs}
    fitted, seconds = {}, {}
    for name in names:
        one = clone(LEARNED[name]).set_params(random_state=0, **epochs)
        start = time.perf_counter()
        options = {"groups": groups} if isinstance(one, SentenceEncoder) else {}
        fitted[name] = one.fit(sentences, **options)
        seconds[name] = time.perf_counter() - start
        logger.info("%s was fitted in %.0f s", name, seconds[name])
    for pooling in ("mean", "tfidf", "sif", "max"):
        fitted[f"GloVe, {pooling}"] = WordVectorFeatures(pooling=pooling).fit(sentences)
    return fitted, seconds


def make_features(fitted, texts, seen):
    """Return dense features of all texts, scaled by those that are not tested."""
    features = {name: one.transform(texts) for name, one in fitted.items()}
    if "SentenceEncoder, gru" in features:
        features["GloVe, mean + SentenceEncoder, gru"] = np.hstack(
            [features["GloVe, mean"], features["SentenceEncoder, gru"]]
        )
    return {
        name: StandardScaler().fit(rows[seen]).transform(rows)
        for name, rows in features.items()
    }


def score(rows, labels, drawn, tested):
    """Return the accuracy of logistic regression."""
    # With thousands, one split is enough.
    folds = 3 if len(drawn) < 1000 else StratifiedShuffleSplit(1, random_state=0)
    model = LogisticRegression(max_iter=300)
    search = GridSearchCV(model, {"C": STRENGTHS}, cv=folds)
    search.fit(rows[drawn], labels[drawn])
    return search.score(rows[tested], labels[tested])


def tfidf_of(texts, fitted_to):
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    return vectorizer.fit([texts[i] for i in fitted_to]).transform(texts)


def measure(texts, labels, features, seen, tested, n_labeled, repeats):
    """Return the accuracies of each contender, one per draw of labeled texts."""
    scores = {}
    known_words = tfidf_of(texts, seen)
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        if n_labeled is None:
            drawn = seen
        else:
            drawn = np.concatenate(
                [
                    rng.choice(seen[labels[seen] == topic], n_labeled, replace=False)
                    for topic in np.unique(labels)
                ]
            )
        contenders = {
            "TF-IDF": tfidf_of(texts, drawn),
            "TF-IDF, words of all texts": known_words,
            **features,
        }
        for name, rows in contenders.items():
            found = score(rows, labels, drawn, tested)
            scores.setdefault(name, []).append(found)
    return scores


def measure_kind(texts, labels, fitted, seen, tested, arguments):
    """Return the accuracies by number of labels and contender."""
    features = make_features(fitted, texts, seen)
    sizes = {str(n): (n, arguments.repeats) for n in arguments.n_labeled}
    sizes[f"all {len(seen)}"] = (None, 1)
    found = {}
    for size, how in sizes.items():
        found[size] = measure(texts, labels, features, seen, tested, *how)
        means = {
            name: round(float(np.mean(one)), 3) for name, one in found[size].items()
        }
        logger.info("%s labels: %s", size, means)
    return found


def in_words(values, baseline):
    """Return a mean, and a 95 % interval of the difference to another mean."""
    mean = f"{np.mean(values):.3f}"
    if len(values) == 1:
        return mean
    # Of the same draws, so that what is hard about a draw cancels.
    gains = np.subtract(values, baseline)
    half = 1.96 * gains.std(ddof=1) / np.sqrt(len(gains))
    return f"{mean} ({gains.mean():+.3f} ± {half:.3f})"


def main(argv=None):
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logger.setLevel(logging.INFO)
    machine = describe_machine()
    if arguments.kinds == ["definitions"]:
        definitions, labels = load_definitions()
        docstrings = [[definition] for definition in definitions]
    elif "definitions" in arguments.kinds:
        raise SystemExit("Measure definitions alone: they are other texts.")
    else:
        docstrings, labels = load_docstrings()
    labels = np.array(labels)
    if arguments.n_docstrings is not None:
        chosen = np.linspace(0, len(labels) - 1, arguments.n_docstrings, dtype=int)
        docstrings, labels = [docstrings[i] for i in chosen], labels[chosen]
    _, counts = np.unique(labels, return_counts=True)
    # As many of each topic, so that the accuracy of guessing is known.
    n_tested = min(N_TESTED, counts.min() // 3)
    rng = np.random.default_rng(0)
    tested = np.concatenate(
        [
            rng.choice(np.flatnonzero(labels == topic), n_tested, replace=False)
            for topic in np.unique(labels)
        ]
    )
    seen = np.setdiff1d(np.arange(len(labels)), tested)
    with watch_others(machine):
        fitted, seconds = fit_without_labels(
            arguments.learned, [docstrings[i] for i in seen], arguments.max_epochs
        )
        results = {
            kind: measure_kind(
                [text_of(docstring) for docstring in docstrings],
                labels, fitted, seen, tested, arguments,
            )
            for kind, text_of in KINDS.items()
            if kind in arguments.kinds
        }  # fmt: skip
    lines = [machine_line(machine), ""]
    for kind, found in results.items():
        rows = [
            [name]
            + [in_words(scores[name], scores["TF-IDF"]) for scores in found.values()]
            + [f"{seconds[name]:.0f}" if name in seconds else ""]
            for name in next(iter(found.values()))
        ]
        header = [kind, *(f"{size} labels" for size in found), "fit, s"]
        lines += [markdown_table(header, rows), ""]
    report = "\n".join(lines)
    print(report)
    document = {
        "machine": machine,
        "n_texts": {topic: int(sum(labels == topic)) for topic in set(labels.tolist())},
        "n_tested": len(tested),
        "seconds": seconds,
        "results": results,
    }
    write_results(arguments.output, "texts", document, report)


if __name__ == "__main__":
    main()
