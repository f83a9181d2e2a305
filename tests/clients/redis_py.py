"""What an application does with redis-py, step by step: one line of JSON each, without anything that differs from run
to run. Usage: redis_py.py PORT PASSWORD_PORT; at the second one the default user has the password `hunter2`."""

import asyncio
import contextlib
import datetime
import hashlib
import json
import re
import sys
import threading
import warnings

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.cache import CacheConfig
from redis.retry import Retry

warnings.simplefilter("ignore")
PORT, PASSWORD_PORT = int(sys.argv[1]), int(sys.argv[2])
BIG = bytes(range(256)) * 4096


def plain(value):
    """A reply as JSON; long ones by their length and digest, sets in order."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, bytes):
        if len(value) > 400:
            return f"{len(value)} bytes {hashlib.sha1(value).hexdigest()}"
        return value.decode("latin-1")
    if isinstance(value, str):
        return value if len(value) <= 2000 else f"{len(value)} characters {hashlib.sha1(value.encode()).hexdigest()}"
    if isinstance(value, dict):
        return [[plain(k), plain(v)] for k, v in value.items()]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(v) for v in value), key=json.dumps)
    if isinstance(value, Exception):
        return explain(value)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return repr(value)


def explain(error):
    # Addresses and ids are not the same from run to run, nor is how a socket's end shows.
    text = re.sub(r"\b(localhost|127\.0\.0\.1):\d+", "ADDRESS", str(error))
    return f"{type(error).__name__}: {text}"


PREFIX = ""


def step(name, do):
    try:
        line = {"step": PREFIX + name, "result": plain(do())}
    except Exception as error:  # whatever the client makes of a reply is what an application sees
        line = {"step": PREFIX + name, "error": explain(error)}
    print(json.dumps(line), flush=True)


def client(port=PORT, **options):
    # The newest version repeats what failed ten times, slower and slower; older ones don't at all.
    retry = {"retry": Retry(NoBackoff(), 1), "retry_on_error": [redis.ConnectionError]}
    return redis.Redis(host="127.0.0.1", port=port, socket_timeout=8, **retry, **options)


def conversation(r, *commands, **reading):
    """What these commands say on one connection, which isn't used again."""
    connection = r.connection_pool.get_connection("_")
    seen = []
    for command in commands:
        connection.send_command(*command)
        try:
            seen.append(connection.read_response(**reading))
        except redis.ResponseError as error:
            seen.append(error)
        except redis.RedisError as error:
            seen.append(error)
            if not isinstance(error, redis.AuthenticationError):
                break
    connection.disconnect()
    r.connection_pool.release(connection)
    return seen


def fields(info, names):
    return {name: info.get(name, "(absent)") for name in names}


def connecting(protocol):
    def named():
        with client(protocol=protocol, client_name="app-1", db=3) as r:
            r.set("in-three", 1)
            seen = fields(r.client_info(), ["name", "db", "user", "resp", "sub", "psub", "multi", "flags", "cmd"])
            return seen, r.client_getname(), r.dbsize(), r.get("in-three")

    def by_url():
        with redis.from_url(f"redis://127.0.0.1:{PORT}/4?protocol={protocol}") as r:
            return r.ping(), r.set("k", "v"), r.get("k"), r.dbsize()

    def select():
        with client(protocol=protocol, single_connection_client=True) as r:
            return [r.execute_command("SELECT", n) for n in (5, 0)] + [r.execute_command("SELECT", 99)]

    def listed():
        with client(protocol=protocol, client_name="listed", single_connection_client=True) as r:
            r.ping()
            mine = [c for c in r.client_list() if c["name"] == "listed"]
            return len(mine), sorted(set(mine[0]) - {"lib-name", "lib-ver"}), int(mine[0]["id"]) == r.client_id()

    def listed_by_id():
        with client(protocol=protocol, client_name="listed-by-id", single_connection_client=True) as r:
            return [c["name"] for c in r.client_list(client_id=[str(r.client_id())])]

    def listed_by_type():
        with client(protocol=protocol, client_name="pubsub", single_connection_client=True) as r, r.pubsub() as p:
            p.subscribe("listed")
            p.get_message(timeout=5)
            return [(c["name"], c["sub"], c["flags"]) for c in r.client_list(_type="pubsub")]

    def no_evict():
        with client(protocol=protocol, single_connection_client=True) as r:
            return r.execute_command("CLIENT NO-EVICT", "ON"), r.execute_command("CLIENT NO-TOUCH", "ON")

    def reply_off():
        with client(protocol=protocol) as r:
            connection = r.connection_pool.get_connection("_")
            for command in (["CLIENT", "REPLY", "OFF"], ["SET", "quiet", 1], ["CLIENT", "REPLY", "ON"]):
                connection.send_command(*command)
            seen = [connection.read_response()]
            for command in (["CLIENT", "REPLY", "SKIP"], ["SET", "quiet", 2], ["GET", "quiet"]):
                connection.send_command(*command)
            seen.append(connection.read_response())
            connection.disconnect()
            return seen

    def help_texts():
        with client(protocol=protocol) as r:
            return [len(r.execute_command(c, "HELP")) for c in ("CLIENT", "OBJECT", "CONFIG", "XINFO", "PUBSUB", "ACL")]

    step("connect with a name and a database", named)
    step("connect by url", by_url)
    step("select", select)
    step("client list", listed)
    step("client list by id", listed_by_id)
    step("client list by type", listed_by_type)
    step("client no-evict", no_evict)
    step("client reply", reply_off)
    step("help", help_texts)


