"""What recipes of sentence pairs share: batches of similar length in, BLEU, alignments, sample pictures out.

The recipe has `pieces` (the words' numbers), `kept` (the network) and `settings` with beam and length_penalty.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.data.subwords import Subwords
from sightline.metrics.translation import bleu, bleu_signature
from sightline.recipes import pairs
from sightline.recipes.buckets import Buckets
from sightline.recipes.pairs import Pairs
from sightline.tasks.translate import alignment, aligns, padded, search

FRAME = pairs


def order(data: Pairs, settings: Any) -> Buckets:
    """Orders training pairs by the characters of both sides."""
    lengths = np.array([len(a) + len(b) for a, b in zip(data.source, data.target, strict=True)])
    return Buckets(lengths, settings.batch, settings.seed)


def read_batch(data: Pairs, indices: np.ndarray, recipe: Any) -> dict[str, Tensor]:
    """Reads pairs into {"source" (B, S) with the end, "lengths" (B,), "target" (B, T) from start to end}."""
    pieces: Subwords = recipe.pieces
    sources, targets = zip(*data.numbers(indices.tolist(), pieces), strict=True)
    source, lengths = padded([[*row, pieces.end] for row in sources], multiple=4)
    target, _ = padded([[*row, pieces.end] for row in targets], multiple=4)
    target = torch.nn.functional.pad(target, (1, 0), value=pieces.start)
    return {"source": source, "lengths": lengths, "target": target}


def measure(recipe: Any, data: Pairs) -> dict[str, Any]:
    """Translates everything and counts.

    Gives BLEU (sacrebleu, 13a, cased) of beam search and of greedy search, BLEU without case, the share of sentences
    that are right to the letter, all of it again by number of source words (1-5, 6-10, …), and the control: BLEU
    where each source is another pair's ("blind"). Where the truth is known, `aligned` is the share of target words
    whose largest weight is on the word they come from.
    """
    pieces, settings, model = recipe.pieces, recipe.settings, recipe.kept
    sources = [[*row, pieces.end] for row in pieces.encode_all(data.source)]

    batch = 64 if next(model.parameters()).device.type == "cpu" else 512  # a GPU waits for launches, not for rows

    def translated(beam: int, rows: list[list[int]]) -> list[str]:
        found = search(model, rows, pieces, beam=beam, length_penalty=settings.length_penalty, batch=batch)
        return [pieces.decode(target) for target, _ in found]

    best = translated(settings.beam, sources)
    figures: dict[str, Any] = {
        "bleu": bleu(best, data.target),
        "bleu_greedy": bleu(translated(1, sources), data.target),
        "bleu_lower": bleu(best, data.target, lowercase=True),
        "bleu_blind": bleu(translated(1, sources[1:] + sources[:1]), data.target),
        "exact": float(np.mean([a == b for a, b in zip(best, data.target, strict=True)])),
        "pairs": len(data),
        "signature": bleu_signature(),
    }
    groups: dict[int, list[int]] = defaultdict(list)
    for place, text in enumerate(data.source):
        groups[(len(text.split()) - 1) // 5].append(place)
    figures["by_length"] = [_counted(number, groups[number], best, data.target) for number in sorted(groups)]
    if data.alignment is not None and aligns(model):
        figures["aligned"] = _aligned(recipe, data)
    return figures


def _counted(number: int, places: list[int], best: list[str], truth: list[str]) -> dict[str, Any]:
    mine, theirs = ([texts[place] for place in places] for texts in (best, truth))
    exact = float(np.mean([a == b for a, b in zip(mine, theirs, strict=True)]))
    return {
        "words": f"{5 * number + 1}-{5 * number + 5}",
        "pairs": len(places),
        "bleu": bleu(mine, theirs),
        "exact": exact,
    }


def _aligned(recipe: Any, data: Pairs, count: int = 300) -> float:
    """Counts over `count` pairs, the true target given; words that are several pieces are left out."""
    right = []
    for place in np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int):
        source, target = recipe.pieces.encode_all([data.source[place], data.target[place]])
        if len(target) == len(data.alignment[place]):  # type: ignore[index]
            weights = alignment(recipe.kept, [*source, recipe.pieces.end], target, recipe.pieces)
            right.append(weights.argmax(axis=1) == data.alignment[place])  # type: ignore[index]
    return float(np.concatenate(right).mean()) if right else float("nan")


def draw_samples(recipe: Any, data: Pairs, path: Path, count: int = 4) -> None:
    """Draws held-out pairs: source, what the network writes, the truth, and where it looked at each piece."""
    from matplotlib.figure import Figure

    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
    figure = Figure(figsize=(6 * len(chosen), 6.5), layout="constrained")
    for axis, place in zip(np.ravel(figure.subplots(1, len(chosen), squeeze=False)), chosen, strict=True):
        source = [*recipe.pieces.encode(data.source[place]), recipe.pieces.end]
        target, _ = search(recipe.kept, [source], recipe.pieces, beam=recipe.settings.beam)[0]
        written = recipe.pieces.decode(target)
        axis.set_title(f"{data.source[place]}\n= {written}\n({data.target[place]})", fontsize=7, wrap=True)
        if not aligns(recipe.kept) or not target:
            axis.axis("off")
            continue
        axis.imshow(alignment(recipe.kept, source, target, recipe.pieces), cmap="viridis", vmin=0, vmax=1)
        axis.set_xticks(range(len(source)), recipe.pieces.pieces(source), rotation=90, fontsize=7)
        axis.set_yticks(range(len(target)), recipe.pieces.pieces(target), fontsize=7)
    figure.savefig(path, dpi=110)
