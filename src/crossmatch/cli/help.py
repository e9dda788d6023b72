"""How `--help` looks: options in groups, two examples, one screen; `--help-all` shows the rest.

One table says of each command which options most people need, and gives two examples. An option that is not in the
table of its command is shown by `--help-all`; one that is in no group of `_GROUPS` stands under "How".
"""

import inspect
import re
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

ALL = "--help-all"
NAMES = ["-h", "--help", ALL]
START, MAKE, PROVE, MEASURE, EXPLAIN = "Start here", "Train and merge", "Prove", "Measure", "Explain and show"
_WHAT, _HOW, _OUTPUT = "What", "How", "Output"
# Of every command: which group an option stands in, by the name of its parameter; all others are "How".
_GROUPS = {
    **dict.fromkeys(
        ("adapter", "weight", "base", "suite", "train", "held_out", "data", "stage", "vector", "checkpoint"), _WHAT
    ),
    **dict.fromkeys(("texts", "questions", "openings", "server", "model", "same_as", "column", "strength"), _WHAT),
    **dict.fromkeys(("output", "as_json", "detail", "sarif", "junit", "annotate", "overwrite", "svg", "sign"), _OUTPUT),
    **dict.fromkeys(
        ("sha256", "durable", "to", "shard_size", "tables", "figures", "runs", "fail_above", "summary"), _OUTPUT
    ),
    **dict.fromkeys(("attest", "bom", "report_to", "dry_run"), _OUTPUT),
}
_COLUMN = 27
START_TEXT = """\
crossmatch: train, merge, prove, measure and explain LoRA adapters in one model

  make demo                        the whole job on a bundled sample (6 minutes)
  crossmatch doctor BASE -a PATH   is this machine, base and adapter fit for it?
  crossmatch init DIR              write a recipe from the models and data there
  crossmatch run STUDY.yaml        train, merge, prove, measure and explain
  crossmatch verify MERGED         is a merged checkpoint what it claims to be?
  crossmatch identify MERGED ...   which adapters are inside, how much of each?

All commands: crossmatch --help. One command: crossmatch COMMAND --help."""


@dataclass(frozen=True)
class Shown:
    """panel: of the list of commands; common: parameters that `--help` shows; examples: two command lines, without the
    program's name."""

    panel: str
    common: tuple[str, ...]
    examples: tuple[str, str]