def strings(r):
    key = b"\x00\r\n\xff$*"
    step("set get", lambda: (r.set("s", "v"), r.get("s"), r.get("none")))
    step("set options", lambda: (r.set("s", 1, nx=True), r.set("s", 2, xx=True, get=True), r.set("s", 3, keepttl=True)))
    step("binary key", lambda: (r.set(key, key), r.get(key), r.exists(key), r.delete(key)))
    step("mset mget", lambda: (r.mset({f"m{n}": n for n in range(5)}), r.mget(["m0", "m4", "none"])))
    step("msetnx", lambda: (r.msetnx({"m0": 1, "mx": 1}), r.exists("mx")))
    step("incr", lambda: (r.incr("n"), r.incrby("n", 10), r.decr("n"), r.incrbyfloat("f", 0.5), r.get("n")))
    step("append range", lambda: (r.append("s", "abc"), r.getrange("s", 1, 2), r.setrange("s", 1, "ZZ"), r.get("s")))
    step("getex getdel", lambda: (r.getex("s", ex=100), r.ttl("s"), r.getdel("s"), r.get("s")))
    step("strlen", lambda: (r.set("s", "hello"), r.strlen("s")))
    step("lcs", lambda: (r.set("l1", "ohmytext"), r.set("l2", "mynewtext"), r.lcs("l1", "l2"), r.lcs("l1", "l2", len=True)))
    step("lcs idx", lambda: r.lcs("l1", "l2", idx=True))
    step("big value", lambda: (r.set("big", BIG), r.get("big"), r.getrange("big", 1 << 19, (1 << 19) + 9), r.strlen("big")))
    step("bits", lambda: (r.setbit("bits", 7, 1), r.getbit("bits", 7), r.bitcount("bits"), r.bitpos("bits", 1)))
    step("bitop", lambda: (r.set("b2", "\x01"), r.bitop("AND", "b3", "bits", "b2"), r.get("b3")))
    step("bitfield", lambda: (
        r.bitfield("bf").set("u8", 0, 200).incrby("u8", 0, 10).get("u4", 0).execute(), r.bitfield_ro("bf", "u8", 0)))


def keys(r):
    step("expire ttl", lambda: (r.expire("s", 100), r.ttl("s"), r.pttl("s") > 90_000, r.persist("s"), r.ttl("s"), r.ttl("none")))
    step("expire flags", lambda: (r.expire("s", 100, nx=True), r.expire("s", 50, gt=True), r.expire("s", 50, lt=True)))
    step("expiretime", lambda: (r.expireat("s", 4_000_000_000), r.expiretime("s"), r.pexpiretime("s")))
    step("psetex gone", lambda: (r.set("gone", 1, px=1), threading.Event().wait(0.02), r.get("gone"), r.exists("gone")))
    step("type exists", lambda: (r.type("s"), r.type("none"), r.exists("s", "s", "none"), r.touch("s", "none")))
    step("rename copy", lambda: (r.rename("s", "s2"), r.renamenx("s2", "s"), r.copy("s", "s3"), r.copy("s", "s3", replace=True)))
    step("unlink del", lambda: (r.unlink("s3"), r.delete("s3", "none")))
    step("dump restore", lambda: (r.restore("restored", 0, r.dump("s"), replace=True), r.get("restored"), r.dump("none")))
    step("object", lambda: (r.object("encoding", "s"), r.object("refcount", "s"), r.object("idletime", "s") < 60, r.object("encoding", "none")))
    step("object freq", lambda: r.object("freq", "s"))
    step("memory usage", lambda: (r.memory_usage("s"), r.memory_usage("none"), r.memory_usage("big", samples=0) > 1 << 20))
    step("move", lambda: (r.set("mover", 1), r.move("mover", 9), r.exists("mover")))
    step("randomkey", lambda: r.randomkey() is not None)
    step("keys", lambda: sorted(r.keys("m[0-4]")))


