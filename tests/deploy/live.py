"""Every query of the alerts and of the dashboard, asked of a real Prometheus that scrapes real Redweirs.

    live.py BINARY

`redweir demo` starts servers, a Redweir and traffic. A second Redweir has what the first one has not: TLS, a user that may not
PSYNC, and files that change and are wrong. Prometheus scrapes both for some ten seconds. Then no query may be an error, every
metric, label and value in it must be one that was scraped (or, for values, one that the manual has), every query of the
dashboard must have data, and so must the alerts on what was done to the second one.
"""

import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

MANUAL = pathlib.Path("docs/operations.md").read_text()

# What was done to the second Redweir.
EXPECTED = {
    "RedweirCertificateExpires",
    "RedweirCertificateExpiresNow",
    "RedweirCommandWithheld",
    "RedweirConfigReloadFailed",
    "RedweirRestartNeeded",
    "RedweirTlsReloadFailed",
}

# How long anything may take to happen, on a busy machine.
PATIENCE = 20


class Failed(Exception):
    """What is wrong, in words."""


class InVain(Failed):
    """Something that should have happened has not; what it has logged may say why."""


def until(what, ready):
    """What `ready` returns, once it returns something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if found := ready():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise InVain(f"waited in vain for {what}")


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def get(address, path):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as reply:
        return reply.read().decode()


def ask(address, path, **arguments):
    """What Prometheus' API answers."""
    try:
        return json.loads(get(address, f"/api/v1/{path}?{urllib.parse.urlencode(arguments)}"))["data"]
    except urllib.error.HTTPError as refusal:
        raise Failed(json.loads(refusal.read())["error"]) from None


class Stage:
    """What runs, and is ended with it."""

    def __init__(self, redweir, folder):
        self.redweir, self.folder, self.running = redweir, folder, []

    def start(self, name, *command):
        out = (self.folder / name).open("w")
        self.running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out))
        return self.folder / name

    def end(self):
        for process in reversed(self.running):
            process.terminate()
        for process in reversed(self.running):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *command):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode != 0 or done.stdout.startswith(("ERR", "NOPERM")):
            raise Failed(f"{' '.join(command)}: {done.stdout}{done.stderr}")

    def demo(self):
        """Servers, a Redweir and traffic: the ports of the servers, and where that Redweir listens and is scraped."""
        said = self.start("demo", self.redweir, "demo", "--seconds", "120")
        line = re.compile(r"^redweir +(\S+) \(.*dashboard http://([^/]+)/", re.M)
        listen, admin = until("the demo", lambda: line.search(said.read_text())).groups()
        return re.findall(r"^(?:primary|replica-\d) +\S+:(\d+)", said.read_text(), re.M), listen, admin

    def certificate(self, days):
        """A new pair, put in place as a whole, key first."""
        files = ["redweir.key", "redweir.crt"]
        self.run(
            *"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redweir -days".split(),
            *[str(days), "-keyout", f"{self.folder}/new.key", "-out", f"{self.folder}/new.crt"],
        )
        for name in files:
            (self.folder / name.replace("redweir", "new")).rename(self.folder / name)

    def second(self, servers):
        """A Redweir behind TLS, whose user may not PSYNC: where it is scraped."""
        for port in servers:
            rules = "on >secret +role +info +ping +command +config|get +hello +client|tracking +acl|list"
            self.run("redis-cli", "-p", port, "acl", "setuser", "limited", *rules.split())
        self.certificate(days=1)
        self.admin, self.address, self.servers = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", servers
        self.configure("")
        self.start("second", self.redweir, "run", "-c", str(self.folder / "redweir.toml"))
        until("the second Redweir", lambda: get(self.admin, "/livez"))
        return self.admin

    def configure(self, more):
        primary, *replicas = [f"127.0.0.1:{port}" for port in self.servers]
        new = self.folder / "redweir.toml.new"
        new.write_text(
            f'[[listen]]\naddress = "{self.address}"\n[listen.tls]\ncert = "redweir.crt"\nkey = "redweir.key"\n'
            f'[admin]\naddress = "{self.admin}"\n'
            f'[upstream]\nprimary = "{primary}"\nreplicas = {json.dumps(replicas)}\n'
            f'username = "limited"\npassword = "secret"\n{more}\n'
        )
        new.rename(self.folder / "redweir.toml")

    def counted(self, series):
        """Waits until a counter of the second Redweir is above 0."""
        line = re.compile(rf"^{re.escape(series)} [1-9]", re.M)
        until(f"{series} of the second Redweir", lambda: line.search(get(self.admin, "/metrics")))

    def change_files(self):
        """What an operator does, and what goes wrong with it."""
        for more, result in [("[proxy]\nmax-clients = 5000", "ok"), ("[proxy]\nworkers = 7", "restart"), ("nonsense", "error")]:
            self.configure(more)
            self.counted(f'redweir_config_reload_total{{result="{result}"}}')
        self.certificate(days=1)
        self.counted('redweir_tls_reloads_total{result="ok"}')
        (self.folder / "redweir.crt").write_text("nonsense")
        self.counted('redweir_tls_reloads_total{result="error"}')


