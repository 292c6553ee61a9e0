"""`sightline` at the shell, and `python -m sightline`: also Ctrl-C before the verbs are imported is one line."""

import sys


def main() -> None:
    """Runs one command line and exits with its code; 130 where it is stopped at once."""
    try:
        from sightline.cli.main import run

        code = run()
    except KeyboardInterrupt:
        sys.stderr.write("sightline: stopped\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