def collections(r):
    step("hash", lambda: (r.hset("h", mapping={"a": 1, "b": 2, b"\xff": b"\x00"}), r.hget("h", "a"), r.hgetall("h")))
    step("hash more", lambda: (
        r.hmget("h", "a", "none"), r.hincrby("h", "a", 5), r.hincrbyfloat("h", "b", 0.25), r.hexists("h", "a"), r.hlen("h"),
        r.hkeys("h"), r.hvals("h"), r.hstrlen("h", "a"), r.hsetnx("h", "a", 1), r.hdel("h", "a"), r.hrandfield("h", 5)))
    step("hrandfield values", lambda: r.hrandfield("h", 5, withvalues=True))
    step("list", lambda: (
        r.rpush("l", *range(6)), r.lpush("l", "x"), r.lrange("l", 0, -1), r.lindex("l", 0), r.lpop("l"), r.rpop("l", 2),
        r.llen("l"), r.linsert("l", "before", 1, "y"), r.lset("l", 0, "z"), r.lrem("l", 0, "y"), r.ltrim("l", 0, 1),
        r.lrange("l", 0, -1), r.lpos("l", "1"), r.lmove("l", "l-2", "LEFT", "RIGHT"), r.rpoplpush("l", "l-2"), r.lpop("none")))
    step("lmpop", lambda: (r.lmpop(2, "none", "l-2", direction="LEFT", count=5), r.lmpop(1, "none", direction="LEFT")))
    step("set", lambda: (
        r.sadd("set", *range(5)), r.sadd("set-2", 3, 4, 9), r.sismember("set", 3), r.smismember("set", [1, 7]), r.scard("set"),
        r.smembers("set"), r.sinter("set", "set-2"), r.sintercard(2, ["set", "set-2"]), r.sunion("set", "set-2"),
        r.sdiff("set", "set-2"), r.smove("set", "set-2", 0), r.srem("set", 1), len(r.srandmember("set", 2)), r.sinterstore("set-3", "set", "set-2")))
    step("spop", lambda: (r.sadd("one", "only"), r.spop("one"), r.spop("one")))
    step("zset", lambda: (
        r.zadd("z", {"a": 1, "b": 2.5, "c": float("inf")}), r.zadd("z", {"a": 3}, gt=True, ch=True), r.zincrby("z", 1, "b"),
        r.zscore("z", "b"), r.zmscore("z", ["a", "none"]), r.zrange("z", 0, -1, withscores=True), r.zrank("z", "b"),
        r.zrevrank("z", "b"), r.zcard("z"), r.zcount("z", "-inf", "(3.5"), r.zrangebyscore("z", 0, 10, start=0, num=1)))
    step("zset ranges", lambda: (
        r.zadd("lex", {m: 0 for m in "abcde"}), r.zrangebylex("lex", "[b", "(d"), r.zlexcount("lex", "-", "+"),
        r.zrange("lex", "[a", "[c", bylex=True), r.zrevrange("z", 0, 0, withscores=True), r.zrandmember("lex", 9).__len__(),
        r.zrangestore("lex-2", "lex", 0, 1), r.zremrangebylex("lex", "[a", "[b"), r.zrem("lex", "e")))
    step("zset pops", lambda: (r.zpopmin("z"), r.zpopmax("z", 1), r.zmpop(1, ["z"], min=True), r.zpopmin("z"), r.bzpopmin("z", 0.05)))
    step("zset algebra", lambda: (
        r.zadd("z1", {"a": 1, "b": 2}), r.zadd("z2", {"b": 3, "c": 4}), r.zunion(["z1", "z2"], withscores=True),
        r.zinter({"z1": 2, "z2": 1}, aggregate="MAX", withscores=True), r.zdiff(["z1", "z2"], withscores=True),
        r.zunionstore("z3", ["z1", "z2"]), r.zintercard(2, ["z1", "z2"])))
    step("hyperloglog", lambda: (r.pfadd("hll", *range(1000)), r.pfcount("hll"), r.pfmerge("hll-2", "hll"), r.pfcount("hll", "hll-2")))
    step("geo", lambda: (
        r.geoadd("geo", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania")), r.geodist("geo", "Palermo", "Catania", "km"),
        r.geohash("geo", "Palermo"), r.geopos("geo", "Palermo", "none"),
        r.geosearch("geo", longitude=15, latitude=37, radius=200, unit="km", withdist=True, withcoord=True, sort="ASC"),
        r.geosearchstore("geo-2", "geo", longitude=15, latitude=37, radius=100, unit="km")))
    step("georadius", lambda: (r.georadius("geo", 15, 37, 200, "km"), r.georadiusbymember("geo", "Palermo", 200, "km", store="geo-3")))
    step("sort", lambda: (
        r.rpush("unsorted", 3, 1, 2), r.sort("unsorted", desc=True), r.mset({"w_1": 9, "w_2": 5, "w_3": 7}),
        r.sort("unsorted", by="w_*", get=["#", "w_*"]), r.sort("unsorted", store="sorted"), r.lrange("sorted", 0, -1), r.sort_ro("unsorted", alpha=True)))


def streams(r):
    step("xadd xrange", lambda: ([r.xadd("st", {"n": n}, id=f"{n}-0") for n in range(1, 6)], r.xlen("st"), r.xrange("st", "2", "4"), r.xrevrange("st", count=1)))
    step("xadd options", lambda: (r.xadd("st", {"n": 6}, id="6-*", maxlen=5, approximate=False), r.xlen("st"), r.xadd("none", {"a": 1}, nomkstream=True)))
    step("xadd error", lambda: r.xadd("st", {"n": 0}, id="1-0"))
    step("xread", lambda: (r.xread({"st": "4-0"}, count=1), r.xread({"st": "$"}), r.xread({"st": "9-9"}, block=30)))
    step("xgroup", lambda: (r.xgroup_create("st", "g", id="0"), r.xgroup_createconsumer("st", "g", "idle"), r.xgroup_create("fresh", "g", mkstream=True)))
    step("xgroup busy", lambda: r.xgroup_create("st", "g"))
    step("xreadgroup", lambda: (r.xreadgroup("g", "c1", {"st": ">"}, count=3), r.xreadgroup("g", "c2", {"st": ">"}), r.xreadgroup("g", "c2", {"st": ">"}, block=30)))
    step("xpending", lambda: (r.xpending("st", "g"), [p["message_id"] for p in r.xpending_range("st", "g", "-", "+", 10)], r.xack("st", "g", "2-0")))
    step("xclaim", lambda: (r.xclaim("st", "g", "c2", 0, ["3-0"]), r.xautoclaim("st", "g", "c1", 0), r.xautoclaim("st", "g", "c1", 0, justid=True)))
    step("xinfo", lambda: (
        r.xinfo_groups("st"), [c["name"] for c in r.xinfo_consumers("st", "g")], fields(r.xinfo_stream("st"), ["length", "groups", "last-generated-id"])))
    step("xinfo full", lambda: sorted(map(str, r.xinfo_stream("st", full=True))))
    step("xtrim xdel", lambda: (r.xtrim("st", maxlen=2), r.xdel("st", "6-0"), r.execute_command("XSETID", "st", "9-0"), r.xgroup_delconsumer("st", "g", "c1"), r.xgroup_destroy("st", "g")))
    step("xreadgroup error", lambda: r.xreadgroup("none", "c", {"st": ">"}))


def pipelines(r):
    def plain_pipeline():
        with r.pipeline(transaction=False) as p:
            p.set("p", 1).incr("p").get("p").lpush("p", 1).get("none").hset("ph", "a", 1).hgetall("ph")
            return p.execute(raise_on_error=False)

    def transaction():
        with r.pipeline() as p:
            p.set("t", 1).incr("t").get("t").hset("th", mapping={"a": 1}).hgetall("th").zadd("tz", {"m": 1.5}).zrange("tz", 0, -1, withscores=True)
            return p.execute()

    def failing():
        with r.pipeline() as p:
            p.set("t", "word").incr("t").get("t")
            return p.execute(raise_on_error=False)

    def aborted():
        with r.pipeline() as p:
            p.set("t", 1).execute_command("GET")
            return p.execute()

    def conflict():
        with r.pipeline() as p:
            p.watch("watched")
            before = p.get("watched")
            r.incr("watched")
            p.multi()
            p.set("watched", 100)
            try:
                p.execute()
            except redis.WatchError as error:
                return before, str(error), r.get("watched")

    def unwatched():
        with r.pipeline() as p:
            p.watch("watched", "other")
            r.incr("watched")
            p.unwatch()
            p.multi()
            p.get("watched")
            return p.execute()

    def optimistic():
        tries = []

        def change(p):
            value = int(p.get("counter") or 0)
            tries.append(value)
            if len(tries) < 3:
                r.incr("counter")
            p.multi()
            p.set("counter", value + 100)
            p.get("counter")

        return r.transaction(change, "counter"), tries

    def many(transaction):
        with r.pipeline(transaction=transaction) as p:
            for n in range(5000):
                p.set(f"many:{n % 100}", n)
                p.get(f"many:{n % 100}")
            return plain([x.decode() if isinstance(x, bytes) else x for x in p.execute()]).__repr__()

    step("pipeline", plain_pipeline)
    step("transaction", transaction)
    step("transaction with an error", failing)
    step("transaction aborted", aborted)
    step("watch conflict", conflict)
    step("unwatch", unwatched)
    step("optimistic lock", optimistic)
    step("10,000 commands", lambda: many(False))
    step("10,000 commands in a transaction", lambda: many(True))
    step("multi by hand", lambda: conversation(
        r, ["MULTI"], ["MULTI"], ["WATCH", "k"], ["SET", "k"], ["DISCARD"], ["DISCARD"], ["EXEC"],
        ["MULTI"], ["PING"], ["SELECT", 2], ["BLPOP", "none", 0], ["SELECT", 0], ["EXEC"], ["WATCH"]))
    step("commands in multi", lambda: conversation(
        r, ["MULTI"], ["HELLO", 2], ["CLIENT", "SETNAME", "x"], ["CLIENT", "GETNAME"], ["SCAN", 0, "MATCH", "none*"], ["INFO", "nothing"],
        ["ECHO", "e"], ["ROLE"], ["EXEC"])[:7])


def scripts(r):
    def fallback():
        double = r.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1] * 2)")
        r.script_flush()
        return double(keys=["scripted"], args=[4]), double(keys=["scripted"], args=[5]), r.script_exists(double.sha, "0" * 40), double.sha

    def in_pipeline():
        script = r.register_script("return {KEYS[1], ARGV[1], redis.call('GET', KEYS[1])}")
        with r.pipeline() as p:
            p.set("sp", 1)
            script(keys=["sp"], args=["a"], client=p)
            return p.execute()

    step("eval", lambda: (r.eval("return {1, 'two', {3, false}, redis.status_reply('fine')}", 0), r.eval("return redis.call('GET', KEYS[1])", 1, "s")))
    step("eval types", lambda: r.eval("redis.setresp(3); return redis.call('HGETALL', KEYS[1])", 1, "h"))
    step("eval_ro", lambda: (r.eval_ro("return redis.call('GET', KEYS[1])", 1, "s"), r.eval_ro("return redis.call('STRLEN', KEYS[1])", 1, "s")))
    step("eval_ro write", lambda: r.eval_ro("return redis.call('SET', KEYS[1], 1)", 1, "s"))
    step("script error", lambda: r.eval("return redis.call('INCR', KEYS[1])", 1, "h"))
    step("script error reply", lambda: r.eval("return redis.error_reply('MY very own')", 0))
    step("script syntax", lambda: r.eval("this is no lua", 0))
    step("noscript", lambda: r.evalsha("f" * 40, 0))
    step("script load", lambda: (r.script_load("return 7"), r.evalsha(r.script_load("return 7"), 0), r.evalsha_ro(r.script_load("return 7"), 0)))
    step("register_script", fallback)
    step("script in a pipeline", in_pipeline)
    step("script kill", lambda: r.script_kill())
    library = "#!lua name=lib\nredis.register_function('put', function(k, a) return redis.call('SET', k[1], a[1]) end)\n" \
        "redis.register_function{function_name='see', callback=function(k) return redis.call('GET', k[1]) end, flags={'no-writes'}}"
    step("function load", lambda: (r.function_flush(), r.function_load(library), r.function_load(library, replace=True)))
    step("function load again", lambda: r.function_load(library))
    step("fcall", lambda: (r.fcall("put", 1, "fk", "fv"), r.fcall("see", 1, "fk"), r.fcall_ro("see", 1, "fk")))
    step("fcall_ro write", lambda: r.fcall_ro("put", 1, "fk", "x"))
    step("fcall unknown", lambda: r.fcall("nobody", 0))
    step("function list", lambda: (len(r.function_list()), r.function_dump().__len__() > 100, r.function_delete("lib"), r.function_list()))


