// A program in another language that shares sessions with sessions_sticky; written from docs/interchange.md alone.
// Node 18 or newer, no packages.
//
//   node sessions.mjs vectors FILE     check this program against docs/vectors.json
//   node sessions.mjs serve ADDRESS    take commands on stdin, a JSON object a line, and answer each with a line of JSON;
//                                      ADDRESS is HOST:PORT, or the path of a unix socket

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createConnection } from "node:net";
import { createInterface } from "node:readline";

const TEXTS = ["id", "provider", "model", "external_id"];
const INT64 = 2n ** 63n;

const sessionKey = (id) => `sentinel:session:${id}`;
const deletedKey = (id) => `sentinel:deleted:${id}`;

function mayName(id) {
  const length = [...id].length; // code points
  return length >= 1 && length <= 256 && !/[\p{Cc}\p{Surrogate}]/u.test(id);
}

/** Encode a session, whose created_at is a BigInt. JSON.stringify escapes as serde_json does. */
function encode(session) {
  const texts = TEXTS.map((name) => `"${name}":${JSON.stringify(session[name])}`);
  return `{${texts.join(",")},"created_at":${session.created_at}}`;
}

/** Decode the value of the key of `id`; null if it is not a session. */
function decode(id, bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    JSON.parse(text);
    // Numbers go by their digits: a double would lose those of an int64.
    const number = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
    const found = JSON.parse(text.replace(number, (token) => (token[0] === '"' ? token : `{"number":"${token}"}`)));
    const digits = found.created_at.number;
    const fits = /^-?\d+$/.test(digits) && BigInt(digits) >= -INT64 && BigInt(digits) < INT64;
    const isText = (value) => typeof value === "string" && !/\p{Surrogate}/u.test(value);
    if (!fits || found.id !== id || !TEXTS.every((name) => isText(found[name]))) return null;
    return { ...Object.fromEntries(TEXTS.map((name) => [name, found[name]])), created_at: BigInt(digits) };
  } catch {
    return null;
  }
}

function rendezvous(id, weights) {
  const score = ([name, weight]) => {
    const digest = createHash("sha256").update(`${name}\0${id}`).digest();
    const h = Number(digest.readBigUInt64BE() >> 12n);
    return -weight / Math.log((h + 0.5) / 2 ** 52);
  };
  const ranked = Object.entries(weights).filter(([, weight]) => weight > 0);
  const byName = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)); // UTF-8 sorts as code points do
  return ranked.map((entry) => [score(entry), entry[0]]).sort((a, b) => b[0] - a[0] || byName(a[1], b[1])).map((pair) => pair[1]);
}

/** A connection that speaks RESP2: `call` sends one command; replies are Buffer, null, BigInt, array or Error. */
class Redis {
  constructor(address) {
    const [, host, port] = address.match(/^([\d.]+):(\d+)$/) ?? [];
    this.socket = port ? createConnection(Number(port), host) : createConnection(address);
    this.socket.on("data", (data) => this.take(data));
    this.pending = Buffer.alloc(0);
    this.waiting = [];
  }

  call(...args) {
    const parts = args.map((arg) => Buffer.from(String(arg)));
    const chunks = parts.flatMap((part) => [Buffer.from(`$${part.length}\r\n`), part, Buffer.from("\r\n")]);
    this.socket.write(Buffer.concat([Buffer.from(`*${parts.length}\r\n`), ...chunks]));
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }

  take(data) {
    this.pending = Buffer.concat([this.pending, data]);
    for (let reply; (reply = this.parse(0)); ) {
      this.pending = this.pending.subarray(reply.end);
      const { resolve, reject } = this.waiting.shift();
      (reply.value instanceof Error ? reject : resolve)(reply.value);
    }
  }

