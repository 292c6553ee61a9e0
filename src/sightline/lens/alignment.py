"""Which word of a source each word of a target was written from: a matrix of words by words, as picture and page."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from sightline.lens.view import matrices, matrix

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_PAGES = (".html", ".htm")


@dataclass(frozen=True)
class Alignment:
    """Weights (target, source) with the words of both sides; each row sums to 1.

    `heads` (layers, heads, target, source) are those of each layer and head, where `weights` is the mean of several.
    Raises ValueError where the words are not as many as rows and columns, or a weight is no number from 0 to 1.
    """

    weights: np.ndarray
    target: tuple[str, ...]
    source: tuple[str, ...]
    heads: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.weights.shape != (len(self.target), len(self.source)) or self.weights.size == 0:
            raise ValueError(
                f"an alignment of shape {self.weights.shape} needs one word a row and a column, at least one each; "
                f"given {len(self.target)} and {len(self.source)}"
            )
        if not np.isfinite(self.weights).all() or self.weights.min() < 0 or self.weights.max() > 1 + 1e-3:
            raise ValueError("weights of an alignment lie between 0 and 1; are these scores before the softmax?")
        if self.heads is not None and (self.heads.ndim != 4 or self.heads.shape[2:] != self.weights.shape):
            raise ValueError(f"heads of shape {self.heads.shape} do not fit weights {self.weights.shape}")

    def pairs(self) -> list[tuple[str, str, float]]:
        """Gives (target word, the source word it looked at most, that weight) for each target word."""
        best = self.weights.argmax(axis=1)
        return [
            (word, self.source[b], float(row[b])) for word, b, row in zip(self.target, best, self.weights, strict=True)
        ]

    def picture(self, *, title: str = "", caption: str = "") -> Image.Image:
        """Draws the matrix: a row for each target word, bright where it read the source."""
        return matrix(self.weights, self.target, self.source, title=title, caption=caption)

    def heads_picture(self, *, title: str = "", caption: str = "") -> Image.Image:
        """Draws the matrix of each layer and head, with words where they fit; ValueError where there is one only."""
        if self.heads is None:
            raise ValueError("this alignment has one layer and one head: see picture()")
        return matrices(self.heads, self.target, self.source, title=title, caption=caption)

    def html(self, *, title: str = "", caption: str = "") -> str:
        """Writes a part of a page, without anything from outside: point at a word of one side to light the other."""
        # the words go through JSON in a script: "<" must not end it
        sides = {"target": self.target, "source": self.source}
        shown = {"weights": self.weights.round(4).tolist()} | sides
        if self.heads is not None:
            shown["heads"] = self.heads.round(3).tolist()
        data = json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c")
        head = f"<h3>{escape(title)}</h3>" if title else ""
        tail = f"<p class=small>{escape(caption)}</p>" if caption else ""
        name = f"alignment-{abs(hash((data, title))):x}"
        return _PART.replace("@NAME@", name).replace("@HEAD@", head).replace("@TAIL@", tail).replace("@DATA@", data)

    def save(self, path: str | Path, *, title: str = "", caption: str = "") -> Path:
        """Writes a picture (.png, .jpg, .webp) or a page (.html); ValueError for another ending."""
        file = Path(path)
        ending = file.suffix.lower()
        if ending in _PICTURES:
            file.parent.mkdir(parents=True, exist_ok=True)
            self.picture(title=title, caption=caption).save(file)
        elif ending in _PAGES:
            file.parent.mkdir(parents=True, exist_ok=True)
            page = _PAGE.replace("@TITLE@", escape(title or "Alignment"))
            file.write_text(page.replace("@PART@", self.html(title=title, caption=caption)), encoding="utf-8")
        else:
            raise ValueError(f"{file}: expected a picture ({', '.join(_PICTURES)}) or a page (.html)")
        return file

    def _repr_html_(self) -> str:
        return self.html()


def merged(weights: np.ndarray, target: Sequence[tuple[str, int]], source: Sequence[tuple[str, int]]) -> Alignment:
    """Joins rows and columns of pieces into words, given as (word, number of pieces).

    Weights on the pieces of a source word are added up, rows of a target word averaged, so that rows still sum to 1.
    Weights of layers and heads, (layers, heads, pieces, pieces), are averaged, and kept beside the mean where there are
    several. Raises ValueError where the pieces are not as many as rows and columns.
    """
    counts = [[pieces for _, pieces in side] for side in (target, source)]
    if (sum(counts[0]), sum(counts[1])) != weights.shape[-2:]:
        raise ValueError(f"words of {sum(counts[0])} and {sum(counts[1])} pieces do not fit weights {weights.shape}")
    starts = [np.cumsum([0, *count])[:-1] for count in counts]
    joined = np.add.reduceat(np.add.reduceat(weights, starts[1], axis=-1), starts[0], axis=-2)
    joined = joined / np.array(counts[0], dtype=joined.dtype)[:, None]
    mean = joined.mean(axis=tuple(range(joined.ndim - 2)))
    heads = joined if joined.size > mean.size else None
    return Alignment(mean, tuple(word for word, _ in target), tuple(word for word, _ in source), heads)


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>@TITLE@</title>
<body style="background:#fcfbf8;margin:2rem">@PART@</body></html>
"""

