"""METEOR and SPICE of captions, by the official programs in Java that `pycocoevalcap` brings along."""

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sightline.metrics.captions import Caption, cut_captions


def meteor(captions: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> float:
    """METEOR 1.5 (Denkowski & Lavie 2014) of the whole corpus, as the COCO caption evaluation runs it.

    Raises ValueError in one line where Java or `pycocoevalcap` is not there.
    """
    return _meteor(captions, references)[0]


def meteor_each(captions: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> np.ndarray:
    """METEOR of every picture, (pictures,)."""
    return np.array(_meteor(captions, references)[1])


def spice(captions: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> float:
    """SPICE (Anderson et al. 2016): mean F of the scene graphs that its parser finds in the captions.

    Raises ValueError in one line where Java, `pycocoevalcap` or the parser's models are not there, or the run fails.
    """
    folder = _package_with_java("SPICE")
    if not (folder / "spice" / "lib" / "stanford-corenlp-3.6.0-models.jar").is_file():
        raise ValueError(
            "SPICE needs the models of Stanford CoreNLP 3.6.0, which are not there; with a network, "
            "run python -m pycocoevalcap.spice.get_stanford_models once, or leave SPICE out"
        )
    from pycocoevalcap.spice.spice import Spice

    known, said = _as_official(captions, references)
    try:
        return float(Spice().compute_score(known, said)[0])
    except (subprocess.CalledProcessError, OSError) as error:
        raise ValueError(f"SPICE did not run ({error}); its program wants Java 8, or leave SPICE out") from error


def missing_for(metric: str) -> str | None:
    """Says in one line what METEOR or SPICE lacks on this machine; None where Java and the package are there."""
    if shutil.which("java") is None:
        return f"{metric} needs Java, and there is no `java` on the path; install a Java runtime or leave {metric} out"
    if importlib.util.find_spec("pycocoevalcap") is None:
        return f"{metric} needs the package pycocoevalcap; pip install pycocoevalcap or leave {metric} out"
    return None


def _package_with_java(metric: str) -> Path:
    lacking = missing_for(metric)
    if lacking is not None:
        raise ValueError(lacking)
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"{metric} needs the package pycocoevalcap, and what is there under that name is not it")
    return Path(next(iter(found.submodule_search_locations)))


def _meteor(captions: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> tuple[float, list[float]]:
    known, said = _as_official(captions, references)
    _package_with_java("METEOR")
    from pycocoevalcap.meteor.meteor import Meteor

    try:
        total, each = Meteor().compute_score(known, said)
    except (OSError, ValueError) as error:
        raise ValueError(f"METEOR did not run ({error}); see whether `java -version` works") from error
    return float(total), [float(one) for one in each]


def _as_official(
    captions: Sequence[Caption], references: Sequence[Sequence[Caption]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    cut, known = cut_captions(captions, references)
    said = {number: [" ".join(words)] for number, words in enumerate(cut)}
    return {number: [" ".join(words) for words in of_one] for number, of_one in enumerate(known)}, said
