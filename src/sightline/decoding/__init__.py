"""Text from a model's next-token distribution: greedy, beam search, sampling.

All three drive a `step(tokens, state) -> (log-probabilities, state)` and know nothing else of the model.
"""

from sightline.decoding.beam import beam_search
from sightline.decoding.greedy import greedy
from sightline.decoding.sample import sample
from sightline.decoding.step import Decoded, take

__all__ = ["Decoded", "beam_search", "greedy", "sample", "take"]
