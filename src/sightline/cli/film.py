"""`sightline look FRAMES/ --video FILE`: one attention map a frame, as an animation."""

from pathlib import Path
from typing import Any

import typer

from sightline.cli.console import print_json, tracked
from sightline.cli.failures import Failures, Misuse, exit_with, report_once, told_failures
from sightline.cli.outputs import OutputFolder, replaced_files, tell_replaced
from sightline.cli.pictures import remark_on
from sightline.cli.wording import WrongOption, in_shell_words


def film(
    photographs: list[Path],
    video: Path,
    model: str | None,
    options: dict[str, Any],
    failures: Failures,
    out: Path,
    as_json: bool,
) -> None:
    """Write the animation into `out`, or where `video` itself names a folder; a frame that cannot be read is told and
    left out."""
    from sightline.cli.look import open_model

    options = {key: value for key, value in options.items() if key != "command"}
    if options.pop("check"):
        raise Misuse("--check is for single pictures; leave --video out")
    if video.suffix.lower() not in (".gif", ".webp"):
        raise Misuse(f"--video {video}: give a name that ends in .gif or .webp")
    remarks = remark_on(photographs, quiet=as_json)
    made = folder = None
    path = video if len(video.parts) > 1 else out / video
    if photographs:
        folder = OutputFolder(path.parent)
        path = folder.fixed(path.name)
        opened = open_model(model, as_json)
        from sightline.tasks.frames import in_order, look_at_frames

        said: dict[str, int] = {}

        def failed(source: Path, error: Exception) -> None:
            told = in_shell_words(error)
            if isinstance(told, WrongOption):
                raise told from error
            report_once(failures, str(source), told, said)

        frames = tracked(in_order(photographs), "Looking", quiet=as_json)
        made = look_at_frames(frames, model=opened, failed=failed, **options)
        made.save(path)
        folder.wrote(path)
    if as_json:
        told = {"video": str(path), **made.summary} if made else {"video": None, "frames": None}
        files = {"replaced": replaced_files(folder), "remarks": remarks}
        print_json({"verb": "look", **told, **files, "failures": told_failures(failures)})
    elif made is not None:
        typer.echo(f"{video.name}: {made.sentence}")
        typer.echo(f"  {path}")
        tell_replaced(folder)
        typer.echo("A map shows where attention went, not why.")
    exit_with(failures)
