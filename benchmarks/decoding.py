"""What beam search costs here, against searching one sentence after the other.

    python benchmarks/decoding.py                    # beam 5, 32 sentences, one thread
    python benchmarks/decoding.py --rounds 7 --save

The network is a German-English translator of the bundled sizes with random weights; every search writes 20 words (the
end is forbidden), so that all do the same work. "Together": `beam_search` over all sentences. "One by one": the same,
a sentence at a time. "Plain": hypotheses in lists and the memory copied for each, as tutorials write it. All three find
the same scores, which is checked before the clock starts. (benchmarks/captioning.py compares with `generate` of
transformers.)
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sightline.decoding import beam_search
from sightline.systems.seq2seq import Seq2Seq

WORDS, LENGTH, START, END = 4000, 20, 1, 2


@torch.no_grad()
def together(model: Seq2Seq, source: Tensor, lengths: Tensor, beam: int) -> Tensor:
    step, state = model.steps(source, lengths)

    def endless(tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, state = step(tokens, state)
        return log_probs.index_fill(1, torch.tensor([END]), float("-inf")), state

    return beam_search(endless, state, start=START, end=END, beam=beam, max_length=LENGTH).scores[:, 0]


def one_by_one(model: Seq2Seq, source: Tensor, lengths: Tensor, beam: int) -> Tensor:
    rows = range(len(source))
    return torch.cat([together(model, source[i : i + 1], lengths[i : i + 1], beam) for i in rows])


@torch.no_grad()
def plain(model: Seq2Seq, source: Tensor, lengths: Tensor, beam: int) -> Tensor:
    best = []
    for row in range(len(source)):
        alive: list[tuple[float, list[int]]] = [(0.0, [START])]
        copies: dict[int, tuple] = {}
        states: list[Tensor] = []
        for time_step in range(LENGTH):
            count = len(alive)
            if count not in copies:
                copies[count] = model.steps(
                    source[row : row + 1].repeat(count, 1), lengths[row : row + 1].repeat(count)
                )
            step, first = copies[count]
            log_probs, after = step(
                torch.tensor([s[-1] for _, s in alive]), torch.stack(states) if time_step else first
            )
            grown = []
            for place, (total, sequence) in enumerate(alive):
                log_probs[place, END] = float("-inf")
                values, tokens = log_probs[place].topk(beam)
                for value, token in zip(values.tolist(), tokens.tolist(), strict=True):
                    grown.append((total + value, [*sequence, token], place))
            grown.sort(key=lambda one: one[0], reverse=True)
            alive = [(total, sequence) for total, sequence, _ in grown[:beam]]
            states = [after[place] for *_, place in grown[:beam]]
        best.append(alive[0][0])
    return torch.tensor(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=32)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true", help="write results/decoding-cpu.md beside this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = Seq2Seq(source_words=WORDS, target_words=WORDS, decoder=384, readout=256, tied=True).eval()
    source = torch.randint(4, WORDS, (options.sentences, 16))
    lengths = torch.randint(8, 17, (options.sentences,))
    ways: dict[str, Callable[..., Tensor]] = {"together": together, "one by one": one_by_one, "plain": plain}
    scores = [way(model, source, lengths, options.beam) for way in ways.values()]
    for other in scores[1:]:
        torch.testing.assert_close(scores[0], other, atol=1e-3, rtol=0)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way(model, source, lengths, options.beam)
            seconds[name].append(time.perf_counter() - begun)
    lines = [
        f"Beam search, beam {options.beam}, {options.sentences} sentences, {LENGTH} words each, "
        f"{options.rounds} rounds, {options.threads} thread(s), {platform.machine()}, torch {torch.__version__}",
        "",
        "| search | sentences/s | together is faster by |",
        "|---|---|---|",
    ]
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds["together"], strict=True))
        lines.append(f"| {name} | {options.sentences / statistics.median(times):.1f} | {ratio:.2f} times |")
    print("\n".join(lines))
    if options.save:
        text = "\n".join([*lines, "", "Command: `python benchmarks/decoding.py --save`", ""])
        (Path(__file__).parent / "results" / "decoding-cpu.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
