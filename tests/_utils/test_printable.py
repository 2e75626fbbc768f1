"""What comes from outside reaches no terminal as it is, and secrets are not shown."""

import pathlib
import pickle
import traceback

import numpy as np
import pytest
from sklearn.base import clone

from skdeepfeat import (
    BadImageError,
    FineTuneClassifier,
    PretrainedFeatureExtractor,
    TransferAdvisor,
    load_image_folder,
)
from skdeepfeat._utils._address import check_local
from skdeepfeat._utils._printable import printable, printable_lines, redacted
from skdeepfeat.cache._directory import check_path

HOSTILE = "a\x1b[31m\n\r\t\x00\x7f\x85\u200f\u2028\u202e\u2066\udcff"


def test_control_characters_are_escaped():
    assert printable(HOSTILE) == (
        r"a\x1b[31m\n\r\t\x00\x7f\x85\u200f\u2028\u202e\u2066\udcff"
    )
    assert printable("é 写真 \\ 🙂") == "é 写真 \\ 🙂"
    assert printable_lines("a\nError: b\x1b\n  c\n") == "a\n  Error: b\\x1b\n  c\n"


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("https://user:pa%40ss@host/a.jpg", ["user", "pa%40ss"]),
        ("https://token123@host/a.jpg", ["token123"]),
        ("no file ftp://user:word@host/a b.jpg", ["word"]),
        ("simplecache::s3://key:sec@bucket/x", ["key:", "sec@"]),
        ("https://h/a b.jpg?X-Amz-Signature=abc&se=def#g", ["abc", "def"]),
        ("no file 'https://h/a.jpg?HUSHabcd'", ["HUSH"]),
        ("https://h/a.jpg?HUSH%2Babc&x", ["HUSH"]),
        ("got {'secret_key': 'HUSH', 'token': 'ABC'}", ["HUSH", "ABC"]),
        ("sent Authorization: Bearer HUSH", ["HUSH"]),
        ("AccountKey=HUSH==;x", ["HUSH"]),
        ("//user:HUSH@host/a.jpg", ["HUSH"]),
        ("no file '//HUSH@host/a.jpg'", ["HUSH"]),
        ("argument (//HUSH@host/a.jpg)", ["HUSH"]),
        ("user:HUSH@host:a.jpg", ["user", "HUSH"]),
        ("curl user:123456@host", ["123456"]),
        ("got {'a': 'user:p@HUSH/x@host.com:8080/a'}", ["HUSH", "p@"]),
        ("https:user:HUSH@host/a.jpg", ["HUSH"]),
        (r"\\user:HUSH@host\a.jpg", ["HUSH"]),
        ("host/a.jpg?sv=1&sig=HUSH", ["HUSH"]),
        ("no file https%3A%2F%2Fuser%3AHUSH%40host%2Fa.jpg", ["HUSH"]),
        ("s3%253a%252f%252fkey%253aHUSH%2540bucket%252fa.jpg", ["HUSH"]),
        ("got 'https%3A%2F%2Fh%2Fa.jpg%3Fsig%3DHUSH'", ["HUSH"]),
        ("hf_HUSHabcdefghijklmnopqrstuvwxyz0123", ["HUSH"]),
        ("models/ghp_HUSH0123456789abcdefghijklmnopqrst/a", ["HUSH"]),
        ("github_pat_11HUSH0123456789_abcdefghij", ["HUSH"]),
        ("key AKIAHUSH0123456789AB", ["HUSH"]),
        ("header Bearer HUSH0123456789.abc", ["HUSH"]),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJIVVNIIn0.HUSH-1", ["HUSH"]),
    ],
)
def test_secrets_of_addresses(text, secrets):
    assert not any(secret in redacted(text) for secret in secrets)
    origin = text if "://" in text else None
    error = pickle.loads(pickle.dumps(BadImageError(text, 3, origin)))
    for shown in (str(error), repr(error), str(error.args)):
        assert not any(secret in shown for secret in secrets)


@pytest.mark.parametrize(
    "text",
    [
        "what?a=b.jpg",
        "s3://bucket/a.jpg",
        "https://host/a.jpg?v2",
        "is https://host/a reachable? otherwise download it",
        "abfs://container@account.dfs.core.windows.net/a.jpg",
        "zip://a.jpg::all.zip",
        "storage_options={'token': 'anon'}",
        "a@b.jpg",
        "git@host:a.jpg",
        "10:20:30@cam.jpg",
        "T10:20@cam/a.jpg",
        "/a/T10:x@cam.jpg",
        r"C:\a\b@c.jpg",
        "s3://bucket/a@2x.jpg",
        "simplecache::s3://bucket/a@2x.jpg",
        "/a//b@2x.jpg",
        "host:8080/a@b.jpg",
        "https%3A%2F%2Fhost%2Fa.jpg",
        "hf_hub:timm/resnet18.a1_in1k",
        "hf_cache/models",
        "ghp_a.jpg",
        "bearer certificates",
        "AKIAK.jpg",
    ],
)
def test_what_is_not_secret_is_shown(text):
    assert redacted(text) == text


def test_the_path_of_a_file_stays_as_it_is():
    assert BadImageError("no image", 0, "a/token=x.jpg").origin == "a/token=x.jpg"


