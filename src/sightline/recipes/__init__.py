"""How each system is trained and measured.

A recipe is one module: `Settings` (a frozen dataclass with `steps`, `batch`, `seed`, `precision`, `save_every` and
whatever else may be set), `build(classes, **sizes)` (the system), `Recipe(system, settings, side, classes)` (a
LightningModule with `kept`, the network to save, and `logits(images)`), and `TINY`, `TINY_SYSTEM` (what a tiny run
sets).  `train.py` runs it, `plan.py` says what is run, `batches.py` gives the data, `watch.py` looks after the run,
`results.py` writes the folder.
"""
