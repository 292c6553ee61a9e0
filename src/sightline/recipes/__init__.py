"""How each system is trained and measured.

A recipe is one module, run by `train.py`:

```
Settings            frozen dataclass: steps, batch, rate, seed, precision, save_every, init, and its own; may have
                    held (samples of the quick figure, 1000), checks (how often it is taken, 5), clip (gradient norm, 1)
TINY, TINY_SYSTEM   settings and sizes of a tiny run, which learns visibly in under a minute
HELD                name of the figure that validation_step logs, higher is better: "val_…"
open_data(spec, split) -> data            "KIND:PATH" and "train" or "val"; data has len()
build(data | None, **sizes) -> System     annotated with its class, whose keywords may be set; without data, from config
read_batch(data, indices, recipe) -> dict of tensors, first dimension the batch; pure, the same for the same indices
Recipe(system, settings, data | None)     LightningModule: `settings`, `system`, `kept` (the network to save, of build's
                    class), validation_step, configure_optimizers, training_step: the mean loss, or {"loss": mean,
                    "count": over so many}, where that is not the samples (parts.py)
measure(recipe, data) -> figures          on all of a split, with a control
describe(recipe, data) -> more fields of the card
draw_samples(recipe, data, path)          writes samples.png
```

and, where needed,

```
order(data, settings)[step] -> indices    of the whole batch; else a permutation an epoch
agree(train, held)                        ValueError where they do not fit; may hand on what they share
save_beside(recipe, folder), load_beside(recipe, folder)    what the weights need beside config and card: a vocabulary
```

What several recipes share lies in one more module, which each of them names: `FRAME = captions`.  A part that a recipe
lacks is its frame's, or that of the frame's frame: a control may have all but its system from the recipe it controls.

`plan.py` says what is run (and `known.py` at once what cannot be), `batches.py` gives the data, `watch.py` looks after
the run, `results.py` writes the folder, `weights.py` opens earlier ones. Randomness belongs in training_step, where
torch's generator is seeded by step.
"""
