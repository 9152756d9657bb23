"""`erase publish`: puts an erased model on the Hub, with its card, its audit and how it was made."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from erase.command_line import run_command
from erase.publication.publisher import RECORD, publish, write_repository
from erase.publication.settings import Publication, plan_publication


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. The run may stand first, without its key."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-"):
        given[:1] = ["--run", given[0]]
    return run_command("publish", Publication, lambda settings, _: _publish(settings), given)


def _publish(settings: Publication) -> None:
    if settings.local_dir is not None:
        names = write_repository(plan_publication(settings), settings.local_dir)
        print(f"Wrote {len(names)} files to {settings.local_dir}; nothing was sent")
        return
    published = publish(settings)
    print(f"Published {published.url}\nRecorded in {settings.run / RECORD}")


if __name__ == "__main__":
    sys.exit(main())
