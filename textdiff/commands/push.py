"""`textdiff push RUN user/name`: upload the folder that `export` writes to the Hugging Face Hub."""

from __future__ import annotations

import argparse

from ..model.hub import push, staged
from .common import RUN
from .export import LICENSE, listing


def main(arguments: list[str]) -> None:
    """Upload a model to the Hugging Face Hub, just as `textdiff export` writes it."""
    parser = argparse.ArgumentParser(
        prog="textdiff push", description=main.__doc__, allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument("name", metavar="user/name", help="repository on the Hub; made if missing")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--revision", help="branch to commit to, made if missing (default: main)")
    parser.add_argument("--license", help=LICENSE)
    parser.add_argument(
        "--dry-run", action="store_true", help="list what would be uploaded, and upload nothing"
    )
    options = parser.parse_args(arguments)
    if not options.dry_run:
        print(push(options.run, options.name, options.private, options.revision, options.license))
        return
    with staged(options.run, options.name, options.revision, options.license) as folder:
        print(listing(folder))
    print(
        f"would go to {options.name}, {'private' if options.private else 'public'}, branch {options.revision or 'main'}"
    )
