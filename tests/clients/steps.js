// What the scripts for Node have in common: how a step is told, and the ordinary commands, one connection each time.
"use strict";

const { createHash } = require("node:crypto");

const long = (text, unit) => `${text.length} ${unit} ${createHash("sha1").update(text).digest("hex")}`;

/** A reply as JSON; long ones by their length and digest, sets in order. */
function plain(value) {
  if (value === undefined) return "(undefined)";
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  if (typeof value === "bigint") return `${value}n`;
  if (Buffer.isBuffer(value)) return value.length > 400 ? long(value, "bytes") : value.toString("latin1");
  if (typeof value === "string") return value.length > 2000 ? long(value, "characters") : value;
  if (value instanceof Error) return explain(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Set) return [...value].map(plain).sort();
  if (value instanceof Map) return [...value].map(([k, v]) => [plain(k), plain(v)]);
  if (value && typeof value === "object") return Object.entries(value).map(([k, v]) => [k, plain(v)]);
  return value;
}

function explain(error) {
  const text = String(error.message).replace(/127\.0\.0\.1:\d+/g, "ADDRESS");
  // An error of a transaction holds its commands' own.
  const within = [error.replies, error.previousErrors].filter(Array.isArray).map((all) => ` ${JSON.stringify(all.map(plain))}`);
  return `${error.name}: ${text}${within.join("")}`;
}

let prefix = "";
const within = 8000;

/** Runs a step and prints what it came to; one that hangs is told as such. */
async function step(name, run) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer")), within);
  });
  const line = { step: prefix + name };
  try {
    line.result = plain(await Promise.race([run(), late]));
  } catch (error) {
    line.error = explain(error);
  }
  clearTimeout(timer);
  process.stdout.write(JSON.stringify(line) + "\n");
}

