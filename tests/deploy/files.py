"""What tests/deploy/check asks of the files of docker/ that no other tool does.

    files.py alerts | dashboard | compose | configurations FOLDER
"""

import json
import pathlib
import re
import sys

import yaml

DOCKER = pathlib.Path("docker")
MANUAL = pathlib.Path("docs/operations.md")


def load(name):
    return yaml.safe_load((DOCKER / name).read_text())


def anchors():
    """The anchors that the headings of the manual make, as GitHub does."""
    found, fenced = set(), False
    for line in MANUAL.read_text().splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif line.startswith("#") and not fenced:
            kept = re.sub(r"[^\w \-]", "", line.lstrip("#").strip().lower())
            found.add(kept.replace(" ", "-"))
    return found


def alerts(faults):
    """Every alert has a severity, a text, a page that is there, and a test in which it fires; "all is well" has all metrics."""
    tests = load("prometheus/alerts.test.yaml")["tests"]
    fires = {}
    for test in tests:
        for case in test.get("promql_expr_test", []):
            for sample in case["exp_samples"]:
                name = re.search(r'alertname="(\w+)"', sample["labels"])[1]
                fires.setdefault(name, []).append(set(re.findall(r"(\w+)=", sample["labels"])))
    well = next(test for test in tests if test["name"] == "all is well")
    given = {re.match(r"\w+", series["series"])[0] for series in well["input_series"]}
    if any(case["exp_samples"] for case in well["promql_expr_test"]):
        faults.append("an alert fires although all is well")
    pages, names = anchors(), set()
    for group in load("prometheus/alerts.yaml")["groups"]:
        for rule in group["rules"]:
            name, texts = rule["alert"], rule["annotations"]
            names.add(name)
            if rule["labels"].get("severity") not in ("critical", "warning", "info"):
                faults.append(f"{name}: its severity is none of ours")
            if "for" not in rule:
                faults.append(f"{name}: it does not say for how long")
            if set(texts) != {"summary", "description", "runbook"}:
                faults.append(f"{name}: it needs a summary, a description and a runbook")
            if not re.search(r"`|REDWEIR|\blog\b", texts["description"]):
                faults.append(f"{name}: its description names nothing to look at next")
            page, _, anchor = texts["runbook"].partition("#")
            if page != str(MANUAL) or anchor not in pages:
                faults.append(f"{name}: there is no {texts['runbook']}")
            if name not in fires:
                faults.append(f"{name}: no test has it fire")
            for label in set(re.findall(r"\$labels\.(\w+)", str(texts))):
                if not all(label in labels for labels in fires.get(name, [])):
                    faults.append(f"{name}: its text has the label {label}, which it has not when it fires")
            for metric in set(re.findall(r"\b(?:redweir|process)_\w+", rule["expr"])):
                if re.sub(r"_bucket$", "", metric) not in {re.sub(r"_bucket$", "", known) for known in given}:
                    faults.append(f"{name}: {metric} is missing where all is well")
    faults.extend(f"{name}: tested, but there is no such alert" for name in fires.keys() - names)
    if len(names) < 40:
        faults.append(f"saw only {len(names)} alerts")


