"""The faults by id: what each means for whoever ships the file, and what to do about it."""

from collections.abc import Mapping

FAULTS: Mapping[str, tuple[str, str]] = {
    "export-incomplete": (
        "the directory is not a whole checkpoint: an index names files that are absent, or a file is cut off",
        "export again; do not load it",
    ),
    "two-weight-sets": (
        "the directory holds two sets of weights; loaders take model.safetensors, whatever the shards say",
        "remove the stale set, or export again into an empty directory",
    ),
    "adapter-incomplete": (
        "an adapter's file lacks factors that its config and the base promise: half of it was saved",
        "save the adapter again, or train the missing part",
    ),
    "adapter-truncated": (
        "an adapter's file holds a part of what was trained, and the model that ships lacks the rest",
        "save the adapter again with the parts of all machines gathered, then merge again",
    ),
    "adapter-untrained": (
        "an adapter's file holds starting values alone, so that it changes nothing",
        "train the adapter, or save it after training, then merge again",
    ),
    "adapter-nonfinite": (
        "an adapter's factors are NaN or infinite: training diverged, or memory was saved that was never written",
        "train the adapter again, or save it again",
    ),
    "adapter-keys-unused": (
        "an adapter holds tensors that belong to nothing in the base: loaders drop them in silence",
        "use the base that the adapter was trained on, or rename its keys",
    ),
    "init-residual": (
        "an adapter that was trained on a base with its starting value taken out was put on the plain base",
        "convert the adapter to plain LoRA (PEFT: path_initial_model_for_weight_conversion), then merge again",
    ),
    "base-differs": (
        "the merge stands on another base, or another revision of it, than the one claimed",
        "verify against the base that was merged, or merge again into the right one",
    ),
    "quantised-base": (
        "the deltas lie on a base that was quantised and dequantised, not on the one claimed",
        "merge again into the base in 16 bits",
    ),
    "adapter-not-applied": (
        "the weights are the base's own: no adapter is in the file",
        "merge again; check that the adapter's keys match the base",
    ),
    "adapter-missing": (
        "an adapter that is claimed is not in the file",
        "this is another export than it is said to be; merge again with all adapters",
    ),
    "wrong-adapter": (
        "a delta is in the file, but not the claimed adapter's",
        "find the adapter that was merged (crossmatch identify), or merge again with the right one",
    ),
    "modules-skipped": (
        "an adapter is missing from some modules and present in the others",
        "merge again; look for a stale shard or a filter on module names",
    ),
    "weights-swapped": (
        "the adapters' weights are exchanged",
        "merge again with the weights the right way round, or correct the claim if that is what is wrong",
    ),
    "weights-squared": (
        "each weight acts squared: it was applied to both factors of the adapter",
        "merge again; scale one factor, or the delta, once",
    ),
    "weights-normalised": ("the weights were rescaled to a sum of one", "merge again without normalisation"),
    "rslora-scale": (
        "an adapter acts sqrt(rank) times too much or too little: rsLoRA's scaling was not used, or used by mistake",
        "merge again with a tool that reads use_rslora",
    ),
    "scale-lost": (
        "weights are off by an adapter's scaling: alpha/rank was left out, used twice, or replaced by alpha, or the "
        "weights were multiplied by as much",
        "merge again; the delta is alpha/rank B A. If the weights were changed on purpose, claim those",
    ),
    "pattern-ignored": (
        "rank_pattern or alpha_pattern was ignored: the modules that they name are scaled wrongly",
        "merge again with a tool that reads the patterns",
    ),
    "weights-scaled": ("all weights are off by one common factor", "check the adapter's scaling (alpha, rank, rsLoRA)"),
    "weights-sign": ("a weight has the wrong sign", "merge again; negative weights need a tool that keeps their sign"),
    "applied-twice": (
        "every delta is in the file twice",
        "merge into the plain base, not into a checkpoint that was merged before. If the weights were doubled on "
        "purpose, claim those",
    ),
    "factor-cross-terms": (
        "the factors were averaged apart, so products of one adapter's B with the other's A are in the file",
        "merge the deltas, not the factors (PEFT: combination_type cat)",
    ),
    "rank-truncated": (
        "the sum was pressed into a lower rank, and its tail is lost",
        "merge the sum itself (PEFT: combination_type cat)",
    ),
    "transposed": ("a delta was added transposed", "merge again; look at fan_in_fan_out and Conv1D"),
    "expert-scrambled": (
        "the experts' deltas are dropped, transposed or on the wrong experts",
        "merge again with a tool that knows this layout of experts",
    ),
    "dora-magnitude": (
        "the magnitudes of a DoRA adapter are not in the file: only its factors were added",
        "merge again with a tool that applies DoRA",
    ),
    "saved-module-ignored": (
        "a module that the adapter stores whole (modules_to_save, trained tokens) is the base's own",
        "merge again; the adapter's copy replaces the module",
    ),
    "embedding-delta-dropped": ("the adapter's change of an embedding is not in the file", "merge again"),
    "bias-delta-dropped": ("the adapter's change of a bias is not in the file", "merge again"),
    "weights-uneven": ("modules carry different weights", "merge again, or claim the weights by module"),
    "weights-differ": ("the weights are others than claimed", "merge again, or correct the claim"),
    "unexplained-delta": (
        "beside the claimed adapters something else is in the file",
        "name the adapter that the claim leaves out, or find out what was done after the merge",
    ),
    "nonfinite": ("stored weights are NaN or infinite", "merge again in float32 or bfloat16"),
    "tensors-missing": (
        "tensors of the base are missing, or have another shape",
        "export again; loaders fill them at random",
    ),
    "tensors-extra": (
        "tensors that the base does not have are in the file",
        "remove them, or verify against the right base",
    ),
    "untouched-changed": (
        "tensors that no adapter targets differ from the base",
        "merge into the base that the adapters were trained on, without requantising it",
    ),
    "tied-leak": (
        "an adapter changes one of two tied embeddings, and the file has one tensor for both",
        "merge again with the embeddings untied (crossmatch merge --tied untie)",
    ),
    "tie-flag-stale": (
        "config.json ties the embeddings, and the file holds two that differ: loaders drop one of them",
        "set tie_word_embeddings to false in config.json",
    ),
    "config-changed": (
        "config.json is missing, or makes another model of the weights than the base's does",
        "copy config.json from the base; only its dtype may differ",
    ),
    "dtype-changed": ("stored in another dtype than claimed", "export again in the claimed dtype"),
    "signature-invalid": (
        "there is no signature by that key over these files: who made them is not shown, or they were changed since",
        "fetch the checkpoint again from whom you trust, or ask for the right public key",
    ),
    "code-changed": (
        "Python code in the directory, or where config.json says it is, differs from the base's: loaders that trust it "
        "run it",
        "copy the code from the base, or read it before you load the model",
    ),
    "processor-changed": (
        "a processor's config differs from the base's: pictures or sounds reach the model as other numbers",
        "copy the processor's files from the base",
    ),
    "trained-tokens-lost": (
        "rows were trained for tokens that the directory's tokenizer does not have",
        "copy the tokenizer from the adapter that added the tokens",
    ),
    "adapter-left-behind": (
        "adapter_config.json lies in the directory: loaders attach that adapter a second time",
        "remove the adapter's files from the merged directory",
    ),
    "tokenizer-changed": (
        "the tokenizer is missing, or gives other token ids than the one that was trained with",
        "copy the tokenizer from the adapter that was trained with it, or from the base",
    ),
    "chat-template-changed": (
        "the chat template is lost, or is another than the one that was trained with",
        "copy the chat template from the adapter that was trained with it",
    ),
    "think-template-mismatch": (
        "the generation prompt opens or closes a reasoning block otherwise than in training",
        "serve with the template that was trained with, or switch thinking as in training",
    ),
    "eos-mismatch": (
        "tokenizer, config and generation config disagree on where a turn ends, or the template never ends one so",
        "set eos_token_id in generation_config.json to the token that ends a turn",
    ),
    "vocab-mismatch": (
        "the tokenizer has tokens that the embedding has no rows for",
        "resize the embedding, or copy the tokenizer that belongs to it",
    ),
    "generation-config-changed": (
        "generation_config.json differs from its source: answers are drawn otherwise",
        "copy generation_config.json from the base or from the adapter",
    ),
}
# Where nobody claims anything (identify), these read otherwise.
UNCLAIMED: Mapping[str, tuple[str, str]] = {
    "unexplained-delta": (
        "beside the adapters that were given something else is in the file",
        "if another adapter was merged, give it as one more -a; else find out what was done after the merge",
    ),
    "wrong-adapter": (
        "a delta is in the file, but not that of an adapter that was given",
        "give the adapter that was merged as one more -a",
    ),
    "base-differs": (
        "the merge stands on another base, or another revision of it, than the one given",
        "give the base that was merged (--base)",
    ),
    "quantised-base": (
        "the deltas lie on a base that was quantised and dequantised, not on the one given",
        "merge again into the base in 16 bits",
    ),
}
NOTES: Mapping[str, str] = {
    "partial-adapter-allowed": "an adapter holds only a part of what was trained, or nothing; that was allowed",
    "adapter-partial": "an adapter holds only a part of what was trained, or nothing: see evidence.adapters",
    "modules-without-update": "some modules of an adapter hold no update: experts never chosen, or no gradient there",
    "not-identifiable": "the file does not hold the evidence to separate these weights",
    "rounded-twice": "the weights were rounded more than once on the way; an honest route, a little less exact",
    "rounded-stochastically": "each element was rounded to one of its two neighbours at random, as the manifest says",
    "rounding-swallow": "much of the delta is below the rounding step and lost, which is no fault in itself; before it "
    "ships, evaluate the file, not its adapters, or store float32 or float16",
    "dtype-changed": "stored in another dtype than the base",
    "weight-in-bf16": "the weights were rounded to bfloat16 before they were used; within the tolerance",
    "merged-as-models": "each adapter was merged into a model of its own first; an honest route, a little less exact",
    "rounded-otherwise": "no known way of rounding gives every element; what is left over is noise, with no direction",
    "claim-rounded": "the claim has fewer digits than the weights that were merged; the same within the tolerance",
    "sampled": "some rows of every tensor were judged, not all: what lies in few rows can be missed",
    "quantised": "stored quantised: weights are recovered with wider errors, and no element is certified",
    "eos-mismatch-in-base": "end tokens disagree in the base, too, and in the same way",
    "vocab-mismatch-in-base": "tokenizer, config and embedding disagree in size in the base, too, and in the same way",
    "other-weights-beside": "weights in another format lie in the directory; the usual loaders pass them over",
    "chat-template-rewritten": "the chat template is not written as its source is, and gives the same texts in all "
    "dialogues that were tried; what it does with others was not seen",
    "tokenizer-rewritten": "parts of the tokenizer are not written as its source's are, and give the same ids and "
    "texts for all that was tried; what they do with other texts was not seen",
    "sources-disagree": "the adapters were trained with different tokenizers or templates; one of them is in the merge",
    "source-unknown": "the tokenizer is said to come from an adapter that is not among those given",
    "two-chat-templates": "a second chat template lies in the directory; older loaders take that one",
    "added-tokens-not-taken": "an adapter's tokenizer adds tokens that the directory's lacks; none was trained",
    "side-files-missing": "files of the base that are no weights are missing; some loaders need them",
    "side-files-differ": "JSON files beside the weights are not the base's, or are the merge's alone; loaders "
    "that read them do something else (pooling, prompts, a processor's template)",
    "processor-fields-differ": "the processors of merge and base do not name the same fields or classes; what each "
    "class takes for what is not named was not looked at",
    "remote-code": "the directory names Python code of the model's own, which was compared with the base's, not judged",
    "config-fields-differ": "fields of config.json differ that act in training alone, or that no class declares",
    "architectures-differ": "config.json names another class than the base's; servers choose the model by it",
    "dtype-declared": "config.json declares a dtype other than the one stored; loaders cast the weights to it",
    "quantisation-file": "a file beside the weights describes a quantisation, and the weights are plain",
    "chat-template-added": "there is a chat template, though neither the base nor an adapter has one",
}

# Those of files beside the weights, which may be right all the same.
BESIDE_WEIGHTS = frozenset(
    f"{what}-changed" for what in ("config", "code", "processor", "tokenizer", "chat-template", "generation-config")
)
