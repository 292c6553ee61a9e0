"""What captioning costs here, against the plain published style of implementation.

    python benchmarks/captioning.py                  # training steps and decoding, one thread
    python benchmarks/captioning.py --save           # writes results/captioning-cpu.md
    python benchmarks/captioning.py --rounds 7 --device cuda

Training: a step (forward, backward, Adam) of Show, Attend and Tell in its "port" form with the tutorial's sizes of
words, LSTM and attention, on 16 pictures with 5 captions each, against `Published` below: a Python loop that takes the
rows whose caption goes on, and computes the keys of all cells and the logits of all words anew at every step. Both have
the same weights, and their losses are compared before the clock starts.

Decoding: beam search of 32 pictures at once, against the published style (one picture after the other, its features
copied for each hypothesis), and against `generate` of transformers on a GPT-2 decoder with cross attention to the same
cells and about as many parameters. All say 20 words: the end token is blocked, so that all do the same work.

All variants run in turn within each round, and the median over rounds is told.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.decoding import beam_search
from sightline.systems.show_attend_tell import ShowAttendTell

VOCAB, CELLS, WIDTH, LENGTH = 2541, 49, 1280, 20


class Published(nn.Module):
    """The decoder as popular implementations write it, with the weights of `ours`."""

    def __init__(self, ours: ShowAttendTell) -> None:
        super().__init__()
        self.ours = ours
        self.cell = nn.LSTMCell(ours.read.in_features + ours.let_in.in_features, ours.recall.in_features)
        with torch.no_grad():
            self.cell.weight_ih.copy_(torch.cat([ours.read.weight, ours.let_in.weight], dim=1))
            self.cell.weight_hh.copy_(ours.recall.weight)
            self.cell.bias_ih.copy_(ours.read.bias)
            self.cell.bias_hh.zero_()

    def attend(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        attention = self.ours.attention
        keys = attention.key(features)
        scores = attention.score(torch.relu(keys + attention.query(hidden)[:, None])).squeeze(2)
        weights = scores.softmax(dim=1)
        return (features * weights[:, :, None]).sum(dim=1), weights

    def step(self, words: Tensor, features: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        context, weights = self.attend(features, hidden)
        context = self.ours.gate(hidden) * context
        hidden, cell = self.cell(torch.cat([words, context], dim=1), (hidden, cell))
        return self.ours.head(self.ours.dropout(hidden)), hidden, cell, weights

    def loss(self, features: Tensor, tokens: Tensor) -> Tensor:
        lengths, order = ((tokens != 0).sum(dim=1) - 1).sort(descending=True)
        features, tokens = features[order], tokens[order]
        words = self.ours.embedding(tokens)
        hidden, cell = self.ours.begin(features.mean(dim=1))
        steps = int(lengths[0])
        said = features.new_zeros(len(tokens), steps, VOCAB)
        alphas = features.new_zeros(len(tokens), steps, CELLS)
        for t in range(steps):
            rows = int((lengths > t).sum())
            logits, hidden, cell, weights = self.step(words[:rows, t], features[:rows], hidden[:rows], cell[:rows])
            said[:rows, t], alphas[:rows, t] = logits, weights
        mask = torch.arange(steps, device=tokens.device) < lengths[:, None]
        return F.cross_entropy(said[mask], tokens[:, 1 : steps + 1][mask]) + ((1 - alphas.sum(dim=1)) ** 2).mean()

    @torch.no_grad()
    def search(self, features: Tensor, beam: int) -> list[int]:
        features = features.expand(beam, -1, -1)
        hidden, cell = self.ours.begin(features.mean(dim=1))
        last, sums, written = torch.ones(beam, dtype=torch.long), torch.zeros(beam), torch.zeros(beam, 0).long()
        for t in range(LENGTH):
            logits, hidden, cell, _ = self.step(self.ours.embedding(last), features, hidden, cell)
            totals = sums[:, None] + logits.index_fill(1, torch.tensor([2]), float("-inf")).log_softmax(dim=1)
            sums, places = (totals[:1] if t == 0 else totals).flatten().topk(beam)
            rows, last = places // VOCAB, places % VOCAB
            hidden, cell = hidden[rows], cell[rows]
            written = torch.cat([written[rows], last[:, None]], dim=1)
        return written[0].tolist()


def captions(count: int, seed: int) -> Tensor:
    """Rows of tokens whose lengths are spread as Flickr8k's: 10.8 words in the mean."""
    random = torch.Generator().manual_seed(seed)
    lengths = (torch.randn(count, generator=random) * 3.8 + 10.8).round().clamp(3, 20).long()
    tokens = torch.randint(4, VOCAB, (count, 22), generator=random)
    place = torch.arange(22)
    tokens = tokens.where(place <= lengths[:, None], 0)
    tokens[:, 0] = 1
    return tokens.scatter(1, lengths[:, None] + 1, 2)


