"""What the words of a command line name, judged before anything slow is imported: a wrong one is told at once."""

from pathlib import Path

from sightline.cli.failures import Misuse


def check_named(name: str, kind: str, beside: str = "", begins: str = "") -> None:
    """Raises `Misuse` unless `name` can be a `kind` of system: a bundled name, a folder or file here, or a hub id.

    Of the bundled names those count that begin so and whose weights have the file `beside` them (none named: all).
    """
    from sightline.checkpoints.bundled import bundled_folder, bundled_names

    names = bundled_names()
    fitting = [one for one in names if one.startswith(begins) and (bundled_folder(one) / beside).exists()]
    is_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if name in fitting or (name not in names and (is_id or Path(name).expanduser().exists())):
        return
    known = ", ".join(fitting) or "none in this build"
    raise Misuse(f"no {kind} {name!r}: no bundled name ({known}), no folder or file here, no hub id (owner/name)")


def learned_from(system: str) -> str:
    """What bundled weights learned from, by their card; "" for others: who brought them knows."""
    from sightline.checkpoints.bundled import bundled_card, bundled_names

    return str(bundled_card(system)["data"]) if system in bundled_names() else ""
