"""crossmatch vectors: the group of commands."""

import typer

from crossmatch.cli.help import HelpfulCommand, HelpfulGroup
from crossmatch.cli.vectors.add import add_command, scale_command
from crossmatch.cli.vectors.apply import apply_command, remove_command
from crossmatch.cli.vectors.extract import extract_command
from crossmatch.cli.vectors.inspect import inspect_vector_command

app = typer.Typer(
    help="Tuning vectors as files: what a fine-tune changed, extracted, added, scaled, put on a model, taken off.",
    cls=HelpfulGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
)
for _name, _command in {
    "extract": extract_command,
    "add": add_command,
    "scale": scale_command,
    "apply": apply_command,
    "remove": remove_command,
    "inspect": inspect_vector_command,
}.items():
    app.command(_name, cls=HelpfulCommand)(_command)