def gpt2(parameters: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    width, layers = 320, 2
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=width, n_layer=layers, n_head=5, add_cross_attention=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    while True:
        model = GPT2LMHeadModel(config)
        if sum(p.numel() for p in model.parameters()) >= 0.8 * parameters or config.n_layer > 12:
            return model.eval()
        config.n_layer += 1


def timed(variants: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Seconds of each variant: the median over rounds, all variants in turn in each."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def training(rounds: int, device: str) -> str:
    """The table of training steps."""
    torch.manual_seed(0)
    sizes = {"vocab": VOCAB, "width": WIDTH, "embedding": 512, "hidden": 512, "attention": 512, "dropout": 0.0}
    ours = ShowAttendTell(**sizes, form="port").to(device).train()
    plain = Published(ours).to(device).train()
    features, tokens = torch.rand(16, CELLS, WIDTH, device=device), captions(80, 1).to(device)
    copied = features.repeat_interleave(5, dim=0)
    batch = {"features": features, "tokens": tokens}
    difference = (ours.loss(batch)["loss"] - plain.loss(copied, tokens)).abs().item()
    assert difference < 1e-4, difference
    both = [torch.optim.Adam(model.parameters(), 4e-4) for model in (ours, plain)]

    def step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    found = timed(
        {
            "sightline": lambda: step(both[0], lambda: ours.loss(batch)["loss"]),
            "published style": lambda: step(both[1], lambda: plain.loss(copied, tokens)),
        },
        rounds,
        device,
    )
    lines = [
        f"Training, 16 pictures with 5 captions each, the two losses differ by {difference:.0e}:",
        "",
        "| | steps/s | times the published style |",
        "|---|---:|---:|",
    ]
    for name, seconds in found.items():
        lines.append(f"| {name} | {1 / seconds:.2f} | {found['published style'] / seconds:.2f} |")
    return "\n".join(lines)


def decoding(rounds: int, device: str) -> str:
    """The table of beam searches."""
    torch.manual_seed(0)
    sizes = {"vocab": VOCAB, "width": WIDTH, "embedding": 512, "hidden": 512, "attention": 512}
    ours = ShowAttendTell(**sizes, form="port").to(device).eval()
    plain = Published(ours).to(device).eval()
    features = torch.rand(32, CELLS, WIDTH, device=device)
    parameters = sum(p.numel() for p in ours.parameters())
    peer = gpt2(parameters).to(device)
    reduce = nn.Linear(WIDTH, peer.config.n_embd).to(device)

    @torch.no_grad()
    def search() -> list[list[int]]:
        step, state = ours.decoder(features)
        return beam_search(step, state, start=1, end=-1, beam=5, max_length=LENGTH, blocked=(2,)).lists()

    def peers() -> Tensor:
        start = torch.ones(32, 1, dtype=torch.long, device=device)
        return peer.generate(
            start, encoder_hidden_states=reduce(features), num_beams=5, max_new_tokens=LENGTH,
            min_new_tokens=LENGTH, do_sample=False, attention_mask=torch.ones_like(start),
        )  # fmt: skip

    variants: dict[str, Callable[[], object]] = {"sightline, 32 pictures at once": search}
    if device == "cpu":
        variants["published style, one picture after another"] = lambda: [plain.search(f[None], 5) for f in features]
        assert search() == [plain.search(one[None], 5) for one in features]
    peer_size = sum(p.numel() for p in peer.parameters()) / 1e6
    variants[f"transformers generate, GPT-2 of {peer_size:.1f} M"] = torch.no_grad()(peers)
    found = timed(variants, rounds, device)
    base = found["sightline, 32 pictures at once"]
    lines = [
        f"Beam search of 5, 32 pictures, 20 words, {parameters / 1e6:.1f} M parameters:",
        "",
        "| | pictures/s | times the time |",
        "|---|---:|---:|",
    ]
    for name, seconds in found.items():
        lines.append(f"| {name} | {32 / seconds:.1f} | {seconds / base:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true", help="write results/captioning-DEVICE.md beside this file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    machine = f"{platform.machine()}, torch {torch.__version__}, {given.threads} thread(s), {given.rounds} rounds"
    command = f"python benchmarks/captioning.py --rounds {given.rounds} --device {given.device} --save"
    text = (
        f"Show, Attend and Tell on {given.device}, {machine}\n\n{training(given.rounds, given.device)}\n\n"
        f"{decoding(given.rounds, given.device)}\n\nCommand: `{command}`\n"
    )
    print(text)
    if given.save:
        name = f"captioning-{given.device}.md"
        (Path(__file__).parent / "results" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
