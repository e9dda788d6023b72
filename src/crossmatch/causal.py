"""Language models of transformers: the class that a checkpoint's config asks for, loaded with its text head.

Loads transformers when it is called, not before.
"""

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


def _class(auto: Any, config: Any) -> str:
    """Name of the class that an auto class would make."""
    found = auto._model_mapping[type(config)]
    return (found[0] if isinstance(found, tuple | list) else found).__name__


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
