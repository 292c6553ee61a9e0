"""`sightline` at the shell, and `python -m sightline`: also Ctrl-C before the verbs are imported is one line."""

import sys


def main() -> None:
    """Runs one command line and exits with its code; 130 where it is stopped at once."""
    try:
        from sightline.cli.main import main as run_verb

        run_verb()
    except KeyboardInterrupt:
        sys.stderr.write("sightline: stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