def locks(r):
    def lock():
        first, second = r.lock("lock", timeout=10), r.lock("lock", timeout=10, blocking_timeout=0.05)
        seen = [first.acquire(), second.acquire(), first.locked(), first.owned(), first.extend(20), first.reacquire()]
        first.release()
        return seen + [second.acquire(), second.release(), r.exists("lock")]

    def stolen():
        lock = r.lock("lock", timeout=10)
        lock.acquire()
        r.set("lock", "another's")
        try:
            lock.release()
        finally:
            r.delete("lock")

    def expired():
        lock = r.lock("lock", timeout=0.02)
        lock.acquire()
        threading.Event().wait(0.05)
        lock.extend(10)

    def context():
        with r.lock("lock", timeout=5, blocking=True) as lock:
            return lock.locked()

    step("lock", lock)
    step("lock stolen", stolen)
    step("lock expired", expired)
    step("lock as a context", context)


def blocking(r, protocol):
    def pushed(wait, push):
        # The blocked one must be blocked before anything is pushed, else it would not have to wait.
        with client(protocol=protocol) as other:
            def later():
                threading.Event().wait(0.05)
                push(other)
            thread = threading.Thread(target=later)
            thread.start()
            try:
                return wait()
            finally:
                thread.join()

    step("blpop at once", lambda: (r.rpush("q", "a"), r.blpop(["q2", "q"], timeout=1)))
    step("blpop timeout", lambda: r.blpop("q", timeout=0.05))
    step("blpop pushed", lambda: pushed(lambda: r.blpop("q", timeout=5), lambda o: o.rpush("q", "later")))
    step("brpop", lambda: pushed(lambda: r.brpop(["q"], timeout=0), lambda o: o.rpush("q", "x", "y")))
    step("blmove", lambda: (r.delete("q"), pushed(lambda: r.blmove("q", "q2", 5), lambda o: o.rpush("q", "m")), r.lrange("q2", 0, -1)))
    step("blmpop", lambda: pushed(lambda: r.blmpop(5, 2, "q8", "q9", direction="LEFT", count=2), lambda o: o.rpush("q9", 1, 2, 3)))
    step("bzpopmax", lambda: pushed(lambda: r.bzpopmax("bz", 5), lambda o: o.zadd("bz", {"m": 1.5})))
    step("xread block", lambda: pushed(lambda: r.xread({"bst": "$"}, block=5000), lambda o: o.xadd("bst", {"a": 1}, id="1-1")))
    step("xreadgroup block", lambda: (
        r.xgroup_create("bst", "g", id="$"), pushed(lambda: r.xreadgroup("g", "c", {"bst": ">"}, block=5000), lambda o: o.xadd("bst", {"a": 2}, id="2-2"))))
    step("blpop wrong type", lambda: r.blpop("h", timeout=1))
    step("client unblock", lambda: unblock(protocol))


