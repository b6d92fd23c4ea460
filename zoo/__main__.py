"""``python -m zoo``: what there is."""

from __future__ import annotations

import zoo
from zoo import cli
from zoo.models import print_list

COMMANDS = """\
python -m zoo.train    config=NAME [key=value ...]             train, test, summarise
python -m zoo.evaluate weights=NAME [config=NAME]              test weights
python -m zoo.predict  weights=NAME input=FILE output=FILE     run weights on a file
python -m zoo.publish  run=RUN_FOLDER name=NAME licence=...    make a run's weights a pretrained entry
python -m zoo.models   list ["kat/*"] | show NAME              what the registry holds
"""


def main(argv: list[str]) -> None:
    """Prints version, commands and everything registered."""
    out = cli.console()
    out.print(f"[bold]zoo {zoo.__version__}[/]\n\n{COMMANDS}", markup=True)
    print_list(out, argv[0] if argv else "*")


if __name__ == "__main__":
    cli.run(main, COMMANDS)