_PART = """<div id="@NAME@" class="alignment">
<style>
.alignment{font:16px/1.6 system-ui,sans-serif;color:#1c1a17}
.alignment .line span{display:inline-block;padding:1px 5px;margin:1px;border-radius:4px;cursor:default}
.alignment .line span:focus{outline:2px solid #31688e}
.alignment table{border-collapse:collapse;font-size:12px;margin-top:1em}
.alignment td{width:26px;height:22px;padding:0;border:1px solid #fff}
.alignment th{font-weight:normal;padding:0 6px;text-align:right}
.alignment thead th{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;padding:4px 2px}
.alignment .small{color:#706a62;font-size:13px}
</style>
@HEAD@<select hidden></select><div class="line source"></div><div class="line target"></div>
<p class="small">Point at a word: what is shaded on the other side is what it was read from, or what read it.</p>
<table></table>@TAIL@
<script>
(function(){
let root=document.getElementById("@NAME@"),data=@DATA@,w=data.weights,choice=root.querySelector("select");
const shade=v=>"rgba(49,104,142,"+Math.min(1,v).toFixed(3)+")";
function line(name,words){
  const box=root.querySelector("."+name);
  return words.map(t=>{const s=document.createElement("span");s.textContent=t;s.tabIndex=0;box.append(s);return s});
}
const source=line("source",data.source),target=line("target",data.target);
function light(spans,values){
  const most=Math.max(...values,1e-9);
  spans.forEach((s,i)=>{s.style.background=shade(values[i]/most*0.8);s.title=(100*values[i]).toFixed(1)+" %"});
}
function clear(){[...source,...target].forEach(s=>s.style.background="")}
function follow(spans,show){
  spans.forEach((s,i)=>{for(const e of["mouseenter","focus"])s.addEventListener(e,()=>{clear();show(i)});
    s.addEventListener("mouseleave",clear)});
}
follow(target,i=>light(source,w[i]));
follow(source,j=>light(target,w.map(row=>row[j])));
const table=root.querySelector("table"),head=table.createTHead().insertRow();
head.append(document.createElement("th"));
data.source.forEach(t=>{const th=document.createElement("th");th.textContent=t;head.append(th)});
const body=table.createTBody();
function fill(){
  body.replaceChildren();
  data.target.forEach((t,i)=>{
    const row=body.insertRow(),th=document.createElement("th");th.textContent=t;row.append(th);
    w[i].forEach((v,j)=>{const c=row.insertCell();c.style.background=shade(v);
      c.title=t+" ← "+data.source[j]+": "+(100*v).toFixed(1)+" %"});
  });
}
fill();
if(data.heads){
  const all=[["mean of all heads",data.weights]];
  data.heads.forEach((l,i)=>l.forEach((h,j)=>all.push(["layer "+i+", head "+j,h])));
  all.forEach(([name],i)=>choice.add(new Option(name,i)));
  choice.hidden=false;
  choice.addEventListener("change",()=>{w=all[choice.value][1];clear();fill()});
}
})();
</script></div>"""
