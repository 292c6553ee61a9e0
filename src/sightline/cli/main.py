"""The entry point: `sightline VERB …`.  Nothing heavier than typer and rich is imported before a verb
runs."""

import sys
from typing import Annotated

import typer

from sightline.cli.ask import ask
from sightline.cli.caption import caption
from sightline.cli.classify import classify
from sightline.cli.failures import STOPPED, exit_code, say
from sightline.cli.glimpse import glimpse
from sightline.cli.look import look
from sightline.cli.point import point
from sightline.cli.reproduce import reproduce
from sightline.cli.scenes import scenes
from sightline.cli.segment import segment
from sightline.cli.survey import survey
from sightline.cli.systems import systems
from sightline.cli.tour import tour
from sightline.cli.train import evaluate, train
from sightline.cli.translate import translate

app = typer.Typer(
    name="sightline",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> bool:
    if asked:
        from sightline import __version__

        typer.echo(f"sightline {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See where any PyTorch vision or language model looks, as it runs.

    [bold]Examples[/bold]

    \b
      sightline look --sample                        a picture and a page of a sample photograph, in ./looks
      sightline look holiday/ --model google/vit-base-patch16-224 --check
      sightline classify cat.jpg --top 3
      sightline survey --model facebook/dinov2-small
      sightline VERB --help                          more about a verb, with examples

    Exit codes: 0 done, 1 something failed, 2 wrong use or an unusable input, 130 stopped with Ctrl-C.
    SIGHTLINE_DEBUG=1 shows full tracebacks.
    """


for _verb in (
    tour, look, caption, ask, point, classify, glimpse, segment, translate, survey, systems, train, evaluate,
    reproduce, scenes,
):  # fmt: skip
    app.command()(_verb)

_GOES_ON = ("caption", "ask", "point", "glimpse", "segment", "scenes")  # where what is there is not made again


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; every failure becomes one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=arguments, prog_name="sightline", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - the one place where any failure turns into a line and a code
        return exit_code(error, as_json="--json" in arguments)
    if code == STOPPED:  # typer turns Ctrl-C into this code and says nothing
        goes_on = bool(arguments) and arguments[0] in _GOES_ON
        say("stopped; what is finished is kept, and the same command goes on from there" if goes_on else "stopped")
    return code if isinstance(code, int) else 0


def main() -> None:
    """Runs one command line and exits with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
