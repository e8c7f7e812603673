"""`textdiff push RUN user/name`: upload the folder that `export` writes to the Hugging Face Hub."""

from __future__ import annotations

import argparse

from ..model.hub import push, staged
from .common import RUN, add_import
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
    add_import(parser)
    options = parser.parse_args(arguments)
    stated = {"revision": options.revision, "license": options.license, "classes": options.classes}
    if not options.dry_run:
        print(push(options.run, options.name, options.private, **stated))
        return
    with staged(options.run, options.name, **stated) as folder:
        print(listing(folder))
    print(
        f"would go to {options.name}, {'private' if options.private else 'public'}, "
        f"branch {options.revision or 'main'}"
    )