/** What a promise came to, errors as values. */
const settled = (promise) => promise.then((value) => value, (error) => error);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Commands whose replies show how a client reads every kind of them. */
const ORDINARY = `
SET s v|GET s|GET none|SETNX s 1|SET s w GET|SET s 5 EX 100|TTL s|PERSIST s|GETEX s PX 100000|GETDEL s
MSET a 1 b 2|MGET a none b|MSETNX a 1 c 1|INCR n|INCRBY n 5|DECRBY n 2|INCRBYFLOAT f 0.5|APPEND t abc|GETRANGE t 1 2|SETRANGE t 1 ZZ|STRLEN t
SET l1 ohmytext|SET l2 mynewtext|LCS l1 l2|LCS l1 l2 LEN|LCS l1 l2 IDX
SETBIT bits 7 1|GETBIT bits 7|BITCOUNT bits|BITPOS bits 1|BITOP NOT nots bits|BITFIELD bf SET u8 0 200 INCRBY u8 0 10 GET u4 0|BITFIELD_RO bf GET u8 0
EXPIRE t 100|PEXPIRE t 100000|EXPIREAT t 4000000000|EXPIRETIME t|EXISTS t none|TYPE t|RENAME t t2|COPY t2 t3|UNLINK t3|DEL t2 none|TOUCH a b
OBJECT ENCODING a|OBJECT REFCOUNT l1|OBJECT ENCODING none|MEMORY USAGE none
HSET h x 1 y 2|HGET h x|HGETALL h|HMGET h x none|HINCRBY h x 5|HINCRBYFLOAT h y 0.25|HEXISTS h x|HLEN h|HKEYS h|HVALS h|HSETNX h x 1|HDEL h x none|HRANDFIELD h 5 WITHVALUES|HGETALL none
RPUSH l 1 2 3 4 5|LPUSH l 0|LRANGE l 0 -1|LINDEX l 0|LPOP l|RPOP l 2|LLEN l|LINSERT l BEFORE 2 y|LSET l 0 z|LREM l 0 y|LPOS l 3|LMOVE l l2 LEFT RIGHT|LMPOP 2 none l2 LEFT|LPOP none
SADD set 1|SISMEMBER set 1|SMISMEMBER set 1 2|SCARD set|SMEMBERS set|SADD set2 1 9|SINTER set set2|SINTERCARD 2 set set2|SMOVE set2 set 9|SREM set 9|SPOP set2|SPOP none
ZADD z 1 a 2.5 b inf c|ZSCORE z b|ZSCORE z none|ZMSCORE z a none|ZINCRBY z 1 b|ZRANGE z 0 -1|ZRANGE z 0 -1 WITHSCORES|ZRANGEBYSCORE z 0 10 LIMIT 0 1|ZRANK z b|ZCARD z|ZCOUNT z -inf (3.5|ZREVRANGE z 0 0 WITHSCORES
ZADD lex 0 a 0 b 0 c|ZRANGEBYLEX lex [b +|ZLEXCOUNT lex - +|ZUNION 2 z lex WITHSCORES|ZINTER 2 z lex|ZDIFF 2 lex z|ZRANGESTORE lex2 lex 0 1|ZPOPMIN z|ZPOPMAX z 1|ZMPOP 1 z MIN|ZPOPMIN none|BZPOPMIN z 0.02
PFADD hll a b c|PFCOUNT hll|PFMERGE hll2 hll|PFCOUNT hll hll2
GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania|GEODIST geo Palermo Catania km|GEOHASH geo Palermo|GEOPOS geo Palermo none|GEOSEARCH geo FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHDIST WITHCOORD|GEORADIUS geo 15 37 200 km
RPUSH un 3 1 2|SORT un|SORT un DESC STORE so|SORT_RO un|SORT un BY w_* GET #
XADD st 1-0 n 1|XADD st 2-0 n 2|XADD st 3-0 n 3|XLEN st|XRANGE st - +|XREVRANGE st + - COUNT 1|XREAD COUNT 1 STREAMS st 0|XREAD STREAMS st $|XREAD BLOCK 20 STREAMS st $|XADD st 1-0 n 0
XGROUP CREATE st g 0|XGROUP CREATE st g 0|XREADGROUP GROUP g c COUNT 2 STREAMS st >|XREADGROUP GROUP g d STREAMS st >|XPENDING st g|XACK st g 1-0|XCLAIM st g d 0 2-0|XAUTOCLAIM st g c 0 0|XINFO GROUPS st|XTRIM st MAXLEN 1|XDEL st 3-0|XGROUP DESTROY st g
EVAL return{1,'two',{3,false}} 0|EVAL return{KEYS[1],ARGV[1]} 1 k v|EVAL_RO return(redis.call('GET',KEYS[1])) 1 a|EVALSHA ffffffffffffffffffffffffffffffffffffffff 0|EVAL redis.setresp(3)return(redis.call('HGETALL',KEYS[1])) 1 h
CONFIG GET maxmemory-policy|CONFIG GET none|COMMAND COUNT|COMMAND INFO get nosuch|COMMAND GETKEYS MSET a 1 b 2|CLUSTER INFO|CLUSTER SLOTS|CLUSTER NODES|READONLY|SENTINEL MASTERS|MODULE LIST
ECHO hi|PING|PING hi|DBSIZE|WAIT 2 2000|ACL WHOAMI|ACL GETUSER app|SLOWLOG RESET|SWAPDB 10 11|LATENCY LATEST|FUNCTION STATS|FUNCTION LIST|PUBSUB CHANNELS none*|PUBSUB NUMSUB none|PUBSUB NUMPAT|PUBLISH none x
GET h|LPUSH a 1|INCR h|GET|GET a b|SET a|NOSUCH x|CLIENT NOSUCH|CONFIG NOSUCH|CONFIG GET|SET a 1 EX 0|SET a 1 NX XX|EXPIRE a x|SELECT x|ZADD z x m|LSET none 0 1|GETRANGE a x 1|BITFIELD bf GET u99 0|XADD st *|EVAL return 1|BLPOP q|BLPOP q x
AUTH x|AUTH nobody x|HELLO 9|HELLO x|WAIT x 1|EXEC|DISCARD|ECHO|RENAME none x|RESTORE r 0 rubbish|OBJECT FREQ a|COMMAND NOSUCH|CLIENT SETNAME a\u00e9b|CLIENT TRACKING MAYBE|CLIENT CACHING YES|CLIENT GETREDIR|CLIENT TRACKINGINFO|CLIENT REPLY MAYBE|LMPOP 0 l LEFT|FUNCTION LOAD x
`;

/** Every ordinary command as a step of its own; `call` takes the words. */
async function ordinary(call) {
  for (const command of ORDINARY.trim().split(/[\n|]/)) {
    await step(command, () => call(...command.split(" ")));
  }
}

/** Runs a script for each protocol, against the ports of the command line. */
async function main(everything) {
  const [port, guarded] = process.argv.slice(2).map(Number);
  for (const protocol of [2, 3]) {
    prefix = `resp${protocol} `;
    await everything(protocol, port, guarded);
  }
  process.exit(0);
}

module.exports = { main, ordinary, plain, settled, sleep, step };