# ---- What is in a query ---------------------------------------------------------------------------------------------------

WORDS = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_:][\w:]*|\d[\w.]*|=~|!~|!=|==|[^\s]')
OPERATORS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}


def parts(expr):
    """Its selectors, each with its matchers, and the labels that it groups by."""
    words, selectors, labels = WORDS.findall(expr), [], set()
    at = 0

    def matched(end):
        nonlocal at
        found = []
        while words[at] != end:
            found.append(words[at])
            at += 1
        at += 1
        return [word for word in found if word != ","]

    while at < len(words):
        word = words[at]
        following = words[at + 1] if at + 1 < len(words) else ""
        at += 1
        if word == "[":
            matched("]")
        elif not re.match(r"[A-Za-z_:]", word):
            continue
        elif word in GROUPING:
            if following == "(":
                at += 1
                labels.update(matched(")"))
        elif word in OPERATORS or following == "(":
            # A duration may follow `offset`, and a function or an aggregation may have its `by` before its parenthesis.
            continue
        elif following in GROUPING:
            continue
        else:
            matchers = []
            if following == "{":
                at += 1
                inside = matched("}")
                matchers = [tuple(inside[n : n + 3]) for n in range(0, len(inside), 3)]
            selectors.append((word, [(label, operator, json.loads(value)) for label, operator, value in matchers]))
    return selectors, labels


class Scraped:
    """What Prometheus has of the metrics of Redweir."""

    def __init__(self, prometheus):
        self.values = {}
        for series in ask(prometheus, "series", **{"match[]": '{job="redweir"}'}):
            known = self.values.setdefault(series.pop("__name__"), {})
            for label, value in series.items():
                known.setdefault(label, set()).add(value)
        if len(self.values) < 60:
            raise Failed(f"only {len(self.values)} metrics were scraped: {sorted(self.values)}")

    def judge(self, expr):
        """What it names that there is not."""
        selectors, labels = parts(expr)
        faults, known = [], set()
        for metric, matchers in selectors:
            if metric not in self.values:
                faults.append(f"there is no metric {metric}")
                continue
            of_metric = self.values[metric]
            known |= of_metric.keys()
            for label, operator, value in matchers:
                if label not in of_metric:
                    faults.append(f"{metric} has no label {label}")
                    continue
                values = value.split("|") if "~" in operator and re.fullmatch(r"[\w|-]+", value) else [value]
                if "~" in operator and len(values) == 1 and not re.fullmatch(r"[\w-]+", value):
                    continue
                faults.extend(
                    f"{metric}: {label} is never {one}"
                    for one in values
                    if one not in of_metric[label] and f"`{one}`" not in MANUAL
                )
        faults.extend(f"there is no label {label}" for label in labels - known)
        if not selectors and not re.fullmatch(r"vector\(\d+\)", expr):
            faults.append("it asks for nothing")
        return faults


def look(prometheus, expr, scraped):
    """What a query finds, and what is wrong with it."""
    faults = scraped.judge(expr)
    try:
        found = ask(prometheus, "query", query=expr)["result"]
    except Failed as problem:
        return [], faults + [str(problem)]
    return found, faults


def alerts(prometheus, scraped):
    """Each expression, and what Prometheus itself says of the rules that it has loaded."""
    faults, seen = [], set()
    for group in ask(prometheus, "rules")["groups"]:
        for rule in group["rules"]:
            name = rule["name"]
            seen.add(name)
            found, wrong = look(prometheus, rule["query"], scraped)
            if rule["health"] != "ok":
                wrong.append(f"{rule['health']}: {rule.get('lastError', 'it was not evaluated')}")
            if name in EXPECTED and not found:
                wrong.append("it does not fire")
            for alert in rule["alerts"]:
                if re.search(r"error (parsing|executing|expanding) template|<no value>", str(alert["annotations"])):
                    wrong.append(f"its text fails: {alert['annotations']}")
            faults.extend(f"{name}: {fault}: {rule['query']}" for fault in wrong)
    groups = yaml.safe_load(open("docker/prometheus/alerts.yaml"))["groups"]
    written = {rule["alert"] for group in groups for rule in group["rules"]}
    if seen != written:
        faults.append(f"Prometheus has not the alerts of the file: {seen ^ written}")
    return faults


