"""`python -m lockstep <verb>`: what there is to do beside training."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Carry out the verb in `sys.argv`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lockstep", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    verbs.add_parser("doctor", help="say whether a run's numbers depend on its neighbours on this machine")
    deliver = verbs.add_parser("deliver", help="bring to the store what it did not take while runs trained")
    deliver.add_argument("folder", type=Path, help="outputs/unfinished, or one of the folders in it")
    arguments = parser.parse_args()
    if arguments.verb == "doctor":
        from lockstep import doctor

        return 0 if doctor.examine() else 1
    if not arguments.folder.is_dir():
        parser.error(f"{arguments.folder}: not a folder")
    from lockstep.delivery import deliver as bring
    from lockstep.terminal import show_log

    show_log()
    left = bring(arguments.folder.absolute())
    print("\n".join(left) if left else "all is in the store", file=sys.stderr if left else sys.stdout)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
