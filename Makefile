# Python 3.11 and a package index are all that a fresh machine needs.
PYTHON ?= python3.11
VENV ?= .venv
DOCS_VENV ?= .venv-docs
RUN = $(VENV)/bin/python

# of MindSpore, for make test-versions
V ?= 2.7.2
OLD = .venv-mindspore-$(V)

# without bytecode kept, each process of a test run compiles package and tests anew: six seconds
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo train-demo check test test-slow test-versions check-aarch64 ascend-dryrun cann mutate lint docs clean

# the demo model captions the bundled video
demo: $(VENV)/.installed
	rm -rf outputs/demo
	$(RUN) inference.py -c configs/coca_tiny.yaml --video_path assets/demo.mp4 --output_dir outputs/demo --output_format txt html
	@echo "The page of results: outputs/demo/captions.html"

# the demo model's training, from nothing, and its figures
train-demo: $(VENV)/.installed
	test -d data/demo || $(RUN) examples/demo/make_demo_data.py --target data/demo
	$(RUN) train.py -c configs/train_demo_words.yaml
	$(RUN) train.py -c configs/train_demo.yaml
	$(RUN) tools/model_conversion/coca_convert.py --source outputs/train_demo/final.safetensors --dtype float16 \
		--target outputs/train_demo/coca_tiny.safetensors --force
	$(RUN) examples/demo/demo_figures.py --model_path outputs/train_demo/coca_tiny.safetensors

PYTEST = $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# a minute before each commit: format, lint, and the tests that compile no graph or only small ones
check: $(VENV)/.installed-test lint
	$(PYTEST) -m "not slow and not graphs and not browser"

test: $(VENV)/.installed-test lint
	$(PYTEST) --durations=20

# the full figures, one after another; run again, it goes on where it was stopped (SLOW="--help" tells more)
test-slow: $(VENV)/.installed-test
	$(RUN) tools/slow_tests.py $(SLOW)

# an older MindSpore, without torch and open_clip, against numbers that open_clip gave: make test-versions V=2.7.2
test-versions: $(OLD)/.installed
	$(OLD)/bin/python -m pytest -o addopts= -p no:cacheprovider -q --durations=10 tests/versions/test_versions.py

# whether every requirement and extra has a wheel for most Ascend hosts; downloads what pip needs to know, no more
check-aarch64: $(VENV)/bin/pip
	for part in "-r requirements.txt -c constraints.txt" "pillow-heif>=1,<2 -c constraints.txt" \
			"modelscope-hub>=0.5,<0.6 -c constraints.txt" "ray[default]>=2.40 -c constraints-ray.txt" \
			"s3fs>=2023.5 -c constraints-ray.txt"; do \
		$(VENV)/bin/pip install --quiet --disable-pip-version-check --dry-run --ignore-installed --target build/aarch64 \
			--platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
			--platform manylinux1_aarch64 --python-version 3.11 --only-binary=:all: $$part || exit 1; \
	done

# graphs compiled for Ascend without a device; needs CANN, and was not run here
ascend-dryrun: cann $(VENV)/.installed
	MS_SIMULATION_LEVEL=0 $(RUN) tools/check_device.py --device_target Ascend --compile_only

cann:
	@test -n "$$ASCEND_TOOLKIT_HOME$$ASCEND_HOME_PATH" || { echo "CANN is not set up: source its set_env.sh" >&2; exit 2; }

# wrong changes, one by one, each of which the tests must notice
mutate: $(VENV)/.installed-test
	$(RUN) tools/mutate.py

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# the documents as pages in site/; a warning, such as a link that leads nowhere, is an error (with --quiet it is none)
docs: $(DOCS_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict
	@echo "The pages: site/index.html"

$(DOCS_VENV)/.installed: requirements-docs.txt
	command -v $(PYTHON) >/dev/null && $(PYTHON) -m venv $(DOCS_VENV) || python3 -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

$(VENV)/bin/pip:
	command -v $(PYTHON) >/dev/null && $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)

$(VENV)/.installed: requirements.txt constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	touch $@

# one pip command for both, so that NumPy stays below 2 for all
$(VENV)/.installed-test: requirements.txt requirements-test.txt constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-test.txt -c constraints.txt
	touch $(VENV)/.installed $@

# all other versions are those of constraints.txt
$(OLD)/.installed: requirements.txt requirements-versions.txt constraints.txt constraints/mindspore-$(V).txt
	test -x $(OLD)/bin/pip || $(PYTHON) -m venv $(OLD) || python3 -m venv $(OLD)
	grep -vi -e '^mindspore==' -e '^protobuf==' constraints.txt > $(OLD)/constraints.txt
	$(OLD)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-versions.txt \
		-c $(OLD)/constraints.txt -c constraints/mindspore-$(V).txt
	touch $@

clean:
	rm -rf $(VENV) $(DOCS_VENV) .venv-mindspore-* .pytest_cache .ruff_cache .mypy_cache build dist site *.egg-info