def dashboard(prometheus, scraped):
    """Each query, with data; and each legend, with labels that its data has."""
    board = json.loads(pathlib.Path("docker/grafana/redweir.json").read_text())
    faults = []

    def filled(expr):
        for name, value in [("__rate_interval", "15s"), ("__range", "1m"), ("instance", ".*")]:
            expr = expr.replace(f"${name}", value)
        return expr

    for panel in board["panels"]:
        for target in panel.get("targets", []):
            found, wrong = look(prometheus, filled(target["expr"]), scraped)
            if not found:
                wrong.append("it has no data")
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                if not all(label in series["metric"] for series in found):
                    wrong.append(f"what it finds has no label {label}")
            faults.extend(f"{panel['title']} ({target['refId']}): {fault}: {target['expr']}" for fault in wrong)
    for variable in board["templating"]["list"]:
        if asked := re.fullmatch(r"label_values\((\w+), (\w+)\)", variable.get("definition", "")):
            if asked[2] not in scraped.values.get(asked[1], {}):
                faults.append(f"the variable {variable['name']}: {asked[0]} has no values")
        elif variable["type"] != "datasource":
            faults.append(f"the variable {variable['name']} is of a kind that is not checked")
    for annotation in board["annotations"]["list"]:
        if "expr" in annotation:
            _, wrong = look(prometheus, filled(annotation["expr"]), scraped)
            faults.extend(f"the annotation {annotation['name']}: {fault}" for fault in wrong)
    return faults


def scrape(stage, targets):
    """Starts Prometheus with the rules and with the configuration that is shipped, but for whom it scrapes and how often."""
    config = yaml.safe_load(open("docker/prometheus/prometheus.yaml"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(pathlib.Path("docker/prometheus", name).absolute()) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
    path, address = stage.folder / "prometheus.yaml", f"127.0.0.1:{free_port()}"
    path.write_text(yaml.safe_dump(config))
    flags = [f"--config.file={path}", f"--storage.tsdb.path={stage.folder}/data", f"--web.listen-address={address}"]
    stage.start("prometheus", "prometheus", *flags)
    until("Prometheus", lambda: get(address, "/-/ready"))
    return address


def samples(prometheus, targets):
    """How often each was scraped, of the one that was so least."""
    found = ask(prometheus, "query", query='count_over_time(redweir_build_info{job="redweir"}[5m])')["result"]
    return min(int(one["value"][1]) for one in found) if len(found) == targets else 0


def deny(address):
    """A command that `deny-commands` refuses."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(b"DEBUG SLEEP 0\r\n")
        if not client.recv(100).startswith(b"-NOPERM"):
            raise Failed("DEBUG is not denied")


def check(redweir, folder):
    stage = Stage(redweir, folder)
    try:
        servers, listen, admin = stage.demo()
        targets = [admin, stage.second(servers)]
        prometheus = scrape(stage, targets)
        deny(listen)
        until("two scrapes", lambda: samples(prometheus, len(targets)) >= 2)
        stage.change_files()
        until("ten scrapes", lambda: samples(prometheus, len(targets)) >= 10)
        seen = samples(prometheus, len(targets))
        until("three more", lambda: samples(prometheus, len(targets)) >= seen + 3)
        scraped = Scraped(prometheus)
        for name, judge in [("alerts", alerts), ("dashboard", dashboard)]:
            if faults := judge(prometheus, scraped):
                raise Failed("\n".join(faults))
            print(f"ok: live: the {name}, of {len(scraped.values)} metrics", flush=True)
    except InVain:
        for log in ("demo", "second", "prometheus"):
            if (folder / log).exists():
                print(f"--- {log}\n" + "\n".join((folder / log).read_text().splitlines()[-10:]), file=sys.stderr)
        raise
    finally:
        stage.end()


def main():
    # Whoever ends us wants the servers to end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(sys.argv[1], pathlib.Path(folder))
        except Failed as problem:
            sys.exit(str(problem))


main()