def dashboard(faults):
    """What Grafana would show wrongly without saying so."""
    board = json.loads((DOCKER / "grafana/redweir.json").read_text())
    if not isinstance(board["schemaVersion"], int) or board["uid"] != "redweir":
        faults.append("it has no schemaVersion, or another uid")
    variables = {variable["name"] for variable in board["templating"]["list"]}
    ids, cells, queries = set(), {}, 0
    for panel in board["panels"]:
        title = panel["title"]
        if panel["id"] in ids:
            faults.append(f"{title}: its id is another's")
        ids.add(panel["id"])
        at = panel["gridPos"]
        if at["x"] + at["w"] > 24:
            faults.append(f"{title}: it is wider than the page")
        for cell in [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]:
            if cell in cells:
                faults.append(f"{title}: it lies over {cells[cell]}")
                break
            cells[cell] = title
        if panel["type"] == "row":
            continue
        if not panel.get("description"):
            faults.append(f"{title}: it has no description")
        if [target["refId"] for target in panel["targets"]] != [chr(65 + n) for n in range(len(panel["targets"]))]:
            faults.append(f"{title}: its queries are not called A, B, …")
        for part in [panel, *panel["targets"]]:
            if part["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
                faults.append(f"{title}: its source is not the variable")
        for target in panel["targets"]:
            queries += 1
            used = {name for name in re.findall(r"\$\{?(\w+)", target["expr"]) if not name.startswith("__")}
            if used - variables:
                faults.append(f"{title}: there is no variable {used - variables}")
            if target["expr"].count('instance=~"$instance"') != len(re.findall(r"\b(?:redweir|process)_\w+", target["expr"])):
                faults.append(f"{title}: a metric is not asked for the instances that were chosen")
    if queries < 60:
        faults.append(f"saw only {queries} queries")
    # Compose gives it its data.
    mounted = {volume.split(":")[0] for volume in load("compose.yaml")["services"]["grafana"]["volumes"]}
    if mounted != {"./grafana/datasource.yaml", "./grafana/dashboards.yaml", "./grafana/redweir.json"}:
        faults.append(f"compose mounts {mounted}")


def compose(faults):
    """By the specification, as far as the package knows it; that what it names is there; and pinned."""
    import compose_spec

    text = (DOCKER / "compose.yaml").read_text()
    try:
        compose_spec.PyOptions(apply_merge=True).from_yaml(text).validate()
    except ValueError as problem:
        faults.append(str(problem))
    services = yaml.safe_load(text)["services"]
    for name, service in services.items():
        faults.extend(f"{name} depends on {other}" for other in set(service.get("depends_on", [])) - services.keys())
        for volume in service.get("volumes", []):
            source, mode = volume.split(":")[0], volume.split(":")[-1]
            if not (DOCKER / source).is_file() or mode != "ro":
                faults.append(f"{name}: {volume} is no file here, or not read-only")
        if not re.search(r":[^/]*\d", service["image"]):
            faults.append(f"{name}: {service['image']} may be anything tomorrow")
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                faults.append(f"{name}: port {port} is open to all")
    if len(services) < 9:
        faults.append(f"saw only {sorted(services)}")
    # Whom the scrape, the data source and the probe go to.
    targets = load("prometheus/prometheus.yaml")["scrape_configs"][0]["static_configs"][0]["targets"]
    source = load("grafana/datasource.yaml")["datasources"][0]["url"]
    for host in [target.split(":")[0] for target in targets] + [re.sub(r"^http://|:\d+$", "", source)]:
        if host not in services:
            faults.append(f"there is no service {host}")
    version = re.search(r'^version = "(.+)"$', pathlib.Path("Cargo.toml").read_text(), re.M)[1]
    for path in sorted((DOCKER / "kubernetes").glob("*.yaml")):
        if f"/redweir:{version}\n" not in path.read_text():
            faults.append(f"{path}: it runs another version than {version}")


def configurations(faults, folder):
    """Writes what the ConfigMaps and Secrets of each file come to where they are mounted."""
    for path in sorted((DOCKER / "kubernetes").glob("*.yaml")):
        documents = list(yaml.safe_load_all(path.read_text()))
        held = {(one["kind"], one["metadata"]["name"]): one.get("data") or one.get("stringData") for one in documents}
        workload = next(one for one in documents if one["kind"] == "Deployment")
        for volume in workload["spec"]["template"]["spec"]["volumes"]:
            for source in volume["projected"]["sources"]:
                for kind, key in (("ConfigMap", "configMap"), ("Secret", "secret")):
                    if key not in source:
                        continue
                    data = held[(kind, source[key]["name"])]
                    items = source[key].get("items", [{"key": name, "path": name} for name in data])
                    for item in items:
                        to = pathlib.Path(folder) / path.stem / item["path"]
                        to.parent.mkdir(parents=True, exist_ok=True)
                        to.write_text(data[item["key"]])
                        to.chmod(0o600)


def main():
    faults = []
    {"alerts": alerts, "dashboard": dashboard, "compose": compose, "configurations": configurations}[sys.argv[1]](
        faults, *sys.argv[2:]
    )
    if faults:
        sys.exit("\n".join(faults))


main()
