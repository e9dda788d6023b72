"""The faults by id: what each means for whoever ships the file, and what to do about it."""

from collections.abc import Mapping

FAULTS: Mapping[str, tuple[str, str]] = {
    "two-weight-sets": (
        "the directory holds two sets of weights; loaders take model.safetensors, whatever the shards say",
        "remove the stale set, or export again into an empty directory",
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
        "find the adapter that was merged, or merge again with the right one",
    ),
    "modules-skipped": (
        "an adapter is missing from some modules and present in the others",
        "merge again; look for a stale shard or a filter on module names",
    ),
    "weights-swapped": ("the adapters' weights are exchanged", "merge again with the weights the right way round"),
    "weights-squared": (
        "each weight acts squared: it was applied to both factors of the adapter",
        "merge again; scale one factor, or the delta, once",
    ),
    "weights-normalised": ("the weights were rescaled to a sum of one", "merge again without normalisation"),
    "weights-scaled": ("all weights are off by one common factor", "check the adapter's scaling (alpha, rank, rsLoRA)"),
    "weights-sign": ("a weight has the wrong sign", "merge again; negative weights need a tool that keeps their sign"),
    "applied-twice": (
        "every delta is in the file twice",
        "merge into the plain base, not into a checkpoint that was merged before",
    ),
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
    "config-changed": (
        "config.json is missing, or describes another model than the base's",
        "copy config.json from the base; only its dtype may differ",
    ),
    "adapter-left-behind": (
        "adapter_config.json lies in the directory: loaders attach that adapter a second time",
        "remove the adapter's files from the merged directory",
    ),
}
NOTES: Mapping[str, str] = {
    "not-identifiable": "the file does not hold the evidence to separate these weights",
    "rounded-twice": "the weights were rounded more than once on the way; an honest route, a little less exact",
    "rounded-stochastically": "each element was rounded to one of its two neighbours at random, as the manifest says",
    "rounding-swallow": "much of the delta is below the rounding step and lost; store float32 or float16",
    "dtype-changed": "stored in another dtype than the base",
}
