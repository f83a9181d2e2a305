// The page behind `/`. It listens to `GET /events` and shows what that says; it sends nothing. Whatever a report holds is taken for
// hostile: it reaches the page as text only, and any field may be null, missing or of another type.
"use strict";

(() => {
  const MINUTES = 10; // Kept of the past.
  const WINDOW_MS = 10_000; // What rates and shares are the mean of.
  const QUIET_MS = 5_000; // Without a report for so long, the page says so.
  const GAP_MS = 3_500; // Two reports further apart are not joined by a line.
  const RETRY_MS = 2_000;
  const LINES = 10; // Replicas in one chart.
  const KEYS = 200; // Of a loss.
  const SEEN = 50; // Changes that are remembered.

  // What a report holds, if it is of the right type.

  const object = (value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? value : {});
  const list = (value) => (Array.isArray(value) ? value.filter((one) => one !== null && typeof one === "object") : []);
  const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
  const count = (value) => Math.max(0, number(value) ?? 0);

  const UNSEEN = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  const LEFTWARDS = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]|\ud802|\ud803|\ud83a|\ud83b/;

  /** What cannot be seen is shown by its number. */
  const shown = (value) => value.replace(UNSEEN, (char) => `\\u{${char.codePointAt(0).toString(16)}}`);
  /** What is written from right to left does not turn the text around it. */
  const isolated = (value) => (LEFTWARDS.test(value) ? `\u2068${value}\u2069` : value);

  const lines = (value) => (typeof value === "string" && value.trim() !== "" ? shown(value.trim()) : null);
  const text = (value) => (lines(value) === null ? null : isolated(lines(value).replace(/\s*\n\s*/g, "; ")));
  const clip = (value, most) => (value.length > most ? `${value.slice(0, most - 9)}…${value.slice(-8)}` : value);

  // Numbers for people.

  const NONE = "–";
  const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const whole = (value) => (value === null ? NONE : value < 1e12 ? grouped.format(value) : value.toExponential(2).replace("e+", "e"));

  /** A number with three digits that count, and none but zeros cut off at the end. */
  const digits = (value) => value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0);

  function scaled(value, units, step) {
    let at = 0;
    while (value >= step * 0.9995 && at < units.length - 1) {
      value /= step;
      at += 1;
    }
    return `${at === 0 ? Math.round(value) : value < 10_000 ? digits(value) : value.toExponential(1).replace("e+", "e")} ${units[at]}`.trim();
  }

  const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  const bytes = (value) => (value === null ? NONE : scaled(value, UNITS, 1024));

  function rate(value) {
    if (value === null) return NONE;
    if (value === 0) return "0";
    if (value < 0.095) return "<0.1";
    if (value < 9.95) return value.toFixed(1);
    return value < 99_999.5 ? whole(Math.round(value)) : scaled(value, ["", "k", "M", "G", "T"], 1000);
  }

  const perSecond = (value) => (value === null ? NONE : `${rate(value)}/s`);

  function share(value) {
    if (value === null) return NONE;
    if (value > 0 && value < 0.001) return "<0.1 %";
    const percent = value < 1 ? Math.min(value * 100, 99.9) : 100;
    return `${percent === 0 || percent === 100 ? percent : percent.toFixed(1)} %`;
  }

  /** A span in words: `180 ms`, `2.5 s`, `11 s`, `3 min`, `5 h 10 min`, `3 d`. */
  function span(seconds) {
    if (seconds === null) return NONE;
    if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
    if (seconds < 9.95) return `${Number(seconds.toFixed(1))} s`;
    if (seconds < 119.5) return `${Math.round(seconds)} s`;
    if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
    const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
    if (hours < 48) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
    return `${whole(Math.floor(hours / 24))} d`;
  }

  function millis(value) {
    if (value === null) return NONE;
    if (value > 0 && value < 0.05) return "<0.1 ms";
    if (value < 9.95) return `${value.toFixed(1)} ms`;
    if (value < 999.5) return `${Math.round(value)} ms`;
    return value < 119_500 ? `${digits(value / 1000)} s` : span(value / 1000);
  }

  const two = (value) => String(value).padStart(2, "0");

  /** A time of the browser's clock; with its date, if that is not today's. */
  function clock(at) {
    const date = new Date(at);
    if (at === null || Number.isNaN(date.getTime())) return "some time";
    const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
    if (date.toDateString() === new Date().toDateString()) return time;
    return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
  }

  /** As it is written elsewhere, so that it can be found there. */
  const offsetOf = (value) => (Number.isSafeInteger(value) ? String(value) : whole(number(value)));

  const plural = (many, one, more = `${one}s`) => `${whole(many)} ${many === 1 ? one : more}`;

  // The document. All that comes from a report passes through `say`.

  const $ = (id) => document.getElementById(id);

  function say(element, value) {
    if (element.textContent !== value) element.textContent = value;
  }

  function set(element, name, value) {
    if (value === null) element.removeAttribute(name);
    else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }

  function hide(element, is) {
    if (element.hidden !== is) element.hidden = is;
  }

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  }

  function drawn(tag, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  /** A sign whose shape says what its colour says. */
  function sign(level) {
    return drawn("svg", { class: `sign ${level}`, "aria-hidden": "true" }, drawn("use", { href: `#sign-${level}` }));
  }

  function resign(element, level) {
    set(element, "class", `sign ${level}`);
    set(element.firstChild, "href", `#sign-${level}`);
  }

  /** Makes the children of `parent` those of `items`: each is built once, filled again and again, and moved only if it has to be. */
  function keep(parent, items, key, build, fill) {
    const before = parent.kept ?? new Map();
    const after = new Map();
    for (const item of items) {
      let name = key(item);
      while (after.has(name)) name += "'";
      after.set(name, [before.get(name) ?? build(item), item]);
    }
    for (const [name, element] of before) if (!after.has(name)) element.remove();
    let next = parent.firstElementChild;
    for (const [name, [element, item]] of after) {
      if (element === next) next = next.nextElementSibling;
      else parent.insertBefore(element, next);
      fill(element, item);
      after.set(name, element);
    }
    parent.kept = after;
  }

  function figures(parent, items) {
    const build = () => make("div", "", make("dt"), make("dd", "value"), make("dd", "more"));
    keep(parent, items, ([name]) => name, build, (element, [name, value, more, level]) => {
      const [term, main, beside] = element.children;
      say(term, name);
      say(main, value);
      say(beside, more ?? "");
      set(element, "data-level", level ?? null);
    });
  }

  // What is remembered: samples for the charts, counters for the rates, and what state it was in.

  const openedAt = Date.now();
  let report = null; // The newest one.
  let heardAt = null; // When it came, by the browser's clock.
  let lost = null; // Since when there is no news.
  let samples = [];
  let counters = [];
  let state = null; // { key, since, atLeast }
  const seen = [];
  let followed = false; // The stream was, since the page was opened.
  const slots = new Map(); // A colour and a dash for each replica that was ever there.

  const nameOf = (node) => text(node.node) ?? "a node without a name";
  const homes = new WeakMap(); // Of a cluster's nodes: the view and the number of their shard.

  /** The view that a node is of: in a cluster that of its shard. */
  const homeOf = (node, view) => homes.get(node)?.view ?? view;
  const isPrimary = (node, view) => text(homeOf(node, view).primary) !== null && text(node.node) === text(homeOf(node, view).primary);

  /** The shards of a cluster; none without one. */
  const shardsOf = (view) => list(view.shards);
  /** The views that there are: in a cluster one for each shard. */
  const viewsOf = (view) => (shardsOf(view).length ? shardsOf(view).map((shard) => object(shard.view)) : [view]);

  function nodesOf(view) {
    for (const shard of shardsOf(view)) {
      for (const node of list(object(shard.view).nodes)) homes.set(node, { view: object(shard.view), shard: number(shard.shard) });
    }
    return viewsOf(view).flatMap((one) => list(one.nodes));
  }

  function replicasOf(view) {
    const known = (node) => text(homeOf(node, view).primary) !== null;
    return nodesOf(view).filter((node) => !isPrimary(node, view) && (node.role === "replica" || (known(node) && node.role !== "primary")));
  }

  function slot(name) {
    if (!slots.has(name)) slots.set(name, slots.size);
    return slots.get(name);
  }

  /** The counters of a report. What it does not tell is null, not zero. */
  function counted(news, now) {
    const commands = Array.isArray(news.commands) ? new Map() : null;
    for (const command of commands ? list(news.commands) : []) {
      const key = [command.access, command.target, command.reason].map((part) => text(part) ?? "").join("\n");
      commands.set(key, { ...command, total: count(command.total) + (commands.get(key)?.total ?? 0) });
    }
    const nodes = new Map(list(news.reads_by_node).map((node) => [nameOf(node), count(node.reads)]));
    const [optimistic, repeats] = [object(news.optimistic), object(news.repeats)];
    return {
      at: number(news.at_ms) ?? now, heard: now, uptime: number(news.uptime_s), commands, nodes,
      proven: number(optimistic.proven), repeated: number(optimistic.repeated), sent: number(repeats.sent), over: number(repeats.over_budget),
    };
  }

  /** Whether another process answers now than the one before, whose counters begin anew. */
  function restarted(before, now) {
    if (before.uptime !== null && now.uptime !== null && now.uptime < before.uptime - 1) return true;
    if (!before.commands || !now.commands) return false;
    return [...before.commands].some(([key, { total }]) => (now.commands.get(key)?.total ?? 0) < total);
  }

  /** The newest counters and those of about `ms` before, or null. */
  function between(ms) {
    const now = counters.at(-1);
    const before = counters.findLast((one) => now.heard - one.heard >= ms * 0.97) ?? counters[0];
    if (!now || before === now) return null;
    let seconds = (now.at - before.at) / 1000;
    const ours = (now.heard - before.heard) / 1000;
    // The server's clock was set: the browser's has to do.
    if (!(seconds > ours * 0.5 - 1 && seconds < ours * 2 + 1 && seconds > 0)) seconds = ours;
    return seconds > 0 ? { now, before, seconds } : null;
  }

  /** Commands per second, by access, target and reason. */
  function rates(ms) {
    const span = between(ms);
    if (!span?.now.commands || !span.before.commands) return null;
    return [...span.now.commands].map(([key, command]) => ({
      ...command, key, rate: Math.max(0, command.total - (span.before.commands.get(key)?.total ?? 0)) / span.seconds,
    }));
  }

  const sum = (all, access, target) => all.filter((one) => one.access === access && (!target || one.target === target)).reduce((total, one) => total + one.rate, 0);

  function gauge(name) {
    const span = between(WINDOW_MS);
    const [now, before] = [span?.now[name] ?? null, span?.before[name] ?? null];
    return now === null || before === null ? null : Math.max(0, now - before) / span.seconds;
  }

  function shareOf(all) {
    const reads = all === null ? 0 : sum(all, "read");
    return reads > 0 ? sum(all, "read", "replica") / reads : null;
  }

  /** Takes in a report, whether or not anybody looks. */
  function learn(news) {
    const now = Date.now();
    const own = counted(news, now);
    // Several who listen may be told the same twice.
    if (lost === null && counters.at(-1)?.at === own.at) {
      heardAt = now;
      return;
    }
    if (counters.length && restarted(counters.at(-1), own)) {
      counters = [];
      samples.push({ at: now - 1 });
    }
    if (heardAt !== null && now - heardAt > GAP_MS) samples.push({ at: now - 1 });
    counters = [...counters.filter((one) => now - one.heard < 2 * WINDOW_MS), own];
    const wasLost = lost !== null;
    [report, heardAt, lost] = [news, now, null];
    const view = object(news.view);
    if (viewsOf(view).every((one) => text(one.stream_source) !== null)) followed = true;

    const [second, ten] = [rates(900), rates(WINDOW_MS)];
    const nodes = new Map();
    for (const node of replicasOf(view)) {
      const [lag, age, delay] = [number(node.lag_bytes), number(node.staleness_ms), number(node.delay_ms)];
      if (lag === null && age === null && delay === null) continue;
      slot(nameOf(node));
      nodes.set(nameOf(node), { lag, age, delay });
    }
    const latency = new Map(list(news.latency).map((one) => [latencyKey(one), number(one.p99_ms)]));
    const reads = second && { primary: sum(second, "read", "primary"), replica: sum(second, "read", "replica"), refused: sum(second, "read", "refused") };
    samples.push({ at: now, share: shareOf(ten), reads, nodes, latency });
    const oldest = now - MINUTES * 60_000;
    samples = samples.filter((sample) => sample.at >= oldest);

    const verdict = judge();
    const key = verdict.level + verdict.headline;
    // What it was like without news, nobody knows.
    if (wasLost) state = null;
    if (state?.key !== key) {
      const since = state === null ? now - 1000 * (verdict.lasts ?? 0) : now;
      state = { key, since, atLeast: state === null && verdict.lasts === null };
      const why = verdict.why.find((one) => one.level !== "info");
      note(now, verdict.level, verdict.headline, why?.text ?? "");
    }
  }

  function note(at, level, what, why) {
    seen.unshift({ at, level, what, why });
    seen.length = Math.min(seen.length, SEEN);
  }

  /** There is no news any longer. */
  function lose() {
    if (lost !== null) return;
    lost = heardAt ?? openedAt;
    note(lost, "unknown", "No news: the connection to Redweir is broken", "");
    draw();
  }

  // What it comes to, in words.

  const LEVELS = ["unknown", "ok", "info", "warn", "bad"];
  const SEVERITIES = { __proto__: null, info: "info", warning: "warn", error: "bad", critical: "bad" };
  const WORDS = { bad: "error", warn: "warning", info: "note" };
  const severityOf = (finding) => SEVERITIES[finding.severity] ?? "warn";

  /** Whether reads may go to a node, and why not. */
  function serviceOf(node, view) {
    const said = list(report?.serves).find((one) => text(one.node) !== null && text(one.node) === text(node.node));
    const problem = text(node.last_problem);
    if (node.answers === false) {
      const age = number(node.last_problem_age_s);
      return { level: "bad", word: "does not answer", why: problem ? `it ${problem}` : "", since: age };
    }
    if (isPrimary(node, view)) {
      const busy = problem !== null && number(node.last_problem_over_s) === null && number(node.last_problem_age_s) !== null;
      return busy ? { level: "warn", word: "takes writes", why: `it ${problem}` } : { level: "ok", word: "takes writes", why: "" };
    }
    if (node.role === "primary") return { level: "warn", word: "no", why: "it says that it is the primary, and is not followed" };
    if (node.in_service === true) {
      if (said?.eligible === false) return { level: "warn", word: "no reads now", why: text(said.text) ?? "" };
      return { level: "ok", word: "yes", why: "" };
    }
    if (node.in_service !== false) return { level: "unknown", word: "not known", why: "" };
    const id = text(node.replication_id);
    let why = "it was out and has to give a few good samples first";
    if (node.link === "down") why = "its replication link is down";
    else if (node.link === "syncing") why = "a full resync is running";
    else if (node.role !== "replica") why = "it has not said what it is";
    else if (id !== null && text(homeOf(node, view).replication_id) !== null && id !== text(homeOf(node, view).replication_id)) why = "it holds another history than the primary";
    else if (number(node.applied_offset) === null) why = "it has not reported enough yet";
    return { level: "warn", word: "no", why: text(said?.text) ?? why };
  }

  /** What was wrong with a node that is over. */
  function pastOf(node) {
    const [age, over] = [number(node.last_problem_age_s), number(node.last_problem_over_s)];
    if (age === null || over === null) return "";
    const code = text(node.last_problem_code)?.replaceAll("_", " ") ?? "not known why";
    return `did not answer for ${span(Math.max(0, age - over))}, until ${span(over)} ago (${code})`;
  }

  function headlineOf(reads, writes, said) {
    if (said.writes.startsWith("refused")) return reads ? "Reads are served, the primary refuses writes" : "Reads are not served, and the primary refuses writes";
    const some = said.reads.startsWith("by policy");
    if (reads === null || writes === null) {
      if (reads === null && writes === null) return "Whether reads and writes are served is not known";
      const [known, other, is] = reads === null ? ["Writes", "reads", writes] : ["Reads", "writes", reads];
      return `${known} are ${is ? "" : "not "}served; of ${other} it is not known`;
    }
    if (reads && some) return writes ? "Writes are served, reads by some policies only" : "Reads are served by some policies only, writes are not";
    if (reads) return writes ? "Reads and writes are served" : "Reads are served, writes are not";
    return writes ? "Writes are served, reads are not" : "Neither reads nor writes are served";
  }

  function byWhom(view, reads, writes) {
    const primaries = viewsOf(view).map((one) => text(one.primary)).filter(Boolean);
    const primary = primaries[0] ?? null;
    const parts = [];
    const more = primaries.length > 3 ? ` and ${primaries.length - 3} more` : "";
    if (writes && primary) parts.push(`Writes by ${primaries.slice(0, 3).map((name) => clip(name, 80)).join(", ")}${more}.`);
    const replicas = replicasOf(view);
    const serving = replicas.filter((node) => node.answers !== false && node.in_service === true);
    if (reads && serving.length) {
      const names = serving.slice(0, 3).map((node) => clip(nameOf(node), 80)).join(", ");
      const others = serving.length > 3 ? ` and ${serving.length - 3} more` : "";
      parts.push(`Reads by ${serving.length} of ${plural(replicas.length, "replica")}: ${names}${others}.`);
    } else if (reads && primary) parts.push("Reads by the primary alone.");
    else if (reads) parts.push("Reads by replicas that lost their primary, as far as policies allow old data.");
    return parts.join(" ");
  }

  /** All of the state line: how bad, what, by whom, and why. */
  function judge() {
    const [view, ready] = [object(report.view), object(report.ready)];
    const body = lines(ready.text) ?? "";
    const after = (word) => body.split("\n").find((line) => line.startsWith(`${word}: `))?.slice(word.length + 2).trim() ?? "";
    const said = { reads: after("reads"), writes: after("writes") };
    const [reads, writes] = [ready.reads, ready.writes].map((is) => (typeof is === "boolean" ? is : null));
    const why = [];
    const add = (level, words, link) => words && why.push({ level, text: words, link });

    const refused = said.writes.startsWith("refused");
    const some = said.reads.startsWith("by policy");
    let level = reads === null && writes === null ? "unknown" : reads === true && writes === true && !refused ? "ok" : "bad";
    if (some && level === "ok") level = "warn";
    let headline = headlineOf(reads, writes, said);
    if (body.startsWith("draining")) {
      level = level === "bad" ? "bad" : "warn";
      add("warn", headline);
      headline = "Redweir is told to end: it drains";
    }
    const cause = (shardsOf(view).length ? null : text(view.cause)) ?? (writes === false ? said.writes.replace(/^no: /, "") : reads === false ? said.reads.replace(/^no: /, "") : "");
    if (viewsOf(view).some((one) => one.two_primaries === true) && !cause.includes("say that they are the primary")) add("bad", "two nodes say that they are the primary, and nothing decides between them");
    add("bad", cause);
    if (refused) add("bad", said.writes);
    if (some) add("warn", `reads ${said.reads}`);

    const second = after("second primary");
    if (second.endsWith("not followed")) add("warn", `a second node says that it is the primary: ${second}`);
    const replicas = replicasOf(view);
    const out = replicas.map((node) => [node, serviceOf(node, view)]).filter(([node, service]) => LEVELS.indexOf(service.level) >= 3 && !cause.includes(nameOf(node)));
    for (const [node, { word, why: because }] of out.slice(0, 3)) add("warn", `${clip(nameOf(node), 80)} ${word === "does not answer" ? word : "gets no reads"}${because ? `: ${because}` : ""}`);
    if (out.length > 3) add("warn", `${out.length - 3} more replicas get no reads`, "#nodes");
    if (!replicas.length && nodesOf(view).length && text(view.primary)) add("info", "no replica is known: the primary answers all reads");
    const unfollowed = shardsOf(view).filter((shard) => text(object(shard.view).stream_source) === null).map((shard) => `shard ${whole(number(shard.shard))}`);
    if (unfollowed.length) add(followed ? "warn" : "info", `the replication stream is not followed of ${unfollowed.join(", ")}`);
    else if (report.view && !shardsOf(view).length && text(view.stream_source) === null) add(followed ? "warn" : "info", "the replication stream is not followed");
    const rules = after("access rules");
    if (rules && rules !== "the same at every replica") add("warn", `access rules: ${rules}`);
    for (const line of body.split("\n").filter((line) => line.startsWith("weaker: ")).slice(0, 3)) add("info", line);
    const findings = list(object(report.doctor).findings).filter((finding) => severityOf(finding) !== "info").sort((a, b) => LEVELS.indexOf(severityOf(b)) - LEVELS.indexOf(severityOf(a)));
    for (const finding of findings.slice(0, 3)) {
      const how = severityOf(finding);
      add(how, `${WORDS[how]}: ${text(finding.code) ?? "without a name"} at ${clip(nameOf(finding), 80)}`, "#findings");
    }
    if (findings.length > 3) add("warn", `${findings.length - 3} more findings of the doctor`, "#findings");

    if (level === "ok" && why.some((one) => one.level !== "info")) level = "warn";
    const lasting = nodesOf(view).filter((node) => node.answers === false && number(node.last_problem_over_s) === null && cause.includes(nameOf(node))).map((node) => number(node.last_problem_age_s)).filter((age) => age !== null);
    const lasts = level === "bad" && lasting.length ? Math.max(...lasting) : null;
    return { level, headline, by: byWhom(view, reads, writes), why, lasts, body };
  }

  // What is shown.

  const COLOURS = { ok: "2f9e5f", warn: "d99a1c", bad: "d33a40", unknown: "808a96" };
  const favicon = document.head.appendChild(Object.assign(make("link"), { rel: "icon" }));
  const SHAPES = { ok: "%3Ccircle cx='8' cy='8' r='7'/%3E", warn: "%3Cpath d='M8 1l7 14H1z'/%3E", bad: "%3Cpath d='M1 1h14v14H1z'/%3E" };

  function drawState() {
    const section = $("state");
    const verdict = report === null ? null : judge();
    const level = lost !== null ? "unknown" : verdict?.level ?? "unknown";
    set(section, "data-level", level);
    set(document.body, "data-stale", lost !== null ? "yes" : null);
    const broken = $("broken");
    hide(broken, lost === null);
    if (lost !== null) {
      say(broken, report === null
        ? `Redweir has not answered since ${clock(lost)}. The page tries again by itself.`
        : `No news since ${clock(heardAt)}: the connection to Redweir is broken. What is shown is from then; the page connects again by itself.`);
    }
    set(favicon, "href", `data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='%23${COLOURS[level]}'%3E${SHAPES[level] ?? SHAPES.ok}%3C/svg%3E`);
    resign($("headline").firstElementChild, level);
    if (verdict === null) return;
    say($("headline-text"), (lost !== null ? "Last known: " : "") + verdict.headline);
    const title = `${lost !== null ? "No news" : verdict.headline} – Redweir`;
    if (document.title !== title) document.title = title;
    say($("by"), verdict.by);
    keep($("why"), verdict.why, (one) => one.link + one.text, (one) => {
      const words = one.link ? make("a") : make("span");
      if (one.link) words.setAttribute("href", one.link);
      return make("li", "", sign(one.level), words);
    }, (element, one) => {
      resign(element.firstChild, one.level);
      say(element.lastChild, one.text);
    });
    hide($("readyz"), verdict.body === "");
    say($("readyz-text"), verdict.body);
    drawSince();
  }

  function drawSince() {
    if (state === null) return;
    const lasts = Math.max(0, ((lost === null ? Date.now() : heardAt) - state.since) / 1000);
    say($("since"), `${state.atLeast ? "At least since" : "Since"} ${clock(state.since)}: ${span(Math.round(lasts))}.`);
  }

  function drawAbout() {
    const parts = [text(report.version), number(report.uptime_s) !== null ? `up ${span(Math.floor(report.uptime_s))}` : null, `as of ${clock(heardAt)}`];
    say($("about"), parts.filter(Boolean).join(" · "));
  }

  const LABELS = ["Role", "In service", "Link", "Offset", "Behind", "Age at most", "Delay", "Reads/s"];
  const LINKS = { __proto__: null, up: "ok", syncing: "info", down: "bad" };

  function nodeRow() {
    const cells = LABELS.map((label, index) => {
      const cell = make("td", index >= 3 ? "number" : "");
      set(cell, "data-label", label);
      return cell;
    });
    const row = tableRow(make("th", "", make("bdi", "address"), " ", make("span", "tags")), ...cells);
    row.children[2].append(sign("unknown"), make("span", "word"), make("span", "because"));
    row.children[3].append(sign("unknown"), make("span", "word"));
    row.children[8].append(make("span"), make("span", "bar", make("i")));
    return row;
  }

  function drawNodes() {
    const view = object(report.view);
    const nodes = nodesOf(view);
    const shardOf = (node) => homes.get(node)?.shard ?? null;
    const order = (node) => 3 * (shardOf(node) ?? 0) + (isPrimary(node, view) ? 0 : node.role === "primary" ? 1 : 2);
    const sorted = nodes.map((node, index) => [node, index]).sort((a, b) => order(a[0]) - order(b[0]) || a[1] - b[1]).map(([node]) => node);
    const by = between(WINDOW_MS);
    const reads = (node) => {
      const now = by?.now.nodes.get(nameOf(node));
      return now === undefined ? null : Math.max(0, now - (by.before.nodes.get(nameOf(node)) ?? 0)) / by.seconds;
    };
    const all = nodes.reduce((total, node) => total + (reads(node) ?? 0), 0);
    const source = text(view.stream_source);

    keep($("nodes-rows"), sorted, nameOf, nodeRow, (row, node) => {
      const [name, role, service, link, offset, behind, age, delay, served] = row.children;
      const main = isPrimary(node, view);
      set(row, "data-node", nameOf(node));
      set(row, "data-role", main ? "primary" : text(node.role) ?? "unknown");
      say(name.firstChild, nameOf(node));
      set(row, "data-shard", shardOf(node) === null ? null : String(shardOf(node)));
      const feeds = text(homeOf(node, view).stream_source) !== null && text(node.node) === text(homeOf(node, view).stream_source);
      const tags = [shardOf(node) === null ? null : `shard ${shardOf(node)}`, feeds ? "stream source" : null, text(node.version)].filter(Boolean).map((tag) => clip(tag, 40));
      say(name.lastChild, tags.join(" · "));
      say(role, main ? "primary" : node.role === "primary" ? "says primary" : clip(text(node.role) ?? "unknown", 40));
      const state = serviceOf(node, view);
      const idle = state.level === "ok" && !main && reads(node) === 0 && all > 0;
      set(row, "data-level", state.level);
      resign(service.children[0], idle ? "info" : state.level);
      say(service.children[1], idle ? "yes, no reads now" : state.word);
      const past = pastOf(node);
      const since = number(state.since) !== null ? `for ${span(state.since)}` : "";
      say(service.children[2], [since, state.why, past].filter(Boolean).join("; "));
      const known = text(node.link);
      link.children[0].toggleAttribute("hidden", known === null);
      resign(link.children[0], LINKS[node.link] ?? "unknown");
      say(link.children[1], clip(known ?? NONE, 40));
      say(offset, offsetOf(node.applied_offset));
      say(behind, bytes(number(node.lag_bytes)));
      say(age, millis(number(node.staleness_ms)));
      say(delay, millis(number(node.delay_ms)));
      for (const cell of [link, offset, behind, age, delay]) cell.toggleAttribute("data-none", cell.textContent === NONE);
      const own = reads(node);
      say(served.firstChild, rate(own));
      hide(served.lastChild, own === null);
      served.lastChild.firstChild.style.width = `${all > 0 && own !== null ? (100 * own) / all : 0}%`;
    });
    set($("nodes-table"), "data-reads", report.reads_by_node ? null : "unknown");
    hide($("nodes-table"), nodes.length === 0);
    hide($("nodes-empty"), nodes.length > 0);

    const id = text(view.replication_id);
    const head = number(view.head_offset);
    const asked = number(view.anchor_age_ms);
    const delayed = number(view.stream_delay_ms);
    const shards = shardsOf(view).map((shard) => {
      const ranges = Array.isArray(shard.slot_ranges) ? shard.slot_ranges.filter((range) => typeof range === "string") : [];
      const moving = count(shard.slots_moving) > 0 ? `, ${whole(count(shard.slots_moving))} moving` : "";
      return `Shard ${whole(number(shard.shard))}: ${plural(count(shard.slots), "slot")}${ranges.length ? ` (${clip(ranges.join(", "), 60)})` : ""}${moving}.`;
    });
    const unowned = Array.isArray(view.slots_unowned) ? view.slots_unowned.filter((range) => typeof range === "string") : [];
    if (unowned.length) shards.unshift(`No shard has the slots ${clip(unowned.join(", "), 60)}.`);
    const parts = shards.length ? shards : [
      text(view.primary) ? null : "No primary answers.",
      source ? `The replication stream is followed from ${clip(source, 80)}${delayed === null ? "" : `, usually ${millis(delayed)} behind`}.` : "The replication stream is not followed.",
      head === null ? null : `Head: offset ${offsetOf(head)}${asked === null ? "" : `, asked ${millis(asked)} ago`}.`,
      id ? `Replication ID: ${clip(id, 64)}.` : null,
    ];
    say($("nodes-summary"), report.view ? parts.filter(Boolean).join(" ") : "");
  }

  /** A row whose cells keep their roles however they are laid out. */
  function tableRow(head, ...cells) {
    const row = make("tr", "", head, ...cells);
    set(row, "role", "row");
    set(head, "role", "rowheader");
    for (const cell of cells) set(cell, "role", "cell");
    set(head, "scope", "row");
    return row;
  }

  function reasonRow() {
    return tableRow(make("th", "", make("span", "sentence"), " ", make("code")), make("td", "at"), make("td", "number"),
      make("td", "share", make("span"), make("span", "bar", make("i"))), make("td", "number total"));
  }

  function reasonRows(parent, title, rows, of) {
    const items = rows.length ? [{ key: title, title }, ...rows] : [];
    keep(parent, items, (row) => row.key, (row) => {
      if (row.title === undefined) return reasonRow();
      const group = tableRow(Object.assign(make("th"), { colSpan: 5 }));
      group.className = "group";
      set(group.firstChild, "scope", "rowgroup");
      return group;
    }, (element, row) => {
      if (row.title !== undefined) return say(element.firstChild, row.title);
      const [what, at, per, part, total] = element.children;
      set(element, "data-reason", text(row.reason) ?? "");
      set(element, "data-target", text(row.target) ?? "");
      mark(what.firstChild, text(row.text) ?? text(row.reason) ?? "no reason given");
      say(what.lastChild, text(row.reason) ?? "");
      say(at, clip(text(row.target) ?? NONE, 40));
      say(per, rate(row.rate));
      const own = of(row);
      say(part.firstChild, share(own));
      hide(part.lastChild, own === null);
      part.lastChild.firstChild.style.width = `${100 * Math.min(1, own ?? 0)}%`;
      say(total, whole(row.total));
      return undefined;
    });
  }

  function drawReads() {
    const all = rates(WINDOW_MS);
    const of = (access, target) => (all === null ? null : sum(all, access, target));
    const reads = of("read");
    const [atReplicas, atPrimary, refused, refusedWrites] = [of("read", "replica"), of("read", "primary"), of("read", "refused"), of("write", "refused")];
    const part = (some) => (reads ? share(some / reads) : NONE);
    figures($("reads-figures"), [
      ["Reads", perSecond(reads)],
      ["At replicas", part(atReplicas), atReplicas === null ? "" : perSecond(atReplicas)],
      ["At the primary", part(atPrimary), atPrimary === null ? "" : perSecond(atPrimary)],
      ["Refused", perSecond(refused), refused > 0 ? `${part(refused)} of reads` : "", refused > 0 ? "bad" : null],
      ["Writes", perSecond(of("write")), refusedWrites > 0 ? `${perSecond(refusedWrites)} refused` : "", refusedWrites > 0 ? "bad" : null],
    ]);

    const rows = all ?? [...(counters.at(-1)?.commands ?? [])].map(([key, command]) => ({ ...command, key, rate: null }));
    const shownRows = rows.filter((row) => row.rate > 0 || row.rate === null);
    // By what is shown of the rate, so that rows do not change places all the time.
    const size = (row) => (row.rate === null ? 0 : Number(row.rate.toPrecision(1)));
    const sorted = (some) => some.sort((a, b) => size(b) - size(a) || b.total - a.total || (a.key < b.key ? -1 : 1));
    const isRead = (row) => row.access === "read";
    const ofRest = all === null ? 0 : all.filter((row) => !isRead(row)).reduce((total, row) => total + row.rate, 0);
    reasonRows($("reasons-read"), "Reads", sorted(shownRows.filter((row) => isRead(row) && row.total > 0)), (row) => (reads > 0 && row.rate !== null ? row.rate / reads : null));
    reasonRows($("reasons-rest"), "Writes and others", sorted(shownRows.filter((row) => !isRead(row) && row.total > 0)), (row) => (ofRest > 0 && row.rate !== null ? row.rate / ofRest : null));
    const quiet = rows.filter((row) => row.rate === 0 && row.total > 0).sort((a, b) => b.total - a.total);
    reasonRows($("reasons-quiet"), "Not in the last ten seconds", quiet, () => null);
    const more = $("reasons-more");
    hide(more, quiet.length === 0);
    say(more, more.getAttribute("aria-expanded") === "true" ? "Hide what was not in the last ten seconds" : `Show ${plural(quiet.length, "reason")} of before`);
    const none = rows.every((row) => !row.total);
    hide($("reasons-table"), none);
    hide($("reasons-empty"), !none);
  }

  const FENCED = ["below_fence", "fence_pending", "below_floor", "below_session", "own_write_in_flight"];
  const COMMANDS = { __proto__: null, read: "reads", write: "writes", other: "others" };
  const latencyKey = (one) => `${text(one.access) ?? "?"}\n${text(one.target) ?? "?"}`;
  function drawWork() {
    const all = rates(WINDOW_MS);
    const reads = all === null ? 0 : sum(all, "read");
    const fenced = all === null ? null : all.filter((row) => row.access === "read" && FENCED.includes(row.reason)).reduce((total, row) => total + row.rate, 0);
    const now = counters.at(-1);
    const [proven, repeated, sent, over] = ["proven", "repeated", "sent", "over"].map(gauge);
    const view = object(report.view);
    const source = text(view.stream_source);
    const position = number(report.stream_offset) ?? number(view.stream_offset);
    const tried = (proven ?? 0) + (repeated ?? 0);
    figures($("work-figures"), [
      ["Kept off replicas by fences", perSecond(fenced), fenced !== null && reads > 0 ? `${share(fenced / reads)} of reads` : ""],
      ["Optimistic reads", perSecond(proven === null ? null : tried), now.repeated === null ? "" : `${tried > 0 ? `${share(proven / tried)} proven; ` : ""}${whole(now.repeated)} repeated in all`],
      ["Repeats", perSecond(sent), now.sent === null ? "" : `${whole(now.sent)} in all, ${whole(now.over)} over budget`, over > 0 ? "bad" : null],
      ...(shardsOf(view).length ? [["Streams", `${viewsOf(view).filter((one) => text(one.stream_source) !== null).length} followed`, `of ${plural(shardsOf(view).length, "shard")}`]] : []),
      ...(shardsOf(view).length ? [] : [["Stream", source === null ? "not followed" : number(view.stream_delay_ms) === null ? "followed" : `${millis(view.stream_delay_ms)} behind`,
        source === null ? "" : `${position === null ? "" : `at offset ${offsetOf(position)}, `}from ${clip(source, 40)}`, source === null && followed ? "warn" : null]]),
      ["Clients", whole(number(report.clients)), ""],
      ["Memory", bytes(number(report.memory_bytes)), ""],
    ]);

    const latency = list(report.latency).filter((one) => number(one.p50_ms) !== null || number(one.p99_ms) !== null);
    keep($("latency-rows"), latency, latencyKey, () => tableRow(make("th"), make("td"), make("td", "number"), make("td", "number")), (row, one) => {
      const [what, by, half, most] = row.children;
      say(what, COMMANDS[one.access] ?? clip(text(one.access) ?? NONE, 40));
      say(by, clip(text(one.target) ?? NONE, 40));
      say(half, millis(number(one.p50_ms)));
      say(most, millis(number(one.p99_ms)));
    });
    hide($("latency-table"), latency.length === 0);
    hide($("latency-empty"), latency.length > 0);
  }

  /** A text in which what stands between backticks is to be typed. */
  function mark(element, value) {
    if (element.said === value) return;
    element.said = value;
    const parts = value.split("`");
    const pairs = parts.length % 2 === 1;
    element.replaceChildren(...parts.map((part, index) => (pairs && index % 2 === 1 ? make("code", "command", part) : document.createTextNode(part))));
  }

  /** When it began, by the browser's clock: as long ago as it is by the server's. */
  function sinceOf(value) {
    const [at, now] = [Date.parse(typeof value === "string" ? value : ""), number(report.at_ms) ?? heardAt];
    return Number.isNaN(at) ? null : heardAt - Math.max(0, now - at);
  }

  function drawFindings() {
    const doctor = object(report.doctor);
    const findings = list(doctor.findings);
    const many = (level) => findings.filter((finding) => severityOf(finding) === level).length;
    const [errors, warnings] = [many("bad"), many("warn")];
    const tally = [errors ? plural(errors, "error") : null, warnings ? plural(warnings, "warning") : null].filter(Boolean).join(", ");
    say($("findings-count"), tally && ` (${tally})`);
    const none = report.doctor ? (list(doctor.nodes).length ? "Nothing is found." : "No node was looked at yet.") : "What the doctor finds is not known.";
    say($("findings-empty"), none);
    hide($("findings-empty"), findings.length > 0);

    keep($("findings-list"), findings, (finding) => `${text(finding.code)}\n${text(finding.node)}`, () => {
      const head = make("p", "head", sign("warn"), make("b"), make("span", "severity"), make("bdi", "address"), make("span", "since"));
      return make("li", "card", head, make("p", "evidence"), make("p", "remedy"));
    }, (card, finding) => {
      const level = severityOf(finding);
      const [icon, code, severity, node, since] = card.firstChild.children;
      set(card, "data-level", level);
      set(card, "data-code", text(finding.code) ?? "");
      resign(icon, level);
      say(code, text(finding.code) ?? "without a name");
      say(severity, finding.severity === "critical" ? "critical" : WORDS[level]);
      say(node, text(finding.node) ?? "");
      const at = sinceOf(finding.since);
      say(since, at === null ? "" : `since ${clock(at)} (${span(Math.round((heardAt - at) / 1000))})`);
      say(card.children[1], text(finding.evidence) ?? "No evidence is given.");
      mark(card.children[2], text(finding.remedy) ?? "No remedy is given.");
    });

    const unchecked = list(doctor.nodes).flatMap((node) => list(node.unchecked).map((one) => ({ ...one, node: nameOf(node) })));
    hide($("unchecked"), unchecked.length === 0);
    say($("unchecked-summary"), `What the doctor may not ask (${unchecked.length})`);
    keep($("unchecked-list"), unchecked, (one) => `${one.node}\n${text(one.question)}`, () => make("li", "", make("span"), make("code", "command")), (element, one) => {
      say(element.firstChild, `${one.node}: ${text(one.question) ?? "a question"}: ${text(one.why) ?? "not known why"}. The rule that allows it: `);
      say(element.lastChild, text(one.rule) ?? NONE);
    });
  }

  function lossSentence(loss) {
    const [id, previous] = [text(loss.replication_id) ?? "unknown", text(loss.previous_replication_id) ?? "unknown"];
    const [from, upto, writes] = [number(loss.from_offset), number(loss.upto_offset), number(loss.writes)];
    const until = upto === null ? "" : `, which was heard of up to offset ${offsetOf(upto)}`;
    if (loss.everything === true || from === null) return ["Everything", `History ${id} does not go on from ${previous}${until}.`];
    const size = upto === null ? "" : `, ${bytes(Math.max(0, upto - from))}`;
    const what = writes === null ? "Some writes" : `${loss.known === true ? "" : "At least "}${plural(writes, "write")}`;
    return [what + size, `History ${id} goes on from ${previous} at offset ${offsetOf(from)}${until}.`];
  }

  function drawFailovers() {
    const losses = viewsOf(object(report.view)).flatMap((view) => list(view.losses).toReversed()).sort((a, b) => count(a.age_s) - count(b.age_s));
    const lostWrites = number(report.lost_writes);
    figures($("failovers-figures"), [
      ["Changes of the primary", whole(number(report.primary_changes)), "since Redweir was started"],
      ["Lost writes", whole(lostWrites), lostWrites ? "at least" : "", lostWrites ? "warn" : null],
      ["MASTERDOWN replies", whole(number(report.masterdown)), "to what nobody could answer"],
    ]);
    hide($("losses-empty"), losses.length > 0);
    keep($("losses-list"), losses, (loss) => [loss.previous_replication_id, loss.from_offset, loss.upto_offset].map(String).join("\n"), () => {
      const keys = make("details", "", make("summary"), Object.assign(make("ul", "keys"), { tabIndex: 0, ariaLabel: "Keys" }));
      return make("li", "card", make("p", "head", sign("warn"), make("b"), make("span", "since")), make("p", "evidence"), keys);
    }, (card, loss) => {
      const [what, more] = lossSentence(loss);
      const age = number(loss.age_s);
      say(card.firstChild.children[1], what);
      say(card.firstChild.children[2], age === null ? "" : `noticed at ${clock(heardAt - 1000 * age)} (${span(Math.round(age))} ago)`);
      say(card.children[1], more);
      const all = Array.isArray(loss.keys) ? loss.keys.filter((key) => typeof key === "string") : [];
      const [summary, names] = card.children[2].children;
      hide(card.children[2], all.length === 0);
      say(summary, `${loss.all_keys === true ? "" : "Some of the "}keys (${whole(all.length)})`.replace(/^k/, "K"));
      if (names.kept?.size === Math.min(all.length, KEYS + 1)) return;
      const items = all.length > KEYS ? [...all.slice(0, KEYS), null] : all;
      keep(names, items, (key) => (key === null ? "\n" : key), (key) => make("li", key === null ? "" : "address"), (element, key) => {
        say(element, key === null ? `and ${plural(all.length - KEYS, "more")}`.replace(/mores$/, "more") : shown(key).replaceAll("\n", "\\u{a}") || "(the empty key)");
      });
    });
    keep($("seen-list"), seen, (one) => `${one.at}`, (one) => make("li", "", make("span", "time", clock(one.at)), sign(one.level), make("span", "", one.what, one.why ? make("span", "because", one.why) : "")), () => {});
  }

  // Charts.

  let style = null;
  const colour = (name) => (style ??= getComputedStyle(document.documentElement)).getPropertyValue(`--${name}`).trim();
  const DASHES = [[], [7, 4], [2, 3]];

  /** `value` as a label of an axis: never rounded, for ticks must differ. */
  const tidy = (value) => String(Number(value.toPrecision(6)));
  const AXES = {
    share: (value) => `${value * 100} %`,
    rate: (value) => (value >= 1e9 ? `${tidy(value / 1e9)} G` : value >= 1e6 ? `${tidy(value / 1e6)} M` : value >= 1e4 ? `${tidy(value / 1e3)} k` : tidy(value)),
    bytes: (value) => {
      let at = 0;
      while (value >= 1024 && at < UNITS.length - 1) [value, at] = [value / 1024, at + 1];
      return `${tidy(value)} ${UNITS[at]}`;
    },
    millis: (value) => (value >= 8.64e7 ? `${tidy(value / 8.64e7)} d` : value >= 3.6e6 ? `${tidy(value / 3.6e6)} h` : value >= 1000 ? `${tidy(value / 1000)} s` : `${tidy(value)} ms`),
  };
  const POWERS = Array.from({ length: 63 }, (_, power) => 2 ** power);
  const TIMES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 1.2e5, 3e5, 6e5, 1.2e6, 1.8e6, 3.6e6, 7.2e6, 1.8e7, 3.6e7, 8.64e7, 1.728e8, 4.32e8, 8.64e8, 4.32e9, 8.64e9, 8.64e10, 8.64e11];
  const SECONDS = [1, 5, 10, 15, 30, 60, 120, 300, 600];
  const charts = [];

  const JOINS = { most: (values) => Math.max(...values), mean: (values) => values.reduce((a, b) => a + b) / values.length, last: (values) => values.at(-1) };

  /** Samples that become one point of a chart: several, once there are many. What makes a gap stays alone. */
  function groups() {
    const ms = samples.length ? samples.at(-1).at - samples[0].at : 0;
    const step = ms > 300_000 ? 4000 : ms > 150_000 ? 2000 : 1;
    const all = [];
    let last = null;
    for (const sample of samples) {
      const of = sample.nodes ? Math.floor(sample.at / step) : null;
      if (of !== null && of === last) all.at(-1).push(sample);
      else all.push([sample]);
      last = of;
    }
    return all;
  }

  /** One chart: `series` are { key, name, colour, dash }, `value` takes one of them out of a sample, `join` makes one of several. */
  class Chart {
    constructor(id, { axis, least, format, series, value, join, increments, fill }) {
      Object.assign(this, { axis, least, format, series, value, join: JOINS[join], increments, fill });
      this.figure = $(id);
      this.title = this.figure.querySelector("h3").textContent;
      this.at = this.figure.querySelector(".at");
      this.plot = this.figure.querySelector(".plot");
      this.empty = this.figure.querySelector(".empty");
      this.legend = this.figure.querySelector(".legend");
      this.shape = "";
      this.pinned = null;
      this.plot.addEventListener("keydown", (event) => this.step(event));
      this.plot.addEventListener("blur", () => this.unpin());
      new ResizeObserver(() => this.resize()).observe(this.plot);
      charts.push(this);
    }

    draw(points) {
      const lineup = this.series();
      const times = points.map((group) => group.at(-1).at / 1000);
      const columns = lineup.map(({ key }) => points.map((group) => {
        const values = group.map((sample) => this.value(sample, key) ?? null).filter((value) => value !== null);
        return values.length ? this.join(values) : null;
      }));
      this.now = lineup.map(({ key }) => this.value(samples.at(-1) ?? {}, key) ?? null);
      const has = columns.some((column) => column.some((value) => value !== null));
      for (const part of [this.plot, this.legend, this.at]) hide(part, !has);
      hide(this.empty, has);
      [this.lineup, this.data] = [lineup, [times, ...columns]];
      if (!has) return;
      const shape = lineup.map((one) => `${one.colour}${one.dash}`).join() + (lineup.length === 1);
      if (shape !== this.shape) {
        this.chart?.destroy();
        this.chart = typeof uPlot === "undefined" ? null : this.build(lineup);
        this.shape = shape;
      } else this.chart?.setData(this.data);
      if (this.pinned !== null) this.point(this.pinned, false);
      this.read();
      this.tell();
    }

    build(lineup) {
      const grid = { stroke: () => colour("grid"), width: 1 };
      const axis = { stroke: () => colour("muted"), font: "11px system-ui, sans-serif", ticks: { show: false } };
      const stamp = (seconds, withSeconds) => clock(seconds * 1000).slice(-8, withSeconds ? undefined : -3);
      const lines = lineup.map((one) => ({
        stroke: () => colour(one.colour), width: 1.5, dash: DASHES[one.dash], points: { show: false },
        ...(this.fill ? { fill: () => colour("fill") } : {}),
      }));
      const options = {
        width: Math.max(120, this.plot.clientWidth), height: this.plot.clientHeight || 160, padding: [8, 18, 0, 0], legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, sync: { key: "time", scales: ["x", null] }, points: { size: 7 } },
        scales: {
          x: { time: true, range: () => this.range() },
          y: { range: this.axis === "share" ? () => [0, 1] : (_, __, most) => [0, Math.max(this.least, (most ?? 0) * 1.08)] },
        },
        axes: [
          { ...axis, grid: { show: false }, size: 26, space: 60, incrs: SECONDS, values: (_, splits, __, ___, step) => splits.map((at) => stamp(at, step < 60)) },
          { ...axis, grid, size: 62, space: 32, ...(this.increments ? { incrs: this.increments } : {}), values: (_, splits) => splits.map((at) => AXES[this.axis](at)) },
        ],
        series: [{}, ...lines],
        hooks: { setCursor: [() => this.read()] },
      };
      return new uPlot(options, this.data, this.plot);
    }

    /** Ten minutes, or what there is of them, a minute at least. */
    range() {
      const [first, last] = [samples[0]?.at ?? Date.now(), samples.at(-1)?.at ?? Date.now()];
      return [Math.max(last - MINUTES * 60_000, Math.min(first, last - 60_000)) / 1000, last / 1000];
    }

    resize() {
      const [width, height] = [this.plot.clientWidth, this.plot.clientHeight];
      if (this.chart && width > 0 && (width !== this.chart.width || height !== this.chart.height)) this.chart.setSize({ width, height });
    }

    recolour() {
      this.chart?.redraw(false);
    }

    /** The legend: what is under the cursor, else what is now. */
    read() {
      if (!this.data) return;
      const under = this.chart?.cursor.idx;
      const active = typeof under === "number" && (this.chart.cursor.left ?? -1) >= 0;
      say(this.at, active ? clock(this.data[0][under] * 1000) : lost === null ? "now" : clock(heardAt));
      set(this.at, "data-past", active ? "yes" : null);
      keep(this.legend, this.lineup.map((one, position) => ({ ...one, value: active ? this.data[position + 1][under] ?? null : this.now[position] })), (one) => one.key, (one) => {
        const line = drawn("line", { x1: 0, y1: 5, x2: 22, y2: 5 });
        return make("li", "", drawn("svg", { class: `swatch ${one.colour} dash${one.dash}`, viewBox: "0 0 22 10", "aria-hidden": "true" }, line), make("bdi"), make("span", "value"));
      }, (element, one) => {
        set(element.firstChild, "class", `swatch ${one.colour} dash${one.dash}`);
        say(element.children[1], clip(one.name, 60));
        say(element.children[2], this.format(one.value));
      });
    }

    /** The same in words, for who does not see it. */
    tell() {
      const parts = this.lineup.map((one, position) => {
        const known = this.data[position + 1].filter((value) => value !== null);
        const now = this.now[position];
        if (!known.length) return `${clip(one.name, 60)}: not known`;
        const [least, most] = [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))];
        return `${clip(one.name, 60)}: ${now === null ? "not known" : this.format(now)} now, between ${this.format(least)} and ${this.format(most)}`;
      });
      const [from, to] = this.range();
      set(this.plot, "aria-label", `${this.title}, the last ${span(Math.round(to - from))}. ${parts.join("; ")}.`);
    }

    /** Left and right go through time, in all charts. */
    step(event) {
      const last = this.data ? this.data[0].length - 1 : -1;
      if (!this.chart || last < 0) return;
      const at = this.pinned === null ? last : this.chart.valToIdx(this.pinned);
      const to = { ArrowLeft: this.pinned === null ? last : at - 1, ArrowRight: at + 1, PageUp: at - 30, PageDown: at + 30, Home: 0, End: last }[event.key];
      if (event.key === "Escape") this.unpin();
      if (to === undefined) return;
      event.preventDefault();
      this.point(this.data[0][Math.min(last, Math.max(0, to))], true);
    }

    point(seconds) {
      this.pinned = seconds;
      this.chart?.setCursor({ left: Math.max(0, this.chart.valToPos(seconds, "x")), top: 1 }, true, true);
    }

    unpin() {
      if (this.pinned === null) return;
      this.pinned = null;
      this.chart?.setCursor({ left: -10, top: -10 }, true, true);
    }
  }

  /** The replicas that are drawn: all, or those that were furthest behind. */
  function drawnReplicas() {
    const most = new Map();
    for (const sample of samples) for (const [name, { lag, delay }] of sample.nodes ?? []) most.set(name, Math.max(most.get(name) ?? 0, lag ?? 0, delay ?? 0));
    const names = [...most.keys()].sort((a, b) => most.get(b) - most.get(a)).slice(0, LINES).sort((a, b) => slot(a) - slot(b));
    const note = $("lag-note");
    hide(note, most.size <= LINES);
    say(note, `${names.length} of ${most.size} replicas are drawn: those that were furthest behind.`);
    return names.map((name) => ({ key: name, name, colour: `c${slot(name) % 6}`, dash: slot(name) % 3 }));
  }

  const ofNode = (field) => (sample, name) => sample.nodes?.get(name)?.[field];
  const slowest = () => {
    const keys = [...new Set(samples.flatMap((sample) => [...(sample.latency?.keys() ?? [])]))].sort().slice(0, 6);
    return keys.map((key, index) => {
      const [access, target] = key.split("\n");
      const at = { read: ["replica", "primary"].indexOf(target), write: 2 }[access] ?? 3 + (index % 3);
      return { key, name: `${COMMANDS[access] ?? access}, ${target}`, colour: `c${at < 0 ? 4 : at}`, dash: Math.max(0, at) % 3 };
    });
  };

  function drawCharts() {
    if (charts.length === 0) {
      new Chart("chart-share", { axis: "share", least: 1, format: share, fill: true, series: () => [{ key: "share", name: "at replicas, of ten seconds", colour: "c0", dash: 0 }], value: (sample) => sample.share, join: "last" });
      const places = [["replica", "at replicas", "c0", 0], ["primary", "at the primary", "c1", 1], ["refused", "refused", "c4", 2]];
      new Chart("chart-reads", { axis: "rate", least: 10, format: perSecond, series: () => places.map(([key, name, tint, dash]) => ({ key, name, colour: tint, dash })), value: (sample, key) => sample.reads?.[key], join: "mean" });
      new Chart("chart-bytes", { axis: "bytes", least: 1024, format: bytes, increments: POWERS, series: drawnReplicas, value: ofNode("lag"), join: "most" });
      new Chart("chart-age", { axis: "millis", least: 10, format: millis, increments: TIMES, series: drawnReplicas, value: ofNode("age"), join: "most" });
      new Chart("chart-delay", { axis: "millis", least: 10, format: millis, increments: TIMES, series: drawnReplicas, value: ofNode("delay"), join: "most" });
      new Chart("chart-latency", { axis: "millis", least: 1, format: millis, increments: [0.1, 0.2, 0.5, ...TIMES], series: slowest, value: (sample, key) => sample.latency?.get(key), join: "most" });
    }
    const points = groups();
    for (const chart of charts) chart.draw(points);
  }

  // What happens.

  let asked = false;

  /** Draws once, when the browser next does, and not at all while nobody can see it. */
  function draw() {
    if (asked || document.hidden) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      drawState();
      if (report === null) return;
      for (const part of [drawAbout, drawNodes, drawReads, drawCharts, drawWork, drawFindings, drawFailovers]) part();
      set(document.documentElement, "data-reports", String(counters.at(-1)?.heard ?? ""));
    });
  }

  let source = null;

  function listen() {
    source = new EventSource("events");
    source.addEventListener("message", (event) => {
      try {
        const news = JSON.parse(event.data);
        if (news === null || typeof news !== "object" || Array.isArray(news)) return;
        learn(news);
      } catch (problem) {
        if (!(problem instanceof SyntaxError)) throw problem;
        return; // Half a report is none.
      }
      draw();
    });
    source.addEventListener("error", () => {
      lose();
      // The browser gives up where it was answered, but not as it should be.
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_MS);
    });
  }

  setInterval(() => {
    if (Date.now() - (heardAt ?? openedAt) > QUIET_MS) lose();
    else if (!document.hidden) drawSince();
  }, 1000);

  document.addEventListener("visibilitychange", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    style = null;
    for (const chart of charts) chart.recolour();
  });
  $("reasons-more").addEventListener("click", () => {
    const rows = $("reasons-quiet");
    hide(rows, !rows.hidden);
    set($("reasons-more"), "aria-expanded", String(!rows.hidden));
    if (report !== null) drawReads();
  });
  listen();
  drawState();
})();