_MERGE = "-a pt=runs/pt -a sft=runs/sft -w pt=0.3 -w sft=0.7"
SHOWN = {
    "init": Shown(START, ("output", "as_json"), ("init models -o study.yaml", "init .")),
    "doctor": Shown(START, ("adapter", "as_json"), ("doctor", "doctor models/base -a pt=runs/pt -a sft=runs/sft")),
    "run": Shown(
        START,
        ("runs", "dry_run", "detail", "as_json"),
        ("run studies/sample.yaml --dry-run", "run studies/sample.yaml"),
    ),
    "train": Shown(
        MAKE,
        ("stage", "data", "output", "setting", "column", "dry_run", "as_json"),
        (
            "train models/base --stage pt --data pt.jsonl -o runs/pt",
            "train models/base --stage sft --data sft.jsonl -o runs/sft --set rank=16",
        ),
    ),
    "merge": Shown(
        MAKE,
        ("adapter", "weight", "output", "rule", "to", "dtype", "verify", "overwrite", "dry_run", "as_json"),
        (f"merge models/base {_MERGE} -o models/merged", f"merge models/base {_MERGE} --to adapter -o runs/both"),
    ),
    "calibrate": Shown(
        MAKE,
        ("adapter", "data", "output", "positions", "max_positions", "overwrite", "as_json"),
        (
            "calibrate models/base -a pt=runs/pt --data pt.jsonl -o inputs.safetensors",
            "calibrate models/base --data pt.jsonl --gradients -o inputs.safetensors",
        ),
    ),
    "verify": Shown(
        PROVE,
        ("base", "adapter", "weight", "quick", "detail", "as_json", "sarif", "junit", "annotate"),
        ("verify models/merged", f"verify THEIRS --base models/base {_MERGE}"),
    ),
    "identify": Shown(
        PROVE,
        ("base", "adapter", "detail", "as_json", "sarif", "junit", "annotate"),
        (
            "identify THEIRS --base models/base -a pt=runs/pt -a sft=runs/sft",
            "identify THEIRS --base models/base -a sft=runs/sft --json",
        ),
    ),
    "inspect": Shown(PROVE, ("as_json",), ("inspect models/merged", "inspect runs/sft --json")),
    "evaluate": Shown(
        MEASURE,
        (
            "suite",
            "output",
            "adapter",
            "weight",
            "reference",
            "template",
            "decoding",
            "checkpoint",
            "dry_run",
            "detail",
            "as_json",
        ),
        (
            f"evaluate models/base {_MERGE} --suite suite.yaml -o answers",
            "evaluate models/base --checkpoint theirs=THEIRS --suite suite.yaml -o answers",
        ),
    ),
    "sweep": Shown(
        MEASURE,
        ("adapter", "suite", "output", "space", "goal", "constraint", "method", "repair", "dry_run", "as_json"),
        (
            "sweep models/base -a pt=runs/pt -a sft=runs/sft --suite suite.yaml -o runs/sweep",
            "sweep sweep.yaml --repair",
        ),
    ),
    "predict": Shown(
        MEASURE,
        ("adapter", "weight", "reference", "swept", "as_json"),
        (f"predict models/base {_MERGE}", f"predict models/base {_MERGE} --sweep runs/sweep"),
    ),
    "compare": Shown(
        MEASURE,
        ("margin", "metric", "task", "pooled", "detail", "tables", "as_json"),
        ("compare logs/base logs/int4 --margin 1.0", "compare answers:sft answers:pt0.3+sft0.7"),
    ),
    "audit": Shown(
        MEASURE,
        ("train", "held_out", "output", "fail_above", "detail", "tables", "as_json"),
        (
            "audit --train sft=sft.jsonl --held-out define=suite.yaml",
            "audit --train sft=sft.jsonl --held-out define=suite.yaml --fail-above 0.01",
        ),
    ),
    "analyse": Shown(
        EXPLAIN,
        ("texts", "questions", "nulls", "no_alignment", "output", "detail", "tables", "as_json"),
        (
            "analyse models/base pt=runs/pt sft=runs/sft -o analysis",
            "analyse models/base tuned=models/tuned --texts pt.jsonl -o analysis",
        ),
    ),
    "schema": Shown(EXPLAIN, ("as_json",), ("schema", "schema verdict")),
    "report": Shown(
        EXPLAIN, ("output", "tables", "figures", "as_json"), ("report runs/sample", "report answers -o page.html")
    ),
    "vectors": Shown(
        EXPLAIN, (), ("vectors extract models/base models/tuned -o tau", "vectors apply models/base tau -o OUT")
    ),
    "vectors extract": Shown(
        EXPLAIN,
        ("output", "rank", "energy", "dtype", "overwrite", "as_json"),
        (
            "vectors extract models/base models/tuned -o tau",
            "vectors extract models/base models/tuned --rank 16 -o adapter",
        ),
    ),
    "vectors add": Shown(
        EXPLAIN,
        ("vector", "weight", "output", "match_norm", "base", "overwrite", "as_json"),
        (
            "vectors add -a a=tau -a b=runs/sft -w a=0.5 -o sum",
            "vectors add -a a=tau -a b=runs/sft --match-norm a -o sum",
        ),
    ),
    "vectors scale": Shown(
        EXPLAIN,
        ("strength", "output", "base", "overwrite", "as_json"),
        ("vectors scale tau -g 0.5 -o half", "vectors scale tau -g 0:1:0.25 -o grid"),
    ),
    "vectors apply": Shown(
        EXPLAIN,
        ("strength", "output", "dtype", "verify", "overwrite", "as_json"),
        ("vectors apply models/base tau -o OUT", "vectors apply models/base tau -g 0:1:0.25 -o grid"),
    ),
    "vectors remove": Shown(
        EXPLAIN,
        ("strength", "output", "base", "dtype", "verify", "overwrite", "as_json"),
        ("vectors remove models/tuned tau -o OUT", "vectors remove models/tuned tau -g 0.5 -o OUT"),
    ),
    "vectors inspect": Shown(EXPLAIN, ("as_json",), ("vectors inspect tau", "vectors inspect runs/sft --json")),
}


