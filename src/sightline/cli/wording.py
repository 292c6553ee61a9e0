"""Errors of the lens in the words of the shell: the lens speaks of Python's keywords, which nobody typed here."""

import re

from sightline.cli.failures import Misuse

# what the lens and `tasks.look` say, whole, and what stands for it here
_SAID: tuple[tuple[str, str], ...] = (
    (
        r'head (\S+): (.+) has (\d+) heads; give "mean", "max", "min" or a number from 0 to (\d+)',
        r"--head \1: \2 has \3 heads; give --method raw one from 0 to \4, or mean, max or min",
    ),
    (
        r"layer (\S+): \d+ sites lie on the image, 0 to (\d+)",
        r"--layer \1: layers 0 to \2 look at the picture; -1 is the last",
    ),
    (
        r"head='?(\w+)'? belongs to method=\"raw\"; (\w+) fuses heads in its own way",
        r"--head \1 belongs to --method raw; \2 fuses heads in its own way",
    ),
    (
        r'layer=(\S+) belongs to method="raw" or "gradient"; (\w+) goes through all layers',
        r"--layer \1 belongs to --method raw or gradient; \2 goes through all layers",
    ),
    (
        r"patch \(y=(-?\d+), x=(-?\d+), frame=0\) is outside (\d+) x (\d+) patches.*",
        r"--query \1,\2: the picture has \3 rows of \4 patches, both counted from 0",
    ),
    (
        r"\S+ has no class token \(.*\); ask for query=.*",
        r"--query class: the model has no class token; give ROW,COLUMN of a patch, a token's number, or mean",
    ),
    (
        r"\S+ kept \d+ of (\d+) rows, so the mean over all of them is not known.*",
        r"--query mean: of \1 tokens one row a layer is kept; give ROW,COLUMN of a patch, or a smaller --size",
    ),
    (
        r"recording would keep more than limit=([\d,]+) bytes: ([\d,]+) after (\d+) sites.*",
        r"--limit: the recording would keep more than \1 bytes, \2 by layer \3; give a higher one, such as 2GiB",
    ),
    (
        r"These sites do not see the same tokens \((.*)\), so .*",
        r"--method rollout: the layers do not see the same tokens (\1); use --method raw or gradient",
    ),
    (
        r"\S+ is \w+ attention of \d+ queries to \d+ keys; rollout multiplies square maps over one sequence\..*",
        r"--method rollout needs layers over one sequence of tokens; use --method raw or gradient",
    ),
    (
        r"rollout needs self-attention over the whole image; use method='raw'",
        r"--method rollout needs self-attention over the whole picture; use --method raw",
    ),
    (r"(.* grids of the image fit.*?); pass the pixels that .*", r"\1; look at it from Python, without that layer"),
    (
        r"(no attention recorded: \S+ ran, but made no .* values)\. If .*",
        r"\1; give --model one that attends, or let it report its weights (docs/lens.md)",
    ),
    (r"(size|query|layer|method) (.*)", r"--\1 \2"),
)


class WrongOption(Misuse):
    """What is wrong with an option for every picture alike, since it is the model that it does not fit."""


def in_shell_words(error: Exception) -> Exception:
    """The same error in the words of `sightline look --help`; one that is not known here stays as it is."""
    text = " ".join(str(error).split())
    for said, told in _SAID:
        found = re.fullmatch(said, text)
        if found:
            text = found.expand(told)
            if text.startswith(("--head", "--layer", "--method")):
                return WrongOption(text)
            return Misuse(text) if isinstance(error, ValueError) else RuntimeError(text)
    return error
