"""How answers are drawn and where they end: generation config, end tokens, and the rows for all tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmatch.verification.files.config import same_value, text_fields
from crossmatch.verification.files.sandbox import Encoder
from crossmatch.verification.files.side_files import Side

# Fields that change answers, with what is taken where they are not given.
_FIELDS: Mapping[str, Any] = {
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "cache_implementation": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "dola_layers": None,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "force_words_ids": None,
    "guidance_scale": None,
    "is_assistant": False,
    "length_penalty": 1.0,
    "max_length": 20,
    "max_new_tokens": None,
    "max_time": None,
    "min_length": 0,
    "min_new_tokens": None,
    "min_p": None,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "penalty_alpha": None,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "repetition_penalty": 1.0,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
    "temperature": 1.0,
    "token_healing": False,
    "top_h": None,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
    "use_mtp": False,
    "watermarking_config": None,
}


@dataclass(frozen=True)
class Ends:
    """Where a directory says that a sequence ends.

    config, generation: ids declared in config.json and generation_config.json; token: the tokenizer's, as text and id;
    turn: ids of the added tokens after the last answer (None: there is no template, or it is not known); between: those
    after an answer that is not the last, which may begin the next turn.
    """

    config: frozenset[int]
    generation: frozenset[int]
    token: tuple[str, int] | None
    turn: tuple[int, ...] | None
    between: tuple[int, ...] = ()

    @property
    def effective(self) -> frozenset[int]:
        """What stops generation: the generation config's, or else the config's."""
        return self.generation or self.config

    @property
    def turn_ends(self) -> bool:
        """Whether the template ends a turn with an id that stops generation."""
        return self.turn is not None and bool(self.effective & {*self.turn, *self.between})


def ends(side: Side, encoder: Encoder | None, after: Sequence[str]) -> Ends:
    """`after`: what the template puts after the assistant's answers."""
    token = side.specials.get("eos_token")
    number = encoder.special.get(token) if encoder is not None and token else None
    turn, between = None, ()
    if encoder is not None and after:
        added = {*encoder.added.values(), *token_ids(side.generation), *token_ids(text_fields(side.config))}
        *between, turn = (tuple(i for i in encoder.ids.get(text) or () if i in added) for text in after)
    return Ends(
        token_ids(text_fields(side.config)),
        token_ids(side.generation),
        (token, number) if token and number is not None else None,
        turn,
        tuple(i for part in between for i in part),
    )


def disagreements(found: Ends, reference: Sequence[Ends]) -> list[str]:
    """In sentences; a template without any end is one only if that of a reference has one."""
    result = []
    stops = sorted(found.effective)
    if found.generation and not found.config <= found.generation:
        result.append(f"config.json ends at {sorted(found.config)}, generation_config.json at {stops}")
    if found.token is not None and found.token[1] not in found.effective:
        token, number = found.token
        result.append(f"the tokenizer ends with {token[:40]!r} ({number}), generation stops at {stops or 'nothing'}")
    # A token after the last answer is there to end it.
    ended = bool(found.turn) or any(r.turn_ends for r in reference)
    if found.turn is not None and not found.turn_ends and ended:
        last = list(found.turn[:6]) or "no token that ends it"
        result.append(f"after an answer the template puts {last}, generation stops at {stops or 'nothing'}")
    return result


def token_ids(config: Mapping[str, Any] | None) -> frozenset[int]:
    """eos_token_id as a set: one number, a list, or nothing."""
    value = (config or {}).get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return frozenset(v for v in values if isinstance(v, int) and not isinstance(v, bool))


def changed_generation(merged: Side, source: Side, eos: frozenset[int]) -> list[str]:
    """Fields that change answers and differ; `eos`: ids that may be added to those at which generation stops."""
    ours, theirs = _effective(merged), _effective(source)
    changed = [key for key in _FIELDS if not same_value(ours[key], theirs[key])]
    mine, other = (token_ids(s.generation) or token_ids(text_fields(s.config)) for s in (merged, source))
    # Trainers add the end of a turn to the list; none may go.
    if not (other <= mine and mine - other <= eos):
        changed.append("eos_token_id")
    return changed


def _effective(side: Side) -> dict[str, Any]:
    """Every field's value. Without a generation config, loaders make one of the fields of the config."""
    given = side.generation if side.generation is not None else text_fields(side.config)
    return {key: default if given.get(key) is None else given[key] for key, default in _FIELDS.items()}


def vocabulary_defects(config: Mapping[str, Any], rows: int | None, encoder: Encoder | None) -> list[str]:
    """What does not fit between tokenizer, config and the rows of the input embedding."""
    if rows is None:
        return []
    result = []
    if encoder is not None and encoder.largest >= rows:
        result.append(f"the tokenizer has token {encoder.largest}, the embedding {rows} rows")
    declared = text_fields(config).get("vocab_size")
    if isinstance(declared, int) and declared != rows:
        result.append(f"config.json says vocab_size {declared}, the embedding has {rows} rows")
    return result
