"""What a recording would cost, before it is made."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

from sightline.lens.recording import Recording, counted
from sightline.lens.site import Site


class Survey(Sequence[Site]):
    """The attention sites of one run, with the bytes that each choice of rows would keep.  Holds no weights."""

    def __init__(self, recording: Recording) -> None:
        self.sites = list(recording)
        self.model = type(recording.model).__name__

    @overload
    def __getitem__(self, index: int) -> Site: ...
    @overload
    def __getitem__(self, index: slice) -> list[Site]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.sites[index]

    def __len__(self) -> int:
        return len(self.sites)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def costs(self) -> dict[str, int]:
        """Bytes over all sites: "row" (one query row a site), "all rows" (as record keeps them), "matrices" (as eager
        attention would hold them)."""
        return {name: sum(cost(site)[name] for site in self.sites) for name in ("row", "all rows", "matrices")}

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a site, for machines."""
        return [
            {"site": s.name, "layer": s.layer, "kind": s.kind, "source": s.source, "batch": s.batch, "heads": s.heads,
             "queries": s.queries, "keys": s.keys, "bytes": cost(s)}
            for s in self.sites
        ]  # fmt: skip

    def __str__(self) -> str:
        lines = [
            f"{self.model}: {counted(self)}",
            f"{'site':52} kind   heads  queries x keys      one row   all rows   matrices",
        ]
        for s in self.sites:
            c = cost(s)
            lines.append(
                f"{s.name[-52:]:52} {s.kind:6} {s.heads:5}  {s.queries:6} x {s.keys:<6} {readable(c['row']):>11} "
                f"{readable(c['all rows']):>10} {readable(c['matrices']):>10}"
            )
        total = self.costs()
        lines.append(
            f"{'total':52} {'':6} {'':5}  {'':15} {readable(total['row']):>11} {readable(total['all rows']):>10} "
            f"{readable(total['matrices']):>10}"
        )
        return "\n".join(lines)

    __repr__ = __str__


def cost(site: Site) -> dict[str, int]:
    """Bytes (float32) that one site keeps: for one row, for all rows, and as whole matrices."""
    matrix = row = operands = 0
    for call in site.calls:
        matrix += call.batch * call.heads * call.queries * call.keys * 4
        row += call.batch * call.heads * call.keys * 4
        whole = call.batch * call.heads * call.queries * call.keys * 4
        operands += min(
            whole, call.batch * call.heads * (call.queries + call.keys) * call.width * 4 + call.mask_bytes or whole
        )
    return {"row": row, "all rows": operands, "matrices": matrix}


def readable(size: int) -> str:
    """12345678 -> "12.3 MB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
