// What an application does with node-redis, step by step: one line of JSON each. Usage: node_redis.js PORT PASSWORD_PORT
"use strict";

const { createClient, createClientPool, defineScript, RESP_TYPES } = require("redis");
const { main, ordinary, settled, sleep, step } = require("./steps.js");

const BIG = Buffer.alloc(1 << 20, Buffer.from(Array.from({ length: 256 }, (_, n) => n)));

main(async (RESP, port, guarded) => {
  const create = (options = {}) => {
    const { port: other = port, ...rest } = options;
    const client = createClient({ RESP, ...rest, socket: { port: other, reconnectStrategy: () => 20 } });
    return client.on("error", () => {});
  };
  const using = async (options, run) => {
    const client = await create(options).connect();
    try {
      return await run(client);
    } finally {
      if (client.isOpen) client.destroy();
    }
  };
  const double = defineScript({
    NUMBER_OF_KEYS: 1,
    SCRIPT: "return redis.call('INCRBY', KEYS[1], ARGV[1] * 2)",
    parseCommand: (parser, key, by) => (parser.pushKey(key), parser.push(String(by))),
    transformReply: undefined,
  });
  const r = await create({ scripts: { double } }).connect();
  await r.flushAll();

  await step("connect", () => using({ name: "app-1", database: 3 }, async (c) => [await c.clientGetName(), await c.set("three", 1), await c.dbSize(), c.isReady]));
  await step("client info", () => using({ name: "app-1", database: 3 }, async (c) => {
    const { name, db, user, resp, flags } = await c.clientInfo();
    return [name, db, user, resp, flags];
  }));
  await step("connect by url", async () => {
    const c = await createClient({ RESP, url: `redis://127.0.0.1:${port}/4` }).connect();
    const seen = [await c.set("k", "v"), await c.get("k"), await c.dbSize()];
    return [...seen, await c.close()];
  });
  await step("select", () => using({}, async (c) => [await c.select(5), await c.set("five", 1), await c.select(0), await c.get("five")]));
  await step("ping interval", () => using({ pingInterval: 20 }, async (c) => (await sleep(60), c.ping())));
  await step("key prefix", () => using({ keyPrefix: "app:" }, async (c) => [await c.set("p", 1), await c.mGet(["p", "none"]), await r.get("app:p")]));

  await ordinary((...words) => r.sendCommand(words));
  const buffers = r.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  await step("buffers", async () => {
    const key = Buffer.from([0, 13, 10, 255, 36]);
    return [await r.set(key, key), await buffers.get(key), await r.hSet("bh", key, key), await buffers.hGetAll("bh"), await r.del(key)];
  });
  await step("big value", async () => [await r.set("big", BIG), await buffers.get("big"), await r.strLen("big"), await buffers.getRange("big", 5000, 5010)]);
  await step("hashes", async () => [
    await r.hSet("obj", { a: 1, b: "two" }), await r.hGetAll("obj"), await r.hRandFieldCountWithValues("obj", 2), await r.hExists("obj", "a"), await r.hmGet("obj", ["a", "x"]),
  ]);
  await step("sets", async () => [await r.sAdd("os", ["1", "2"]), await r.sMembers("os"), await r.sIsMember("os", "1"), await r.smIsMember("os", ["1", "9"])]);
  await step("sorted sets", async () => [
    await r.zAdd("oz", [{ score: 1, value: "a" }, { score: 2.5, value: "b" }]), await r.zRangeWithScores("oz", 0, -1), await r.zScore("oz", "a"), await r.zPopMax("oz"),
    await r.zmScore("oz", ["a", "x"]), await r.zIncrBy("oz", 2, "a"), await r.zRandMemberCountWithScores("oz", 1),
  ]);
  await step("geo", async () => [await r.geoAdd("og", { longitude: 13.361389, latitude: 38.115556, member: "P" }), await r.geoPos("og", ["P", "x"]), await r.geoSearch("og", { longitude: 15, latitude: 37 }, { radius: 900, unit: "km" })]);
  await step("streams", async () => [
    await r.xAdd("os-1", "1-0", { a: "1" }), await r.xAdd("os-1", "2-0", { a: "2" }), await r.xRange("os-1", "-", "+"), await r.xRead({ key: "os-1", id: "0" }), await r.xGroupCreate("os-1", "g", "0"),
    await r.xReadGroup("g", "c", { key: "os-1", id: ">" }, { COUNT: 1 }), await r.xPending("os-1", "g"), await r.xAck("os-1", "g", "1-0"), await r.xAutoClaim("os-1", "g", "d", 0, "0"), await r.xInfoGroups("os-1"), await r.xLen("os-1"),
  ]);
  await step("expiry", async () => [await r.set("ex", 1, { expiration: { type: "EX", value: 100 } }), await r.ttl("ex"), await r.expire("ex", 50, "LT"), await r.persist("ex"), await r.expireTime("ex")]);
  await step("configuration", async () => [await r.configGet("maxmemory-policy"), await r.configGet("databases"), (await r.time()).length, (await r.role()).role, await r.commandCount(), (await r.aclGetUser("app")).flags]);
  await step("info", async () => {
    const info = await r.info("replication");
    return [info.match(/role:\w+/)[0], info.match(/connected_slaves:\d+/)[0]];
  });

  await step("pipeline", () => Promise.all([r.set("p", 1), r.incr("p"), r.get("p"), settled(r.lPush("p", "1")), r.get("none"), r.hGetAll("none")]));
  await step("10,000 commands", async () => {
    const all = [];
    for (let n = 0; n < 5000; n++) all.push(r.set(`many:${n % 100}`, n), r.get(`many:${n % 100}`));
    return JSON.stringify(await Promise.all(all));
  });
  await step("multi", () => r.multi().set("t", 1).incr("t").get("t").zAdd("tz", { score: 1.5, value: "m" }).zRangeWithScores("tz", 0, -1).hGetAll("none").exec());
  await step("multi as a pipeline", () => r.multi().set("t", 1).incr("t").get("t").execAsPipeline());
  await step("multi with an error", () => r.multi().set("t", "word").incr("t").get("t").exec());
  await step("multi with errors as values", async () => (await settled(r.multi().set("t", "word").incr("t").get("t").exec())).replies);
  await step("multi aborted", () => r.multi().addCommand(["SET", "t"]).get("t").exec());
  await step("watch conflict", () => using({}, async (c) => {
    await c.watch("watched");
    const before = await c.get("watched");
    await r.incr("watched");
    return [before, await settled(c.multi().set("watched", 100).exec()), await r.get("watched")];
  }));
  await step("watch and retry", () => using({}, async (c) => {
    for (let tries = 1; ; tries++) {
      await c.watch("counter");
      const value = Number(await c.get("counter"));
      if (tries < 3) await r.incr("counter");
      const done = await settled(c.multi().set("counter", value + 100).exec());
      if (Array.isArray(done)) return [tries, await c.get("counter")];
    }
  }));
  await step("unwatch", () => using({}, async (c) => [await c.watch("watched"), await r.incr("watched"), await c.unwatch(), await c.multi().get("watched").exec()]));
  await step("pool", async () => {
    const pool = createClientPool({ RESP, socket: { port } }, { minimum: 2, maximum: 5 }).on("error", () => {});
    await pool.connect();
    const seen = await Promise.all(Array.from({ length: 100 }, async (_, n) => (await pool.set(`pool:${n}`, n), pool.get(`pool:${n}`))));
    seen.push(await pool.execute(async (c) => (await c.watch("pool:1"), c.multi().incr("pool:1").exec())));
    await pool.close();
    return seen;
  });

  await step("defined script", async () => [await r.scriptFlush(), await r.double("scripted", 4), await r.double("scripted", 5), await r.multi().double("scripted", 1).get("scripted").exec()]);
  await step("script", async () => {
    const sha = await r.scriptLoad("return 7");
    return [sha, await r.evalSha(sha), await r.scriptExists([sha, "x"]), await r.eval("return {1, {2, KEYS[1]}, ARGV[1]}", { keys: ["k"], arguments: ["a"] })];
  });
  await step("functions", async () => {
    const code = "#!lua name=lib\nredis.register_function('put', function(k, a) return redis.call('SET', k[1], a[1]) end)\n" +
      "redis.register_function{function_name='see', callback=function(k) return redis.call('GET', k[1]) end, flags={'no-writes'}}";
    return [
      await r.functionLoad(code, { REPLACE: true }), await r.fCall("put", { keys: ["fk"], arguments: ["fv"] }), await r.fCallRo("see", { keys: ["fk"] }),
      await settled(r.fCallRo("put", { keys: ["fk"], arguments: ["x"] })), await settled(r.functionLoad(code)), (await r.functionList()).length, await r.functionDelete("lib"),
    ];
  });

  const pushed = (wait, push) => using({}, async (c) => {
    const waiting = wait(c);
    await sleep(50);
    await push();
    return waiting;
  });
  await step("blpop", () => pushed((c) => c.blPop("q", 5), () => r.rPush("q", "later")));
  await step("blpop timeout", () => using({}, (c) => c.blPop("q", 0.05)));
  await step("brpop at once", () => using({}, async (c) => [await r.rPush("q", ["1", "2"]), await c.brPop(["q2", "q"], 1)]));
  await step("blmove", () => pushed((c) => c.blMove("q7", "q8", "LEFT", "RIGHT", 5), () => r.rPush("q7", "m")));
  await step("blmpop", () => pushed((c) => c.blmPop(5, ["q5", "q6"], "LEFT", { COUNT: 2 }), () => r.rPush("q6", ["1", "2", "3"])));
  await step("bzpopmin", () => pushed((c) => c.bzPopMin("bz", 5), () => r.zAdd("bz", { score: 1.5, value: "m" })));
  await step("xread block", () => pushed((c) => c.xRead({ key: "bst", id: "$" }, { BLOCK: 5000 }), () => r.xAdd("bst", "1-1", { a: "1" })));
  await step("commands behind a blocked one", () => pushed((c) => Promise.all([c.blPop("q9", 5), c.set("behind", 1), c.get("behind")]), () => r.rPush("q9", "x")));

  const heard = (subscribe, count) => new Promise((resolve) => {
    const all = [];
    subscribe((...message) => all.push(message) === count && resolve(all));
  });
  await step("subscribe", () => using({}, async (c) => {
    let subscribed;
    const messages = heard((tell) => (subscribed = c.subscribe(["a", "b"], tell)), 2);
    await subscribed;
    const seen = [await r.publish("a", "one"), await r.publish("b", "two"), await r.publish("none", "x"), await messages];
    seen.push(await settled(c.get("t")), await c.ping("x"), await c.unsubscribe("a"), await c.unsubscribe(), await c.get("t"));
    return seen;
  }));
  await step("psubscribe", () => using({}, async (c) => {
    let subscribed;
    const messages = heard((tell) => (subscribed = c.pSubscribe("p.*", tell)), 1);
    await subscribed;
    return [await r.publish("p.x", "y"), await messages, await c.pUnsubscribe("p.*"), await c.ping()];
  }));
  await step("ssubscribe", () => using({}, async (c) => {
    let subscribed;
    const messages = heard((tell) => (subscribed = c.sSubscribe("shard", tell)), 1);
    await subscribed;
    return [await r.sPublish("shard", "y"), await messages, await r.pubSubShardChannels(), await c.sUnsubscribe("shard")];
  }));
  await step("pubsub introspection", () => using({}, async (c) => {
    await c.subscribe("seen", () => {});
    return [await r.pubSubChannels(), await r.pubSubNumSub(["seen", "none"]), await r.pubSubNumPat()];
  }));

  await step("fill", async () => {
    const all = [];
    for (let n = 0; n < 1200; n++) {
      all.push(r.set(`scan:${n}`, n), r.hSet("scan-hash", `f${n}`, n), r.sAdd("scan-set", String(n)), r.zAdd("scan-zset", { score: n, value: String(n) }));
    }
    return (await Promise.all(all)).length;
  });
  const iterated = async (iterator) => {
    const all = [];
    for await (const part of iterator) all.push(...part.map((item) => JSON.stringify(item)));
    return [all.length, new Set(all).size, all.sort().join()];
  };
  await step("scan", () => iterated(r.scanIterator({ MATCH: "scan:*" })));
  await step("scan with count", () => iterated(r.scanIterator({ MATCH: "scan:1*", COUNT: 7 })));
  await step("scan by type", () => iterated(r.scanIterator({ TYPE: "zset" })));
  await step("hscan", () => iterated(r.hScanIterator("scan-hash", { COUNT: 50 })));
  await step("sscan", () => iterated(r.sScanIterator("scan-set", { MATCH: "1*" })));
  await step("zscan", () => iterated(r.zScanIterator("scan-zset")));

  await step("monitor", () => using({}, async (c) => {
    let monitoring;
    const seen = new Promise((resolve) => {
      monitoring = c.monitor((line) => String(line).includes("monitored") && resolve(String(line).replace(/^.*?\] /, "")));
    });
    await monitoring;
    await r.set("monitored", 1);
    return seen;
  }));
  if (RESP === 3) {
    await step("client-side cache", () => using({ clientSideCache: { ttl: 0, maxEntries: 0, evictPolicy: "LRU" } }, async (c) => {
      await r.set("cached", 1);
      const seen = [await c.get("cached"), await c.get("cached")];
      await r.set("cached", 2);
      while ((await c.get("cached")) !== "2") await sleep(5);
      return [...seen, await c.get("cached"), await c.hGetAll("obj"), await c.hGetAll("obj"), await c.mGet(["cached", "none"])];
    }));
    await step("invalidations", () => using({ emitInvalidate: true }, async (c) => {
      const invalid = new Promise((resolve) => c.once("invalidate", (key) => resolve(String(key))));
      const seen = [await c.get("cached")];
      await r.set("cached", 3);
      return [...seen, await invalid, await c.get("cached")];
    }));
  }

  await step("user", () => using({ username: "app", password: "secret" }, async (c) => [await c.aclWhoAmI(), await c.set("app:1", 1), await settled(c.get("other")), await settled(c.publish("other", "1"))]));
  const refusal = async (options) => {
    const { port: other = port, ...rest } = options;
    const c = createClient({ RESP, ...rest, socket: { port: other, reconnectStrategy: false } }).on("error", () => {});
    return settled(c.connect().then((client) => client.get("x")));
  };
  await step("wrong password", () => refusal({ username: "app", password: "wrong" }));
  await step("unknown user", () => refusal({ username: "nobody", password: "x" }));
  await step("password not asked for", () => refusal({ password: "x" }));
  await step("password", () => using({ port: guarded, password: "hunter2" }, async (c) => [await c.set("k", 1), await c.get("k"), await c.blPop("none", 0.02)]));
  await step("no password", () => refusal({ port: guarded }));
  await step("guarded with the wrong password", () => refusal({ port: guarded, password: "x" }));
  await step("read only", () => refusal({ readonly: true }));
  await step("database out of range", () => refusal({ database: 99 }));

  await step("client kill", () => using({ name: "victim" }, async (c) => {
    const id = await c.clientId();
    const killed = await r.clientKill({ filter: "ID", id });
    return [killed, await c.ping(), await c.clientGetName(), (await c.clientId()) !== id];
  }));
  await step("quit", () => using({}, async (c) => [await c.quit(), c.isOpen, await settled(c.ping())]));
  await step("duplicate", () => using({}, async (c) => {
    const other = await c.duplicate().connect();
    const seen = await other.ping();
    other.destroy();
    return seen;
  }));
  await step("reset", () => using({}, async (c) => [await c.select(3), await c.reset(), await c.get("three"), await c.clientGetName()]));

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
  r.destroy();
});
