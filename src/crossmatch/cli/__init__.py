"""The command line: parse, call, print. Heavy libraries are imported inside commands."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from crossmatch.cli.analyse.command import analyse_command
from crossmatch.cli.audit import audit_command
from crossmatch.cli.calibrate import calibrate_command
from crossmatch.cli.compare import compare_command
from crossmatch.cli.doctor import doctor_command
from crossmatch.cli.evaluate.command import evaluate_command
from crossmatch.cli.exports import with_directories
from crossmatch.cli.help import NAMES, HelpfulCommand, HelpfulGroup
from crossmatch.cli.identify import identify_command
from crossmatch.cli.init import init_command
from crossmatch.cli.inspect import inspect_command
from crossmatch.cli.merge import merge_command
from crossmatch.cli.predict import predict_command
from crossmatch.cli.report import report_command
from crossmatch.cli.run import run_command
from crossmatch.cli.schema import schema_command
from crossmatch.cli.sweep import sweep_command
from crossmatch.cli.train import train_command
from crossmatch.cli.vectors import app as vectors
from crossmatch.cli.verify import verify_command
from crossmatch.console import Settings, say
from crossmatch.errors import CrossmatchError, ExitCode
from crossmatch.report.text import paragraph, printable
from crossmatch.runtime import quiet_libraries

# Newer typer carries its own copy of click: its error class is found by what every typer exports.
# Of an error's line, in characters: a file may give names of any length.
_LONGEST = 2000
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="crossmatch",
    help="Train, merge, prove, measure and explain two LoRA adapters in one model.",
    cls=HelpfulGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": NAMES},
)
for _name, _command in {
    "init": init_command,
    "doctor": doctor_command,
    "run": run_command,
    "train": train_command,
    "merge": merge_command,
    "verify": verify_command,
    "identify": identify_command,
    "analyse": analyse_command,
    "evaluate": evaluate_command,
    "sweep": sweep_command,
    "predict": predict_command,
    "compare": compare_command,
    "audit": audit_command,
    "calibrate": calibrate_command,
    "inspect": inspect_command,
    "report": report_command,
    "schema": schema_command,
}.items():
    app.command(_name, cls=HelpfulCommand)(_command)
app.add_typer(vectors, name="vectors")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"crossmatch {version('crossmatch')}")
        raise typer.Exit


@app.callback()
def options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no hints.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train, merge, prove, measure and explain LoRA adapters in one model."""
    del version
    Settings.quiet, Settings.debug = quiet, debug
    if not debug:
        quiet_libraries()


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors become one line on stderr."""
    try:
        words = with_directories(sys.argv[1:] if arguments is None else arguments)
        code = typer.main.get_command(app).main(args=words, prog_name="crossmatch", standalone_mode=False)
        # typer turns Ctrl-C into an exit code of its own.
        return _interrupted() if code == ExitCode.INTERRUPTED else int(code or ExitCode.OK)
    except CrossmatchError as error:
        return _fail(error, error.exit_code)
    except _USAGE_ERROR as error:
        error.show()
        return ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        # Whoever read stdout has gone, as `| head` does.
        sys.stderr.close()
        return ExitCode.OK
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _fail(error, ExitCode.USAGE, f"{name}{error.strerror or error}")
    except Exception as error:  # a fault of ours
        return _fail(
            error,
            ExitCode.INTERNAL,
            f"internal error: {type(error).__name__}: {error}; `crossmatch --debug ...` shows where",
        )


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())


def _interrupted() -> int:
    say("\ninterrupted; the same command goes on where it stopped, or begins anew where there was little to keep")
    return ExitCode.INTERRUPTED


def _fail(error: BaseException, code: ExitCode, text: str | None = None) -> int:
    if Settings.debug:
        import traceback

        traceback.print_exception(error)
    line = printable(" ".join((text or str(error)).split()))
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    # A log keeps one line for each error; on a terminal a long one is wrapped at words.
    shown = paragraph(f"error: {line}") if sys.stderr.isatty() else f"error: {line}"
    print(shown, file=sys.stderr)
    return code
