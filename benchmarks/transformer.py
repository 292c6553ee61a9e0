"""What the Transformer costs here: beam search against transformers' Marian, training against torch.nn.Transformer.

    python benchmarks/transformer.py                     # all three tables, one thread
    python benchmarks/transformer.py decode --sizes opus # beam search at the size of Helsinki-NLP/opus-mt
    python benchmarks/transformer.py --save              # writes results/transformer-cpu.md

decode   beam 4 of sentences of 16 words, 20 words written, batch 1 and 32: `generate` of MarianMTModel and our
         `beam_search` with the same random weights (a MarianMT folder that `load_checkpoint` reads). Neither can end
         before (the end's bias is -1e9), so both do the same work; both must find the same scores and sentences.
train    forward, backward, clipping, Adam on 64 pairs of 16 words with the layers of 9.4 million parameters, in fp32
         and bf16-mixed: torch.nn.Transformer with our tables and loss around it, and ours as the recipe runs it. The
         losses of both are compared without dropout before the clock starts.
length   a training step of 2048 words in sentences of 8 … 128, Transformer and recurrent translator (additive
         attention) of 3.9 million parameters each; bf16-mixed where the CPU computes it.

All variants run in turn within each round; medians over the rounds, and of the ratios within a round, are told.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sightline.attention import masks
from sightline.checkpoints.load import load_checkpoint
from sightline.decoding import beam_search
from sightline.objectives.label_smoothing import smoothed_cross_entropy
from sightline.recipes.machines import halves
from sightline.systems.seq2seq import Seq2Seq
from sightline.systems.transformer import Transformer

READ, WRITTEN, BEAM = 16, 20, 4
SIZES = {  # words, width, layers, heads, feed-forward
    "small": (8000, 256, 4, 4, 1024),
    "opus": (58101, 512, 6, 8, 2048),
}


def timed(variants: dict[str, Callable[[], object]], rounds: int) -> tuple[dict[str, float], float]:
    """Median seconds of each variant, and the median over rounds of first / last."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for variant in variants.values():
        variant()
    for _ in range(rounds):
        for name, variant in variants.items():
            begun = time.perf_counter()
            variant()
            seconds[name].append(time.perf_counter() - begun)
    first, *_, last = seconds.values()
    ratio = statistics.median(a / b for a, b in zip(first, last, strict=True))
    return {name: statistics.median(times) for name, times in seconds.items()}, ratio


# -- beam search -------------------------------------------------------------------------------------------------------


