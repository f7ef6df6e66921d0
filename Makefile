# Python 3.11 and a package index are all that a fresh machine needs.
PYTHON ?= python3.11
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: demo test test-slow lint clean

# a small model with random weights: a trained one for the demo does not ship yet
demo: $(VENV)/.installed
	$(RUN) tools/make_random_model.py -c configs/coca_tiny.yaml --target outputs/demo/coca_model.safetensors
	@echo "The model is drawn at random, so its caption is words without meaning. For real captions see README.md."
	$(RUN) inference.py -c configs/coca_tiny.yaml --model_path outputs/demo/coca_model.safetensors --video_path assets/demo.mp4

test: $(VENV)/.installed-test lint
	$(RUN) -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.installed-test
	$(RUN) -m pytest -m slow -s

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(VENV)/bin/pip:
	command -v $(PYTHON) >/dev/null && $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)

$(VENV)/.installed: requirements.txt constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	touch $@

# one pip command for both, so that NumPy stays below 2 for all
$(VENV)/.installed-test: requirements.txt requirements-test.txt constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-test.txt -c constraints.txt
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build *.egg-info
