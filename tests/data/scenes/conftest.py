"""An evaluator of the world's language that shares no code with it: phrases are read from the text and held against
numbers worked out here from the angles of the camera."""

import re
from dataclasses import dataclass

import numpy as np
import pytest

WORDS = {
    "size": ("small", "large"),
    "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
    "material": ("rubber", "metal"),
    "shape": ("cube", "sphere", "cylinder", "cone", "dome"),
}
KIND_OF = {word: kind for kind, words in WORDS.items() for word in words}
RELATION = {"left of": (0, -1), "right of": (0, 1), "in front of": (1, -1), "behind": (1, 1)}
LIFT = {"cube": 0.8, "sphere": 1.0, "cylinder": 0.9, "cone": 1.0, "dome": 0.0}
RADIUS = {"small": 0.46, "large": 0.8}


@dataclass
class Seen:
    """A scene as this evaluator sees it: (right, away) of each thing along the ground, across the picture, distance."""

    attributes: list[dict[str, str]]
    ground: np.ndarray
    across: np.ndarray
    distance: np.ndarray

    def matching(self, phrase: str) -> list[int]:
        """Things that fit a phrase such as "small red cube", "metal objects", "a sphere"."""
        wanted: dict[str, str] = {}
        for word in re.findall(r"[a-z]+", phrase):
            word = word if word in KIND_OF else word.removesuffix("s")
            if word in KIND_OF:
                wanted[KIND_OF[word]] = word
            else:
                assert word in ("a", "the", "object", "thing"), f"unknown word {word!r} in {phrase!r}"
        return [k for k, a in enumerate(self.attributes) if all(a[kind] == word for kind, word in wanted.items())]

    def the(self, phrase: str) -> int:
        """The one thing that a phrase fits."""
        found = self.matching(phrase)
        assert len(found) == 1, f"{phrase!r} fits {len(found)} things"
        return found[0]

    def margin(self, relation: str, a: int, b: int) -> float:
        """By how much a is `relation` of b, along the ground and, for left and right, in the picture too; negative
        where both deny it; nan where they disagree."""
        axis, sign = RELATION[relation]
        along = sign * float(self.ground[a, axis] - self.ground[b, axis])
        if axis == 1:
            return along
        across = sign * float(self.across[a] - self.across[b])
        return along if (along > 0) == (across > 0) else float("nan")

    def place(self, phrase: str) -> tuple[str, int]:
        """Relation and thing of "left of the red cube"."""
        for relation in RELATION:
            if phrase.startswith(f"{relation} "):
                return relation, self.the(phrase.removeprefix(relation))
        raise AssertionError(f"no relation in {phrase!r}")


def see(scene) -> Seen:
    camera = scene.camera
    flat = camera.distance * np.cos(camera.elevation)
    out = np.array([np.cos(camera.azimuth), np.sin(camera.azimuth)])
    eye = np.array(camera.aim) + np.array([*(flat * out), camera.distance * np.sin(camera.elevation)])
    right = np.array([-out[1], out[0]])  # a quarter turn to the right of the direction away from the camera
    places = np.array([[t.x, t.y, LIFT[t.shape] * RADIUS[t.size]] for t in scene.things]).reshape(-1, 3)
    to = places - eye
    sight = (np.array(camera.aim) - eye) / camera.distance
    ground = np.stack([places[:, :2] @ right, places[:, :2] @ -out], 1)
    across = (to[:, :2] @ right) / (to @ sight)
    kinds = [{kind: getattr(t, kind) for kind in WORDS} for t in scene.things]
    return Seen(kinds, ground, across, np.linalg.norm(to, axis=1))


@pytest.fixture(name="see", scope="session")
def see_fixture():
    return see


@pytest.fixture(name="words", scope="session")
def words_fixture():
    return WORDS


@pytest.fixture(name="relations", scope="session")
def relations_fixture():
    return tuple(RELATION)
