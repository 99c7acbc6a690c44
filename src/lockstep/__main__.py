"""`python -m lockstep <verb>`: see lockstep.cli.verbs."""

import sys

from lockstep.recovery import interrupts

if __name__ == "__main__":
    interrupts.listen()  # before the imports that take a moment

    from lockstep.cli import verbs

    sys.exit(verbs.main())
