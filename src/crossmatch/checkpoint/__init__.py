"""One home for weights: a safetensors directory, its reading, its writing, its digests and its manifest."""

from crossmatch.checkpoint.checkpoint import BLOCK_ELEMENTS, Checkpoint, PassingDigests, Tail, TensorFiles
from crossmatch.checkpoint.digest import Unchanged, bytes_digest, file_digest, files_digest, value_digest
from crossmatch.checkpoint.files_beside_weights import Neighbours, neighbours
from crossmatch.checkpoint.header import DTYPE_NAMES, DTYPE_WORDS, DTYPES, TensorInfo, read_header, tensor_bytes
from crossmatch.checkpoint.hub import Source, is_hub_id, locate, upload
from crossmatch.checkpoint.layout import INDEX, MANIFEST, SINGLE, Layout, find_weights, read_json
from crossmatch.checkpoint.naming import Naming, namings
from crossmatch.checkpoint.output import (
    OutputFile,
    atomic_directory,
    check_apart,
    check_output,
    disk_error,
    json_text,
    replace_json,
    safe_name,
    split_pairs,
    sync,
    write_json,
    write_rows,
    write_tensors,
)
from crossmatch.checkpoint.programs import versions
from crossmatch.checkpoint.quantised import QuantisedCheckpoint, QuantisedTensor, is_quantised, open_quantised
from crossmatch.checkpoint.root_digest import RootDigest, root_digest
from crossmatch.checkpoint.same import by_names_of, is_made_by_class, is_needless
from crossmatch.checkpoint.signature import SIGNATURE, SignatureResult, check_key, check_signature, sign
from crossmatch.checkpoint.tensor_names import (
    expert_of,
    input_embedding,
    is_output,
    layer_of,
    module_type_of,
    output_embedding,
    untied_output,
)
from crossmatch.checkpoint.text_files import TOKENIZER_FILES, TextFacts, chat_template, side_digest, text_facts
from crossmatch.checkpoint.untrusted import check_links, parse_json, read_text
from crossmatch.checkpoint.vocabulary import read_vocabulary

__all__ = [
    "BLOCK_ELEMENTS",
    "DTYPES",
    "DTYPE_NAMES",
    "DTYPE_WORDS",
    "INDEX",
    "MANIFEST",
    "SIGNATURE",
    "SINGLE",
    "TOKENIZER_FILES",
    "Checkpoint",
    "Layout",
    "Naming",
    "Neighbours",
    "OutputFile",
    "PassingDigests",
    "QuantisedCheckpoint",
    "QuantisedTensor",
    "RootDigest",
    "SignatureResult",
    "Source",
    "Tail",
    "TensorFiles",
    "TensorInfo",
    "TextFacts",
    "Unchanged",
    "atomic_directory",
    "by_names_of",
    "bytes_digest",
    "chat_template",
    "check_apart",
    "check_key",
    "check_links",
    "check_output",
    "check_signature",
    "disk_error",
    "expert_of",
    "file_digest",
    "files_digest",
    "find_weights",
    "input_embedding",
    "is_hub_id",
    "is_made_by_class",
    "is_needless",
    "is_output",
    "is_quantised",
    "json_text",
    "layer_of",
    "locate",
    "module_type_of",
    "namings",
    "neighbours",
    "open_quantised",
    "output_embedding",
    "parse_json",
    "read_header",
    "read_json",
    "read_text",
    "read_vocabulary",
    "replace_json",
    "root_digest",
    "safe_name",
    "side_digest",
    "sign",
    "split_pairs",
    "sync",
    "tensor_bytes",
    "text_facts",
    "untied_output",
    "upload",
    "value_digest",
    "versions",
    "write_json",
    "write_rows",
    "write_tensors",
]
