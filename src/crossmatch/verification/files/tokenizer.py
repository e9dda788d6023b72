"""Tokenizers: two are the same if they hold the same tokens and give the same ids."""

from collections.abc import Mapping, Sequence

from crossmatch.verification.files.sandbox import Encoder, tokenize
from crossmatch.verification.files.side_files import Side

TEXTS = (
    "The patient presents with dyspnoea, haemoptysis and a 3-week history of pleuritic chest pain.",
    "Hypertrophic cardiomyopathy; 5-hydroxytryptamine; TNF-α; CD4+ T-cells; β-blocker 12.5 mg b.i.d.",
    "患者出现呼吸困难、咯血，诊断为肺动脉高压。",
    "慢性阻塞性肺疾病（COPD）急性加重期，给予沙丁胺醇2.5mg雾化。",
    "0123456789 1000000 3.14159 1,234,567 2024-07-26 1e-5 ½ ² Ⅳ",
    "🫀🧬👩🏽‍⚕️ 🇨🇳 ☠️ 😀😀",
    "a  b   c    d\t\te\n\n\nf \r\n g        h",
    "  leading and trailing  ",
    "",
    " ",
    "\n",
    "It's we'll I'D they're naïve Café ﬁne ＡＢＣ １２３ İstanbul ß",
    "def f(x):\n    return {'a': [1, 2, 3]}  # 注释\n",
    "Привет, мир! مرحبا こんにちは 안녕하세요 สวัสดี नमस्ते",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nHello<|im_end|>",
    "<s>[INST] Hi [/INST] Hello</s><|eot_id|><|start_header_id|>user<|end_header_id|><start_of_turn>",
    "e\u0301 \u00e9 \u200b\u00a0\ufeff\u2028 \u0000",
)
Key = tuple[str, tuple[str, ...]]


class Encoders:
    """What the tokenizers of some sides make of some texts; each is loaded once, whoever has it."""

    def __init__(self, sides: Sequence[Side], texts: Sequence[str]) -> None:
        self._keys = {side.name: side.encoder_key for side in sides}
        files = {key: (side.encoder_file, side.more) for side in sides if (key := self._keys[side.name])}
        lookup = [token for side in sides for token in side.specials.values() if token]
        asked = [(file, more) for file, more in files.values() if file is not None]
        found = tokenize(asked, list(dict.fromkeys([*TEXTS, *texts])), list(dict.fromkeys(lookup)))
        self._found: Mapping[Key, Encoder] = dict(zip(files, found, strict=True))

    def of(self, side: Side) -> Encoder | None:
        """A side's, or None: it has no tokenizer.json, or one that cannot be loaded."""
        key = self._keys[side.name]
        found = self._found[key] if key is not None else None
        return found if found is not None and found.error is None else None

    def error(self, side: Side) -> str | None:
        """Why a side's tokenizer.json cannot be loaded."""
        key = self._keys[side.name]
        return self._found[key].error if key is not None else side.broken.get("tokenizer.json")

    def differences(self, merged: Side, source: Side) -> list[str]:
        """How the merged tokenizer differs from the source's, which can be loaded."""
        ours, theirs = self.of(merged), self.of(source)
        if theirs is None or ours is theirs:
            return []
        if ours is None:
            return [f"it cannot be loaded: {self.error(merged)}" if self.error(merged) else "tokenizer.json is missing"]
        result = []
        if ours.vocabulary != theirs.vocabulary:
            # They are listed against the first that was asked for, which is the merged one.
            result.append(f"tokens are others or numbered otherwise, such as {list(theirs.strange)}"[:300])
        if ours.model != theirs.model:
            result.append("its merges or scores are others")
        shared = [text for text in theirs.ids if ours.ids.get(text) != theirs.ids[text]]
        if shared:
            result.append(
                f"{len(shared)} of {len(theirs.ids)} texts get other ids, such as {min(shared, key=len)!r}"[:300]
            )
        if ours.framed != theirs.framed:
            result.append("it puts other tokens around a text")
        if ours.words != theirs.words and not shared:
            result.append("words of its vocabulary get other ids")
        if ours.decoded != theirs.decoded:
            result.append("some tokens are decoded to other texts")
        return result

    def rewritten(self, merged: Side, source: Side) -> list[str]:
        """Parts of the merged tokenizer (what it does before and after its model) that are other than the source's."""
        ours, theirs = self.of(merged), self.of(source)
        if ours is None or theirs is None:
            return []
        return [part for part, state in theirs.parts.items() if ours.parts.get(part) != state]


def slow_differences(merged: Side, source: Side) -> list[str]:
    """Vocabulary files of the source that are missing or others in the merged directory."""
    ours = merged.slow_digests()
    return [
        f"{name} is {'another' if name in ours else 'missing'}"
        for name, digest in source.slow_digests().items()
        if ours.get(name) != digest
    ]
