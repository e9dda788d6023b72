"""Language models of transformers: the class that a checkpoint's config asks for, loaded with its text head.

Loads transformers when it is called, not before.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from crossmatch.errors import InputError

_AUTO = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")


def open_model(path: Path, dtype: Any) -> Any:
    """The model of a directory with the head that predicts the next token, in evaluation mode.

    A multimodal model is loaded whole, so that its parameters go by the names of its file; it reads text alone. Raises
    InputError for a model that transformers does not know as one that writes text.
    """
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} has no config.json that transformers can read ({_line(error)})") from error
    classes = [auto for auto in (getattr(transformers, name, None) for name in _AUTO) if auto is not None]
    known = [auto for auto in classes if type(config) in auto._model_mapping]
    named = getattr(config, "architectures", None) or ()
    own = getattr(transformers, named[0], None) if named and not known else None
    if own is not None and isinstance(own, type) and issubclass(own, transformers.GenerationMixin):
        known = [own]
    if not known:
        raise InputError(
            f"{path} is a {config.model_type} model; only models that predict the next token of a text can be run "
            "(decoders, and multimodal models with one)"
        )
    chosen: Any = next((auto for auto in known if auto in classes and _class(auto, config) in named), known[0])
    return chosen.from_pretrained(path, dtype=dtype).eval()


def parameter_names(model: Any, stored: Iterable[str]) -> dict[str, str]:
    """Names of a file's tensors -> what the loaded model calls them: transformers renames parts of multimodal models as
    it loads them. Left out is what becomes a part of a parameter with others, as experts that are stored one by one."""
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    conversions = getattr(model, "_weight_conversions", None) or []
    renamings = [conversion for conversion in conversions if isinstance(conversion, WeightRenaming)]
    converters = [conversion for conversion in conversions if isinstance(conversion, WeightConverter)]
    held = dict(model.state_dict(keep_vars=True))
    found = {n: rename_source_key(n, renamings, converters, model.base_model_prefix, held) for n in stored}
    return {name: target for name, (target, pattern) in found.items() if pattern is None}


def text_decoder(model: Any) -> Any:
    """The part of a model that reads the text: the whole of one that reads nothing else, else without its towers."""
    if model.config.get_text_config(decoder=True) is model.config:
        return model.base_model
    return model.get_decoder()


def _class(auto: Any, config: Any) -> str:
    """Name of the class that an auto class would make."""
    found = auto._model_mapping[type(config)]
    return (found[0] if isinstance(found, tuple | list) else found).__name__


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