def marian(size: str, folder: Path) -> tuple[Any, Transformer]:
    """A MarianMTModel with random weights that never ends a sentence, and ours read from its folder."""
    from transformers import MarianConfig, MarianMTModel

    words, dim, depth, heads, hidden = SIZES[size]
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", depth), ("attention_heads", heads), ("ffn_dim", hidden))
    }
    config = MarianConfig(
        vocab_size=words, d_model=dim, pad_token_id=words - 1, eos_token_id=0, decoder_start_token_id=words - 1,
        forced_eos_token_id=None, scale_embedding=True, activation_function="swish", **sides,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = MarianMTModel(config).eval()
    for name, parameter in theirs.named_parameters():
        if parameter.dim() > 1 and "embed_positions" not in name:
            nn.init.normal_(parameter, std=2 * parameter.shape[1] ** -0.5)
    theirs.final_logits_bias[0, [0, words - 1]] = -1e9
    theirs.save_pretrained(folder)
    mine = load_checkpoint(folder)
    assert isinstance(mine, Transformer)
    return theirs, mine


def decode(size: str, rounds: int) -> list[str]:
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        theirs, mine = marian(size, Path(folder))
    words, count = SIZES[size][0], sum(p.numel() for p in mine.parameters())
    for batch in (1, 32):
        source, lengths = torch.randint(1, words - 1, (batch, READ)), torch.full((batch,), READ)
        mask = torch.ones_like(source)

        def published(source: Tensor = source, mask: Tensor = mask, told: bool = False) -> Any:
            return theirs.generate(
                input_ids=source, attention_mask=mask, num_beams=BEAM, max_new_tokens=WRITTEN, do_sample=False,
                length_penalty=1.0, return_dict_in_generate=True, output_scores=told,
            )  # fmt: skip

        def ours(source: Tensor = source, lengths: Tensor = lengths) -> Any:
            with torch.no_grad():
                step, state = mine.steps(source, lengths)
            limits: dict[str, Any] = {"beam": BEAM, "max_length": WRITTEN, "length_penalty": 1.0}
            return beam_search(step, state, start=words - 1, end=0, **limits)

        wanted, found = published(told=True), ours()
        torch.testing.assert_close(found.scores[:, 0], wanted.sequences_scores, atol=1e-4, rtol=0)
        same = sum(a == b for a, b in zip(found.lists(), wanted.sequences[:, 1:].tolist(), strict=True))
        seconds, ratio = timed({"published": published, "ours": ours}, rounds)
        speed = {name: f"{batch * WRITTEN / each:,.0f}" for name, each in seconds.items()}
        lines.append(
            f"| {size}, {count / 1e6:.1f} M | {batch} | {speed['published']} | {speed['ours']} | {ratio:.2f} | "
            f"{same} of {batch} |"
        )
    head = "| size, parameters | batch | transformers, words/s | here, words/s | times | the same sentence |"
    return [head, "|---|---:|---:|---:|---:|---:|", *lines] if size == "small" else lines


# -- training ----------------------------------------------------------------------------------------------------------


class Published(nn.Module):
    """torch.nn.Transformer between the tables, waves and outputs of `ours`."""

    def __init__(self, ours: Transformer, dropout: float) -> None:
        super().__init__()
        _, dim, depth, heads, hidden = SIZES["small"]
        self.ours = [ours]  # not its parameters: those that are used are given to the optimizer
        self.core = nn.Transformer(dim, heads, depth, depth, hidden, dropout, batch_first=True, norm_first=True)
        for side, other in ((self.core.encoder, ours.encoder), (self.core.decoder, ours.decoder)):
            side.norm.load_state_dict(other.norm.state_dict())
            for layer, own in zip(side.layers, other.layers, strict=True):
                self._copy(layer, own)

    @staticmethod
    def _copy(layer: Any, own: Any) -> None:
        for name, attention in (("self_attn", own.attention), ("multihead_attn", own.cross)):
            if attention is not None:
                parts, theirs = (attention.query, attention.key, attention.value), getattr(layer, name)
                theirs.in_proj_weight.data = torch.cat([part.weight for part in parts]).data.clone()
                theirs.in_proj_bias.data = torch.cat([part.bias for part in parts]).data.clone()
                theirs.out_proj.load_state_dict(attention.output.state_dict())
        layer.linear1.load_state_dict(own.feedforward.expand.state_dict())
        layer.linear2.load_state_dict(own.feedforward.contract.state_dict())

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        ours, given = self.ours[0], batch["target"][:, :-1]
        hidden = ~masks.padding(batch["lengths"], batch["source"].shape[1])[:, 0, 0]
        future = ~masks.causal(given.shape[1])[0, 0]
        source, target = ours.embed(ours.source, batch["source"]), ours.embed(ours.source, given)
        features = self.core(
            source, target, tgt_mask=future, src_key_padding_mask=hidden, memory_key_padding_mask=hidden,
            tgt_is_causal=True,
        )  # fmt: skip
        return smoothed_cross_entropy(ours.logits(features).flatten(0, 1), batch["target"][:, 1:].flatten())[0]


def pairs(words: int, batch: int, length: int) -> dict[str, Tensor]:
    """Pairs of sentences, a quarter of them shorter than the others."""
    lengths = torch.full((batch,), length)
    lengths[: batch // 4] -= length // 4
    place = torch.arange(length)
    source = torch.randint(4, words, (batch, length)).where(place < lengths[:, None], 0)
    target = torch.randint(4, words, (batch, length + 1))
    target[:, 1:] = target[:, 1:].where(place < lengths[:, None], 0)
    return {"source": source, "lengths": lengths, "target": target}


def stepper(parameters: list[Tensor], loss: Callable[[], Tensor], half: bool, plain: bool) -> Callable[[], None]:
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def step() -> None:
        with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext(), torch.autocast("cpu", enabled=half):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def train(rounds: int) -> list[str]:
    words, dim, depth, heads, hidden = SIZES["small"]
    batch = pairs(words, 64, READ)
    lines = [
        "| precision | dropout | torch.nn.Transformer, steps/s | here, steps/s | times |",
        "|---|---:|---:|---:|---:|",
    ]
    for half, dropout in ((False, 0.0), (False, 0.1), (True, 0.1)):
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"dim": dim, "depth": depth, "heads": heads, "hidden": hidden, "norm": "pre"}
        ours = Transformer(words=words, dropout=dropout, **sizes)
        published = Published(ours, dropout)
        for model in (ours, published):
            model.eval()
        torch.testing.assert_close(published.loss(batch), ours.loss(batch)["loss"], atol=1e-4, rtol=0)
        for model in (ours, published):
            model.train()
        around = [ours.source.weight, ours.bias]

        def of_ours(ours: Transformer = ours) -> Tensor:
            return ours.loss(batch)["loss"]

        def of_theirs(published: Published = published) -> Tensor:
            return published.loss(batch)

        variants = {
            "published": stepper([*published.parameters(), *around], of_theirs, half, plain=False),
            "ours": stepper(list(ours.parameters()), of_ours, half, plain=True),
        }
        seconds, ratio = timed(variants, rounds)
        told = f"{1 / seconds['published']:.2f} | {1 / seconds['ours']:.2f} | {ratio:.2f} |"
        lines.append(f"| {'bf16-mixed' if half else 'fp32'} | {dropout} | {told}")
    return lines


def by_length(rounds: int) -> list[str]:
    words, lines = 4000, ["| words a sentence | recurrent, s | Transformer, s | times |", "|---:|---:|---:|---:|"]
    torch.manual_seed(0)
    sizes = {"embedding": 256, "encoder": 256, "decoder": 384, "readout": 256}
    recurrent = Seq2Seq(source_words=words, target_words=words, tied=True, dropout=0.2, **sizes)
    transformer = Transformer(words=words, dim=192, depth=3, heads=4, hidden=768, norm="pre", dropout=0.2)
    for length in (8, 16, 32, 64, 128):
        batch = pairs(words, 2048 // length, length)

        def of_recurrent(batch: dict[str, Tensor] = batch) -> Tensor:
            return recurrent.loss(batch, 0.1)["loss"]

        def of_transformer(batch: dict[str, Tensor] = batch) -> Tensor:
            return transformer.loss(batch)["loss"]

        variants = {
            "recurrent": stepper(list(recurrent.parameters()), of_recurrent, half=halves(), plain=False),
            "transformer": stepper(list(transformer.parameters()), of_transformer, half=halves(), plain=True),
        }
        seconds, ratio = timed(variants, rounds)
        lines.append(f"| {length} | {seconds['recurrent']:.2f} | {seconds['transformer']:.2f} | {ratio:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["decode", "train", "length"], help="decode, train, length")
    parser.add_argument("--sizes", nargs="+", default=["small"], choices=SIZES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true", help="write results/transformer-cpu.md beside this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [f"{options.rounds} rounds, {options.threads} thread(s), {platform.machine()}, torch {torch.__version__}"]
    if "decode" in options.what:
        lines += ["", f"Beam search, beam {BEAM}, {READ} words read, {WRITTEN} written, fp32", ""]
        for size in sorted(options.sizes, reverse=True):
            lines += decode(size, options.rounds)
    if "train" in options.what:
        lines += ["", f"Training, 64 pairs of {READ} words, 9.4 M parameters", "", *train(options.rounds)]
    if "length" in options.what:
        precision = "bf16-mixed" if halves() else "fp32"
        lines += ["", f"A training step of 2048 words, 3.9 M parameters, {precision}", "", *by_length(options.rounds)]
    print("\n".join(lines))
    if options.save:
        text = "\n".join([*lines, "", "Command: `python benchmarks/transformer.py --save`", ""])
        (Path(__file__).parent / "results" / "transformer-cpu.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
