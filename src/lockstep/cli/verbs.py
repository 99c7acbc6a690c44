"""Commands beside training: `python -m lockstep <verb>`, or `lockstep <verb>` where it is installed."""

import argparse
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from lockstep.cli import environment
from lockstep.config import places
from lockstep.config.errors import nearest, without_password
from lockstep.config.places import outputs
from lockstep.terminal.console import open_streams

if TYPE_CHECKING:
    from lockstep.tracking.store import Store  # which loads mlflow


def _parser() -> tuple[argparse.ArgumentParser, Collection[str]]:
    """Return the parser, and the verbs."""
    parser = argparse.ArgumentParser(
        prog="python -m lockstep" if places.program() == "python run.py" else places.program(),
        description="Commands beside training.",
        epilog=f"To train: {places.program()} key=value ... (see {places.program()} --help)",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    doctor = verbs.add_parser(
        "doctor", help="say whether a run's numbers depend on its neighbours on this machine"
    )
    doctor.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="list the workers of a Dask scheduler instead, and whether they compute as this machine does",
    )
    deliver = verbs.add_parser("deliver", help="upload results that a store did not take while runs trained")
    deliver.add_argument("folder", type=Path, help="outputs/unfinished, or one of the folders in it")
    report = verbs.add_parser("report", help="make a sweep's report again, from the store alone")
    report.add_argument(
        "sweep", help="a sweep's MLflow run id, or its start; or its folder in outputs/sweeps"
    )
    report.add_argument("other", nargs="?", help="another sweep: shows the two side by side")
    report.add_argument(
        "--format",
        choices=("html", "csv", "latex", "markdown"),
        default="html",
        help="print the leaderboard as such a table instead (mean, std, n)",
    )
    reproduce = verbs.add_parser("reproduce", help="train a run again from what the store has, and compare")
    reproduce.add_argument("run", help="an MLflow run id, or its start")
    reproduce.add_argument(
        "--data",
        metavar="PATH",
        help="the run's data, if it was moved: the .npz file, or the folder of MNIST",
    )
    reproduce.add_argument(
        "--code",
        metavar="PATH",
        help="the file of model=module, which is run if it is what the run was trained with",
    )
    status = verbs.add_parser("status", help="list what is unfinished or could not be uploaded, and why")
    status.add_argument("folder", type=Path, nargs="?", help="by default outputs/unfinished")
    drop = verbs.add_parser("drop", help="abandon what `status` lists")
    drop.add_argument("ids", nargs="+", metavar="id", help="the name of a folder in outputs/unfinished")
    ui = verbs.add_parser("ui", help="serve the results in MLflow's UI")
    ui.add_argument("--port", type=int, help="by default 5000, or the next one that is free")
    verbs.add_parser("relocate", help="make an SQLite store that was moved look for artifacts beside it")
    return parser, verbs.choices


def main() -> int:
    """Carry out the verb in `sys.argv` and return the exit code."""
    open_streams()
    environment.settle()
    parser, verbs = _parser()
    if len(sys.argv) == 1:
        parser.print_help(sys.stderr)
        return 2
    word = sys.argv[1]
    if not word.startswith("-") and word not in verbs:
        parser.error(f"{word}: not a verb; verbs are {', '.join(verbs)}{nearest(word, verbs)}")
    arguments = parser.parse_args()
    if arguments.verb == "doctor":
        from lockstep.cli import doctor

        if arguments.cluster is None:
            return 0 if doctor.examine() else 1
        from lockstep.config.errors import Refused

        try:
            return 0 if doctor.examine_cluster(arguments.cluster) else 1
        except Refused as refused:
            parser.error(str(refused))
    if arguments.verb == "report":
        if arguments.other is not None and arguments.format != "html":
            parser.error(f"--format={arguments.format}: of one sweep only")
        return _report(parser, arguments.sweep, arguments.other, arguments.format)
    if arguments.verb == "reproduce":
        return _reproduce(parser, arguments.run, arguments.data, arguments.code)
    if arguments.verb == "deliver":
        return _deliver(parser, arguments.folder)
    from lockstep.cli import leftovers
    from lockstep.config.errors import Refused

    try:
        if arguments.verb == "status":
            leftovers.show(arguments.folder)
        elif arguments.verb == "drop":
            leftovers.drop(arguments.ids)
        elif arguments.verb == "ui":
            _serve(parser, arguments.port)
        else:
            leftovers.relocate(_opened(parser, is_moved=True))
    except Refused as refused:
        parser.error(str(refused))
    return 0


