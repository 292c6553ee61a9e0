"""Generated sentence pairs whose true alignment is known: what a translation looks at, and how memory fails by length.

A source is random letters; its target is a rule applied to them. Nothing can be guessed, so a model that writes the
target has carried every letter over.
"""

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz0123"
TASKS = ("copy", "reverse", "swap")


class Transduction:
    """Pairs of sentences and, for every target word, the source word it comes from: `source`, `target`, `alignment`.

    `task`: "copy"; "reverse" (last first); "swap" (neighbours change places in pairs). The lengths are uniform in
    shortest .. longest, the letters in LETTERS. Everything follows from the arguments. Raises ValueError for
    another task or lengths that are none.
    """

    def __init__(self, task: str, count: int, *, shortest: int = 5, longest: int = 20, seed: int = 0) -> None:
        if task not in TASKS:
            raise ValueError(f"transduction tasks are {', '.join(TASKS)}, given {task!r}")
        if count < 1 or not 1 <= shortest <= longest:
            raise ValueError(
                f"transduction needs count >= 1 and 1 <= shortest <= longest, given {count}, {shortest} .. {longest}"
            )
        generator = np.random.default_rng([TASKS.index(task), seed])
        lengths = generator.integers(shortest, longest + 1, size=count)
        rows = [generator.integers(len(LETTERS), size=length) for length in lengths]
        self.alignment = [_order(task, int(length)) for length in lengths]
        moved = [row[order] for row, order in zip(rows, self.alignment, strict=True)]
        self.source, self.target = _written(rows), _written(moved)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[str, str]:
        return self.source[index], self.target[index]


def _written(rows: list[np.ndarray]) -> list[str]:
    return [" ".join(LETTERS[number] for number in row) for row in rows]


def _order(task: str, length: int) -> np.ndarray:
    places = np.arange(length)
    if task == "reverse":
        return places[::-1].copy()
    if task == "swap":
        whole = length // 2 * 2
        places[:whole] = places[:whole].reshape(-1, 2)[:, ::-1].ravel()
    return places


def open_transduction(task: str, split: str) -> Transduction:
    """Opens the usual splits: train, 20,000 pairs of 5 to 20 letters; val, 1,000 of 5 to 20; test, 2,000 of 5 to 40.

    Raises ValueError for another split or task.
    """
    splits = {"train": (20_000, 5, 20, 0), "val": (1_000, 5, 20, 1), "test": (2_000, 5, 40, 2)}
    if split not in splits:
        raise ValueError(f"splits of a transduction are {', '.join(splits)}, given {split!r}")
    count, shortest, longest, seed = splits[split]
    return Transduction(task, count, shortest=shortest, longest=longest, seed=seed)