def test_values_of_options_are_hidden_wherever_they_are():
    options = {"client_kwargs": {"aws": ["HUSH-HUSH"]}, "anon": "no", "n": 3}
    assert redacted("it says HUSH-HUSH, no", options) == "it says <hidden>, no"


@pytest.mark.parametrize("kind", [PretrainedFeatureExtractor, FineTuneClassifier])
@pytest.mark.parametrize("wrong", ["HUSH-HUSH", ["HUSH-HUSH"], ("key", "HUSH-HUSH"), 7])
def test_wrong_storage_options_are_not_shown(kind, wrong):
    estimator = kind(storage_options=wrong)
    assert "HUSH" not in repr(estimator) + str(estimator.get_params())
    assert "HUSH" not in repr(clone(estimator)) + estimator._repr_html_()
    with pytest.raises(ValueError, match="'storage_options'") as caught:
        estimator.fit(["a.jpg", "b.jpg"], [0, 1])
    assert "HUSH" not in str(caught.value)


def test_any_mapping_of_storage_options_is_hidden():
    from collections import OrderedDict

    estimator = PretrainedFeatureExtractor(storage_options=OrderedDict(key="HUSH-HUSH"))
    assert "HUSH" not in repr(estimator) + repr(clone(estimator).get_params())
    assert clone(estimator).storage_options == {"key": "HUSH-HUSH"}


SECRETS = [
    "hf-hub:https://user:HUSH@host/x",
    "hf_hub:https://user:HUSH@host/x",
    "hf-hub:user:HUSH@host/x",
    "hf-hub:https://host/x?sig=HUSH",
    "hf-hub:" + 300 * "a" + "https://user:HUSH@host/x",
    "https://user:a/HUSH@host/x.pth",
    "https://user:a#HUSH@host/x.pth",
    "https://user:HUSH@host/x.pth",
    "//user:HUSH@host/x.pth",
    "//HUSH@host/x.pth",
    "user:HUSH@host:x.pth",
    "user:HUSH@host/x.pth",
    "host/x.pth?sv=1&sig=HUSH",
]
# Secrets that are also valid file names.
KEYS = [
    "https%3A%2F%2Fuser%3AHUSH%40host%2Fx.pth",
    "hf_HUSHabcdefghijklmnopqrstuvwxyz0123",
]


def traceback_of(error):
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("address", SECRETS)
@pytest.mark.parametrize("name", ["model", "weights", "cache", "device"])
def test_no_parameter_shows_the_password_of_an_address(name, address):
    estimator = PretrainedFeatureExtractor(**{"cache": None, name: address})
    copied = clone(clone(estimator))
    assert getattr(copied, name) == address
    assert b"ShownAddress" not in pickle.dumps(copied)
    for one in (estimator, copied):
        assert "HUSH" not in repr(one) + str(one.get_params()) + one._repr_html_()
    with pytest.raises((ValueError, OSError)) as caught:
        estimator.fit_transform(np.zeros((2, 32, 32, 3), np.uint8))
    assert "HUSH" not in traceback_of(caught.value)


@pytest.mark.parametrize("text", ["https://host:8080/a@b.jpg", "/a/T10:20:30@cam.jpg"])
def test_ports_and_times_are_not_secret(text):
    assert redacted(text) == text


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["model", "weights", "device"])
def test_no_parameter_shows_a_key(name, key):
    estimator = PretrainedFeatureExtractor(**{"cache": None, name: key})
    assert "HUSH" not in repr(estimator) + str(estimator.get_params())
    with pytest.raises((ValueError, OSError)) as caught:
        estimator.fit_transform(np.zeros((2, 32, 32, 3), np.uint8))
    assert "HUSH" not in traceback_of(caught.value)


@pytest.mark.parametrize("address", [*SECRETS, *KEYS])
def test_paths_and_lists_show_no_password_either(address):
    path = pathlib.Path(address)
    extractor = PretrainedFeatureExtractor(weights=path, cache=path)
    advisor = TransferAdvisor([address, [path]])
    for estimator in (extractor, advisor):
        copied = clone(clone(estimator))
        for one in (estimator, copied):
            assert "HUSH" not in repr(one) + str(one.get_params()) + one._repr_html_()
    assert clone(extractor).weights == path
    assert clone(advisor).models == [address, [path]]
    assert pickle.loads(pickle.dumps(clone(extractor))).cache == path
    assert b"ShownPath" not in pickle.dumps(clone(extractor))


@pytest.mark.parametrize("address", [*SECRETS[:2], *SECRETS[-6:]])
def test_a_path_that_was_an_address_is_refused(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = pathlib.Path(address)  # makes one slash of two
    for use in (check_path, check_local):
        with pytest.raises(ValueError, match="'cache'") as caught:
            use(path, "The 'cache' parameter" if use is check_path else "cache")
        assert "HUSH" not in str(caught.value)
    with pytest.raises(FileNotFoundError) as caught:
        load_image_folder(path)
    assert "HUSH" not in traceback_of(caught.value)


@pytest.mark.parametrize("path", ["a/b:c/d.npy", "/data/run:/x.npy", "C:/a.npy"])
def test_local_paths_are_not_taken_for_addresses(path):
    check_local(path, "path")