def _deliver(parser: argparse.ArgumentParser, folder: Path) -> int:
    if not folder.is_dir():
        parser.error(f"{folder}: not a folder")
    from lockstep.cli import leftovers
    from lockstep.config.errors import Refused
    from lockstep.terminal.console import show_log

    show_log()
    try:
        left = leftovers.deliver(folder.absolute())
    except Refused as refused:
        parser.error(str(refused))
    print("\n".join(left) if left else "all is in the store", file=sys.stderr if left else sys.stdout)
    return 1 if left else 0


def _opened(parser: argparse.ArgumentParser, uri: str | None = None, is_moved: bool = False) -> "Store":
    """Open a store as `existing_store` does, by default run.py's."""
    from lockstep.config.errors import Refused
    from lockstep.tracking.address import default_uri
    from lockstep.tracking.store import existing_store

    try:
        return existing_store(uri or default_uri(), is_moved)
    except (Refused, ValueError) as refused:
        parser.error(str(refused))


def _serve(parser: argparse.ArgumentParser, port: int | None) -> None:
    from lockstep.tracking import serving
    from lockstep.tracking.address import default_uri, is_missing, sqlite_path, with_options

    uri = default_uri()
    if uri.startswith("http"):
        parser.error(f"{without_password(uri)}: this server has its own UI, at that address")
    if is_missing(uri):
        parser.error(f"{uri}: there is no such store yet; train something first")
    is_sqlite = uri.startswith("sqlite")
    is_default = is_sqlite and sqlite_path(uri) == outputs() / "mlflow.db"
    serving.serve(with_options(uri) if is_sqlite else uri, port, is_default)


def _report(parser: argparse.ArgumentParser, sweep: str, other: str | None, form: str) -> int:
    from mlflow.exceptions import MlflowException

    from lockstep.config.errors import Refused
    from lockstep.report import comparison, formats, stored
    from lockstep.tracking import sweeps
    from lockstep.tracking.ids import resolve

    asked = [_asked(parser, word) for word in (sweep, other) if word is not None]
    if len({uri for uri, _ in asked}) > 1:
        parser.error(f"{sweep} and {other}: they are in different stores")
    try:
        store = _opened(parser, asked[0][0])
        found = [sweeps.read(store, resolve(store, run_id)) for _, run_id in asked]
        first = found[0]
        folder = outputs() / "reports"
        if len(found) == 2:
            name = "-".join(of_sweep.run_id[:8] for of_sweep in found)
            print(comparison.write(store, (first, found[1]), folder / name))
        elif form == "html":
            own = Path(sweep).absolute() if Path(sweep).is_dir() else folder / first.run_id
            print(stored.make(store, first, own))
        else:
            print(formats.table(first, form), end="")
    except (MlflowException, Refused, ValueError) as error:
        parser.error(str(error))
    return 0


def _asked(parser: argparse.ArgumentParser, sweep: str) -> tuple[str, str]:
    """Return the URI of a sweep's store, and its run id or the start of it."""
    from lockstep.report import stored
    from lockstep.tracking.address import default_uri, is_missing, without_secrets

    uri = default_uri()
    if not Path(sweep).is_dir():
        return uri, sweep
    folder = Path(sweep).absolute()
    if not (folder / stored.KEPT).exists():
        parser.error(f"{sweep}: not the folder of a sweep that had a report (it has no {stored.KEPT})")
    kept = json.loads((folder / stored.KEPT).read_text())
    if without_secrets(uri) != kept["uri"] and not is_missing(kept["uri"]):
        uri = kept["uri"]
    return uri, kept["run_id"]


def _reproduce(parser: argparse.ArgumentParser, run_id: str, data: str | None, code: str | None) -> int:
    from mlflow.exceptions import MlflowException

    from lockstep.cli.reproduce import reproduce
    from lockstep.config.errors import Refused
    from lockstep.tracking.ids import resolve

    try:
        store = _opened(parser)
        comparison = reproduce(store, resolve(store, run_id), data, code)
    except (Refused, MlflowException) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(comparison.lines()))
    return 0 if comparison.is_identical else 1
