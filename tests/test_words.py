"""One word for one thing: those that DESIGN's glossary replaces are used nowhere."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
# What is written, with what to write instead. Names of files and functions count.
REPLACED = {
    r"(?<!`)averaging(?! (over|of))": "ema_decay, the mean",
    "first_trained_stage": "first_unfrozen_stage",
    r"(?<!Barlow )twins?": "duplicates",
    "sheet": "output buffer",
    "spool": "download buffer",
    "parcel": "payload",
    "file_?memo": "file-hash index",
    "rooms|floors": "package, layer",
    "ticked off": "marked done",
    "set aside": "quarantine",
    "in place of": "instead of",
    "of itself": "by default",
    "when asked": "on request",
    "at the most": "at most",
    "does not suffice": "is not enough",
    "kept apart": "stored separately",
    "an? row an image|a row an image": "one row per image",
    r"somebody('s)?": "another process, the user",
    "centre|colour|behaviour": "American spelling",
}
FOLDERS = ["skdeepfeat", "docs", "examples", "benchmarks", "README.md", "CHANGELOG.md"]


def test_no_replaced_word_is_used():
    pattern = re.compile(
        "|".join(rf"(?<![A-Za-z])({word})(?![A-Za-z])" for word in REPLACED), re.I
    )
    found = []
    for top in FOLDERS:
        path = ROOT / top
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.suffix not in (".py", ".md"):
                continue
            lines = [file.stem, *file.read_text(encoding="utf-8").splitlines()]
            found += [
                f"{file.relative_to(ROOT)}:{number}: {match[0]}"
                for number, line in enumerate(lines)
                for match in [pattern.search(line)]
                if match
            ]
    assert not found, "\n".join(found)
