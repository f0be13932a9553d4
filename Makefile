BIN := .venv/bin
STAMP := .venv/.stamp

.PHONY: venv demo front serve test test-slow lint tracked bench

venv: $(STAMP)

$(STAMP): pyproject.toml
	python3 -m venv .venv
	$(BIN)/python -m pip install --quiet -e ".[cpu,dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/clipsieve demo $(if $(DEMO_IMAGES),--images "$(DEMO_IMAGES)")
	@echo "The page on the drawn scenes, built and served: make serve"

PAGE := back/static/index.html
PORT := 1234

# The page needs node 20.19 or newer and npm; all else does without.
front: $(PAGE)

$(PAGE): front/package-lock.json front/index.html front/vite.config.ts $(wildcard front/src/* front/src/components/*)
	@command -v npm > /dev/null || { echo "The page is built with node 20.19 or newer and npm; install them first."; exit 1; }
	cd front && npm ci --no-fund --no-audit && npm run build
	touch $(PAGE)

serve: demo
	-@$(MAKE) --no-print-directory front
	@echo "The page is at http://127.0.0.1:$(PORT)/ (Ctrl+C ends it)"
	$(BIN)/clipsieve back demo/collection --port $(PORT) --log-level warning

# Caches and wheels that were committed: what is tracked although .gitignore names it.
tracked:
	@! git ls-files --cached --ignored --exclude-from=.gitignore | sed 's/$$/: tracked, though .gitignore names it; git rm --cached it/' | grep .

lint: $(STAMP) tracked
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml

test: $(STAMP)
	$(BIN)/python -m pytest -q -n logical -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

bench: $(STAMP)
	$(BIN)/python -m benchmarks
