# The project's habits. Every target sets up .venv itself, once; a machine needs make and Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

# torch and torchvision belong together, release by release, so a new .venv takes both at once. On Linux plain `torch` is a CUDA
# build of several GB; for the CPU build: make test TORCH="torch torchvision --index-url INDEX", with the index that torch names.
TORCH ?= torch torchvision

.PHONY: help demo demo-images docs test bench faults fuzz lowest release-check lint venv clean

help:
	@echo "make demo          tune a query prompt for MiniLM on SciFact and compare it with the frozen model and BM25"
	@echo "make demo-images   tune prompts on 8 pictures a class for a small CLIP, and write a classifier and a page"
	@echo "make test          the tests, a process a core; pass options to pytest with ARGS, as in ARGS='-k losses'"
	@echo "make bench         speed beside sentence-transformers and onnxruntime, and CLIP's training step beside the published"
	@echo "                   one: under ten minutes on two quiet cores; writes eval/results/speed-side-by-side.json and speed-clip-step.json"
	@echo "make docs          the documentation as a site, in site/"
	@echo "make faults        inject faults into every command and artifact, and count what comes of them (the tests try a few)"
	@echo "make fuzz          odd files and options for an hour, or FUZZ_MINUTES (the tests try a few); writes eval/results/fuzz.json"
	@echo "make lowest        the tests with the lowest versions that pyproject.toml allows, in an environment of their own"
	@echo "make release-check wheel and sdist, built, installed outside the tree and tried; pip-audit"
	@echo "make lint          ruff and mypy"
	@echo "make venv          only set up .venv (each target above does so by itself)"
	@echo "make clean         remove caches and the demo's output; .venv stays"

demo: .venv/.installed
	$(BIN)/retrieval-prompts tune eval/data/scifact --out demo/prompts --json demo/result.json \
		--report demo/report.html --overwrite

demo-images: .venv/.installed
	$(BIN)/multimodal-prompts tune eval/data/pictures --shots 8 --out demo/image-prompts --json demo/images.json --overwrite
	$(BIN)/multimodal-prompts export demo/image-prompts --out demo/classifier --overwrite
	$(BIN)/multimodal-prompts classify demo/image-prompts eval/data/pictures/test/mammal eval/data/pictures/test/vehicle \
		eval/data/pictures/test/fruit --html demo/pictures.html --overwrite
	@echo "the classifier: demo/classifier; the page: demo/pictures.html"

test: .venv/.installed
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

bench: .venv/.installed
	$(BIN)/python -m eval.speed.side_by_side eval/data/scifact --json eval/results/speed-side-by-side.json --overwrite $(ARGS)
	$(BIN)/python -m eval.speed.text_tower --classes 100 --context 16 --steps 3 --json eval/results/speed-clip-step.json --overwrite

docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

faults: .venv/.installed
	$(BIN)/python eval/inject_faults.py $(ARGS)

FUZZ_MINUTES ?= 60
fuzz: .venv/.installed
	$(BIN)/python tests/fuzz/fuzzing.py --minutes $(FUZZ_MINUTES) --json eval/results/fuzz.json $(ARGS)

lowest:
	.ci/lowest $(ARGS)

release-check:
	.ci/release

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

venv: .venv/.installed

.venv/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing into .venv: a few minutes, once."
	@$(BIN)/python -m pip show -qq torch torchvision || $(BIN)/python -m pip install -qq $(TORCH)
	$(BIN)/python -m pip install -qq --editable ".[dev]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not; name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "'$(PYTHON)' cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv

clean:
	rm -rf demo build site *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
