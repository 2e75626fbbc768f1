"""Tests of WordVectorFeatures and of the files that it reads."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import BadFileError
from skdeepfeat.text import Word2Vec, WordVectorFeatures

VECTORS = {
    "cat": [1.0, 0.0, 2.0],
    "dog": [0.5, 0.5, -1.0],
    "fish": [0.0, 1.0, 0.25],
    "é": [3.0, -1.0, 0.0],
}
TEXTS = ["The cat, the dog!", "fish", "cat cat fish é", "nothing known here", ""]


def words_of(text):
    return [word for word in text.lower().replace("!", "").replace(",", "").split()]


def vectors_of(text):
    return np.array([VECTORS[w] for w in words_of(text) if w in VECTORS])


@pytest.mark.filterwarnings("ignore:.*have no vector")
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_texts_are_averages_of_their_known_words(pooling):
    features = WordVectorFeatures(VECTORS, pooling=pooling).fit_transform(TEXTS)
    assert features.dtype == np.float32 and features.shape == (5, 3)
    for row, text in zip(features[:3], TEXTS, strict=False):
        expected = getattr(vectors_of(text), pooling)(axis=0)
        np.testing.assert_allclose(row, expected, rtol=1e-6)
    np.testing.assert_array_equal(features[3:], 0)


@pytest.mark.filterwarnings("ignore:.*have no vector")
def test_tfidf_weights_rare_words_more():
    fitted = WordVectorFeatures(VECTORS, pooling="tfidf").fit(TEXTS)
    n, counts = 5, {"cat": 2, "dog": 1, "fish": 2, "é": 1}
    idf = {word: np.log((1 + n) / (1 + k)) + 1 for word, k in counts.items()}
    assert fitted.idf_ == pytest.approx(idf)
    weights = np.array([idf[word] for word in ("cat", "cat", "fish", "é")])
    expected = weights @ vectors_of(TEXTS[2]) / weights.sum()
    np.testing.assert_allclose(fitted.transform(TEXTS[2:3])[0], expected, rtol=1e-6)


def test_sif_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    vectors = {f"w{i}": rng.normal(size=6) + 1 for i in range(20)}
    texts = [
        " ".join(f"w{i}" for i in rng.zipf(1.5, size=rng.integers(1, 9)) % 20)
        for _ in range(40)
    ]
    fitted = WordVectorFeatures(vectors, pooling="sif").fit(texts[:30])
    words = [word for text in texts[:30] for word in text.split()]

    def average(text):
        total = np.zeros(6)
        for word in text.split():
            total += 1e-3 / (1e-3 + words.count(word) / len(words)) * vectors[word]
        return total / len(text.split())

    train = np.array([average(text) for text in texts[:30]])
    component = np.linalg.svd(train)[2][0]
    rows = np.array([average(text) for text in texts])
    expected = rows - rows @ component[:, None] * component
    np.testing.assert_allclose(fitted.transform(texts), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*have no vector")
def test_a_text_without_known_words_is_treated_as_wanted():
    missing = WordVectorFeatures(VECTORS, on_missing="nan").fit_transform(TEXTS)
    assert np.isnan(missing[3:]).all() and np.isfinite(missing[:3]).all()
    with pytest.raises(ValueError, match="Index 3 .*2 of 5"):
        WordVectorFeatures(VECTORS, on_missing="raise").fit_transform(TEXTS)


def test_many_unknown_words_are_reported():
    texts = ["cat quux", "quux corge dog"]
    with pytest.warns(UserWarning, match="60% .*quux") as record:
        fitted = WordVectorFeatures(VECTORS).fit(texts)
    assert record[0].filename == __file__
    # Also through what scikit-learn wraps around it.
    pipeline = make_pipeline(WordVectorFeatures(VECTORS), StandardScaler())
    with pytest.warns(UserWarning, match="60% .*quux") as record:
        pipeline.fit_transform(texts)
    assert record[0].filename == __file__
    assert fitted.unknown_fraction_ == pytest.approx(3 / 5)


FORMS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "column": lambda texts: np.array(texts, dtype=object)[:, None],
    "series": pd.Series,
    "frame": lambda texts: pd.DataFrame({"text": texts}),
    # A pandas frame has its columns as attributes.
    "frame of a column named column": lambda texts: pd.DataFrame({"column": texts}),
    "categories": lambda texts: pd.Series(texts, dtype="category"),
    "arrow": lambda texts: pd.Series(texts, dtype=pd.ArrowDtype(pa.string())),
    "arrow array": pa.array,
    "arrow table": lambda texts: pa.table({"text": texts}),
    "polars": pl.Series,
    "polars frame": lambda texts: pl.DataFrame({"text": texts}),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_texts_may_be_in_any_column(form):
    texts = ["a cat", "the dog and fish"]
    expected = WordVectorFeatures(VECTORS).fit_transform(texts)
    features = WordVectorFeatures(VECTORS).fit(form(texts)).transform(form(texts))
    np.testing.assert_array_equal(features, expected)


def test_it_works_in_a_column_transformer_and_as_a_pickle():
    frame = pd.DataFrame({"text": ["cat", "dog", "fish", "cat dog"], "n": [1, 2, 3, 4]})
    columns = ColumnTransformer(
        [("text", WordVectorFeatures(VECTORS), "text"), ("n", "passthrough", ["n"])]
    ).set_output(transform="pandas")
    pipeline = make_pipeline(columns, LogisticRegression())
    pipeline.fit(frame, [0, 1, 1, 0])
    copy = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(copy.predict(frame), pipeline.predict(frame))
    assert list(columns.fit_transform(frame).columns[:2]) == [
        "text__wordvectorfeatures0",
        "text__wordvectorfeatures1",
    ]


def test_a_fitted_word2vec_survives_clone():
    texts = ["cat dog fish", "dog fish cat"] * 20
    word2vec = Word2Vec(4, max_epochs=1, random_state=0).fit(texts)
    features = clone(WordVectorFeatures(word2vec)).fit_transform(texts)
    np.testing.assert_allclose(features, word2vec.transform(texts), rtol=1e-5)


# -- Files


def write_text(path, header, vectors=VECTORS):
    lines = [f"{w} {' '.join(map(str, v))}" for w, v in vectors.items()]
    head = [f"{len(vectors)} 3"] if header else []
    path.write_text("\n".join(head + lines) + "\n", encoding="utf-8")
    return path


def write_binary(path, separator=b"\n", vectors=VECTORS):
    content = f"{len(vectors)} 3\n".encode()
    for word, vector in vectors.items():
        content += word.encode() + b" " + np.array(vector, "<f4").tobytes() + separator
    path.write_bytes(content)
    return path


def write_npy(path, index):
    np.save(path, np.array(list(VECTORS.values()), np.float32))
    if index == ".txt":
        path.with_suffix(index).write_text("\n".join(VECTORS), encoding="utf-8")
    else:
        table = pa.table({"index": list(VECTORS)})
        pyarrow.parquet.write_table(table, path.with_suffix(index))
    return path


FILES = {
    "text": lambda p: write_text(p / "v.txt", True),
    "glove": lambda p: write_text(p / "v.vec", False),
    "binary": lambda p: write_binary(p / "v.bin"),
    "binary without breaks": lambda p: write_binary(p / "v.bin", b""),
    "npy with txt": lambda p: write_npy(p / "v.npy", ".txt"),
    "npy with parquet": lambda p: write_npy(p / "v.npy", ".parquet"),
}


@pytest.mark.filterwarnings("ignore:.*have no vector")
@pytest.mark.parametrize("write", FILES.values(), ids=FILES)
def test_each_file_format_gives_the_same_features(write, tmp_path):
    expected = WordVectorFeatures(VECTORS).fit_transform(TEXTS)
    path = write(tmp_path)
    for given in (path, str(path)):
        features = WordVectorFeatures(given).fit_transform(TEXTS)
        np.testing.assert_allclose(features, expected, rtol=1e-6)


def test_a_matrix_is_memory_mapped_and_pickles_hold_no_vectors(tmp_path):
    from skdeepfeat.text._word_vectors import load_word_vectors

    path = write_npy(tmp_path / "v.npy", ".txt")
    assert isinstance(load_word_vectors(path).matrix, np.memmap)
    fitted = WordVectorFeatures(path).fit(["cat"])
    assert len(pickle.dumps(fitted)) < 1500


def test_a_changed_file_is_read_again(tmp_path):
    path = write_text(tmp_path / "v.txt", True)
    before = WordVectorFeatures(path).fit_transform(["cat"])
    write_text(path, True, {"cat": [7, 7, 7], "cow": [1, 1, 1]})
    after = WordVectorFeatures(path).fit_transform(["cat"])
    assert not np.array_equal(before, after)


def test_changed_words_of_a_matrix_are_read_again(tmp_path):
    path = write_npy(tmp_path / "v.npy", ".txt")
    before = WordVectorFeatures(path).fit_transform(["cat"])
    words = ["cow", *list(VECTORS)[1:-1], "cat"]
    path.with_suffix(".txt").write_text("\n".join(words), encoding="utf-8")
    after = WordVectorFeatures(path).fit_transform(["cat"])
    np.testing.assert_allclose(after, [VECTORS["é"]])
    assert not np.array_equal(before, after)


def test_words_with_spaces_are_read(tmp_path):
    (tmp_path / "v.txt").write_text("cat 4 5 6\n. . 1 2 3\n")
    fitted = WordVectorFeatures(
        tmp_path / "v.txt", tokenizer=lambda text: text.split("|")
    )
    np.testing.assert_array_equal(fitted.fit_transform([". ."]), [[1, 2, 3]])


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path):
    expected = WordVectorFeatures(VECTORS).fit_transform(["cat é"])
    for path in (
        write_text(tmp_path / "v.txt", True),
        write_text(tmp_path / "w.VEC", False),
        write_npy(tmp_path / "x.npy", ".txt"),
    ):
        words = path.with_suffix(".txt") if path.suffix == ".npy" else path
        words.write_bytes(b"\xef\xbb\xbf" + words.read_bytes())
        features = WordVectorFeatures(path).fit_transform(["cat é"])
        np.testing.assert_allclose(features, expected)


def test_white_space_of_other_kinds_is_a_part_of_words(tmp_path):
    words = ["\u00a0", "a\u2028b", "c\x85"]
    rows = "".join(f"{word} {k} 1\n" for k, word in enumerate(words))
    (tmp_path / "v.txt").write_text(rows, encoding="utf-8")
    np.save(tmp_path / "w.npy", np.array([[0.0, 1], [1, 1], [2, 1]]))
    (tmp_path / "w.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    for name in ("v.txt", "w.npy"):
        features = WordVectorFeatures(tmp_path / name, tokenizer=lambda text: [text])
        np.testing.assert_array_equal(
            features.fit_transform(words), [[0, 1], [1, 1], [2, 1]]
        )


def test_a_repeated_word_keeps_its_first_row(tmp_path):
    from skdeepfeat.text._word_vectors import load_word_vectors

    np.save(tmp_path / "v.npy", np.array([[1.0, 0], [0, 1], [1, 0.1]]))
    (tmp_path / "v.txt").write_text("cat\ncat\ndog")
    vectors = load_word_vectors(tmp_path / "v.npy")
    assert [word for word, _ in vectors.most_similar("cat")] == ["dog"]


def test_vectors_of_a_matrix_are_checked_where_they_are_used(tmp_path):
    np.save(tmp_path / "v.npy", np.array([[1.0, 0], [np.nan, 1]]))
    (tmp_path / "v.txt").write_text("cat\ndog")
    fitted = WordVectorFeatures(tmp_path / "v.npy").fit(["cat dog"])
    np.testing.assert_array_equal(fitted.transform(["cat"]), [[1, 0]])
    with pytest.raises(ValueError, match="finite.*'dog'"):
        fitted.transform(["cat dog"])


def test_tensors_may_be_vectors():
    vectors = {"cat": torch.tensor([1.0, 2]), "dog": torch.tensor([3.0, 4])}
    features = WordVectorFeatures(vectors).fit_transform(["cat dog"])
    np.testing.assert_array_equal(features, [[2, 3]])
    vectors["dog"].requires_grad_()
    with pytest.raises(ValueError, match="vectors of numbers.*'dog'"):
        WordVectorFeatures(vectors).fit(["cat"])


def test_changes_after_the_fit_are_named():
    fitted = WordVectorFeatures(VECTORS).fit(["cat dog"])
    with pytest.raises(NotFittedError):
        fitted.set_params(pooling="sif").transform(["cat"])
    fitted.set_params(pooling="mean", vectors={"cat": [1, 2]})
    with pytest.raises(ValueError, match="'vectors' parameter.*3 numbers.*fitted"):
        fitted.transform(["cat"])


@pytest.mark.parametrize("cut", [0, 1, 3, 5, 9, 20, -1, -8])
def test_a_binary_file_that_is_cut_off_is_refused(cut, tmp_path):
    path = write_binary(tmp_path / "v.bin", b"")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="v.bin.*(damaged|not a binary file)"):
        WordVectorFeatures(path).fit(["cat"])


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("v.txt", b"cat 1 2 3\ndog 1 2\n", "line 2.*dog"),
        ("v.txt", b"cat 1 2 3\ndog 1 2 x\n", "line 2.*dog"),
        ("v.txt", b"cat 1 2 3\ndog 1 2 3 4\n", "line 2.*dog"),
        ("v.txt", b"cat 1 2\ndog 1 2 3\ncow 1 2 3\n", "line 2.*dog"),
        ("v.txt", b"1 " + b"9" * 5000 + b"\ncat 1\n", "finite"),
        ("v.txt", b"cat 1e39 2\n", "finite.*cat"),
        ("v.txt.gz", b"\x1f\x8b", "unpack"),
        ("v.txt", b"9 3\ncat 1 2 3\n", "cut off.*9 words"),
        ("v.txt", b"", "no word vectors"),
        ("v.txt", b"cat 1 2 nan\n", "finite.*cat"),
        ("v.bin", b"99999999999 50\ncat ", "damaged or cut off"),
        ("v.bin", b"1 0\ncat ", "damaged or cut off"),
        ("v.bin", b"PK\x03\x04 something", "not a binary file"),
        ("v.npy", b"cat", "looked for in v.txt"),
        ("v.csv", b"cat,1", r"\.bin.*v.csv"),
    ],
)
def test_a_damaged_file_is_refused(name, content, match, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        WordVectorFeatures(tmp_path / name).fit(["cat"])


@pytest.mark.parametrize("ending", [".txt", ".parquet"])
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04" + bytes(99), b"\xff\xfe" * 99, bytes(300)]
)
@pytest.mark.parametrize("of_words", [False, True])
def test_a_damaged_matrix_or_its_words_are_one_error(
    of_words, content, ending, tmp_path
):
    np.save(tmp_path / "v.npy", np.eye(2))
    words = pd.DataFrame({"word": ["cat", "dog"]})
    if ending == ".parquet":
        words.to_parquet(tmp_path / "v.parquet")
    else:
        (tmp_path / "v.txt").write_text("cat\ndog")
    name = f"v{ending}" if of_words else "v.npy"
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFileError, match=name):
        WordVectorFeatures(tmp_path / "v.npy").fit(["cat"])


@pytest.mark.parametrize("words", [[1, 2], ["cat", None]])
def test_words_that_are_none_are_named(words, tmp_path):
    np.save(tmp_path / "v.npy", np.eye(2))
    pd.DataFrame({"word": words}).to_parquet(tmp_path / "v.parquet")
    with pytest.raises(BadFileError, match="v.parquet must hold words. Got"):
        WordVectorFeatures(tmp_path / "v.npy").fit(["cat"])


def test_a_matrix_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object))
    (tmp_path / "v.txt").write_text("cat")
    with pytest.raises(ValueError, match="Python objects"):
        WordVectorFeatures(tmp_path / "v.npy").fit(["cat"])


@pytest.mark.parametrize(
    ("vectors", "match"),
    [
        ("glove-50", "vectors.*Did you mean 'glove-50d'"),
        ("nowhere.txt", "no such file"),
        ({}, "empty"),
        ({"a": [1, 2], "b": [1]}, "one length.*'b' 1"),
        ({"a": [1, 2], "b": ["x", "y"]}, "vectors of numbers.*'x'.*for 'b'"),
        ({"a": [None, {}]}, "vectors of numbers"),
        ({"a": [1, np.inf]}, "finite"),
        ({"a": [], "b": []}, "at least one number"),
        ({1: [1, 2]}, "from str"),
        (7, "vectors"),
    ],
)
def test_bad_vectors_are_named(vectors, match):
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        WordVectorFeatures(vectors).fit(["cat"])


def test_an_estimator_must_be_a_fitted_word2vec():
    with pytest.raises(NotFittedError):
        WordVectorFeatures(Word2Vec()).fit(["cat"])
    other = FrozenEstimator(LogisticRegression().fit([[0], [1]], [0, 1]))
    with pytest.raises(ValueError, match="vectors.*fitted Word2Vec"):
        WordVectorFeatures(other).fit(["cat"])


@pytest.mark.parametrize(
    ("X", "match"),
    [
        ("cat", r"use \[X\]"),
        (["cat", None], "Index 1.*NoneType. Missing texts"),
        (["cat", 3.5], "Index 1"),
        (["cat", b"dog"], r"Index 1.*bytes\.$"),
        ([["cat", "dog"]], r"Index 0"),
        ([], "at least one"),
        ((text for text in ["cat"]), "list"),
        ({"cat", "dog"}, "sequence.*set"),
        ({"cat": "dog"}, "sequence.*dict"),
        (np.array("cat"), r"use \[X\]"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "one column"),
    ],
)
def test_bad_texts_are_named(X, match):
    with pytest.raises((TypeError, ValueError), match=match):
        WordVectorFeatures(VECTORS).fit(X)


@pytest.mark.parametrize(
    "tokenizer", [str.strip, str.encode, len, lambda text: None, lambda text: {1}]
)
def test_a_tokenizer_must_return_words(tokenizer):
    with pytest.raises(TypeError, match="'tokenizer' parameter must return a list"):
        WordVectorFeatures(VECTORS, tokenizer=tokenizer).fit(["cat"])


def test_a_tokenizer_may_be_a_generator():
    features = WordVectorFeatures(VECTORS, tokenizer=lambda text: iter(text.split()))
    expected = WordVectorFeatures(VECTORS).fit_transform(["cat dog"])
    np.testing.assert_array_equal(features.fit_transform(["cat dog"]), expected)


@pytest.mark.slow
def test_glove_knows_analogies_and_few_labels_suffice_with_it():
    from skdeepfeat.text._word_vectors import load_word_vectors

    glove = load_word_vectors("glove-50d")
    assert isinstance(glove.matrix, np.memmap)
    assert glove.most_similar(["king", "woman"], "man", 1)[0][0] == "queen"
    assert glove.most_similar(["paris", "germany"], "france", 1)[0][0] == "berlin"
    assert "toad" in dict(glove.most_similar("frog"))
    texts = ["a cat and a dog", "cows eat grass", "the engine of a car", "a bus"]
    pipeline = make_pipeline(WordVectorFeatures(), LogisticRegression(C=100))
    pipeline.fit(texts, ["animal", "animal", "vehicle", "vehicle"])
    # None of these words was seen.
    unseen = ["horses", "sheep", "trucks", "airplane"]
    assert list(pipeline.predict(unseen)) == ["animal"] * 2 + ["vehicle"] * 2


def test_a_missing_package_is_named(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"skdeepfeat\[text\]"):
        WordVectorFeatures().fit(["cat"])