  parse(start) {
    const line = this.pending.indexOf("\r\n", start);
    if (line < 0) return null;
    const [kind, rest, next] = [this.pending.toString("latin1", start, start + 1), this.pending.toString("utf8", start + 1, line), line + 2];
    if (kind === "+") return { value: rest, end: next };
    if (kind === "-") return { value: new Error(rest), end: next };
    if (kind === ":") return { value: BigInt(rest), end: next };
    const size = Number(rest);
    if (size < 0) return { value: null, end: next };
    if (kind === "$") {
      const end = next + size + 2;
      return this.pending.length < end ? null : { value: this.pending.subarray(next, next + size), end };
    }
    const items = [];
    let end = next;
    while (items.length < size) {
      const item = this.parse(end);
      if (!item) return null;
      items.push(item.value);
      end = item.end;
    }
    return { value: items, end };
  }
}

/** What docs/interchange.md says under "Who may write what". */
const ACTIONS = {
  async bind(redis, { session, ttl }) {
    const key = sessionKey(session.id);
    const found = await redis.call("SET", key, encode(session), "EX", ttl, "NX", "GET");
    return found === null ? session : decode(session.id, found);
  },
  async use(redis, { id, ttl }) {
    return decode(id, await redis.call("GETEX", sessionKey(id), "EX", ttl));
  },
  async look(redis, { id }) {
    return decode(id, await redis.call("GET", sessionKey(id)));
  },
  async move(redis, { session, to }) {
    const key = sessionKey(session.id);
    await redis.call("WATCH", key);
    const found = decode(session.id, await redis.call("GET", key));
    if (found === null || encode(found) !== encode(session)) {
      await redis.call("UNWATCH");
      return false;
    }
    await redis.call("MULTI");
    await redis.call("SET", key, encode({ ...session, ...to }), "KEEPTTL");
    return (await redis.call("EXEC")) !== null;
  },
  async unbind(redis, { id, ttl }) {
    await redis.call("SET", deletedKey(id), 1, "EX", ttl);
    return (await redis.call("DEL", sessionKey(id))) === 1n;
  },
  /** As programs did before GETEX and SET EX: three commands, two of which leave the key without a TTL between them. */
  async write_plainly(redis, { session, ttl }) {
    await redis.call("SET", sessionKey(session.id), encode(session));
    return (await redis.call("EXPIRE", sessionKey(session.id), ttl)) === 1n;
  },
};

async function serve(address) {
  const redis = new Redis(address);
  const toText = (_, value) => (typeof value === "bigint" ? String(value) : value);
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    if (command.session) command.session.created_at = BigInt(command.session.created_at);
    process.stdout.write(`${JSON.stringify(await ACTIONS[command.do](redis, command), toText)}\n`);
  }
  redis.socket.end();
}

function checkVectors(path) {
  const vectors = JSON.parse(readFileSync(path, "utf8"));
  const bytes = (vector) => ("hex" in vector ? Buffer.from(vector.hex, "hex") : Buffer.from(vector.json));
  const read = ({ session }) => ({ ...session, created_at: BigInt(session.created_at) });
  const decoded = (id, vector) => encode(decode(id, bytes(vector)) ?? {});
  const checks = {
    keys: (v) => mayName(v.id) && sessionKey(v.id) === v.key && deletedKey(v.id) === v.deleted_key,
    refused_ids: (v) => !mayName(v.id),
    sessions: (v) => encode(read(v)) === v.json && decoded(v.session.id, v) === v.json,
    accepted: (v) => decoded("conv-123", v) === encode(read(v)),
    refused: (v) => decode("conv-123", bytes(v)) === null,
    rendezvous: (v) => rendezvous(v.id, v.weights).join("\0") === v.ranking.join("\0"),
  };
  const { about, ...families } = vectors;
  const failed = Object.entries(families).flatMap(([name, cases]) => cases.filter((v) => !checks[name](v)).map((v) => [name, v]));
  for (const [name, vector] of failed) console.error(`${name}: ${JSON.stringify(vector)}`);
  console.log(`${Object.values(families).flat().length} vectors, ${failed.length} failed`);
  process.exitCode = failed.length ? 1 : 0;
}

const [, , mode, argument] = process.argv;
await (mode === "vectors" ? checkVectors(argument) : serve(argument));