def unblock(protocol):
    with client(protocol=protocol, single_connection_client=True) as blocked, client(protocol=protocol) as other:
        ident = blocked.client_id()

        seen = []
        for error in (False, True):
            timer = threading.Timer(0.1, lambda: seen.append(other.client_unblock(ident, error=error)))
            timer.start()
            try:
                popped = blocked.blpop("never", timeout=1)
            except redis.RedisError as e:
                popped = e
            timer.join()
            seen.append(popped)
        return seen


def pubsub(protocol):
    def message(p, timeout=5):
        found = p.get_message(timeout=timeout)
        return found and [found["type"], found["pattern"], found["channel"], found["data"]]

    def subscribing():
        with client(protocol=protocol) as r, r.pubsub() as p:
            p.subscribe("a", "b")
            p.psubscribe("p.*")
            seen = [message(p) for _ in range(3)]
            with client(protocol=protocol) as other:
                seen.append([other.publish("a", "one"), other.publish("p.x", b"\xff"), other.publish("none", "x")])
                seen += [message(p), message(p), message(p, 0.05)]
                seen.append([sorted(other.pubsub_channels()), other.pubsub_numsub("a", "none"), other.pubsub_numpat()])
            p.unsubscribe("a")
            seen.append(message(p))
            p.ping("hi")
            seen.append(message(p))
            p.unsubscribe()
            p.punsubscribe()
            return seen + [message(p), message(p), p.subscribed]

    def sharded():
        with client(protocol=protocol) as r, r.pubsub() as p:
            p.ssubscribe("shard")
            seen = [message(p)]
            seen.append(r.execute_command("SPUBLISH", "shard", "s"))
            seen += [message(p), r.pubsub_shardchannels(), r.pubsub_shardnumsub("shard")]
            p.sunsubscribe("shard")
            return seen + [message(p)]

    def callbacks():
        heard = []
        with client(protocol=protocol) as r, r.pubsub(ignore_subscribe_messages=True) as p:
            p.subscribe(called=lambda m: heard.append(m["data"]))
            p.get_message(timeout=5)
            r.publish("called", "back")
            p.get_message(timeout=5)
            return heard

    def commands():
        with client(protocol=protocol) as r:
            connection = r.connection_pool.get_connection("_")
            connection.send_command("SUBSCRIBE", "c")
            seen = [connection.read_response(**pushes)]
            for command in (["GET", "s"], ["PING"], ["PING", "x"], ["MULTI"]):
                connection.send_command(*command)
                try:
                    seen.append(connection.read_response())
                except redis.RedisError as error:
                    seen.append(error)
            connection.disconnect()
            return seen

    def keyspace():
        with client(protocol=protocol) as r, r.pubsub() as p:
            before = r.config_get("notify-keyspace-events")
            p.psubscribe("__keyevent@0__:*")
            return before, message(p)

    def reset():
        with client(protocol=protocol) as r:
            asked = [["MULTI"], ["RESET"], ["SELECT", 3], ["CLIENT", "SETNAME", "x"], ["RESET"], ["GET", "s"]]
            # After RESET it speaks RESP2, in which null is something that a parser of RESP3 doesn't know.
            return conversation(r, *asked, *([["CLIENT", "GETNAME"]] if protocol == 2 else []))

    pushes = {"push_request": True} if protocol == 3 else {}
    step("subscribe", subscribing)
    step("ssubscribe", sharded)
    step("subscribe with a callback", callbacks)
    step("commands while subscribed", commands)
    step("keyspace events", keyspace)
    step("reset", reset)


def scans(r):
    def fill():
        with r.pipeline(transaction=False) as p:
            for n in range(1200):
                p.set(f"scan:{n}", n)
                p.hset("scan-hash", f"f{n}", n)
                p.sadd("scan-set", f"m{n}")
                p.zadd("scan-zset", {f"m{n}": n})
            return len(p.execute())

    def digest(items):
        items = sorted(items)
        return len(items), len(set(items)), hashlib.sha1(repr(items).encode()).hexdigest()

    step("fill", fill)
    step("scan_iter", lambda: digest(r.scan_iter("scan:*")))
    step("scan_iter count", lambda: digest(r.scan_iter("scan:1*", count=7)))
    step("scan_iter type", lambda: digest(r.scan_iter(_type="zset")))
    step("hscan_iter", lambda: digest(r.hscan_iter("scan-hash", count=50)))
    step("sscan_iter", lambda: digest(r.sscan_iter("scan-set", match="m1*")))
    step("zscan_iter", lambda: digest(r.zscan_iter("scan-zset", count=100)))
    step("scan one", lambda: (r.scan(0, match="none*", count=100_000), r.scan(0, count=100_000)[0]))
    step("scan errors", lambda: [attempt(r, *c) for c in (["SCAN", "x"], ["SCAN", 0, "COUNT", 0], ["SCAN", 0, "MATCH"], ["HSCAN", "s", 0], ["SCAN"])])
    step("dbsize flush", lambda: (r.dbsize() > 1200, conversation(r, ["SELECT", 8], ["SET", "x", 1], ["FLUSHDB"], ["DBSIZE"])))


