BIN := .venv/bin
STAMP := .venv/.stamp

.PHONY: venv demo test test-slow lint bench

venv: $(STAMP)

$(STAMP): pyproject.toml
	python3 -m venv .venv
	$(BIN)/python -m pip install --quiet -e ".[cpu,dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/clipsieve demo $(if $(DEMO_IMAGES),--images "$(DEMO_IMAGES)")

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml

test: $(STAMP)
	$(BIN)/python -m pytest -q -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

bench: $(STAMP)
	$(BIN)/python -m benchmarks
