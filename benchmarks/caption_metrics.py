"""Published figures of caption metrics beside ours, and the cut of words beside the official program's.

    python benchmarks/caption_metrics.py FOLDER            # FOLDER holds ece285, nlg_eval, spot_the_diff_ddla, …
    python benchmarks/caption_metrics.py FOLDER --cut captions.txt     # one caption a line, needs Java

METEOR is left out where Java or pycocoevalcap is not there.  The table is printed and saved beside this file.
"""

import argparse
import importlib.util
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sightline.data.judgements import Judgements, open_crowd, open_expert
from sightline.metrics.captions import bleu_each, cider_d_each, rouge_l_each, score_captions
from sightline.metrics.correlation import kendall
from sightline.metrics.java import meteor, meteor_each, missing_for
from sightline.metrics.words import DROPPED, caption_words

RESULTS = Path(__file__).parent / "results" / "caption-metrics.md"
OURS = {f"Bleu_{n}": f"BLEU-{n}" for n in range(1, 5)} | {"ROUGE_L": "ROUGE-L", "CIDEr": "CIDEr", "METEOR": "METEOR"}


def coco_pair(folder: Path) -> tuple[list[str], list[list[str]]]:
    known: dict[str, list[str]] = {}
    for entry in json.loads((folder / "references.json").read_text())["annotations"]:
        known.setdefault(str(entry["image_id"]), []).append(entry["caption"])
    said = json.loads((folder / "hypotheses.json").read_text())
    return [one["caption"] for one in said], [known[str(one["image_id"])] for one in said]


def lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").split("\n") if line]


def rows_of_sets(folder: Path, java: bool) -> list[tuple[str, str, float, float]]:
    """(set, metric, published, ours) of the three sets with captions and references."""
    sets: list[tuple[str, dict, tuple]] = []
    for name in ("ece285", "spot_the_diff_ddla"):
        told = json.loads((folder / name / "published.json").read_text())
        sets.append((name, told["scores"], coco_pair(folder / name)))
    told = json.loads((folder / "nlg_eval" / "published.json").read_text())
    whole = told["corpus_from_files"]
    known = [lines(folder / "nlg_eval" / name) for name in whole["references"]]
    said = lines(folder / "nlg_eval" / whole["hypothesis"])
    sets.append(("nlg_eval", whole["scores"], (said, [list(pair) for pair in zip(*known, strict=True)])))
    for name in ("single_pair", "single_pair_non_ascii"):
        # nlg-eval does not cut words: it splits at blanks
        pair = ([told[name]["hyp"].split()], [[one.split() for one in told[name]["ref"]]])
        sets.append((f"nlg_eval {name}", told[name]["scores"], pair))
    found = []
    for name, scores, (captions, references) in sets:
        ours = score_captions(captions, references)
        if java:
            ours["METEOR"] = meteor(captions, references)
        found += [(name, OURS[key], value, ours[OURS[key]]) for key, value in scores.items() if OURS[key] in ours]
    return found


def rows_of_people(folder: Path, java: bool) -> list[tuple[str, str, float, float]]:
    told = json.loads((folder / "flickr8k_human" / "published.json").read_text())
    tables: list[tuple[str, str, Callable[..., Judgements]]] = [
        ("Flickr8k-Expert", "c", open_expert),
        ("Flickr8k-CF", "b", open_crowd),
    ]
    found = []
    for name, variant, read in tables:
        judged = read(folder / "flickr8k_human", folder / "Flickr8k.token.full.txt")
        pair = (judged.captions, judged.references)
        ours = dict(zip(("BLEU-1", "BLEU-4"), bleu_each(*pair)[:, (0, 3)].T, strict=True))
        ours |= {"ROUGE-L": rouge_l_each(*pair), "CIDEr": cider_d_each(*pair)}
        if java:
            ours["METEOR"] = meteor_each(*pair)
        for metric, value in told[name]["scores"].items():
            if metric in ours:
                tau = 100 * kendall(np.asarray(ours[metric]), judged.ratings, variant=variant)
                found.append((f"{name} (tau-{variant}, {len(judged)} ratings)", metric, value, tau))
    return found


def official_cut(file: Path) -> list[list[str]]:
    """The words that the official program finds, line by line."""
    folder = Path(next(iter(importlib.util.find_spec("pycocoevalcap").submodule_search_locations))) / "tokenizer"
    command = ["java", "-cp", str(folder / "stanford-corenlp-3.4.1.jar"), "edu.stanford.nlp.process.PTBTokenizer"]
    run = subprocess.run([*command, "-preserveLines", "-lowerCase", str(file)], capture_output=True, check=True)
    return [[w for w in line.split() if w not in DROPPED] for line in run.stdout.decode().split("\n")]


def compare_cut(file: Path) -> str:
    text = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    differ = [
        (line, ours, theirs)
        for line, theirs in zip(text, official_cut(file), strict=False)
        if (ours := caption_words(line)) != theirs
    ]
    for line, ours, theirs in differ[:20]:
        print(f"{line}\n  ours     {' '.join(ours)}\n  official {' '.join(theirs)}")
    return f"{len(differ)} of {len(text)} lines are cut in another way than by the official program"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cut", type=Path, help="a file with one caption a line, to compare the cut of words on")
    given = parser.parse_args()
    if given.cut:
        print(compare_cut(given.cut))
        return
    java = missing_for("METEOR") is None
    begun = time.perf_counter()
    rows = rows_of_sets(given.folder, java) + rows_of_people(given.folder, java)
    table = ["| set | metric | published | ours |", "|---|---|---|---|"]
    table += [f"| {name} | {metric} | {published:g} | {ours:.7g} |" for name, metric, published, ours in rows]
    text = "\n".join(table)
    print(text)
    print(f"{time.perf_counter() - begun:.0f} s")
    RESULTS.write_text(f"`python benchmarks/caption_metrics.py FOLDER`\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
