"""Run the code of a page of the documents, and write below it what it prints.

    python docs/run_page.py docs/tutorial.md

A block of ``python`` or ``console`` may be followed by a block of ``text``: what it
printed. A block of Python that begins with ``# name.py`` is written to that file. All
run in one folder, from which the pictures that the page shows are taken.
"""

import argparse
import contextlib
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

_BLOCK = re.compile(
    r"^```(python|console)\n(?P<code>.*?)^```\n(?:\n^```text\n(?P<shown>.*?)^```\n)?",
    re.M | re.S,
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")


def blocks_of(text):
    """Return the matches of `_BLOCK` in a page: the code and what is shown below."""
    return list(_BLOCK.finditer(text))


def run(block, line, name, namespace):
    """Run a block in the working directory and return what it prints."""
    code = block["code"]
    if block[1] == "console":
        return _run_commands(code)
    if file := re.match(r"# (\w+\.py)\n", code):
        pathlib.Path(file[1]).write_text(code, encoding="utf-8")
        return ""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile("\n" * line + code, name, "exec"), namespace)
    return printed.getvalue()


def _run_commands(code):
    binaries = os.path.dirname(sys.executable)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", "")]),
    }
    printed = ""
    for command in re.findall(r"^\$ (.*)$", code, re.M):
        done = subprocess.run(
            command, shell=True, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{command}\n{done.stderr}")
        printed += done.stdout
    return printed


def same_output(shown, printed, tolerance=0.1):
    """Say whether a page shows what was printed, up to the decimals of numbers.

    Numbers without a decimal point must be equal. Others may differ by `tolerance`,
    relative or absolute, because processors differ. So may the number of spaces.
    """
    texts = [_NUMBER.sub("#", text).split() for text in (shown, printed)]
    if texts[0] != texts[1]:
        return False
    for old, new in zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=True):
        if old == new:
            continue
        difference = abs(float(old) - float(new))
        if "." not in old or difference > tolerance * max(1, abs(float(old))):
            return False
    return True


def _rewrite(path):
    text = path.read_text(encoding="utf-8")
    pieces, end, namespace = [], 0, {}
    for block in blocks_of(text):
        line = text[: block.start()].count("\n") + 1
        printed = run(block, line, path.name, namespace)
        code = f"```{block[1]}\n{block['code']}```\n"
        if printed:
            code += f"\n```text\n{printed}```\n"
        pieces += [text[end : block.start()], code]
        end = block.end()
    return "".join([*pieces, text[end:]])


def main():
    """Rewrite the pages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="+", type=pathlib.Path)
    for path in parser.parse_args().pages:
        path = path.resolve()
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            text = _rewrite(path)
            for picture in re.findall(r"\]\(images/(\w+\.png)\)", text):
                if pathlib.Path(picture).exists():
                    shutil.copy(picture, path.parent / "images" / picture)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