def attempt(r, *command):
    try:
        return r.execute_command(*command)
    except redis.RedisError as error:
        return error


def server(r):
    names = ["redis_version", "redis_mode", "role", "connected_slaves", "loading", "maxmemory_policy", "rdb_bgsave_in_progress", "db9", "cluster_enabled"]
    step("info", lambda: fields(r.info(), names))
    step("info sections", lambda: [sorted(k for k in r.info(s) if "redweir" not in k) for s in ("server", "clients", "memory", "persistence", "stats", "cpu", "keyspace")])
    step("info several", lambda: sorted(k for k in r.info("server", "clients") if "redweir" not in k))
    step("info nothing", lambda: r.info("nosuchsection"))
    step("replication", lambda: (fields(r.info("replication"), ["role", "connected_slaves"]), r.role()[0], len(r.role()[2])))
    step("config get", lambda: (r.config_get("maxmemory-policy"), r.config_get("databases"), r.config_get("slave-read-only"), r.config_get("none")))
    step("config get several", lambda: sorted(r.config_get("timeout", "appendonly", "save").items()))
    step("time", lambda: abs(r.time()[0] - datetime.datetime.now().timestamp()) < 5)
    step("lastsave", lambda: r.lastsave() is not None)
    step("echo ping", lambda: (r.echo("hi"), r.ping(), r.execute_command("PING", "text")))
    step("command count", lambda: (r.command_count(), len(r.command())))
    step("command info", lambda: attempt(r, "COMMAND", "INFO", "get", "nosuch"))
    step("command getkeys", lambda: (r.command_getkeys("MSET", "a", 1, "b", 2), attempt(r, "COMMAND", "GETKEYS", "PING")))
    step("command list", lambda: len(r.command_list()))
    step("command docs", lambda: conversation(r, ["COMMAND", "DOCS", "get"]))
    step("memory", lambda: ("total.allocated" in {plain(k) for k in r.memory_stats()}, r.memory_purge()))
    step("latency", lambda: (r.execute_command("LATENCY", "LATEST"), r.execute_command("LATENCY", "HISTORY", "x"), r.execute_command("LATENCY", "RESET")))
    step("slowlog", lambda: (r.slowlog_len() >= 0, r.slowlog_reset()))
    step("wait", lambda: (r.set("waited", 1), r.wait(2, 5000)))
    step("wait for nobody", lambda: (r.set("waited", 1), r.wait(2, 5000), r.wait(0, 10)))
    step("waitaof", lambda: attempt(r, "WAITAOF", 0, 0, 10))
    step("acl", lambda: (r.acl_whoami(), r.acl_cat("scripting").__len__(), r.acl_list(), r.acl_users(), r.acl_genpass().__len__()))
    step("acl getuser", lambda: r.acl_getuser("app"))
    step("acl dryrun", lambda: (r.acl_dryrun("app", "GET", "app:1"), r.acl_dryrun("app", "GET", "other")))
    step("acl log", lambda: (r.acl_log_reset(), r.acl_log()))
    step("cluster", lambda: [attempt(r, "CLUSTER", c) for c in ("INFO", "SLOTS", "NODES", "MYID", "SHARDS")])
    step("cluster keyslot", lambda: attempt(r, "CLUSTER", "KEYSLOT", "a"))
    step("readonly", lambda: [attempt(r, c) for c in ("READONLY", "READWRITE", "ASKING")])
    step("sentinel", lambda: attempt(r, "SENTINEL", "MASTERS"))
    step("module list", lambda: r.module_list())
    step("swapdb", lambda: (r.execute_command("SWAPDB", 10, 11), attempt(r, "SWAPDB", 0, 99)))
    step("lolwut", lambda: b"Redis ver." in r.lolwut())


