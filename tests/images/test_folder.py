"""`load_image_folder` on trees that the tests make."""

import os
import shutil

import fsspec
import numpy as np
import pytest
from sklearn.datasets import load_files
from sklearn.model_selection import train_test_split

from skdeepfeat.images import load_image_folder, make_image_source


@pytest.fixture
def root(tmp_path, encode):
    """Return a tree of two classes, with what lies about in real ones."""
    data = encode(np.zeros((2, 3), dtype=np.uint8))
    for name in (
        "dog/b.PNG",
        "dog/a.jpg",
        "cat/2.png",
        "cat/10.png",
        "cat/more/deep/3.webp",
        "cat/more/.hidden.png",
        "cat/.ipynb_checkpoints/1.png",
        ".git/a.png",
        "cat/notes.txt",
        "cat/manual.pdf",
        "cat/figure.eps",
        "dog/Thumbs.db",
        "beside.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def below(root, paths):
    return [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]


CATS = ["cat/10.png", "cat/2.png", "cat/more/deep/3.webp"]
DOGS = ["dog/a.jpg", "dog/b.PNG"]


@pytest.mark.parametrize("as_path", [str, lambda path: path, os.fsencode])
def test_paths_targets_and_names(root, as_path):
    bunch = load_image_folder(as_path(root))
    assert below(root, bunch.data) == CATS + DOGS
    assert bunch.filenames is bunch.data
    assert bunch.target.tolist() == [0, 0, 0, 1, 1]
    assert bunch.target_names == ["cat", "dog"]
    assert below(root, bunch.skipped) == [
        "beside.png",
        "cat/figure.eps",
        "cat/manual.pdf",
        "cat/notes.txt",
        "dog/Thumbs.db",
    ]
    assert all(type(path) is str for path in bunch.data)
    names = np.asarray(bunch.target_names)[bunch.target]
    assert [path.split("/")[0] for path in below(root, bunch.data)] == names.tolist()


LEFT_BEHIND = [
    "__MACOSX/cat/._1.jpg",
    "__MACOSX/cat/1.jpg",
    "cat/__MACOSX/1.jpg",
    "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "@eaDir/a.jpg",
    "#recycle/a.jpg",
    "$RECYCLE.BIN/a.png",
    "System Volume Information/a.txt",
    "lost+found/a.png",
    "@Recycle/a.png",
    "Network Trash Folder/a.png",
    ".ipynb_checkpoints/a.png",
    "cat/._1.jpg",
    "cat/.DS_Store",
    ".DS_Store",
]


@pytest.mark.parametrize("name", LEFT_BEHIND)
@pytest.mark.parametrize("place", ["local", "zip"])
def test_what_systems_leave_behind_is_not_a_class(root, name, place, request):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((root / "dog/a.jpg").read_bytes())
    if place == "zip":
        bunch = load_image_folder(in_a_zip(root, request), storage_options={})
    else:
        bunch = load_image_folder(root)
    assert bunch.target_names == ["cat", "dog"]
    assert bunch.target.tolist() == [0, 0, 0, 1, 1]
    assert not any(name in path for path in bunch.skipped)


def test_it_is_an_x_and_a_y(root):
    X, y = load_image_folder(root, return_X_y=True)
    assert make_image_source(X).digests()[1] == {}
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    assert sorted([*X_train, *X_test]) == sorted(X)


def test_agrees_with_load_files(tmp_path, encode):
    for name in ("b/1.png", "a/2.png", "a/1.png", "c/7.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(np.zeros((2, 2), dtype=np.uint8)))
    ours = load_image_folder(tmp_path)
    theirs = load_files(tmp_path, load_content=False, shuffle=False)
    assert list(ours.filenames) == list(theirs.filenames)
    assert ours.target.tolist() == theirs.target.tolist()
    assert ours.target_names == theirs.target_names


def test_categories_give_the_numbers(root):
    bunch = load_image_folder(root, categories=["dog", "cat"])
    assert bunch.target_names == ["dog", "cat"]
    assert below(root, bunch.data) == DOGS + CATS
    assert bunch.target.tolist() == [0, 0, 1, 1, 1]
    only = load_image_folder(root, categories=["dog"])
    assert below(root, only.data) == DOGS


@pytest.mark.parametrize("extensions", [[".png"], ["png"], "PNG", (".Png",)])
def test_extensions(root, extensions):
    bunch = load_image_folder(root, extensions=extensions)
    assert below(root, bunch.data) == ["cat/10.png", "cat/2.png", "dog/b.PNG"]
    assert "dog/a.jpg" in below(root, bunch.skipped)


def test_a_colon_in_a_name_is_not_an_address(root):
    (root / "cat" / "a::b.png").write_bytes(b"")
    assert "cat/a::b.png" in below(root, load_image_folder(root).data)


def test_shuffle_is_decided_by_random_state(root):
    state = np.random.get_state()[1].copy()
    plain = load_image_folder(root)
    one = load_image_folder(root, shuffle=True, random_state=1)
    again = load_image_folder(root, shuffle=True, random_state=1)
    assert one.data.tolist() == again.data.tolist() != plain.data.tolist()
    pairs = set(zip(plain.data, plain.target, strict=True))
    assert set(zip(one.data, one.target, strict=True)) == pairs
    assert (np.random.get_state()[1] == state).all()


def test_links_are_followed_once(root):
    (root / "cat" / "more" / "back").symlink_to(root / "cat")
    (root / "wolf").symlink_to(root / "dog")
    (root / "dog" / "broken.png").symlink_to("nowhere.png")
    bunch = load_image_folder(root)
    assert bunch.target_names == ["cat", "dog", "wolf"]
    assert bunch.target.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert "dog/broken.png" in below(root, bunch.skipped)


@pytest.mark.parametrize("leads_to", ["..", "../..", ".", "/"])
@pytest.mark.parametrize("is_link", [False, True])
def test_links_to_folders_above_add_no_images(root, tmp_path, leads_to, is_link):
    if is_link:  # the class folder is elsewhere
        (root / "cat").rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
        (root / "cat").symlink_to(tmp_path.parent / f"{tmp_path.name}-elsewhere")
        leads_to = os.path.normpath(root / "cat" / leads_to)
    plain = load_image_folder(root)
    (root / "cat" / "loop").symlink_to(leads_to)
    bunch = load_image_folder(root)
    assert bunch.data.tolist() == plain.data.tolist()


@pytest.mark.parametrize("leads_to", ["link.png", "1.jpg/a.png", "a" * 300])
def test_links_that_lead_nowhere_are_skipped(root, leads_to):
    plain = load_image_folder(root)
    for place in (root, root / "cat"):
        (place / "link.png").symlink_to(leads_to)
    bunch = load_image_folder(root)
    assert bunch.data.tolist() == plain.data.tolist()
    assert {"link.png", "cat/link.png"} <= set(below(root, bunch.skipped))


def test_a_folder_without_images(root):
    (root / "empty").mkdir()
    (root / "texts").mkdir()
    (root / "texts" / "a.txt").write_text("a")
    with pytest.raises(ValueError, match=r"'empty', 'texts'.*categories=.*\.txt"):
        load_image_folder(root)
    bunch = load_image_folder(root, categories=["cat", "empty", "dog"])
    assert bunch.target_names == ["cat", "empty", "dog"]
    assert set(bunch.target) == {0, 2}
    with pytest.raises(ValueError, match="Every class folder must hold an image"):
        load_image_folder(root, categories=["empty"])


def test_no_class_folders(tmp_path):
    with pytest.raises(ValueError, match="one folder per class.*0 files"):
        load_image_folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(ValueError, match="one folder per class.*1 files and no folder"):
        load_image_folder(tmp_path)


def test_no_root(root, monkeypatch):
    with pytest.raises(FileNotFoundError, match="there is no 'nowhere'"):
        load_image_folder("nowhere")
    with pytest.raises(NotADirectoryError, match="Got the file"):
        load_image_folder(root / "beside.png")
    monkeypatch.setenv("HOME", str(root))
    with pytest.raises(FileNotFoundError, match="expanduser"):
        load_image_folder("~/cat")


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        (["dgo"], "Got 'dgo'. Did you mean 'dog'"),
        ("dog", "list of folder names"),
        (["dog", "dog"], "must not repeat"),
    ],
)
def test_categories_are_checked(root, categories, words):
    with pytest.raises(ValueError, match=words):
        load_image_folder(root, categories=categories)


