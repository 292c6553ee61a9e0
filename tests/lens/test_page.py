"""The HTML page: self-contained, escaped, true to its maps, within its size, and alive in a browser."""

import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from sightline.lens import paint, sheet
from sightline.lens.page import PageCurve, PageData, PageSite, pack, page, to_notebook_html, write_page

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>" \' & {{data}} \u2028'
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


def unpack(packed: dict) -> np.ndarray:
    """The reference reader: value = low + span * (code / top)^2."""
    kind = "<u2" if packed["bits"] == 16 else "u1"
    codes = np.frombuffer(base64.b64decode(packed["data"]), kind).reshape(packed["shape"]).astype(np.float64)
    low, span = (
        np.frombuffer(base64.b64decode(packed[k]), "<f4").reshape(packed["shape"][:-1]) for k in ("low", "span")
    )
    return low[..., None] + span[..., None] * (codes / (2 ** packed["bits"] - 1)) ** 2


def payload_of(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def rows_of(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.dirichlet(np.ones(shape[-1]) * 0.3, shape[:-1])


def example(height: int = 4, width: int = 6, layers: int = 3, heads: int = 2, **more: object) -> PageData:
    rng = np.random.default_rng(0)
    cells = height * width
    sites = [
        PageSite(
            name=f"encoder.layer.{n}.attention",
            layer=n,
            heads=heads,
            queries=cells + 1,
            keys=cells + 1,
            maps=0.8 * rows_of(rng, heads, cells).reshape(heads, height, width),
            patch_rows=0.9 * rows_of(rng, heads, cells, cells),
            outside=("class token",),
        )
        for n in range(layers)
    ]
    fields: dict = {
        "title": "rocket.jpg",
        "model": "a small ViT",
        "image": Image.fromarray(data.rocket()),
        "sites": sites,
        "combined": {"rollout": rows_of(rng, cells).reshape(height, width)},
        "words": [(word, rows_of(rng, cells).reshape(height, width), 0.5) for word in ("a", "rocket")],
        "answers": [("missile", 0.75), ("crane", 0.125)],
        "curves": [PageCurve(name="attention", fractions=[0, 0.5, 1], scores=[0.75, 0.25, 0.0], auc=0.3125)],
        "findings": ["Hiding it lowers the answer."],
        "command": "sightline look rocket.jpg",
        "versions": {"torch": "2.13"},
    }
    return PageData(**(fields | more))


class Outline(HTMLParser):
    """Every tag with its attributes, to see what a browser would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


# ---- self-contained


def test_nothing_is_loaded_from_anywhere() -> None:
    text = page(example(pictures=[("a picture", Image.new("RGB", (8, 8)))]))
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "sendBeacon", "import("):
        assert word not in text
    for tag, attributes in Outline(text).tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert tag not in ("iframe", "object", "embed", "base", "form[action]")


def test_policy_allows_this_script_only() -> None:
    import hashlib

    text = page(example())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    script = re.search(r"<script>(.*)</script>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_nothing_of_the_template_is_left_open() -> None:
    assert not re.search(r"\{\{\w+\}\}", page(example()))
    assert not re.search(r"\{\{\w+\}\}", page(PageData(title="nothing but a title")))


def test_everything_given_is_escaped() -> None:
    site = PageSite(name=HOSTILE, layer=0, kind=HOSTILE, query=HOSTILE, outside=[HOSTILE], maps=np.ones((1, 2, 2)))
    curve = PageCurve(name=HOSTILE, group=HOSTILE, fractions=[0, 1], scores=[1, 0])
    hostile = PageData(
        title=HOSTILE,
        model=HOSTILE,
        image=Image.new("RGB", (20, 10)),
        sites=[site],
        combined={HOSTILE: np.ones((2, 2))},
        words=[(HOSTILE, np.ones((2, 2)), None)],
        text=HOSTILE,
        answers=[(HOSTILE, 0.5)],
        curves=[curve],
        findings=[HOSTILE],
        pictures=[(HOSTILE, Image.new("RGB", (4, 4)))],
        notes=[HOSTILE],
        command=HOSTILE,
        versions={HOSTILE: HOSTILE},
    )
    text = page(hostile)
    tags = Outline(text).tags
    assert sum(tag == "script" for tag, _ in tags) == 2
    assert not any("onerror" in attributes for _, attributes in tags)
    assert HOSTILE not in text
    assert text.count(html.escape(HOSTILE)) >= 12
    body = payload_of(text)
    assert body["sites"][0]["name"] == body["words"][0]["text"] == body["combined"][0]["name"] == HOSTILE


# ---- true to its maps


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4),
    st.integers(1, 30),
    st.sampled_from([8, 16]),
    st.floats(1e-6, 1e6),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_packed_maps_read_back(maps: int, cells: int, bits: int, scale: float, signed: bool, seed: int) -> None:
    values = np.random.default_rng(seed).random((maps, cells)) ** 6 * scale
    values = values - scale / 3 if signed else values
    again = unpack(pack(values, bits))
    span = values.max(axis=-1, keepdims=True) - np.minimum(values.min(axis=-1, keepdims=True), 0)
    assert (np.abs(again - values) <= span / (2**bits - 1) + 1e-6 * scale).all()
    if not signed:  # the square law keeps small shares fine
        small = values < 0.01 * span
        assert (
            np.abs(again - values)[small]
            <= (0.11 * np.broadcast_to(span, values.shape) / (2**bits - 1) + 1e-6 * scale)[small]
        ).all()


def test_zeros_and_constants_read_back() -> None:
    assert (unpack(pack(np.zeros((2, 5)))) == 0).all()
    assert np.allclose(unpack(pack(np.full((1, 5), 0.2))), 0.2)


def test_page_holds_the_maps_that_were_given() -> None:
    given_data = example()
    body = payload_of(page(given_data))
    for site, packed in zip(given_data.sites, body["sites"], strict=True):
        assert packed["grid"] == [4, 6]
        assert np.abs(unpack(packed["maps"]) - site.maps.reshape(2, -1)).max() < 1e-4
        assert np.abs(unpack(packed["rows"]) - site.patch_rows).max() < 1 / 255
    assert np.abs(unpack(body["combined"][0]["maps"])[0] - given_data.combined["rollout"].ravel()).max() < 1e-4
    assert np.abs(unpack(body["words"][1]["maps"])[0] - given_data.words[1][1].ravel()).max() < 1 / 255
    assert body["sites"][0]["outside"] == ["class token"]


def test_tensors_are_taken_as_they_come() -> None:
    maps = torch.rand(2, 3, 5, dtype=torch.bfloat16, requires_grad=True)
    body = payload_of(page(PageData(title="t", sites=[PageSite(name="s", layer=0, maps=maps)])))
    assert np.abs(unpack(body["sites"][0]["maps"]) - maps.detach().double().reshape(2, -1).numpy()).max() < 1e-4


def test_a_site_without_a_class_row_shows_its_average_patch() -> None:
    rows = rows_of(np.random.default_rng(1), 3, 6, 6)
    body = payload_of(page(PageData(title="t", sites=[PageSite(name="s", layer=0, grid=(2, 3), patch_rows=rows)])))
    assert np.abs(unpack(body["sites"][0]["maps"]) - rows.mean(axis=1)).max() < 1e-4
    assert body["sites"][0]["query"] == "average patch"


def test_a_site_without_maps_is_only_in_the_table() -> None:
    text = page(PageData(title="t", sites=[PageSite(name="decoder.text.attention", layer=7, queries=5, keys=5)]))
    assert payload_of(text)["sites"] == []
    assert "decoder.text.attention" in text
    assert "5 × 5" in text


def test_colours_are_those_of_the_pictures() -> None:
    tables = payload_of(page(PageData(title="t")))["colours"]
    assert set(tables) == set(paint.COLOURS)
    for name, text in tables.items():
        assert base64.b64decode(text) == paint.colour_table(name).tobytes()


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ({"maps": np.ones((2, 2))}, r"\(heads, h, w\)"),
        ({"maps": np.full((1, 2, 2), np.nan)}, "NaN"),
        ({"patch_rows": np.ones((4, 4))}, "need the grid"),
        ({"patch_rows": np.ones((4, 5)), "grid": (2, 2)}, "end in 4 x 4"),
        ({"maps": np.ones((1, 2, 2)), "grid": (2, 3)}, "do not lie on the grid"),
    ],
)
def test_parts_that_disagree_are_refused(site: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        page(PageData(title="t", sites=[PageSite(name="s", layer=0, **site)]))


def test_bad_curves_and_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="as many as each other"):
        page(PageData(title="t", curves=[PageCurve(name="c", fractions=[0, 1], scores=[1])]))
    with pytest.raises(ValueError, match="NaN"):
        page(PageData(title="t", combined={"rollout": np.full((2, 2), np.nan)}))


# ---- within its size


def test_rows_that_do_not_fit_are_left_out_from_the_first_layer_on_and_said() -> None:
    big = example(12, 12, layers=6, heads=4, image=None, words=())
    whole, tight = page(big), page(big, limit=400_000)
    assert all(site["rows"]["shape"] == [4, 144, 144] for site in payload_of(whole)["sites"])
    assert "as many as fit" not in whole
    assert len(tight) < 400_000 + 60_000
    kept = [site["rows"] is not None for site in payload_of(tight)["sites"]]
    assert 0 < sum(kept) < len(kept) or any(
        site["rows"]["shape"][0] == 1 for site in payload_of(tight)["sites"] if site["rows"]
    )
    assert kept == sorted(kept)
    assert "means over heads" in tight or "as many as fit" in tight
    tighter = page(big, limit=200_000)
    kept = [site["rows"] is not None for site in payload_of(tighter)["sites"]]
    assert 0 < sum(kept) < 6
    assert kept == sorted(kept)
    assert f"here for {sum(kept)} of 6 layers" in tighter


def test_a_large_recording_stays_near_six_megabytes() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((784, 784), dtype=np.float32)
    sites = [
        PageSite(name=f"l{n}", layer=n, heads=6, maps=rng.random((6, 28, 28), dtype=np.float32), patch_rows=rows)
        for n in range(12)
    ]
    text = page(PageData(title="t", image=Image.fromarray(data.coffee()), sites=sites))
    assert 4 * 2**20 < len(text) < 6.2 * 2**20
    assert "of 12 layers, as many as fit" in text


def test_heads_are_averaged_where_even_they_do_not_fit() -> None:
    maps = np.random.default_rng(0).random((16, 20, 20))
    sites = [PageSite(name=f"l{n}", layer=n, heads=16, maps=maps) for n in range(20)]
    text = page(PageData(title="t", sites=sites), limit=150_000)
    assert len(text) < 210_000
    assert payload_of(text)["sites"][0]["maps"]["shape"] == [1, 400]
    assert "only the mean over heads" in text


def test_words_that_do_not_fit_are_said() -> None:
    words = [(f"w{n}", np.random.default_rng(n).random((24, 24)), None) for n in range(900)]
    text = page(PageData(title="t", words=words), limit=400_000)
    assert len(text) < 460_000
    assert f"first {len(payload_of(text)['words'])} of 900 words" in text


# ---- the rest of the page


def test_page_says_what_maps_mean_and_how_it_was_made() -> None:
    text = page(example())
    for part in (
        html.escape(sheet.SMALL_PRINT),
        "sightline look rocket.jpg",
        "torch 2.13",
        "missile",
        "75.0%",
        "0.312",
    ):
        assert part in text
    assert Outline(text).tags[0] == ("html", {"lang": "en"})
    svg = re.search(r'<polyline class="c0" points="([^"]+)"', text)[1]
    assert svg.split() == ["40.0,20.0", "190.0,106.7", "340.0,150.0"]


def test_classes_are_named_with_spaces() -> None:
    text = page(example(answers=[("golden_retriever", 0.75)]))
    assert "golden retriever" in text
    assert "golden_retriever" not in text


def test_the_page_speaks_of_a_check_only_where_there_is_one() -> None:
    for more, there in (({}, True), ({"findings": []}, True), ({"curves": []}, True)):
        assert ('href="#check"' in page(example(**more))) is ('<section id="check">' in page(example(**more))) is there
    bare = page(example(curves=[], findings=[]))
    assert "#check" not in bare
    assert "none was made here; <code>sightline look --check</code>" in bare


def test_written_page_is_the_page(tmp_path: Path) -> None:
    path = write_page(tmp_path / "look.html", example())
    assert path.read_text("utf-8") == page(example())


def test_notebook_display_is_escaped_and_self_contained() -> None:
    text = to_notebook_html(
        Image.new("RGB", (2000, 900)), ["site", HOSTILE], [["a", HOSTILE], [1, 2.5]], heading=HOSTILE
    )
    tags = Outline(text).tags
    assert [tag for tag, _ in tags].count("img") == 1
    assert not any(tag == "script" for tag, _ in tags)
    source = next(attributes["src"] for tag, attributes in tags if tag == "img")
    assert source.startswith("data:image/jpeg;base64,")
    assert len(text) < 60_000
    assert "<img" not in to_notebook_html(None, ["a"], [["b"]])


# ---- in a browser


def browse(path: Path, tmp_path: Path, steps: str | None = None) -> str:
    """The page's DOM after it ran in headless Chromium, with `steps` run in it after loading."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    text = path.read_text("utf-8")
    if steps is not None:
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        text = text.replace(
            "</body>", f'<script>addEventListener("load", () => setTimeout(() => {{{steps}}}, 200))</script></body>'
        )
        path = path.with_suffix(".steps.html")
        path.write_text(text, "utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-dev-shm-usage"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,1000"]
    command += ["--virtual-time-budget=4000", "--dump-dom", path.resolve().as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return ran.stdout


def said(dom: str, name: str) -> str:
    return html.unescape(re.sub("<[^>]+>", "", re.search(rf'id="{name}"[^>]*>(.*?)</', dom, re.S)[1]))


@pytest.mark.browser
def test_page_runs_under_its_own_policy_and_survives_hostile_names(tmp_path: Path) -> None:
    words = [(HOSTILE, np.ones((4, 6)), 0.5)]
    dom = browse(write_page(tmp_path / "a.html", example(title=HOSTILE, words=words)), tmp_path)
    assert "<title>owned" not in dom
    assert said(dom, "where") == "rollout"
    assert "of the picture" in said(dom, "reading")
    assert len(re.findall(r"<button[^>]* data-pick=", dom)) == 3 * 3 + 1
    assert HOSTILE.split("{{")[0] in html.unescape(dom)


@pytest.mark.browser
def test_controls_heads_patches_and_keys_do_what_they_say(tmp_path: Path) -> None:
    given_data = example()
    path = write_page(tmp_path / "a.html", given_data)
    steps = """
      const out = [], note = () => out.push([$("where").textContent, $("reading").textContent, $("high").textContent]);
      const view = $("view"), box = () => view.getBoundingClientRect();
      const at = (kind, x, y, pointerType = "mouse") => view.dispatchEvent(new PointerEvent(kind,
        { bubbles: true, pointerType, clientX: box().left + box().width * x, clientY: box().top + box().height * y }));
      const key = name => view.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
      document.querySelector('[data-pick="1/1"]').click(); note();
      at("pointermove", 0.99, 0.01); note();
      at("pointerleave", 0, 0); note();
      at("click", 0.01, 0.99); at("pointerleave", 0, 0); note();
      key("Escape"); key("ArrowUp"); key("ArrowLeft"); note();
      $("layer").value = 2; $("layer").oninput({ target: $("layer") });
      $("head").value = "max"; $("head").onchange({ target: $("head") }); note();
      $("relative").click(); note(); $("relative").click();
      $("method").value = "words/1"; $("method").onchange({ target: $("method") }); note();
      const pixels = () => view.getContext("2d").getImageData(0, 0, view.width, view.height).data;
      const sumOf = p => { let s = 0; for (let i = 0; i < p.length; i += 97) s += p[i]; return s; };
      const before = sumOf(pixels());
      $("alpha").value = 0; $("alpha").oninput();
      const bare = sumOf(pixels());
      $("mass").value = 90; $("mass").oninput(); note();
      const cells = Array.from(current(0, 1, null, "site").values);
      const p = document.createElement("pre"); p.id = "told";
      p.textContent = JSON.stringify({ out, before, bare, cells, ratio: view.width / view.height });
      document.body.append(p);
    """
    told = json.loads(said(browse(path, tmp_path, steps), "told"))
    picked, hovered, left, held, keys, layer, relative, word, mass = told["out"]
    assert picked[0] == "Layer 1, head 1: what the class token reads"
    assert "80 % of this row is on the picture, the rest on class token" in picked[1]
    top = given_data.sites[1].maps[1]
    limit = paint.heat_range(top)[1] / top.mean()
    assert float(re.search(r"[\d.]+", picked[2])[0]) == pytest.approx(limit, rel=0.01)
    assert hovered[0] == "Layer 1, head 1: what the patch in row 1, column 6 reads"
    assert left[0] == picked[0]
    assert held[0] == "Layer 1, head 1: what the patch in row 4, column 1 reads"
    assert keys[0] == "Layer 0, head 0: what the class token reads"
    assert layer[0] == "Layer 2, max of heads: what the class token reads"
    assert relative[1].endswith("Divided by the average over layers.")
    assert word[0] == "Word “rocket”"
    keep = paint.top_mass(given_data.words[1][1], 0.9).mean()
    area = float(re.search(r"lies on ([\d.]+) %", mass[1])[1]) / 100
    assert area == pytest.approx(keep, abs=0.05)
    assert told["before"] != told["bare"]
    assert told["ratio"] == pytest.approx(640 / 427, rel=0.01)
    assert np.abs(np.array(told["cells"]) - given_data.sites[0].maps[1].ravel()).max() < 1e-4


_CONTROLS = """
  const p = document.createElement("pre"); p.id = "told";
  const head = $("head").selectedOptions[0].text;
  p.textContent = JSON.stringify([$("where").textContent, head, $("layerName").textContent]);
  document.body.append(p);
"""


@pytest.mark.browser
def test_page_opens_on_the_head_that_was_chosen_and_its_controls_say_so(tmp_path: Path) -> None:
    path = write_page(tmp_path / "a.html", example(opens=(1, 0)))
    told = json.loads(said(browse(path, tmp_path, _CONTROLS), "told"))
    assert told == ["Layer 1, head 0: what the class token reads", "head 0", "1"]
    # beside a map that is no single layer's, the controls name no head
    told = json.loads(said(browse(write_page(tmp_path / "b.html", example()), tmp_path, _CONTROLS), "told"))
    assert told == ["rollout", "–", "all"]


def test_a_head_that_did_not_fit_opens_nothing_else() -> None:
    sites = [PageSite(name="s", layer=n, heads=64, maps=np.random.default_rng(n).random((64, 9, 9))) for n in range(4)]
    given = PageData(title="t", sites=sites, combined={"raw, head 3": np.ones((9, 9))}, opens=(2, 3))
    assert payload_of(page(given))["opens"] == {"method": "site", "site": 2, "head": 3}
    assert payload_of(page(given, limit=90_000))["opens"] == {"site": 2}
    with pytest.raises(ValueError, match="cannot open on site 4"):
        page(PageData(title="t", sites=sites, opens=(4, 0)))


@pytest.mark.browser
def test_page_says_where_only_the_class_row_was_recorded(tmp_path: Path) -> None:
    sites = [PageSite(name="s", layer=0, maps=np.random.default_rng(0).random((1, 3, 3)))]
    path = write_page(tmp_path / "a.html", PageData(title="t", image=Image.fromarray(data.coffee()), sites=sites))
    steps = """$("view").dispatchEvent(new PointerEvent("pointermove", { pointerType: "mouse", clientX: 9 }));"""
    assert "record with queries=slice(None)" in said(browse(path, tmp_path, steps), "reading")


@pytest.mark.browser
def test_page_of_text_alone_hides_what_it_lacks(tmp_path: Path) -> None:
    picture = ("attention of the text", Image.new("RGB", (30, 20)))
    dom = browse(write_page(tmp_path / "a.html", PageData(title="t", text="hello", pictures=[picture])), tmp_path)
    for name in ("stage", "grid", "strip"):
        assert re.search(rf'<section id="{name}"[^>]*hidden', dom)
    assert "attention of the text" in dom