def errors(r):
    cases = [
        ["GET", "h"], ["LPUSH", "s", 1], ["INCR", "s"], ["HGETALL", "s"], ["GET"], ["GET", "a", "b"], ["SET", "a"], ["NOSUCH"], ["NOSUCH", "a", "b" * 200],
        ["CLIENT", "NOSUCH"], ["CONFIG", "NOSUCH"], ["CLIENT"], ["CONFIG", "GET"], ["OBJECT", "ENCODING"], ["SET", "a", 1, "EX", 0], ["SET", "a", 1, "NX", "XX"],
        ["SET", "a", 1, "EX", "x"], ["EXPIRE", "a", "x"], ["SELECT", "x"], ["SELECT", -1], ["ZADD", "z1", "x", "m"], ["LSET", "none", 0, 1], ["LINDEX", "l", "x"],
        ["GETRANGE", "s", "a", 1], ["SETBIT", "bits", -1, 1], ["BITFIELD", "bf", "GET", "u99", 0], ["XADD", "st", "*"], ["XREAD", "STREAMS", "st"],
        ["XREADGROUP", "GROUP", "g"], ["EVAL", "return 1"], ["EVAL", "return 1", "x"], ["EVAL", "return 1", 5, "a"], ["EVALSHA", "x", 0], ["FCALL", "x"],
        ["BLPOP", "q"], ["BLPOP", "q", "x"], ["BLPOP", "q", -1], ["AUTH"], ["AUTH", "x"], ["AUTH", "nobody", "x"], ["HELLO", 4], ["HELLO", "x"], ["HELLO", 3, "NOSUCH"],
        ["WAIT", "x", 1], ["WAIT", 1], ["SUBSCRIBE"], ["PUBLISH", "a"], ["EXEC"], ["DISCARD"], ["PING", "a", "b"], ["ECHO"], ["RENAME", "none", "x"],
        ["RESTORE", "r2", 0, "rubbish"], ["SORT", "h"], ["GEOADD", "geo", 200, 100, "x"], ["PFCOUNT", "s"], ["OBJECT", "FREQ", "s"], ["COMMAND", "NOSUCH"],
        ["CLIENT", "SETNAME", "with space"], ["CLIENT", "TRACKING", "MAYBE"], ["CLIENT", "CACHING", "YES"], ["CLIENT", "GETREDIR"], ["CLIENT", "TRACKINGINFO"],
        ["CLIENT", "KILL", "ID", "99999999"], ["CLIENT", "KILL", "1.2.3.4:5"], ["CLIENT", "UNBLOCK", "99999999"], ["CLIENT", "UNBLOCK", "x"],
        ["CLIENT", "LIST", "TYPE", "nosuch"], ["CLIENT", "LIST", "ID", "x"], ["CLIENT", "SETINFO", "nosuch", "x"], ["CLIENT", "REPLY", "MAYBE"], ["CLIENT", "NO-EVICT", "MAYBE"],
        ["MSET", "a"], ["MSET", "a", 1, "b"], ["HSET", "h", "a"], ["LMPOP", 0, "l", "LEFT"], ["SINTERCARD", 0, "a"], ["FUNCTION", "LOAD", "x"], ["FUNCTION", "NOSUCH"],
        ["SCRIPT", "NOSUCH"], ["SCRIPT", "EXISTS"], ["XGROUP", "CREATE", "none", "g", "$"], ["XINFO", "STREAM", "none"], ["MEMORY", "NOSUCH"], ["ACL", "WHOAMI", "x"],
        ["ACL", "GETUSER", "nobody"], ["LATENCY", "NOSUCH"], ["PUBSUB", "NOSUCH"], ["MONITOR", "x"], ["QUIT", "x"], ["RESET", "x"], ["TIME", "x"], ["ROLE", "x"], ["DBSIZE", "x"],
        ["COPY", "s", "s9", "DB", 99], ["MOVE", "s", 99], ["INFO", "a", "b"], ["KEYS"], ["SPUBLISH", "a"], ["GETEX", "s", "NOSUCH"], ["OBJECT", "NOSUCH", "s"], ["", "x"], ["GET\r\n", "x"],
    ]
    for case in cases:
        text = " ".join(map(str, case))[:60]
        step(f"error {text}", lambda: conversation(r, case))


def authentication(protocol):
    def with_user(port, user, password, do):
        with client(port, protocol=protocol, username=user, password=password, single_connection_client=True) as r:
            return do(r)

    step("user", lambda: with_user(PORT, "app", "secret", lambda r: (r.acl_whoami(), r.set("app:1", 1), r.get("app:1"), fields(r.client_info(), ["user"]))))
    step("user without the right", lambda: with_user(PORT, "app", "secret", lambda r: [attempt(r, *c) for c in (
        ["GET", "other"], ["SET", "other", 1], ["FLUSHALL"], ["MGET", "app:1", "other"], ["PUBLISH", "other", "x"], ["EVAL", "return redis.call('GET','other')", 0])]))
    step("user subscribes", lambda: with_user(PORT, "app", "secret", lambda r: attempt(r, "SUBSCRIBE", "other")))
    step("user in a transaction", lambda: with_user(PORT, "app", "secret", lambda r: r.pipeline().set("app:2", 2).get("app:2").execute()))
    step("user with the wrong password", lambda: with_user(PORT, "app", "wrong", lambda r: r.ping()))
    step("unknown user", lambda: with_user(PORT, "nobody", "x", lambda r: r.ping()))
    step("password not asked for", lambda: with_user(PORT, None, "secret", lambda r: r.ping()))
    step("password", lambda: with_user(PASSWORD_PORT, None, "hunter2", lambda r: (r.acl_whoami(), r.set("pw", 1), r.get("pw"), r.blpop("none", 0.02), r.pipeline().get("pw").execute())))
    step("no password", lambda: with_user(PASSWORD_PORT, None, None, lambda r: r.get("pw")))
    step("wrong password", lambda: with_user(PASSWORD_PORT, None, "wrong", lambda r: r.get("pw")))

    def bare():
        return redis.Redis(host="127.0.0.1", port=PASSWORD_PORT, lib_name=None, lib_version=None, protocol=2, socket_timeout=8)

    def unauthenticated():
        with bare() as r:
            return conversation(
                r, ["GET", "x"], ["PING"], ["NOSUCH"], ["GET"], ["HELLO"], ["HELLO", 3], ["MULTI"], ["SUBSCRIBE", "x"], ["CLIENT", "ID"],
                ["COMMAND"], ["INFO"], ["SELECT", 1], ["CLIENT", "SETNAME", "x"], ["CLIENT", "NOSUCH"], ["RESET"], ["AUTH", "default", "hunter2"], ["GET", "x"])

    def hello_auth():
        with bare() as r:
            seen = conversation(
                r, ["HELLO", 2, "AUTH", "default", "wrong"], ["GET", "x"], ["HELLO", 2, "AUTH", "default", "hunter2", "SETNAME", "n"],
                ["CLIENT", "GETNAME"], ["GET", "x"])
            del seen[2][seen[2].index(b"id") + 1]
            return seen

    step("unauthenticated", unauthenticated)
    step("hello auth", hello_auth)


