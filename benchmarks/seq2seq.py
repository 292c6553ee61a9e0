"""What a training step of sequence to sequence costs here, against the plain published style of implementation.

    python benchmarks/seq2seq.py                     # every decoder, one thread, the table printed
    python benchmarks/seq2seq.py --rounds 7 --batch 128 --save

Sizes are those of bentrevett/pytorch-seq2seq's third notebook: words embedded in 256, GRUs of 512, vocabularies of
7,853 and 5,893 words; sentences of 16 words. A step is forward, backward and Adam. `Published` below holds the same
weights and is written as such notebooks and papers' codes are: a Python loop that, for each word, looks it up, computes
every key anew beside a copy of the state, and the logits of that word. The losses of both are compared before the clock
starts. Both run in turn within each round; the median over rounds of the times and of their ratio is told.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sightline.systems.seq2seq import Seq2Seq

SOURCE, TARGET, LENGTH = 7853, 5893, 16
KINDS = ("none", "additive", "general", "concat")


class Published(nn.Module):
    """The same network with the same weights, a word at a time."""

    def __init__(self, ours: Seq2Seq) -> None:
        super().__init__()
        self.ours = ours

    def attend(self, state: Tensor, memory: Tensor) -> Tensor:
        layer, kind = self.ours.decoder.attention, self.ours.attention
        if kind == "general":
            scores = (memory @ layer.key.weight.T @ state[:, :, None]).squeeze(2)
        else:
            copies = state[:, None].repeat(1, memory.shape[1], 1)
            both = torch.cat([layer.query.weight, layer.key.weight], dim=1)
            mapped = F.linear(torch.cat([copies, memory], dim=2), both, layer.key.bias)
            scores = layer.score(torch.tanh(mapped)).squeeze(2)
        return torch.bmm(scores.softmax(dim=1)[:, None], memory).squeeze(1)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        ours, decoder = self.ours, self.ours.decoder
        words = pack_padded_sequence(ours.source(batch["source"]), batch["lengths"], batch_first=True)
        packed, last = ours.encoder.rnn(words)
        memory, _ = pad_packed_sequence(packed, batch_first=True)
        summary = torch.cat([last[0], last[1]], dim=1)
        hidden = torch.tanh(ours.first(summary))
        fed = torch.zeros(len(hidden), decoder.features)
        logits = []
        for time_step in range(batch["target"].shape[1] - 1):
            word = ours.target(batch["target"][:, time_step])
            if ours.attention in ("none", "additive"):
                context = summary if ours.attention == "none" else self.attend(hidden, memory)
                _, state = decoder.rnn(torch.cat([word, context], dim=1)[:, None], hidden[None].contiguous())
                hidden = state[0]
                logits.append(ours.words(torch.cat([hidden, context, word], dim=1)))
            else:
                _, state = decoder.rnn(torch.cat([word, fed], dim=1)[:, None], hidden[None].contiguous())
                hidden = state[0]
                fed = torch.tanh(decoder.combine(torch.cat([self.attend(hidden, memory), hidden], dim=1)))
                logits.append(ours.words(fed))
        flat = torch.stack(logits, dim=1).flatten(0, 1)
        return F.cross_entropy(flat, batch["target"][:, 1:].flatten(), ignore_index=0)


def compare(kind: str, batch_size: int, rounds: int) -> tuple[float, float, float]:
    """Seconds of a step, published and ours, and the median of their ratio."""
    torch.manual_seed(0)
    ours = Seq2Seq(source_words=SOURCE, target_words=TARGET, embedding=256, encoder=512, decoder=512, attention=kind)
    published = Published(ours)
    batch = {
        "source": torch.randint(4, SOURCE, (batch_size, LENGTH)),
        "lengths": torch.full((batch_size,), LENGTH),
        "target": torch.randint(4, TARGET, (batch_size, LENGTH + 1)),
    }
    optimizer = torch.optim.Adam(ours.parameters(), lr=1e-4)

    def step(loss: Tensor) -> float:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    torch.testing.assert_close(published.loss(batch), ours.loss(batch)["loss"], atol=1e-4, rtol=0)
    ways = {"published": lambda: published.loss(batch), "ours": lambda: ours.loss(batch)["loss"]}
    for way in ways.values():
        step(way())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            step(way())
            seconds[name].append(time.perf_counter() - begun)
    ratio = statistics.median(a / b for a, b in zip(seconds["published"], seconds["ours"], strict=True))
    return statistics.median(seconds["published"]), statistics.median(seconds["ours"]), ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--save", action="store_true", help="write results/seq2seq-cpu.md beside this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [
        f"Training step of sequence to sequence, batch {options.batch}, {LENGTH} words, {options.rounds} rounds, "
        f"{options.threads} thread(s), {platform.machine()}, torch {torch.__version__}",
        "",
        "| attention | published style, s | here, s | times |",
        "|---|---|---|---|",
    ]
    for kind in options.kinds:
        published, ours, ratio = compare(kind, options.batch, options.rounds)
        lines.append(f"| {kind} | {published:.2f} | {ours:.2f} | {ratio:.2f} |")
    print("\n".join(lines))
    if options.save:
        text = "\n".join([*lines, "", "Command: `python benchmarks/seq2seq.py --save`", ""])
        (Path(__file__).parent / "results" / "seq2seq-cpu.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
