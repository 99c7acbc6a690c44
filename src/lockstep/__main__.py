"""`python -m lockstep <verb>`: what there is to do beside training."""

import argparse
import sys


def main() -> int:
    """Carry out the verb in `sys.argv`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lockstep", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    verbs.add_parser("doctor", help="say whether a run's numbers depend on its neighbours on this machine")
    parser.parse_args()
    from lockstep import doctor

    return 0 if doctor.examine() else 1


if __name__ == "__main__":
    sys.exit(main())