def tracking():
    def cached():
        with client(protocol=3, cache_config=CacheConfig()) as r:
            return r.get("s")

    def pushes():
        with client(protocol=3) as r:
            connection = r.connection_pool.get_connection("_")

            def do(*command):
                connection.send_command(*command)
                return connection.read_response()

            seen = [do("CLIENT", "TRACKING", "ON"), do("SET", "tracked", 1), do("GET", "tracked")]
            r.set("tracked", 2)
            seen.append(connection.read_response(push_request=True))
            seen += [do("GET", "tracked"), do("CLIENT", "TRACKINGINFO"), do("CLIENT", "GETREDIR"), do("CLIENT", "TRACKING", "OFF")]
            seen += [do("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "tr", "NOLOOP")]
            r.set("track", 1)
            seen.append(connection.read_response(push_request=True))
            connection.disconnect()
            return seen

    def optin():
        with client(protocol=3) as r:
            connection = r.connection_pool.get_connection("_")
            seen = []
            for command in (["CLIENT", "TRACKING", "ON", "OPTIN"], ["CLIENT", "CACHING", "YES"], ["GET", "tracked"]):
                connection.send_command(*command)
                seen.append(connection.read_response())
            r.set("tracked", 3)
            seen.append(connection.read_response(push_request=True))
            connection.disconnect()
            return seen

    step("client-side cache", cached)
    step("tracking", pushes)
    step("tracking opt-in", optin)


def monitoring(protocol):
    def monitor():
        with client(protocol=protocol) as r, client(protocol=protocol) as other, r.monitor() as m:
            other.set("monitored", 1)
            while True:
                command = m.next_command()["command"]
                if "monitored" in command:
                    return command

    step("monitor", monitor)


def reconnecting(protocol):
    def killed():
        with client(protocol=protocol) as r, client(protocol=protocol, client_name="victim", single_connection_client=True) as victim:
            ident = victim.client_id()
            seen = [r.client_kill_filter(_id=ident)]
            return seen + [victim.ping(), victim.client_id() != ident, victim.client_getname()]

    def killed_by_address():
        with client(protocol=protocol) as r, client(protocol=protocol, single_connection_client=True) as victim:
            return r.client_kill(victim.client_info()["addr"]), victim.ping()

    def killed_while_subscribed():
        with client(protocol=protocol) as r, r.pubsub() as p:
            p.subscribe("again")
            p.get_message(timeout=5)
            seen = [r.client_kill_filter(_type="pubsub")]
            seen.append((p.get_message(timeout=5) or {}).get("type"))
            r.publish("again", "x")
            return seen + [(p.get_message(timeout=5) or {}).get("data")]

    def quits():
        with client(protocol=protocol, single_connection_client=True) as r:
            return r.execute_command("QUIT"), r.ping()

    step("client kill", killed)
    step("client kill by address", killed_by_address)
    step("client kill while subscribed", killed_while_subscribed)
    step("quit", quits)


def threads(protocol):
    def work():
        pool = redis.BlockingConnectionPool(host="127.0.0.1", port=PORT, protocol=protocol, max_connections=4, timeout=8)
        r, wrong = redis.Redis(connection_pool=pool), []

        def one(n):
            for turn in range(40):
                r.set(f"thread:{n}", turn)
                if int(r.get(f"thread:{n}")) != turn:
                    wrong.append((n, turn))
                r.incr("thread:all")

        workers = [threading.Thread(target=one, args=(n,)) for n in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        total = r.get("thread:all")
        r.delete("thread:all")
        pool.disconnect()
        return total, wrong

    step("threads", work)


def asynchronous(protocol):
    async def work():
        r = redis.asyncio.Redis(host="127.0.0.1", port=PORT, protocol=protocol, client_name="async", socket_timeout=8)
        seen = [await r.set("async", 1), await r.get("async"), await r.client_getname()]
        seen.append(sorted(await asyncio.gather(*(r.incr("async:n") for _ in range(50)))))
        async with r.pipeline(transaction=True) as p:
            seen.append(await p.set("async", 5).get("async").execute())
        async with r.lock("async:lock", timeout=5):
            seen.append(await r.exists("async:lock"))
        async with r.pubsub() as p:
            await p.subscribe("async")
            seen.append((await p.get_message(timeout=5))["type"])
            await r.publish("async", "m")
            seen.append((await p.get_message(timeout=5))["data"])
            await p.unsubscribe("async")
        popped = asyncio.create_task(r.blpop("async:q", timeout=5))
        await asyncio.sleep(0.05)
        seen.append(await r.rpush("async:q", "x"))
        seen.append(await popped)
        seen.append(len([k async for k in r.scan_iter("scan:*", count=100)]))

        async def change(p):
            value = int(await p.get("async"))
            p.multi()
            p.set("async", value + 1)

        seen.append(await r.transaction(change, "async"))
        await r.delete("async:n")
        await r.aclose()
        return seen

    step("asyncio", lambda: asyncio.run(work()))


def cached_reads(r):
    """Reads of what was written a while ago: these are for replicas."""
    for turn in range(100):
        r.set(f"old:{turn}", turn)
    threading.Event().wait(0.3)
    step("reads of old keys", lambda: [r.get(f"old:{n % 100}") for n in range(300)])
    step("writes and reads", lambda: [(r.set("wr", n), r.get("wr")) for n in range(200)])


def main():
    global PREFIX
    for protocol in (2, 3):
        PREFIX = f"resp{protocol} "
        with contextlib.closing(client(protocol=protocol)) as r:
            r.flushall()
            connecting(protocol)
            strings(r)
            keys(r)
            collections(r)
            streams(r)
            pipelines(r)
            scripts(r)
            locks(r)
            blocking(r, protocol)
            pubsub(protocol)
            scans(r)
            server(r)
            errors(r)
            authentication(protocol)
            if protocol == 3:
                tracking()
            monitoring(protocol)
            reconnecting(protocol)
            threads(protocol)
            asynchronous(protocol)
            cached_reads(r)
            step("end", lambda: (r.flushdb(), r.dbsize()))


main()
