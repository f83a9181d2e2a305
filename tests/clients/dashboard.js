// What a person sees of the dashboard, in a real browser. Usage: dashboard.js URL, with commands on standard input, one a line, each
// answered by one line that begins with `ok` or `no`, so that whoever steers it can do something to real servers in between:
//
//   wait TEXT              until the page shows the text, 20 s at most
//   absent TEXT            until it does not, 20 s at most
//   text SELECTOR          what the first element of that selector shows, on one line
//   shot FILE WIDTH THEME  a picture of the whole page; it stays that wide, in that theme (`light`, `dark`)
//   axe                    how many rules of accessibility are broken, and which
//   errors                 what the console, the content security policy and failed requests have complained of since the last `errors`
//   overflow               whether the page is wider than the window
//   quit
"use strict";

const { readFileSync } = require("node:fs");
const { createInterface } = require("node:readline");
const puppeteer = require("puppeteer-core");

const WITHIN_MS = 20_000;
const START_MS = 60_000;
const HEIGHT = 900;
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const oneLine = (text) => String(text).replace(/\s+/g, " ").trim();

/** Collects whatever goes wrong in the page from now on. */
async function complaints(page) {
  const found = [];
  page.on("console", (message) => ["error", "warn"].includes(message.type()) && found.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => found.push(`exception: ${error.stack ?? error}`));
  page.on("requestfailed", (request) => found.push(`failed: ${request.url()} ${request.failure()?.errorText ?? ""}`));
  page.on("response", (response) => response.status() >= 400 && found.push(`status ${response.status()}: ${response.url()}`));
  page.on("dialog", (dialog) => (found.push(`dialog: ${dialog.message()}`), dialog.dismiss()));
  await page.exposeFunction("complain", (text) => void found.push(text));
  await page.evaluateOnNewDocument(() => document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sample }) => {
    window.complain(`policy: ${violatedDirective} ${blockedURI} ${sample}`);
  }));
  return found;
}

/** Until the page shows `text`, or does not; what it shows in its place, if that takes too long. */
async function until(page, text, is) {
  const deadline = Date.now() + WITHIN_MS;
  for (;;) {
    const shown = oneLine(await page.evaluate(() => document.body.innerText));
    if (shown.includes(oneLine(text)) === is) return "ok";
    if (Date.now() > deadline) return `no, after ${WITHIN_MS / 1000} s it says: ${shown}`;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function look(page, width, theme) {
  await page.setViewport({ width, height: HEIGHT });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
  // Charts are drawn anew in the next frames.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
}

const tell = (found) => oneLine(found.length ? `no ${found.length}: ${found.join(" | ")}` : "ok 0");

const COMMANDS = {
  wait: (page, text) => until(page, text, true),
  absent: (page, text) => until(page, text, false),
  async text(page, selector) {
    const shown = await page.$eval(selector, (element) => element.innerText).catch(() => null);
    return shown === null ? `no element is ${selector}` : `ok ${oneLine(shown)}`.trim();
  },
  async shot(page, rest) {
    const [path, width, theme] = rest.split(" ");
    await look(page, Number(width), theme);
    await page.screenshot({ path, fullPage: true });
    return "ok";
  },
  async axe(page) {
    await page.evaluate(AXE);
    return tell(await page.evaluate(async () => {
      const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
      return violations.map(({ id, nodes }) => `${id} (${nodes[0].html.slice(0, 120)})`);
    }));
  },
  errors: (_page, _rest, found) => tell(found.splice(0)),
  async overflow(page) {
    const [page_, window_] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    return page_ > window_ ? `no, ${page_} px in a window of ${window_} px` : "ok";
  },
};

async function main(url) {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
  const browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args, timeout: START_MS });
  try {
    const page = await browser.newPage();
    const found = await complaints(page);
    await look(page, 1280, "light");
    await page.goto(url, { waitUntil: "domcontentloaded", timeout: START_MS });
    for await (const line of createInterface({ input: process.stdin })) {
      const [name, rest] = [line.split(" ", 1)[0], line.slice(line.indexOf(" ") + 1 || line.length)];
      if (name === "quit") break;
      const run = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : () => `no such command: ${name}`;
      const answer = await Promise.resolve(run(page, rest, found)).catch((error) => `no: ${error.message}`);
      process.stdout.write(`${oneLine(answer)}\n`);
    }
  } finally {
    await browser.close();
  }
  process.stdout.write("ok\n");
}

main(process.argv[2]).then(() => process.exit(0), (error) => {
  process.stdout.write(`no: ${oneLine(error.message)}\n`);
  process.exit(1);
});
