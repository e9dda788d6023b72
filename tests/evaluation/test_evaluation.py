"""The measurement: suites, traces, scores, statistics, and one model that becomes every variant."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sacrebleu.metrics.bleu import BLEU
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, MistralConfig, MistralForCausalLM

from crossmatch import Adapter, Checkpoint, TuningVector, merge
from crossmatch.cli import run
from crossmatch.data.prompt_templates import Template
from crossmatch.delta import cosine, dense, singular_values
from crossmatch.errors import AdapterError, DataError, RuleError
from crossmatch.evaluation import Suite, load_suite, merge_name, standard_variants
from crossmatch.evaluation.comparison.side_by_side import side_by_side
from crossmatch.evaluation.comparison.summary import summarise
from crossmatch.evaluation.conditions import Condition, Plan, conditions_of
from crossmatch.evaluation.inference.generation import draw
from crossmatch.evaluation.inference.kv_cache import families, takes_any_mask
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.inference.protocol import Decoding
from crossmatch.evaluation.metrics.bleu_rouge import bleu, bleu_signature, bleu_statistics, length_ratio, rouge_f
from crossmatch.evaluation.metrics.choice_accuracy import shuffled
from crossmatch.evaluation.metrics.reasoning_traces import OPENERS, parse_trace
from crossmatch.evaluation.runner.answer_log import Sheet
from crossmatch.evaluation.runner.questions import Questions
from crossmatch.evaluation.runner.runner import evaluate
from crossmatch.merging import Storage
from crossmatch.rules import Weights
from crossmatch.runtime import SILENT
from helpers import generate, generated_texts, loglikelihoods, make_adapter, make_chat_model, make_tokenizer

PAIRS = {
    "en": [
        ("the cat sat on the mat", "the cat is on the mat"),
        ("An increase in blood pressure.", "Abnormally increased blood pressure, or hypertension."),
        ("no match whatsoever here", "something else entirely different"),
        ("identical sentences are perfect ones", "identical sentences are perfect ones"),
    ],
    "zh": [
        ("血压异常升高。", "血压升高的一种异常。"),
        ("完全相同的句子。", "完全相同的句子。"),
        ("心脏肥大", "肝脏体积增大"),
    ],
}


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chat")
    make_chat_model(root / "base")
    make_adapter(root / "base", root / "pt", seed=1, size=0.5)
    make_adapter(root / "base", root / "sft", seed=2, size=0.5)
    (root / "ask.jsonl").write_text(
        "".join(
            json.dumps(
                {"id": str(i), "question": f"what is {'very ' * i}old blood", "reference": "a disease of the heart"}
            )
            + "\n"
            for i in range(7)
        )
    )
    (root / "ask.yaml").write_text("name: ask\nversion: 1\nkind: generation\ndata: ask.jsonl\nmax_new_tokens: 9\n")
    rows = [
        {
            "id": str(i),
            "question": f"name {'the ' * i}disease",
            "options": ["heart", "a disease of blood", "the old cell"],
            "answer": i % 3,
        }
        for i in range(8)
    ]
    (root / "pick.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "pick.yaml").write_text(
        "name: pick\nversion: 2\nkind: choice\ndata: pick.jsonl\nprompt: 'pick: {question}'\n"
    )
    return root


class Counter:
    def __init__(self) -> None:
        self.done = 0.0

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        del note
        self.done += amount


def test_one_model_becomes_every_written_checkpoint(chat: Path, tmp_path: Path) -> None:
    base, pt, sft = Checkpoint(chat / "base"), Adapter(chat / "pt"), Adapter(chat / "sft")
    engine = Engine(base)
    by_module = Weights.parse("0.7,mlp:0.2,layers[1:].attn:0.1")
    mixtures: list[dict[str, Any]] = [{"pt": 0.3, "sft": by_module}, {"sft": 1.0}, {}, {"sft": 0.7}, {"pt": -1.0}]
    for number, mixture in enumerate(mixtures):
        parts = {name: ({"pt": pt, "sft": sft}[name], weight) for name, weight in mixture.items()}
        engine.become(parts)
        merge(base, parts, tmp_path / str(number))
        written = AutoModelForCausalLM.from_pretrained(tmp_path / str(number), dtype=torch.float32).state_dict()
        for name, tensor in engine.model.state_dict().items():
            # Summed in single precision here, rounded once from double there: the last bit may differ.
            torch.testing.assert_close(tensor, written[name], rtol=2.0**-22, atol=1e-8)
            assert number != 2 or torch.equal(tensor, written[name]), name
    coarse = Engine(base, torch.bfloat16)
    for number, vector in enumerate([0.3 * pt + 0.7 * sft, TuningVector({}), 1.0 * pt]):
        parts = {"v": (vector, 1.0)}
        coarse.become(parts)
        merge(base, parts, tmp_path / f"coarse-{number}", storage=Storage(torch.bfloat16))
        written = AutoModelForCausalLM.from_pretrained(tmp_path / f"coarse-{number}", dtype=torch.float32).state_dict()
        for name, tensor in coarse.model.state_dict().items():
            assert torch.equal(tensor, written[name]), name
    with pytest.raises(AdapterError, match=r"match nothing in .*first nothing\.weight"):
        engine.become({"v": (TuningVector({"nothing.weight": next(iter(pt.values()))}), 1.0)})


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_options_beside_each_other_score_as_whole_prompts_do(chat: Path, rows: int) -> None:
    engine = Engine(Checkpoint(chat / "base"), rows=rows)
    prompts = ["what is blood", "what is the very very old disease of the heart", "what is cell"]
    options = [["heart", "the disease of the blood", "a"], ["blood"], ["old cell", "heart heart heart"]]
    for prompt, group, values in zip(prompts, options, loglikelihoods(engine, prompts, options), strict=True):
        for option, value in zip(group, values, strict=True):
            before = engine.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            after = engine.token_ids(prompt, option)[1]
            with torch.inference_mode():
                logits = engine.model(torch.tensor([before + after])).logits[0].float()
            log_p = torch.log_softmax(logits, -1)[len(before) - 1 : -1]
            expected = float(log_p.gather(1, torch.tensor(after)[:, None]).sum())
            assert value == pytest.approx(expected, abs=1e-5)


def test_the_first_token_is_described(chat: Path) -> None:
    engine = Engine(Checkpoint(chat / "base"))
    found: list[Any] = []
    engine.openings(["what is blood"], [["heart"]], lambda i, values, first: found.append((i, values, first)))
    ids = torch.tensor([engine.tokenizer("what is blood", add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        p = torch.softmax(engine.model(ids).logits[0, -1].double(), -1)
    top = p.sort(descending=True).values
    (_, _, first) = found[0]
    assert first.entropy == pytest.approx(float(-(p * p.log()).sum()), abs=1e-5)
    assert first.margin == pytest.approx(float(top[0] - top[1]), abs=1e-6)


def plain(engine: Engine, prompt: str, limit: int) -> str:
    """What transformers generates for one prompt."""
    ids = engine.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    options = GenerationConfig(
        max_new_tokens=limit, do_sample=False, eos_token_id=sorted(engine._stops), pad_token_id=0
    )
    with torch.inference_mode():
        made = engine.model.generate(ids, generation_config=options)[0, ids.shape[1] :].tolist()
    stop = next((place for place, token in enumerate(made) if token in engine._stops), len(made))
    return engine.tokenizer.decode(made[:stop])


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_rows_that_come_and_go_change_no_answer(chat: Path, rows: int) -> None:
    """As transformers alone generates them, with different lengths, a shared beginning, and fewer places than rows."""
    engine = Engine(Checkpoint(chat / "base"), rows=rows)
    # Every seventh token ends an answer, so that rows leave at different times.
    engine._stops = engine._stops | set(range(5, 64, 7))
    prompts = [f"what is the {'very ' * (n % 5)}old {'blood heart cell '[: 6 * (n % 3)]}" for n in range(17)]
    found = generate(engine, prompts, 12)
    assert [answer.text for answer in found] == [plain(engine, prompt, 12) for prompt in prompts]
    assert all(answer.truncated == (answer.tokens == 12) for answer in found)
    assert len({answer.tokens for answer in found}) > 2


@pytest.mark.parametrize("family", ["sliding", "eager"])
def test_other_kinds_of_attention_give_the_same(chat: Path, tmp_path: Path, family: str) -> None:
    """Layers that see a window only, and attention without the fused kernel."""
    if family == "sliding":
        config = MistralConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=6, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        torch.manual_seed(0)
        MistralForCausalLM(config).save_pretrained(tmp_path)
        make_tokenizer(tmp_path)
        engine = Engine(Checkpoint(tmp_path), rows=4)
        assert not takes_any_mask(engine.model)
    else:
        engine = Engine(Checkpoint(chat / "base"), rows=4)
        engine.model.set_attn_implementation("eager")
    prompts = [f"what is the {'very ' * n}old blood" for n in range(9)]
    assert generated_texts(engine, prompts, 10) == [plain(engine, prompt, 10) for prompt in prompts]
    options = [["heart", "the disease of the blood"]] * 9
    for prompt, values in zip(prompts, loglikelihoods(engine, prompts, options), strict=True):
        ids = engine.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        after = engine.token_ids(prompt, options[0][1])[1]
        with torch.inference_mode():
            log_p = torch.log_softmax(engine.model(torch.tensor([ids + after])).logits[0].float(), -1)
        expected = float(log_p[len(ids) - 1 : -1].gather(1, torch.tensor(after)[:, None]).sum())
        assert values[1] == pytest.approx(expected, abs=1e-4)


def test_what_is_drawn_depends_on_the_item_alone(chat: Path) -> None:
    prompts = ["what is blood", "what is the very very old disease of the heart", "cell", "the"] * 2
    seeds, warm = list(range(8)), Decoding(temperature=1.0, top_p=0.9)
    one = generated_texts(Engine(Checkpoint(chat / "base"), rows=1), prompts, 8, warm, seeds)
    engine = Engine(Checkpoint(chat / "base"), rows=3)
    assert generated_texts(engine, prompts[::-1], 8, warm, seeds[::-1]) == one[::-1]
    assert generated_texts(engine, prompts, 8, warm, seeds[::-1]) != one
    assert one[:4] != one[4:]


@pytest.mark.parametrize("rows", [2, 5, 64])
def test_a_prompt_is_read_once_for_all_its_seeds(chat: Path, rows: int) -> None:
    prompts = ["what is blood", "the very very old disease of the heart is what", "cell of the heart"]
    warm, engine = Decoding(temperature=1.0, top_p=0.9), Engine(Checkpoint(chat / "base"), rows=rows)
    apart = [generated_texts(engine, prompts, 8, warm, [seed] * 3) for seed in range(5)]
    read: list[int] = []

    def count(_: Any, __: Any, given: dict[str, Any]) -> None:
        if given["input_ids"].shape[1] > 1:
            read.append(len(given["input_ids"]))

    hook = engine.model.register_forward_pre_hook(count, with_kwargs=True)
    together = generated_texts(engine, prompts * 5, 8, warm, [seed for seed in range(5) for _ in prompts])
    hook.remove()
    assert together == [text for texts in apart for text in texts]
    # Once each, and again where its answers did not all find a place in the pool at one time.
    assert sum(read) == 3 if rows == 64 else 3 <= sum(read) <= 15


def test_examples_of_a_subject_are_read_once(chat: Path) -> None:
    """Two subjects, each with examples of its own before the question: options as without what is shared."""
    blocks = ["what is the old blood the old blood is ", "the heart is a very very old cell of the disease "]
    prompts = [f"{block}{'very ' * n}blood" for n in range(5) for block in blocks] + ["cell", "what of the blood"]
    options, engine = [["heart", "the disease"]] * len(prompts), Engine(Checkpoint(chat / "base"))
    ids = engine.tokenizer(prompts, add_special_tokens=False)["input_ids"]
    assert sorted(map(sorted, families(ids))) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9], [10, 11]]
    read: list[int] = []
    # The model has been tried before what it reads is counted.
    assert engine.ways.masks
    hook = engine.model.register_forward_pre_hook(
        lambda _, __, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    together = loglikelihoods(engine, prompts, options)
    first, read[:] = sum(read), []
    for prompt, values in zip(prompts, together, strict=True):
        assert loglikelihoods(engine, [prompt], options[:1])[0] == pytest.approx(values, abs=1e-5)
    hook.remove()
    assert first < 0.7 * sum(read)


def test_prompts_of_one_kind_are_one_family() -> None:
    assert families([]) == []
    assert families([[1, 2, 3]]) == [[0]]
    assert [sorted(f) for f in families([[7, 7, 7, n, n + 1, n + 2] for n in range(9)])] == [list(range(9))]
    assert sorted(families([[n, 1, 2, 3, 4, m] for n in range(2) for m in range(4)])) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_drawing_follows_the_distribution() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    at = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:-1]
    for top_p, expected in ((1.0, [0.5, 0.3, 0.15, 0.05]), (0.8, [0.625, 0.375, 0, 0]), (0.3, [1.0, 0, 0, 0])):
        drawn = draw(logits.expand(len(at), -1), Decoding(1.0, top_p), at)
        assert torch.bincount(drawn, minlength=4) / len(at) == pytest.approx(expected, abs=1e-3)
    cold = draw(logits.expand(len(at), -1), Decoding(0.5), at)
    squares = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    assert torch.bincount(cold, minlength=4) / len(at) == pytest.approx((squares / squares.sum()).tolist(), abs=1e-3)


def suites(chat: Path) -> list[Suite]:
    return [load_suite(chat / "ask.yaml"), load_suite(chat / "pick.yaml")]


def test_records_and_summary(chat: Path, tmp_path: Path) -> None:
    base, adapters = Checkpoint(chat / "base"), {"pt": Adapter(chat / "pt"), "sft": Adapter(chat / "sft")}
    variants = standard_variants(adapters, [{"pt": 0.3, "sft": 0.7}], "sft")
    assert [v.name for v in variants] == ["base", "pt", "sft", "pt0.3+sft0.7", "sft0.7"]
    assert [v.kind for v in variants] == ["base", "adapter", "adapter", "merge", "control"]
    records = evaluate(base, adapters, variants, suites(chat), tmp_path)
    lines = [json.loads(x) for x in (tmp_path / "sft" / "ask.own.greedy.jsonl").read_text().splitlines()]
    assert lines == records["sft", "ask", "own.greedy"]
    assert {line["model_digest"] for line in lines} == {variants[2].digest(base, adapters)}
    assert len({v.digest(base, adapters) for v in variants}) == 5
    assert len({line["prompt_digest"] for line in lines}) == 7
    summary = summarise(records, variants, suites(chat), "sft")
    found = summary["conditions"]["own.greedy"]["suites"]
    texts = ("bleu", "chrf", "sentence_bleu", "rouge1", "rouge2", "rougeL")
    assert set(found["ask"]["metrics"]) == {
        *texts,
        *(f"{name}_raw" for name in texts),
        *(f"lf_{name}{end}" for name in ("bleu4", "rouge1", "rouge2", "rougeL") for end in ("", "_stripped")),
        *("length_ratio", "truncated", "openers_calibrated"),
        *("trace_unclosed", "trace_untagged", "hesitating", "hesitations", "output_tokens"),
        *("trace_structural", "trace_lexical", "trace_share", "opener_probability", "think_probability"),
        *("first_entropy", "first_margin", "answer_entropy", "answer_margin"),
    }
    assert set(found["pick"]["metrics"]) == {"acc", "acc_norm", "first_entropy", "first_margin"}
    for suite in found.values():
        for metric, row in suite["metrics"].items():
            for name, entry in row.items():
                assert entry["n"] == suite["n"]
                # Corpus BLEU of so few items has no interval that would hold.
                assert (entry["low"] is None) == (metric in ("bleu", "bleu_raw"))
                if entry["low"] is not None:
                    assert entry["low"] <= entry["value"] <= entry["high"] or entry["value"] == pytest.approx(
                        entry["low"]
                    )
                assert (entry["difference"] is None) == (name == "sft")
                assert (entry["difference_base"] is None) == (name == "base")
                if name != "sft":
                    assert entry["difference"]["p"] <= entry["difference"]["p_holm"] <= 1
    assert "tok:13a" in found["ask"]["signatures"]["bleu"]
    table = side_by_side(records, variants, suites(chat))["conditions"]["own.greedy"]
    assert len(table["pick"]["rows"]) == 8
    assert len(table["ask"]["rows"][0]["answers"]) == 5
    json.dumps([summary, table], allow_nan=False)


def test_answers_are_kept_while_nothing_changed(chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapters = Checkpoint(chat / "base"), {"pt": Adapter(chat / "pt")}
    variants = standard_variants(adapters, [], None)
    first = evaluate(base, adapters, variants, suites(chat), tmp_path)
    (tmp_path / "pt" / "ask.own.greedy.jsonl").unlink()
    loads = []
    original = Engine.__init__
    monkeypatch.setattr(Engine, "__init__", lambda self, *a: (loads.append(1), original(self, *a))[1])
    assert evaluate(base, adapters, variants, suites(chat), tmp_path) == first
    assert evaluate(base, adapters, variants, suites(chat), tmp_path, progress=SILENT) == first
    assert loads == [1]
    evaluate(base, adapters, variants, suites(chat), tmp_path, plan=Plan(conditions_of((), ["T1x1"])))
    assert loads == [1, 1]


def test_changed_inputs_and_changed_answers_are_not_reused(chat: Path, tmp_path: Path) -> None:
    shutil.copytree(chat, tmp_path / "chat")
    base, adapters = Checkpoint(tmp_path / "chat" / "base"), {"pt": Adapter(chat / "pt")}
    variants, out = standard_variants(adapters, [], None), tmp_path / "out"
    first = evaluate(base, adapters, variants, suites(chat), out)
    file = out / "pt" / "ask.own.greedy.jsonl"
    file.write_text(file.read_text().replace('"output": "', '"output": "a disease of the heart '))
    assert evaluate(base, adapters, variants, suites(chat), out) == first
    template = tmp_path / "chat" / "base" / "chat_template.jinja"
    template.write_text(template.read_text() + " the")
    changed = evaluate(base, adapters, variants, suites(chat), out)
    assert (
        changed["pt", "ask", "own.greedy"][0]["prompt_digest"] != first["pt", "ask", "own.greedy"][0]["prompt_digest"]
    )


def test_penalties_of_the_base_do_not_act(chat: Path, tmp_path: Path) -> None:
    before = generated_texts(Engine(Checkpoint(chat / "base")), ["what is blood"], 8)
    shutil.copytree(chat / "base", tmp_path / "base")
    file = tmp_path / "base" / "generation_config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "repetition_penalty": 9.0, "do_sample": True, "temperature": 3.0})
    )
    assert generated_texts(Engine(Checkpoint(tmp_path / "base")), ["what is blood"], 8) == before


def test_items_do_not_share_their_noise(chat: Path) -> None:
    engine = Engine(Checkpoint(chat / "base"))
    before = torch.get_rng_state()
    drawn = generated_texts(engine, ["what is blood"] * 4, 8, Decoding(temperature=3.0))
    assert len(set(drawn)) == 4
    assert torch.equal(torch.get_rng_state(), before)


def test_the_command(chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(chat / "base"), "--suite", str(chat / "ask.yaml"), "--suite", str(chat / "pick.yaml")]
    command += [
        "-o",
        str(tmp_path),
        "-a",
        f"pt={chat / 'pt'}",
        "-a",
        f"sft={chat / 'sft'}",
        "-w",
        "pt=0.3",
        "-w",
        "sft=0.7",
    ]
    assert run([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["reference"] == "sft"
    assert run([*command, "--reference", "pt", "--detail"]) == 0
    assert "vs pt " in capsys.readouterr().out


def test_variants_that_answered_other_prompts_are_not_compared(chat: Path, tmp_path: Path) -> None:
    base, adapters = Checkpoint(chat / "base"), {"pt": Adapter(chat / "pt")}
    variants = standard_variants(adapters, [], "pt")
    records = evaluate(base, adapters, variants, suites(chat), tmp_path)
    records["base", "ask", "own.greedy"][0]["prompt_digest"] = "another"
    with pytest.raises(ValueError, match="different prompts"):
        summarise(records, variants, suites(chat), "pt")


def test_template_file_is_used_for_every_metric(chat: Path, tmp_path: Path) -> None:
    base, adapters = Checkpoint(chat / "base"), {"pt": Adapter(chat / "pt")}
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}the")
    variants = standard_variants(adapters, [], None)
    plain = evaluate(base, adapters, variants, suites(chat), tmp_path / "a")
    other = evaluate(
        base, adapters, variants, suites(chat), tmp_path / "b", plan=Plan(conditions_of([str(tmp_path / "t.jinja")]))
    )
    for (variant, suite, _), rows in plain.items():
        others = other[variant, suite, "t.greedy"]
        assert all(x["prompt_digest"] != y["prompt_digest"] for x, y in zip(rows, others, strict=True))
    (tmp_path / "bad.jinja").write_text("{{ raise_exception('no') }}")
    with pytest.raises(DataError, match="cannot render"):
        evaluate(
            base,
            adapters,
            variants,
            suites(chat),
            tmp_path / "c",
            plan=Plan(conditions_of([str(tmp_path / "bad.jinja")])),
        )


def test_names_of_variants() -> None:
    assert merge_name({"pt": 0.3, "sft": 1.0}) == "pt0.3+sft1"
    with pytest.raises(RuleError, match="none of the adapters"):
        standard_variants({}, [], "sft")
    assert merge_name({"pt": 0.3333331}) != merge_name({"pt": 0.3333334})
    assert merge_name({"pt": Weights.parse("0.3,mlp:0.2"), "sft": 0.7}) == "pt0.3_mlp_0.2+sft0.7"
    texts = [f"0.3,layers[{place}]:0.1" for place in ("1", "1:", ":1", "1:2", "12")] + ["0.3,q_proj:-0.1"]
    assert len({merge_name({"pt": Weights.parse(text)}) for text in texts}) == len(texts)
    # A directory and files go by this name.
    long = [",".join(["0.3", *(f"layers[{i}].q_proj:0.{i}" for i in range(n))]) for n in (60, 61)]
    names = {merge_name({"pt": Weights.parse(text)}) for text in long}
    assert len(names) == 2
    assert max(map(len, names)) <= 160
    for names, merges in ((["base"], []), (["sft", "sft0.7"], [{"sft": 0.7}])):
        with pytest.raises(RuleError, match="two variants would both be called"):
            standard_variants(dict.fromkeys(names), merges, names[0])


@pytest.mark.parametrize(
    ("text", "state", "lexical"),
    [
        ("<think>\n\n</think>\n\nAnaemia.", "empty", False),
        ("<think>Hm, blood.</think>Anaemia.", "closed", False),
        ("<think>Hm, blood. Let me", "unclosed", False),
        ("blood, so anaemia</think>Anaemia.", "close_only", False),
        ("< THINK >x< / Think >y", "closed", False),
        ("Use the tag:\n```\n<think>\n```\nas shown", "none", False),
        ("> <think> quoted\nAn answer", "none", False),
        ("Okay, let me see what this is.", "none", True),
        ("嗯，这个问题是关于贫血的。", "none", True),
        ("首先我需要考虑贫血的定义。", "none", True),
        ("It is, therefore, a disease of the first kind.", "none", False),
        ("首先是贫血，其次是出血。", "none", False),
        ("", "none", False),
    ],
)
def test_traces(text: str, state: str, lexical: bool) -> None:
    trace = parse_trace(text)
    assert (trace.state, trace.lexical) == (state, lexical)
    assert trace.structural == (state in ("closed", "unclosed", "close_only"))
    assert (trace.share > 0) == trace.structural


def test_answer_without_its_trace() -> None:
    assert parse_trace("<think>x y z</think> Anaemia.").answer == "Anaemia."
    assert parse_trace("so anaemia</think>\nAnaemia.").answer == "Anaemia."
    assert parse_trace("<think>endless").answer == ""
    assert parse_trace("<think>ab</think>cd").share == pytest.approx(17 / 19)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_bleu_is_sacrebleu(language: str) -> None:
    hypotheses, references = zip(*PAIRS[language], strict=True)
    tokenizer = {"en": "13a", "zh": "zh"}[language]
    rows = bleu_statistics(hypotheses, references, language)
    rng = np.random.default_rng(0)
    draws = [list(range(len(rows))), *([int(i) for i in rng.integers(0, len(rows), len(rows))] for _ in range(30))]
    for chosen in draws:
        expected = BLEU(tokenize=tokenizer).corpus_score(
            [hypotheses[i] for i in chosen], [[references[i] for i in chosen]]
        )
        found = bleu(rows[chosen].mean(0, keepdims=True), items=len(chosen))
        assert float(found[0]) == pytest.approx(expected.score, abs=1e-9)
    assert f"tok:{tokenizer}" in bleu_signature(language)
    lengths = float(length_ratio(rows.mean(0, keepdims=True))[0])
    assert lengths == pytest.approx(BLEU(tokenize=tokenizer).corpus_score(list(hypotheses), [list(references)]).ratio)


def test_rouge_sees_chinese_and_agrees_on_english() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    same = rouge_f(["完全相同的句子。"], ["完全相同的句子。"])
    assert all(values[0, 0] == pytest.approx(100.0) for values in same.values())
    hypotheses, references = zip(*PAIRS["en"], strict=True)
    found = rouge_f(hypotheses, references)
    reference = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for i, (h, r) in enumerate(PAIRS["en"]):
        for kind, score in reference.score(r, h).items():
            assert found[kind][i, 0] == pytest.approx(100 * score.fmeasure)


def test_openers_exclude_each_other() -> None:
    for openers in OPENERS.values():
        assert not [(a, b) for a in openers for b in openers if a != b and b.startswith(a)]


def test_tokenizer_of_the_fixture_has_no_surprises(chat: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(chat / "base")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.decode(tokenizer("the old blood")["input_ids"]).strip() == "the old blood"


def test_nulls_have_the_spectrum_of_what_they_stand_for(chat: Path) -> None:
    base, adapters = Checkpoint(chat / "base"), {"pt": Adapter(chat / "pt"), "sft": Adapter(chat / "sft")}
    variants = standard_variants(adapters, [{"pt": 0.3, "sft": 0.7}], "sft", nulls=2)
    nulls = [v for v in variants if v.kind == "null"]
    assert [v.name for v in nulls] == ["null0-pt0.3+sft0.7", "null1-pt0.3+sft0.7"]
    assert len({v.digest(base, adapters) for v in variants}) == len(variants)
    first, second = (v.parts(adapters)[f"spectrum {i} of pt"][0] for i, v in enumerate(nulls))
    assert nulls[0].parts(adapters)["sft"][0] is adapters["sft"]
    assert set(first) == set(adapters["pt"])
    for name in first:
        expected = singular_values(adapters["pt"][name])
        for random in (first[name], second[name]):
            torch.testing.assert_close(singular_values(random), expected, rtol=1e-9, atol=1e-12)
            assert abs(cosine(random, adapters["pt"][name])) < 0.5
        assert abs(cosine(first[name], second[name])) < 0.5
    again = nulls[0].parts(adapters)["spectrum 0 of pt"][0]
    assert all(torch.equal(dense(first[name]), dense(again[name])) for name in first)


def grid(chat: Path, out: Path, **templates: Any) -> tuple[Any, list[Any], Any]:
    base, adapters = Checkpoint(chat / "base"), {"pt": Adapter(chat / "pt"), "sft": Adapter(chat / "sft")}
    variants = standard_variants(adapters, [{"pt": 0.3, "sft": 0.7}], "sft")
    conditions = conditions_of(["own", "chatml-empty"], ["greedy", "T1p0.9x3"])
    return evaluate(base, adapters, variants, suites(chat), out, plan=Plan(conditions)), variants, conditions


@pytest.fixture(scope="module")
def whole_grid(chat: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Any], Any]:
    return grid(chat, tmp_path_factory.mktemp("grid"))


def test_every_template_with_every_decoding(chat: Path, whole_grid: tuple[Any, list[Any], Any]) -> None:
    records, variants, conditions = whole_grid
    names = [c.name for c in conditions]
    assert names == ["own.greedy", "own.T1p0.9", "chatml-empty.greedy", "chatml-empty.T1p0.9"]
    # Options do not depend on the decoding: once per template.
    assert {c for v, s, c in records if s == "pick"} == {"own.greedy", "chatml-empty.greedy"}
    drawn = records["sft", "ask", "own.T1p0.9"]
    assert [r["seed"] for r in drawn] == [0, 1, 2] * 7
    assert len({r["output"] for r in drawn}) > 7
    own, other = (records["sft", "ask", name][0]["prompt_digest"] for name in ("own.greedy", "chatml-empty.greedy"))
    assert own != other
    summary = summarise(records, variants, suites(chat), "sft", conditions=conditions)
    assert list(summary["conditions"]) == names
    sampled = summary["conditions"]["own.T1p0.9"]
    assert (sampled["seeds"], sampled["suites"]["ask"]["n"]) == (3, 7)
    assert sampled["suites"]["ask"]["metrics"]["bleu"]["pt"]["n"] == 7
    assert set(sampled["suites"]) == {"ask"}
    # Options are scored once a template: the surface of a sampled decoding is held against those.
    rows = {(r["surface_metric"], r["choices_metric"], r["against"]) for r in sampled["divergence"]}
    assert rows == {(m, "acc", against) for m in ("bleu", "bleu_raw") for against in ("reference", "control")}
    found = summary["conditions"]["own.greedy"]
    assert {row["variant"] for row in found["divergence"]} == {"base", "pt", "pt0.3+sft0.7", "sft0.7"}
    flips = found["suites"]["pick"]["flips"]["pt"]
    table = found["suites"]["pick"]["metrics"]["acc"]["pt"]["difference"]
    assert (flips["gained"], flips["lost"]) == (table["gained"], table["lost"])
    assert len(flips["gained_ids"]) == flips["gained"]
    fall = found["suites"]["ask"]["fall"]["pt"]
    assert fall["total"]["value"] == pytest.approx(fall["dilution"]["value"] + fall["content"]["value"])
    clean = summarise(records, variants, suites(chat), "sft", conditions=conditions, clean={"ask": {"0", "3"}})
    assert clean["conditions"]["own.greedy"]["suites"]["ask"]["clean"]["n"] == 2
    json.dumps([summary, clean], allow_nan=False)


NUMBERS = {"opener_loglikelihoods", "loglikelihoods", "entropy", "margin", "answer_entropy", "answer_margin"}


def test_a_killed_evaluation_goes_on(
    chat: Path, whole_grid: tuple[Any, list[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = whole_grid[0]
    count = 0
    add = Sheet.add

    def killed(self: Sheet, *given: Any) -> None:
        nonlocal count
        count += 1
        if count == 100:
            raise KeyboardInterrupt
        add(self, *given)

    monkeypatch.setattr(Sheet, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        grid(chat, tmp_path / "cut")
    (part,) = (tmp_path / "cut").rglob("*.part")
    with part.open("a") as stream:
        stream.write('["answer 0", "torn')
    asked = []
    monkeypatch.setattr(Sheet, "add", lambda self, *given: (asked.append(given[:2]), add(self, *given))[1])
    again, _, _ = grid(chat, tmp_path / "cut")
    assert set(again) == set(whole)
    for key, rows in whole.items():
        for ours, theirs in zip(again[key], rows, strict=True):
            # Another batch, other last digits.
            assert {k: v for k, v in ours.items() if k not in NUMBERS} == {
                k: v for k, v in theirs.items() if k not in NUMBERS
            }
            assert all(ours[k] == pytest.approx(theirs[k], abs=1e-5) for k in NUMBERS & set(theirs))
    total = sum(len(v) * (2 if s == "ask" and c.endswith("greedy") else 1) for (_, s, c), v in whole.items())
    total += sum(len({row["id"] for row in v}) for (_, s, _), v in whole.items() if s == "ask")
    assert len(asked) == total - 99
    assert not list((tmp_path / "cut").rglob("*.part"))


def test_items_without_an_answer_are_no_zeros(chat: Path, whole_grid: tuple[Any, list[Any], Any]) -> None:
    records, variants, _ = whole_grid
    broken = {k: [dict(r) for r in rows] for k, rows in records.items()}
    rows = broken["pt", "ask", "own.greedy"]
    rows[2] = {k: rows[2][k] for k in ("id", "question", "prompt_digest", "seed", "reference")} | {"failed": "no reply"}
    summary = summarise(broken, variants, suites(chat), "sft", conditions=conditions_of())
    suite = summary["conditions"]["own.greedy"]["suites"]["ask"]
    assert (suite["n"], suite["asked"], suite["incomplete"]) == (6, 7, {"pt": {"failed": 1, "reason": "no reply"}})
    assert all(e["difference"] is None for row in suite["metrics"].values() for e in row.values())
    assert "fall" not in suite
    assert summary["conditions"]["own.greedy"]["divergence"] == []


@pytest.mark.parametrize(
    ("templates", "decodings", "message"),
    [
        (["nowhere.jinja"], [], "is no file, and none of own"),
        ([], ["T0"], "give greedy, or T and p"),
        ([], ["T1p1.5"], "give greedy, or T and p"),
        (["own", "own"], [], "asked for twice"),
    ],
)
def test_conditions_that_cannot_be(templates: list[str], decodings: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        conditions_of(templates, decodings)


def test_a_switch_that_is_not_there_is_refused_before_anything_is_asked(chat: Path, tmp_path: Path) -> None:
    base, adapters = Checkpoint(chat / "base"), {"pt": Adapter(chat / "pt")}
    plan = Plan((Condition(Template("mine", "{{ messages[0].content }}", thinking=True)),))
    with pytest.raises(DataError, match="template mine: this chat template has no switch for thinking"):
        evaluate(base, adapters, standard_variants(adapters, [], None), suites(chat), tmp_path, plan=plan)
    assert not list(tmp_path.iterdir())


GENERATED = {
    *("acc_generated", "invalid", "trace_structural", "trace_lexical", "trace_share", "truncated"),
    *("trace_unclosed", "trace_untagged", "hesitating", "hesitations", "output_tokens"),
    *("answer_entropy", "answer_margin"),
}


def test_choices_are_also_generated_and_reordered(chat: Path, tmp_path: Path) -> None:
    settings = (chat / "pick.yaml").read_text() + "generative: true\npermutations: 2\nmax_new_tokens: 4\n"
    (tmp_path / "pick.yaml").write_text(settings)
    shutil.copy(chat / "pick.jsonl", tmp_path)
    base, adapters = Checkpoint(chat / "base"), {"pt": Adapter(chat / "pt")}
    variants, many = standard_variants(adapters, [], "pt"), [load_suite(tmp_path / "pick.yaml")]
    conditions = conditions_of((), ["greedy", "T1x2"])
    records = evaluate(base, adapters, variants, many, tmp_path / "out", plan=Plan(conditions))
    row = records["pt", "pick", "own.greedy"][0]
    # The given order, then two others.
    assert len(row["orders"]) == 3
    assert row["orders"][0] == row["chosen"]
    questions = Questions(many[0], conditions[0], None, scored=True)
    for item in many[0].items:
        first, second = (shuffled(item, questions.suite.settings.permutations, number)[1] for number in range(2))
        assert len({first, second, tuple(range(len(item.options)))}) == 3
    assert [g["seed"] for g in records["pt", "pick", "own.T1"][0]["generated"]] == [0, 1]
    summary = summarise(records, variants, many, "pt", conditions=conditions)["conditions"]
    metrics = summary["own.greedy"]["suites"]["pick"]["metrics"]
    assert {
        "acc",
        "acc_norm",
        "acc_mean",
        "acc_majority",
        "acc_worst",
        "consistency",
        "first_entropy",
        "first_margin",
        *GENERATED,
    } == set(metrics)
    assert set(summary["own.T1"]["suites"]["pick"]["metrics"]) == GENERATED