def test_real_folder(shared_data):
    bunch = load_image_folder(shared_data / "aircraft")
    assert bunch.target_names == ["civil", "military"]
    assert len(bunch.data) == 800
    assert bunch.skipped == []


# -- Addresses


def in_memory(root, request):
    fs = fsspec.filesystem("memory")
    fs.put(f"{root}/", "/folder-test/", recursive=True)
    request.addfinalizer(lambda: fs.rm("/folder-test", recursive=True))
    return "memory://folder-test"


def in_a_zip(root, request):
    path = shutil.make_archive(
        str(root.with_name("all")), "zip", root.parent, root.name
    )
    return f"zip://{root.name}::{path}"


def at_the_top_of_a_zip(root, request):
    path = shutil.make_archive(str(root.with_name("all")), "zip", root)
    return f"zip://::{path}"


@pytest.mark.parametrize(
    "place", [lambda root, request: f"file://{root}", in_memory, in_a_zip]
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_remote_folders_agree_with_local_ones(root, place, slash, request):
    address, chain, tail = place(root, request).partition("::")
    address = f"{address}{slash}{chain}{tail}"
    local = load_image_folder(root)
    bunch = load_image_folder(address, storage_options={})
    assert bunch.target.tolist() == local.target.tolist()
    assert bunch.target_names == local.target_names
    assert len(bunch.skipped) == len(local.skipped)
    source = make_image_source(bunch.data, storage_options={})
    assert source.digests() == make_image_source(local.data).digests()
    start = address.partition("::")[0].rstrip("/")
    inside = [name.partition("::")[0].removeprefix(f"{start}/") for name in bunch.data]
    assert inside == CATS + DOGS
    only = load_image_folder(address, categories=["dog"], storage_options={})
    assert only.data.tolist() == bunch.data[3:].tolist()


def test_the_top_of_an_archive(root, request):
    address = at_the_top_of_a_zip(root, request)
    bunch = load_image_folder(address, storage_options={})
    assert bunch.target_names == ["cat", "dog"]
    assert make_image_source(bunch.data, storage_options={}).digests()[1] == {}


def test_addresses_are_listed_only_on_request():
    with pytest.raises(ValueError, match="pass storage_options={}"):
        load_image_folder("memory://folder")


def test_remote_folders_that_cannot_be_read(root, request):
    address = in_memory(root, request)
    with pytest.raises(ValueError, match="0 files and no folder"):
        load_image_folder("memory://nothing-here", storage_options={})
    with pytest.raises(ValueError, match="3 files and no folder"):
        load_image_folder(f"{address}/dog", extensions="jpg", storage_options={})
    with pytest.raises(OSError, match="nosuch://a' cannot be listed"):
        load_image_folder("nosuch://a", storage_options={})
    with pytest.raises(ValueError, match="Did you mean 'dog'"):
        load_image_folder(address, categories=["dgo"], storage_options={})


def test_folders_that_have_no_numbers(tmp_path, monkeypatch):
    for name in ("a/x/1.png", "a/y/2.png", "b/3.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    expected = list(load_image_folder(tmp_path).data)
    stat = os.stat

    def without_number(*args, **kwargs):
        fields = list(stat(*args, **kwargs))
        fields[1] = 0
        return os.stat_result(fields)

    monkeypatch.setattr(os, "stat", without_number)
    assert len(expected) == 3
    assert list(load_image_folder(tmp_path).data) == expected
