"""What deploy/, the Dockerfile, docker-compose.yml and docs/deploy.md say, as far as it shows without their engines."""

import configparser
import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from clipsieve import cli
from tests.back.made import add_items
from tests.back.metered import Service
from tests.inference.webserver import answer, serving

ROOT = Path(__file__).parents[1]
GROUP: Any = get_command(cli.app)
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {"back", "back-gpu"}
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
PAGE = (ROOT / "docs" / "deploy.md").read_text()
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "clipsieve.json").read_text())
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
PROMETHEUS = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())


def settled(value):
    """With every ${NAME:-default} by its default, as compose has it where nothing is set."""
    if isinstance(value, dict):
        return {key: settled(one) for key, one in value.items()}
    if isinstance(value, list):
        return [settled(one) for one in value]
    return VARIABLE.sub(lambda found: found[2] or "", value) if isinstance(value, str) else value


def check_call(words):
    """That a command line names a command and options that there are."""
    command, *rest = words
    known = GROUP.commands[command].grammar().options
    for word in rest:
        if word.startswith("-"):
            assert word.split("=")[0] in known, f"{command} {word}"


def instructions(text):
    """(instruction, what follows) of a Dockerfile."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


DOCKERFILE = instructions((ROOT / "Dockerfile").read_text())
STAGES: dict[str, list[tuple[str, str]]] = {}
for word, rest in DOCKERFILE:
    if word == "FROM":
        STAGES[rest.split(" AS ")[1]] = []
    if STAGES:
        list(STAGES.values())[-1].append((word, rest))


def said(stage, word):
    """What a stage says after such instructions."""
    return [rest for one, rest in STAGES[stage] if one == word]


# ------------------------------------------------------------------------------------------------------------ image


def test_the_image_is_built_in_stages_from_a_pinned_one():
    assert list(STAGES) == ["page", "wheel", "installed", "test", "service"]  # the last one is built by default
    bases = dict(rest.split("=", 1) for word, rest in DOCKERFILE[: DOCKERFILE.index(STAGES["page"][0])])
    for name, stage in STAGES.items():
        base = stage[0][1].split(" AS ")[0]
        pinned = re.sub(r"\$\{(\w+)\}", lambda found: bases[found[1]], base)
        assert base in STAGES or re.fullmatch(r"(python:\d+\.\d+-slim-\w+|node:\d+-\w+-slim)", pinned), name


def test_the_service_runs_as_nobody_special_over_data():
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", said("service", "USER")[-1])
    words = [word for word, _ in STAGES["service"]]
    assert not {"RUN", "COPY", "ADD"} & set(words[words.index("USER") :])
    assert said("service", "VOLUME") == said("service", "WORKDIR") == ["/data"]
    assert all("--from=installed" in rest for rest in said("service", "COPY"))  # nothing of the checkout itself
    assert [re.fullmatch(r"[1-9]\d*:\d+", rest) is not None for rest in said("test", "USER")] == [True]


def test_the_image_calls_what_there_is():
    (entry,), (call,) = said("service", "ENTRYPOINT"), said("service", "CMD")
    assert json.loads(entry) == ["clipsieve"]
    check_call(json.loads(call))
    (port,) = said("service", "EXPOSE")
    assert int(port) == next(p.default for p in GROUP.commands["back"].params if p.name == "port")


@pytest.mark.parametrize("status", [200, 503])
def test_the_health_check_tells_whether_the_service_answers(status):
    (check,) = said("service", "HEALTHCHECK")
    python, option, code = json.loads(check.partition("CMD ")[2])
    assert (python, option) == ("python", "-c")
    with serving({"/healthz": answer(status, b"{}")}) as site:
        code = code.replace("http://127.0.0.1:1234", site.url)
        assert site.url in code
        if status == 200:
            exec(code, {})
        else:
            with pytest.raises(OSError, match="503"):
                exec(code, {})


def ignored():
    return [line for line in (ROOT / ".dockerignore").read_text().split() if not line.startswith("#")]


def test_what_is_copied_is_there_and_not_ignored():
    sources = [
        source
        for stage in STAGES
        for rest in said(stage, "COPY")
        if "--from" not in rest
        for source in [word for word in rest.split() if not word.startswith("--")][:-1]
    ]
    assert {"pyproject.toml", "clipsieve", "inference", "index", "back"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert not any(fnmatch(source, pattern) for pattern in ignored())
    assert {".git", ".env", ".venv", "data", "*.clip"} <= set(ignored())


def test_the_wheel_stage_copies_all_that_the_wheel_is_made_of():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copies = [rest.split() for rest in said("wheel", "COPY")]
    assert ["--from=page", "/src/back/static", "back/static"] in copies
    copied = {word for words in copies if words[0] != "--from=page" for word in words[:-1]}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    named = [project["project"]["readme"], *project["project"]["license-files"]]
    assert copied == {*wheel, "pyproject.toml", "hatch_build.py", *named}
    (extras,) = {rest.split("=", 1)[1].strip('"') for rest in said("installed", "ARG") if rest.startswith("EXTRAS=")}
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])


# ---------------------------------------------------------------------------------------------------------- compose


def test_the_compose_file_has_its_services_and_profiles():
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {
        "back": [],
        "prometheus": [],
        "grafana": [],
        "back-gpu": ["gpu"],
        "redis": ["redis"],
        "test": ["testing"],
    }
    (gpu,) = SERVICES["back-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert gpu["capabilities"] == ["gpu"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_and_reached_from_this_machine_alone(name):
    service = settled(SERVICES[name])
    tag = service["image"].partition(":")[2]
    assert tag not in ("", "latest")
    assert "build" in service or re.match(r"v?\d+\.\d+", tag)
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    assert "privileged" not in service
    assert service.get("network_mode") is None


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_mounts_and_builds_is_there(name):
    service = settled(SERVICES[name])
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if not source.startswith("."):
            assert source in COMPOSE["volumes"]
        elif source != "./data":
            assert (ROOT / source).exists()
            assert volume.endswith(":ro")
    for config in service.get("configs", []):
        assert config["source"] in COMPOSE["configs"]
    if "build" in service:
        build = service["build"]
        assert build["target"] in STAGES
        assert set(build["args"]) <= {rest.split("=")[0] for stage in STAGES for rest in said(stage, "ARG")}


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_service_of_the_compose_file_is_called_as_it_can_be(name):
    service = settled(SERVICES[name])
    check_call(shlex.split(service["command"]))
    user, group = service["user"].split(":")
    assert "0" not in (user, group)
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["stop_grace_period"] == "40s"
    asked = {p.envvar for p in GROUP.commands["back"].params if p.envvar} | {
        "CLIPSIEVE_READ_TOKEN",
        "CLIPSIEVE_WRITE_TOKEN",
    }
    assert set(service["environment"]) == asked


def test_every_setting_of_the_compose_file_is_in_the_example():
    used = dict(VARIABLE.findall((ROOT / "docker-compose.yml").read_text()))
    passed_on = [name for name, value in SERVICES["back"]["environment"].items() if value is None]
    example = dict(re.findall(r"^#(\w+)=(.*)$", (ROOT / "deploy" / "env.example").read_text(), re.MULTILINE))
    assert set(example) == {*used, *passed_on}
    for name, default in used.items():
        if default and name not in ("CLIPSIEVE_HOSTS", "CLIPSIEVE_READ_TOKEN"):
            assert example[name] == default


def test_prometheus_asks_the_service_by_a_name_that_it_answers_to():
    (job,) = PROMETHEUS["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    for name in OURS:
        service = settled(SERVICES[name])
        host, port = target.split(":")
        assert host in service["networks"]["default"]["aliases"]
        call = shlex.split(service["command"])
        assert host in call[call.index("--allowed-hosts") + 1].split(",")
        assert service["ports"] == [f"127.0.0.1:1234:{port}"]
    mounted = {volume.split(":")[1] for volume in SERVICES["prometheus"]["volumes"]}
    mounted |= {config["target"] for config in SERVICES["prometheus"]["configs"]}
    assert {f"/etc/prometheus/{file}" for file in PROMETHEUS["rule_files"]} <= mounted
    assert job["authorization"]["credentials_file"] in mounted
    assert SERVICES["prometheus"]["command"][0] == "--config.file=/etc/prometheus/prometheus.yml"


def test_grafana_is_provisioned():
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards" / "clipsieve.yml").read_text())["providers"]
    dashboards = provider["options"]["path"]
    assert f"./deploy/grafana/dashboards:{dashboards}:ro" in SERVICES["grafana"]["volumes"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{dashboards}/clipsieve.json"
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


# --------------------------------------------------------------------------------------------------------- watching


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Name of a sample -> the labels that it has, of a service that was asked a text and an image."""
    service = Service(add_items(tmp_path_factory.mktemp("watched") / "photos.clip", 6))
    service.ask(text="bus")
    service.ask(image_url="https://example.org/1.jpg")
    found: dict[str, set[str]] = {"up": set()}
    for name, *labels in service.samples():
        found.setdefault(name, set()).update(label for label, _ in labels)
    service.close()
    return found


QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES += [rule["expr"] for rule in ALERTS.values()]
GROUPED = re.compile(r"\bby\s*\(([^)]*)\)")
SELECTED = re.compile(r"(?<![\w$])([a-z_]\w*+)\s*+(?:\{((?:[^}\"]|\"[^\"]*\")*)\})?+(\[[^\]]+\])?+(?!\s*\()")
WORDS = {"or", "and", "unless", "by"}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_figures_and_labels_that_there_are(query, known):
    assert query.count("(") == query.count(")")
    grouped = {label.strip() for labels in GROUPED.findall(query) for label in labels.split(",")}
    asked, labels = [], set()
    for name, matchers, span in SELECTED.findall(GROUPED.sub(" ", query)):
        if name in WORDS:
            continue
        assert name in known
        assert (span != "") == name.endswith(("_total", "_bucket", "_sum", "_count")), name  # counters by their rate
        labels |= known[name]
        asked.append(name)
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", matchers):
            assert label in known[name] | {"job", "instance"}, f"{name} {label}"
    assert asked
    assert grouped <= labels | {"job", "instance"}


def test_alerts_say_what_to_do_and_are_all_in_the_page():
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
        assert re.fullmatch(r"\d+m", rule["for"])
        assert f"`{name}`" in PAGE
    assert set(re.findall(r"`(Clipsieve\w+)`", PAGE)) == set(ALERTS)