def path_of(context: Any) -> str:
    """What the command of a context is called, without the program's name: `vectors add`."""
    return " ".join(context.command_path.split()[1:])


def grouped(command: Any, context: Any, *, everything: bool) -> dict[str, list[tuple[str, str]]]:
    """Group -> (how a parameter is written, what it is for), in order; everything: also what few people need."""
    shown = SHOWN.get(path_of(context))
    groups: dict[str, list[tuple[str, str]]] = {_WHAT: [], _HOW: [], _OUTPUT: []}
    for parameter in command.params:
        argument = parameter.param_type_name == "argument"
        common = argument or parameter.required or shown is None or parameter.name in shown.common
        record = parameter.get_help_record(context) if everything or common else None
        if record is not None:
            group = _WHAT if argument else _GROUPS.get(parameter.name, _HOW)
            written = record[0].partition(" <")[0].upper() if argument else record[0].replace("<list[str]>", "<str>")
            groups[group].append((written, record[1]))
    return groups


class _Paged:
    """What commands and groups of commands share: plain text that fits a terminal, a file and a log."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[ALL] = ALL in args
        return super().parse_args(ctx, args)  # type: ignore[misc]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}").upper() for piece in super().collect_usage_pieces(ctx)]  # type: ignore[misc]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """The first paragraph and the exit codes; all paragraphs with `--help-all`."""
        paragraphs = inspect.cleandoc(self.help or "").split("\n\n")  # type: ignore[attr-defined]
        kept = [p for n, p in enumerate(paragraphs) if not n or ctx.meta.get(ALL) or p.startswith("Exit code")]
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("\n\n".join(kept))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        shown = SHOWN.get(path_of(ctx))
        if shown is not None:
            with formatter.section("Examples"):
                for line in shown.examples:
                    formatter.write(example(line))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for part in (self.format_usage, self.format_help_text, self.format_options, self.format_epilog):  # type: ignore[attr-defined]
            part(ctx, formatter)


class HelpfulCommand(_Paged, TyperCommand):
    """A command whose help shows the options that most people need, in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The groups, and how many options are left for `--help-all`."""
        everything = bool(ctx.meta.get(ALL))
        groups = grouped(self, ctx, everything=everything)
        # One column for all groups.
        widths = [len(written) for rows in groups.values() for written, _ in rows]
        column = max((width for width in widths if width <= _COLUMN), default=0)
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(written.ljust(column), said) for written, said in rows], col_max=column)
        hidden = sum(map(len, grouped(self, ctx, everything=True).values())) - sum(map(len, groups.values()))
        if hidden:
            formatter.write_paragraph()
            formatter.write(f"{ALL} shows {hidden} more option{'s' if hidden > 1 else ''}.\n")


class HelpfulGroup(_Paged, TyperGroup):
    """A group of commands; alone it says where to start."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without any argument the program says where to start, and ends as done."""
        if not args and ctx.parent is None:
            typer.echo(START_TEXT)
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands by what they are for, then the options before the command."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            shown = SHOWN.get(f"{path_of(ctx)} {name}".strip())
            panel = shown.panel if shown is not None and ctx.parent is None else "Commands"
            panels.setdefault(panel, []).append((name, first_sentence(command.help or "")))
        order = [START, MAKE, PROVE, MEASURE, EXPLAIN]
        for panel in sorted(panels, key=lambda title: order.index(title) if title in order else len(order)):
            with formatter.section(panel):
                formatter.write_dl(panels[panel])
        rows = [record for parameter in self.params if (record := parameter.get_help_record(ctx)) is not None]
        if rows:
            with formatter.section("Options before the command"):
                formatter.write_dl(rows)


def first_sentence(text: str) -> str:
    """The first sentence of a command's help, on one line."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.partition(": ")[0].partition(". ")[0].partition("; ")[0].rstrip(".")


def example(line: str) -> str:
    """A command line that can be copied, also where it is longer than a screen is wide: an option keeps its value."""
    rows = ["crossmatch"]
    for part in re.split(r" (?=-)|(?<=crossmatch) ", f"crossmatch {line}")[1:]:
        if len(rows[-1]) + len(part) > 72:
            rows.append(part)
        else:
            rows[-1] += f" {part}"
    return "  " + " \\\n      ".join(rows) + "\n"
