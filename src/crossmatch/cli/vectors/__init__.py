"""crossmatch vectors: the group of commands."""

import typer

from crossmatch.cli.vectors.add import add_command, scale_command
from crossmatch.cli.vectors.apply import apply_command, remove_command
from crossmatch.cli.vectors.extract import extract_command
from crossmatch.cli.vectors.inspect import inspect_vector_command

app = typer.Typer(
    help="Tuning vectors as files: what a fine-tune changed, extracted, added, scaled, put on a model, taken off.",
    no_args_is_help=True,
)
app.command("extract")(extract_command)
app.command("add")(add_command)
app.command("scale")(scale_command)
app.command("apply")(apply_command)
app.command("remove")(remove_command)
app.command("inspect")(inspect_vector_command)
