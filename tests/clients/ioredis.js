// What an application does with ioredis, step by step: one line of JSON each. Usage: ioredis.js PORT PASSWORD_PORT
"use strict";

const Redis = require("ioredis");
const { main, ordinary, settled, sleep, step } = require("./steps.js");

const BIG = Buffer.alloc(1 << 20, Buffer.from(Array.from({ length: 256 }, (_, n) => n)));

main(async (protocol, port, guarded) => {
  const quiet = (client) => client.on("error", () => {});
  const open = (options = {}) => quiet(new Redis({ port, protocol, maxRetriesPerRequest: 2, ...options }));
  const using = async (options, run) => {
    const client = open(options);
    try {
      return await run(client);
    } finally {
      client.disconnect();
    }
  };
  const r = open();
  await r.flushall();

  await step("connect", () => using({ connectionName: "app-1", db: 3 }, async (c) => [
    await c.client("GETNAME"), await c.set("three", 1), await c.dbsize(), c.status,
  ]));
  await step("client info", () => using({ connectionName: "app-1", db: 3 }, async (c) => {
    const info = Object.fromEntries((await c.client("INFO")).trim().split(" ").map((pair) => pair.split("=")));
    return [info.name, info.db, info.user, info.resp, info.flags];
  }));
  await step("connect by url", async () => {
    const c = quiet(new Redis(`redis://127.0.0.1:${port}/4`, { protocol }));
    const seen = [await c.set("k", "v"), await c.get("k"), await c.dbsize()];
    return [...seen, await c.quit()];
  });
  await step("lazy connection", () => using({ lazyConnect: true }, async (c) => [c.status, await c.connect(), c.status]));
  await step("connection twice", () => using({}, async (c) => [await c.ping(), await c.connect()]));
  await step("select", () => using({}, async (c) => [await c.select(5), await c.set("five", 1), await c.select(0), await c.get("five")]));
  await step("key prefix", () => using({ keyPrefix: "app:" }, async (c) => [await c.set("p", 1), await c.mget("p", "none"), await r.get("app:p")]));
  await step("no ready check", () => using({ enableReadyCheck: false }, (c) => c.ping()));
  await step("read only", () => using({ readOnly: true }, (c) => c.ping()));
  await step("auto pipelining", () => using({ enableAutoPipelining: true }, (c) => Promise.all([c.set("ap", 1), c.get("ap"), c.incr("ap"), c.get("ap")])));

  await ordinary((...words) => r.call(...words));
  await step("buffers", async () => {
    const key = Buffer.from([0, 13, 10, 255, 36]);
    return [await r.set(key, key), await r.getBuffer(key), await r.hset(key + "h", key, key), await r.hgetallBuffer(key + "h"), await r.del(key)];
  });
  await step("big value", async () => [await r.set("big", BIG), await r.getBuffer("big"), await r.strlen("big"), await r.getrangeBuffer("big", 5000, 5010)]);
  await step("objects", async () => [await r.hset("obj", { a: 1, b: "two" }), await r.hgetall("obj"), await r.mset(new Map([["m1", 1], ["m2", 2]]))]);

  await step("pipeline", () => r.pipeline().set("p", 1).incr("p").get("p").lpush("p", 1).get("none").hset("ph", "a", 1).hgetall("ph").exec());
  await step("10,000 commands", async () => {
    const pipeline = r.pipeline();
    for (let n = 0; n < 5000; n++) pipeline.set(`many:${n % 100}`, n).get(`many:${n % 100}`);
    return JSON.stringify(await pipeline.exec());
  });
  await step("multi", () => r.multi().set("t", 1).incr("t").get("t").zadd("tz", 1.5, "m").zrange("tz", 0, -1, "WITHSCORES").exec());
  await step("multi with an error", () => r.multi().set("t", "word").incr("t").get("t").exec());
  await step("multi aborted", () => r.multi().set("t").get("t").exec());
  await step("multi discarded", async () => {
    r.multi({ pipeline: false });
    return [await r.set("t", 9), await r.discard(), await r.get("t")];
  });
  await step("multi without pipeline", async () => {
    await r.multi({ pipeline: false });
    return [await r.set("t", 9), await r.get("t"), await r.exec()];
  });
  await step("watch conflict", () => using({}, async (c) => {
    await c.watch("watched");
    const before = await c.get("watched");
    await r.incr("watched");
    return [before, await c.multi().set("watched", 100).exec(), await r.get("watched")];
  }));
  await step("watch and retry", () => using({}, async (c) => {
    for (let tries = 1; ; tries++) {
      await c.watch("counter");
      const value = Number(await c.get("counter"));
      if (tries < 3) await r.incr("counter");
      if (await c.multi().set("counter", value + 100).exec()) return [tries, await c.get("counter")];
    }
  }));

  await step("defined command", async () => {
    r.defineCommand("double", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1] * 2)" });
    await r.script("FLUSH");
    return [await r.double("scripted", 4), await r.double("scripted", 5), await r.pipeline().double("scripted", 1).get("scripted").exec()];
  });
  await step("script", async () => {
    const sha = await r.script("LOAD", "return 7");
    return [sha, await r.evalsha(sha, 0), await r.script("EXISTS", sha, "x")];
  });
  await step("functions", async () => {
    const code = "#!lua name=lib\nredis.register_function('put', function(k, a) return redis.call('SET', k[1], a[1]) end)\n" +
      "redis.register_function{function_name='see', callback=function(k) return redis.call('GET', k[1]) end, flags={'no-writes'}}";
    return [
      await r.function("LOAD", "REPLACE", code), await r.fcall("put", 1, "fk", "fv"), await r.fcall_ro("see", 1, "fk"),
      await settled(r.fcall_ro("put", 1, "fk", "x")), await settled(r.function("LOAD", code)), await r.function("DELETE", "lib"),
    ];
  });

  const pushed = (wait, push) => using({}, async (c) => {
    await c.ping();
    const waiting = wait(c);
    await sleep(50);
    await push();
    return waiting;
  });
  await step("blpop", () => pushed((c) => c.blpop("q", 5), () => r.rpush("q", "later")));
  await step("blpop timeout", () => using({}, (c) => c.blpop("q", 0.05)));
  await step("brpop at once", () => using({}, async (c) => [await r.rpush("q", 1, 2), await c.brpop("q2", "q", 1)]));
  await step("blmove", () => pushed((c) => c.blmove("q7", "q8", "LEFT", "RIGHT", 5), () => r.rpush("q7", "m")));
  await step("bzpopmin", () => pushed((c) => c.bzpopmin("bz", 5), () => r.zadd("bz", 1.5, "m")));
  await step("xread block", () => pushed((c) => c.xread("BLOCK", 5000, "STREAMS", "bst", "$"), () => r.xadd("bst", "1-1", "a", 1)));
  await step("commands behind a blocked one", () => pushed((c) => Promise.all([c.blpop("q9", 5), c.set("behind", 1), c.get("behind")]), () => r.rpush("q9", "x")));

  const heard = (c, event, count) => new Promise((resolve) => {
    const all = [];
    c.on(event, (...message) => all.push(message.map(String)) === count && resolve(all));
  });
  await step("subscribe", () => using({}, async (c) => {
    const messages = heard(c, "message", 2);
    const seen = [await c.subscribe("a", "b")];
    seen.push([await r.publish("a", "one"), await r.publish("b", "two"), await r.publish("none", "x")]);
    seen.push(await messages, await c.unsubscribe("a"), await settled(c.get("s")), await c.unsubscribe(), await c.get("t"));
    return seen;
  }));
  await step("psubscribe", () => using({}, async (c) => {
    const messages = heard(c, "pmessage", 1);
    return [await c.psubscribe("p.*"), await r.publish("p.x", "y"), await messages, await c.ping(), await c.punsubscribe()];
  }));
  await step("ssubscribe", () => using({}, async (c) => {
    const messages = heard(c, "smessage", 1);
    return [await c.ssubscribe("shard"), await r.spublish("shard", "y"), await messages, await c.sunsubscribe()];
  }));
  await step("subscribed again after a reconnection", () => using({}, async (c) => {
    await c.subscribe("again");
    const messages = heard(c, "message", 1);
    const ready = new Promise((resolve) => c.once("ready", resolve));
    c.disconnect(true);
    await ready;
    while ((await r.publish("again", "x")) === 0) await sleep(10);
    return messages;
  }));

  await step("fill", async () => {
    const pipeline = r.pipeline();
    for (let n = 0; n < 1200; n++) pipeline.set(`scan:${n}`, n).hset("scan-hash", `f${n}`, n).sadd("scan-set", n).zadd("scan-zset", n, n);
    return (await pipeline.exec()).length;
  });
  const streamed = async (stream) => {
    const all = [];
    for await (const part of stream) all.push(...part);
    return [all.length, new Set(all).size, all.sort().join()];
  };
  await step("scan", () => streamed(r.scanStream({ match: "scan:*" })));
  await step("scan with count", () => streamed(r.scanStream({ match: "scan:1*", count: 7 })));
  await step("scan by type", () => streamed(r.scanStream({ type: "zset" })));
  await step("hscan", () => streamed(r.hscanStream("scan-hash", { count: 50 })));
  await step("sscan", () => streamed(r.sscanStream("scan-set", { match: "1*" })));
  await step("zscan", () => streamed(r.zscanStream("scan-zset")));

  await step("monitor", () => using({}, async (c) => {
    await c.ping(); // Its ready check, seen by the monitor before it hears its own OK, confuses ioredis.
    let monitor;
    for (let tries = 1; !monitor; tries++) {
      // Nor does it take what is seen at once, in the same packet as its OK: here that is anybody's ROLE.
      monitor = await c.monitor().catch((error) => {
        if (tries === 10 || !/Command queue state error/.test(error.message)) throw error;
      });
    }
    const seen = new Promise((resolve) => monitor.on("monitor", (_time, words) => words.includes("monitored") && resolve(words)));
    await r.set("monitored", 1);
    const words = await seen;
    monitor.disconnect();
    return words;
  }));
  await step("info", async () => {
    const info = await r.info("replication");
    return [info.match(/role:\w+/)[0], info.match(/connected_slaves:\d+/)[0], (await r.role())[0], (await r.time()).length];
  });

  await step("user", () => using({ username: "app", password: "secret" }, async (c) => [
    await c.acl("WHOAMI"), await c.set("app:1", 1), await settled(c.get("other")), await settled(c.publish("other", 1)), await settled(c.subscribe("other")),
  ]));
  // It goes on trying for ever: only what it says of the first attempt counts.
  const refusal = (options) => using({ lazyConnect: true, retryStrategy: null, ...options }, async (c) => {
    const told = new Promise((resolve) => c.once("error", resolve));
    return [await settled(c.connect()), await Promise.race([told, sleep(200)])];
  });
  await step("wrong password", () => refusal({ username: "app", password: "wrong" }));
  await step("unknown user", () => refusal({ username: "nobody", password: "x" }));
  await step("password not asked for", () => using({ password: "x" }, (c) => c.ping()));
  await step("password", () => using({ port: guarded, password: "hunter2" }, async (c) => [await c.set("k", 1), await c.get("k"), await c.blpop("none", 0.02)]));
  await step("no password", () => refusal({ port: guarded }));
  await step("guarded with the wrong password", () => refusal({ port: guarded, password: "x" }));

  await step("client kill", () => using({ connectionName: "victim" }, async (c) => {
    const id = await c.client("ID");
    const killed = await r.client("KILL", "ID", id);
    return [killed, await c.ping(), await c.client("GETNAME"), (await c.client("ID")) !== id];
  }));
  await step("quit", () => using({}, async (c) => [await c.quit(), await settled(c.ping())]));
  await step("reset", () => using({ protocol: 2 }, async (c) => [await c.select(3), await c.call("RESET"), await c.call("CLIENT", "GETNAME")]));

  for (let n = 0; n < 100; n++) await r.set(`old:${n}`, n);
  await sleep(300);
  await step("reads of old keys", async () => {
    const seen = [];
    for (let n = 0; n < 200; n++) seen.push(await r.get(`old:${n % 100}`));
    return seen.join();
  });
  await step("reads of old keys at once", () => Promise.all(Array.from({ length: 500 }, (_, n) => r.get(`old:${n % 100}`))));
  await step("writes and reads", async () => {
    const seen = [];
    for (let n = 0; n < 200; n++) seen.push(await r.set("wr", n), await r.get("wr"));
    return seen.join();
  });
  r.disconnect();
});