# ------------------------------------------------------------------------------------------------------------- page


def test_the_page_names_figures_that_there_are(known):
    named = set(re.findall(r"`(clipsieve_\w+)`", PAGE))
    assert named
    for name in named:
        assert {name, f"{name}_count", f"{name}_bucket"} & set(known), name


def test_the_pages_calls_can_be_made():
    lines = [line.strip() for line in re.findall(r"^ {4,}(.+)$", PAGE, re.MULTILINE)]
    calls = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("clipsieve ")]
    calls += [shlex.split(call) for call in re.findall(r"`(back [^`]+)`", PAGE)]
    composed = [
        shlex.split(line.split("|")[0], comments=True)[2:] for line in lines if line.startswith("docker compose")
    ]
    assert len(calls) > 2
    assert {words[0] for words in composed} >= {"build", "run", "up", "stop", "logs", "--profile"}
    for words in composed:
        while words[0] == "--profile":
            assert any(words[1] in service.get("profiles", []) for service in SERVICES.values())
            words = words[2:]
        verb, *rest = words
        while rest and rest[0].startswith("-"):
            rest = rest[1:]
        if verb == "run":
            name, *call = rest
            assert name in SERVICES
            calls += [call] if name in OURS else []
        else:
            assert set(rest) <= set(SERVICES)
    for call in calls:
        check_call(call)


def test_the_pages_settings_are_in_the_example():
    example = (ROOT / "deploy" / "env.example").read_text()
    named = re.findall(r"\b(?:CLIPSIEVE|GRAFANA|PROMETHEUS|TORCH|PIP)_[A-Z_]+\b", PAGE)
    assert named
    for name in named:
        assert f"#{name}=" in example


def test_the_pages_unit_is_one():
    (text,) = re.findall(r"```ini\n(\[Unit\].*?)```", PAGE, re.DOTALL)
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    assert unit.sections() == ["Unit", "Service", "Install"]
    program, *call = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("/clipsieve")
    check_call(call)
    assert unit["Service"]["User"] != "root"
    assert int(unit["Service"]["TimeoutStopSec"]) > 30


def test_the_page_leads_to_what_is_there():
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
