"""`make bench`: compare Lockstep with its peers, all in one sitting, and write benchmarks/RESULTS.md.

`make bench QUICK=1` measures the main figures only, in one round of fewer epochs, and prints them.
"""

import platform
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path

import torch

from benchmarks import peers, searches
from benchmarks.commands import ROOT, explored, whole_commands
from benchmarks.peers import STREAM
from benchmarks.sitting import EPOCHS, QUICK, ROUNDS, lines, rounds, say, table
from benchmarks.trainings import CORES, compare, convolutional, lockstep, mixed, of_peers, scaling
from lockstep.data import sources

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
MAIN = ("Eight such runs", "Logistic regression, 64 runs", "Whole commands")  # of make bench QUICK=1


def processor() -> str:
    """Return the processor's name, on Linux as /proc/cpuinfo gives it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()


def main() -> None:
    """Run all sections, or those named on the command line."""
    sections: dict[str, Callable[[], None]] = {
        "One run of the workshop's MLP, 784-256-100-10": lambda: compare("mlp", 1, of_peers("mlp", 1)),
        "Eight such runs": lambda: compare("mlp", 8, of_peers("mlp", 8)),
        "Equal MLPs, K runs": lambda: scaling("mlp", (2, 4, 8, 16, 32, 256)),
        "A mixed sweep: 24 runs, six networks": lambda: table(
            ["", "s per epoch of the sweep"],
            [
                [name, f"{statistics.median(times):.2f}"]
                for name, times in rounds(
                    {
                        "all runs as one sweep": lambda: lockstep(mixed()),
                        "one run after the other": lambda: [lockstep([one]) for one in mixed()],
                    },
                    n=3,
                ).items()
            ],
        ),
        "Logistic regression, one run": lambda: compare("logreg", 1, of_peers("logreg", 1)),
        "Logistic regression, 64 runs": lambda: compare("logreg", 64, of_peers("logreg", 64)),
        "Logistic regression, K runs": lambda: scaling("logreg", (1, 16, 64, 256)),
        "Convolutional networks (benchmarks/nets.py)": convolutional,
        "Whole commands": whole_commands,
        "A search": explored,
        "Searches of equal seconds: Lockstep's 64 trials against Optuna's TPE and Hyperband": (
            lambda: searches.compare(table)
        ),
    }
    versions = ", ".join(
        f"{name} {metadata.version(name)}"
        for name in (
            "torch",
            "scikit-learn",
            "mlflow",
            "hydra-core",
            *(["jax"] if peers.jax_is_there() else []),
        )
    )
    sources.load(STREAM)
    say("# Benchmarks")
    say()
    say(
        f"`make bench` on {date.today().isoformat()}: {processor()}, {CORES} cores, Python"
        f" {platform.python_version()}, {versions}. MNIST, minibatches of 64, SGD with momentum. An epoch"
        f" includes its evaluation on the test set. Lockstep's runs train {EPOCHS} epochs (fewer in the"
        " tables over K), and their time includes start-up and result files."
    )
    say()
    say(
        f"The sides of a comparison alternate. Figures are medians of {ROUNDS} rounds (tables over K: 2;"
        " whole commands and searches: 1) after a warm-up round. The smallest and largest ratio are in"
        " parentheses. A ratio above 1 means that Lockstep is faster."
    )
    say()
    say(
        "Useful FLOPs of one step of one run: 2 B (3 W - W1), where B is the batch size, W the number of"
        " weights, and W1 that of the first layer: forward, gradients of the weights, gradients of the inputs"
        " of all layers except the first."
    )
    say()
    words = MAIN if QUICK and len(sys.argv) == 1 else sys.argv[1:]
    for name, section in sections.items():
        if words and not any(word.lower() in name.lower() for word in words):
            continue
        start = len(lines)
        say(f"## {name}")
        say()
        if words and not QUICK:
            say(f"(Measured later, on {date.today().isoformat()}: {processor()}, {versions}.)")
            say()
        section()
        if words and not QUICK:
            _replace_section(lines[start:])
    if not words:
        RESULTS.write_text("\n".join(lines).rstrip() + "\n")


def _replace_section(section: Sequence[str]) -> None:
    """Replace a section of the results; append a new one."""
    text, new = RESULTS.read_text(), "\n".join(section).rstrip() + "\n"
    parts = re.split(r"(?m)^(?=## )", text)
    at = next((k for k, part in enumerate(parts) if part.startswith(f"{section[0]}\n")), None)
    if at is None:
        RESULTS.write_text(f"{text.rstrip()}\n\n{new}")
        return
    parts[at] = new + ("\n" if at + 1 < len(parts) else "")
    RESULTS.write_text("".join(parts))


if __name__ == "__main__":
    torch.set_num_threads(CORES)
    main()
