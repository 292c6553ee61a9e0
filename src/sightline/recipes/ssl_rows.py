"""The rows of the table of self-supervision: which recipe, on which backbone, with which settings.

All rows read the same pictures in the same order, as often, under AdamW; rows of one network share its rate and its
decay, which stays (DINO's own grows to 0.4).  A view is one look at a picture, and multi-crop's small views (a quarter
of the pixels each) come on top, as in the paper.
"""

from dataclasses import dataclass, field
from typing import Any

SIDE = 32
BATCH = {"full": 512, "small": 128, "tiny": 32}
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "full": {  # for a GPU
        "resnet": {"image_size": SIDE, "blocks": (1, 1, 1, 1), "width": 64, "stem": "small"},
        "vit": {"image_size": SIDE, "patch": 4, "dim": 192, "depth": 6, "heads": 3},
    },
    "small": {  # for a CPU
        "resnet": {"image_size": SIDE, "blocks": (1, 1, 1, 1), "width": 24, "stem": "half"},
        "vit": {"image_size": SIDE, "patch": 8, "dim": 96, "depth": 4, "heads": 3},
    },
    "tiny": {
        "resnet": {"image_size": SIDE, "blocks": (1, 1, 1, 1), "width": 8, "stem": "half"},
        "vit": {"image_size": SIDE, "patch": 8, "dim": 24, "depth": 1, "heads": 3},
    },
}
# a residual network takes a higher rate than a transformer; blurs of a tenth of 32 pixels say nothing
SETTINGS: dict[str, dict[str, Any]] = {
    "resnet": {"rate": 1e-3, "decay": 1e-3, "last_decay": 1e-3},
    "vit": {"rate": 5e-4, "decay": 0.04, "last_decay": 0.04},
}
SHARED: dict[str, Any] = {"save_every": 500, "seed": 0}
PAIR: dict[str, Any] = {"blur": 0.0, "least": 0.2}
CROPS: dict[str, Any] = {"blur": 0.0, "least": 0.1, "smallest": 0.25, "crops": 4}
DINO: dict[str, Any] = {**CROPS, "momentum": 0.99, "prototypes": 1024, "hidden": 512, "bottleneck": 128}


@dataclass(frozen=True)
class Row:
    """One line of the table: which recipe, on which backbone, with what; `title` is the method's name."""

    title: str
    recipe: str
    architecture: str
    settings: dict[str, Any] = field(default_factory=dict)
    ablation: bool = False


def _rows() -> dict[str, Row]:
    """All rows by name: the paper's order on the residual network, then the transformer, then what collapses."""
    rivals = {
        "simclr": Row("SimCLR", "simclr", "", PAIR),
        "moco": Row("MoCo v2", "moco", "", PAIR),
        "infomin": Row("InfoMin", "infomin", "", PAIR),
        "barlow_twins": Row("Barlow Twins", "barlow_twins", "", PAIR),
        "obow": Row("OBoW", "obow", "", {**CROPS, "momentum": 0.99}),
        "byol": Row("BYOL", "byol", "", PAIR),
        "deepcluster": Row("DeepCluster v2", "deepcluster", "", CROPS),
        "swav": Row("SwAV", "swav", "", CROPS),
        "dino": Row("DINO", "dino", "", DINO),
    }
    controls = {
        "random": Row("random", "supervised", "", {"rate": 0.0, "steps": 20}),
        "supervised": Row("supervised", "supervised", ""),
    }
    rows = {"pixels": Row("raw pixels", "", "")}
    for architecture, some in (("resnet", rivals), ("vit", {name: rivals[name] for name in ("byol", "swav", "dino")})):
        for name, row in {**controls, **some}.items():
            more = {"head_norm": True} if (name, architecture) == ("dino", "resnet") else {}
            rows[f"{name}/{architecture}"] = Row(row.title, row.recipe, architecture, row.settings | more)
    without: dict[str, dict[str, Any]] = {
        "centring": {"centring": False},
        "sharpening": {"warm_temperature": 0.1, "temperature": 0.1},  # the student's own
        "momentum": {"momentum": 0.0, "last_momentum": 0.0},
    }
    for name, more in without.items():
        rows[f"no_{name}/vit"] = Row(f"DINO, no {name}", "dino", "vit", DINO | more, ablation=True)
    return rows


ROWS = _rows()
