'use strict';
// Runs JavaScript functions for the process driver: in Node.js, Bun and Deno. The channel's protocol is
// described in package frame; what user code sees is the open runtimes' contract.

const { AsyncLocalStorage } = require('async_hooks');
const { createRequire } = require('module');
const { pathToFileURL } = require('url');
const fs = require('fs');
const net = require('net');
const path = require('path');

const [CALL, HEAD, DATA, WINDOW, RESET, LOG, READY, BIND, BOUND] = [1, 2, 3, 4, 5, 6, 7, 8, 9];
const END = 1;
const CREDIT = 256 << 10;
const PIECE = 64 << 10; // body bytes in one frame
const LOG_BATCH = 32 << 10;
const LOG_QUEUE = 8 << 20; // characters of logs waiting to be sent; more are dropped
const LINE_LIMIT = 8000;
const BODY_LIMIT = 20 << 20; // of a request
const NONE = Buffer.alloc(0);
const { Bun, Deno } = globalThis;

// What tells this program's calls apart in the console and in stray errors.
const current = new AsyncLocalStorage();
const calls = new Map();

// ---- the channel ----

let socket;
let out = []; // frames to be written at the end of this tick
let scheduled = false;
let pendingLog = null; // log lines of one call and stream, not yet a frame
let queuedLog = 0; // characters logged since the last flush
let dropping = 0; // the call that was told that lines of it are dropped

function frame(id, type, flags, payload) {
  flushLog();
  const b = Buffer.allocUnsafe(10 + payload.length);
  header(b, id, type, flags);
  payload.copy(b, 10);
  enqueue(b);
}

function headFrame(id, flags, head, body) {
  flushLog();
  const n = Buffer.byteLength(head);
  if (n > 0xffff) throw new RangeError('Response headers are too large.');
  const b = Buffer.allocUnsafe(12 + n + body.length);
  header(b, id, HEAD, flags);
  b.writeUInt16LE(n, 10);
  b.write(head, 12, n, 'utf8');
  if (body.length > 0) body.copy(b, 12 + n);
  enqueue(b);
}

function header(b, id, type, flags) {
  b.writeUInt32LE(b.length - 4, 0);
  b.writeUInt32LE(id, 4);
  b[8] = type;
  b[9] = flags;
}

function logFrame(id, stream, text) {
  if (queuedLog > LOG_QUEUE || socket.writableLength > LOG_QUEUE) {
    if (dropping === id) return;
    dropping = id;
    text = 'Log lines were dropped: they came faster than they could be sent.\n';
  }
  queuedLog += text.length;
  if (pendingLog && pendingLog.id === id && pendingLog.stream === stream && pendingLog.text.length < LOG_BATCH) {
    pendingLog.text += text;
    return;
  }
  flushLog();
  pendingLog = { id, stream, text };
  schedule();
}

function flushLog() {
  if (!pendingLog) return;
  const { id, stream, text } = pendingLog;
  pendingLog = null;
  const n = Buffer.byteLength(text);
  const b = Buffer.allocUnsafe(11 + n);
  header(b, id, LOG, 0);
  b[10] = stream;
  b.write(text, 11, n, 'utf8');
  enqueue(b);
}

function enqueue(b) {
  out.push(b);
  schedule();
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  process.nextTick(flush);
}

function flush() {
  scheduled = false;
  flushLog();
  const frames = out;
  out = [];
  queuedLog = 0;
  dropping = 0;
  if (frames.length > 0) socket.write(frames.length === 1 ? frames[0] : Buffer.concat(frames));
}

let partial = NONE; // the beginning of a frame

function onBytes(n, buffer) {
  let b = buffer.subarray(0, n);
  if (partial.length > 0) b = Buffer.concat([partial, b]);
  let at = 0;
  while (b.length - at >= 10) {
    const end = at + 4 + b.readUInt32LE(at);
    if (b.length < end) break;
    onFrame(b.readUInt32LE(at + 4), b[at + 8], b[at + 9], b.subarray(at + 10, end));
    at = end;
  }
  // The buffer is used again for the next read.
  partial = at < b.length ? Buffer.from(b.subarray(at)) : NONE;
  return true;
}

function onFrame(id, type, flags, payload) {
  if (type === CALL) return onCall(id, flags, payload);
  if (type === BIND) return bind(JSON.parse(payload.toString()));
  const call = calls.get(id);
  if (!call) return; // late
  if (type === DATA) onData(call, flags, payload);
  else if (type === RESET) drop(call);
  else if (type === WINDOW) {
    call.credit += payload.readUInt32LE(0);
    call.wake();
  }
}

async function connect() {
  socket = Bun ? await bunSocket() : netSocket();
  process.on('exit', flush); // the system takes it at once if there is room
  if (process.env.FNKIT_REHEARSE) await rehearse().catch(ignore);
  const version = Bun?.version ?? Deno?.version.deno ?? process.versions.node;
  frame(0, READY, 0, Buffer.from(JSON.stringify({ protocol: 1, version })));
}

function gone() {
  process.reallyExit(0);
}

function netSocket() {
  const onread = { buffer: Buffer.allocUnsafe(256 << 10), callback: onBytes };
  const s = new net.Socket({ fd: 3, readable: true, writable: true, onread: Deno ? undefined : onread });
  if (Deno) s.on('data', (b) => onBytes(b.length, b));
  return s.on('end', gone).on('close', gone).on('error', gone);
}

// bunSocket adopts the descriptor, which Bun's net.Socket does not.
async function bunSocket() {
  const waiting = []; // what the system has not taken yet
  const s = { write, writableLength: 0 };
  const raw = await Bun.connect({
    fd: 3,
    socket: { data: (_, b) => onBytes(b.length, b), drain, end: gone, close: gone, error: gone },
  });
  function write(b) {
    if (waiting.length === 0) b = b.subarray(Math.max(0, raw.write(b)));
    if (b.length === 0) return;
    waiting.push(b);
    s.writableLength += b.length;
  }
  function drain() {
    while (waiting.length > 0) {
      const n = Math.max(0, raw.write(waiting[0]));
      s.writableLength -= n;
      if (n < waiting[0].length) {
        waiting[0] = waiting[0].subarray(n);
        return;
      }
      waiting.shift();
    }
  }
  return s;
}

// rehearse runs functions of its own, of which nothing is sent, so that the first
// call is not the one to wait for what is slow the first time.
async function rehearse() {
  const home = process.cwd();
  const dir = fs.mkdtempSync(path.join(process.env.TMPDIR, 'rehearsal-'));
  const file = path.join(dir, 'index.js');
  scheduled = true;
  try {
    fs.writeFileSync(file, "module.exports = async ({req, res, log}) => { log('a'); console.log('b'); return res.json({a: req.bodyJson}); };");
    fs.writeFileSync(path.join(dir, 'index.mjs'), 'export default 1;');
    process.chdir(dir);
    const code = JSON.stringify({ root: dir, entrypoint: 'index.js', env: process.env });
    for (let i = 0; i < 3; i++) {
      receive(0, BIND, 0, code);
      await loading;
      delete require.cache[file];
    }
    const head = '{"m":"POST","p":"/a?b=c","h":{"host":"localhost","content-type":"application/json"},"t":1000,"l":1}';
    for (let i = 0; i < 3; i++) {
      receive(0, CALL, END, String.fromCharCode(head.length, 0) + head + '{"a":1}');
      await new Promise(setImmediate);
    }
    await loadModule(path.join(dir, 'index.mjs'));
  } finally {
    [main, root, entrypoint] = [null, '', ''];
    [out, pendingLog, queuedLog, scheduled] = [[], null, 0, false];
    process.chdir(home);
    fs.rmSync(dir, { recursive: true });
  }
}

// receive has a frame of ASCII come in.
function receive(id, type, flags, payload) {
  const b = Buffer.allocUnsafe(10 + payload.length);
  header(b, id, type, flags);
  b.write(payload, 10, 'latin1');
  onBytes(b.length, b);
}

// ---- loading ----

let root = '';
let entrypoint = '';
let enforced = {}; // request headers set by OPEN_RUNTIMES_HEADERS
let main = null;
let loading = null;

async function bind(b) {
  root = b.root;
  entrypoint = b.entrypoint;
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, b.env);
  enforced = enforcedHeaders(process.env.OPEN_RUNTIMES_HEADERS);
  let error = '';
  try {
    process.chdir(root);
    process.argv[1] = path.join(root, entrypoint);
    await load();
  } catch (e) {
    error = loadFailure(e);
  }
  frame(0, BOUND, 0, Buffer.from(JSON.stringify({ error })));
}

function enforcedHeaders(json) {
  const headers = {};
  try {
    for (const [name, value] of Object.entries(JSON.parse(json || '{}') || {})) headers[name.toLowerCase()] = String(value);
  } catch {
    // not JSON: none
  }
  return headers;
}

class LoadError extends Error {}

// load sets main. Calls that find it missing share one attempt.
function load() {
  loading ??= loadOnce().finally(() => {
    loading = null;
  });
  return loading;
}

async function loadOnce() {
  const file = path.join(root, entrypoint);
  if (!isOwnFile(file)) throw new LoadError(`Failed to load entrypoint, file ${entrypoint} does not exist.`);
  let found = await loadModule(file);
  for (let i = 0; i < 2 && typeof found !== 'function'; i++) found = found?.default;
  if (typeof found !== 'function') {
    throw new LoadError("Function signature invalid. Did you forget to export a 'main' function?");
  }
  main = found;
}

// isOwnFile reports whether a file is one of the deployment's.
function isOwnFile(file) {
  try {
    const real = fs.realpathSync.native(file);
    return real.startsWith(path.join(fs.realpathSync.native(root), path.sep)) && fs.statSync(real).isFile();
  } catch {
    return false;
  }
}

async function loadModule(file) {
  if (Bun || Deno || isModule(file)) return import(pathToFileURL(file).href);
  try {
    return createRequire(path.join(root, '/'))(file);
  } catch (e) {
    if (e?.code !== 'ERR_REQUIRE_ESM' && e?.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw e;
    return import(pathToFileURL(file).href);
  }
}

function isModule(file) {
  const ext = path.extname(file);
  if (ext === '.mjs' || ext === '.mts') return true;
  if (ext !== '.js' && ext !== '.ts') return false;
  for (let dir = path.dirname(file); dir.startsWith(root); dir = path.dirname(dir)) {
    try {
      return JSON.parse(fs.readFileSync(path.join(dir, 'package.json'), 'utf8')).type === 'module';
    } catch (e) {
      if (e?.code !== 'ENOENT' || dir === path.dirname(dir)) return false;
    }
  }
  return false;
}

function loadFailure(e) {
  if (e instanceof LoadError) return e.message;
  if (isSyntaxError(e)) return `Syntax error in ${entrypoint}: ${(e.errors?.[0] ?? e).message}`;
  if (e instanceof TypeError) return e.message;
  return `Failed to load module: ${e instanceof Error ? e.message : String(e)}`;
}

// isSyntaxError knows what compilers throw: Bun a BuildMessage, or several, Deno something
// with the text alone.
function isSyntaxError(e) {
  if (e instanceof SyntaxError || /^SyntaxError/.test(e?.message ?? '')) return true;
  return e?.name === 'BuildMessage' || (e?.errors ?? []).some((one) => one?.name === 'BuildMessage');
}

// ---- calls ----

function onCall(id, flags, payload) {
  const n = payload.readUInt16LE(0);
  const head = JSON.parse(payload.toString('utf8', 2, 2 + n));
  const call = {
    id, head,
    logging: head.l === 1,
    over: false,
    body: Buffer.from(payload.subarray(2 + n)),
    parts: null, received: 0, size: payload.length - 2 - n, // of an upload
    credit: CREDIT,
    wake: ignore, // called when there is credit, or the call is over
    cancel: null, // ends the stream that answers the call
    timer: undefined,
    native: false, partial: '', // console output
  };
  calls.set(id, call);
  if (flags & END) current.run(call, run, call);
  else call.parts = [call.body];
}

function onData(call, flags, payload) {
  if (!call.parts) return;
  if ((call.size += payload.length) > BODY_LIMIT) {
    frame(call.id, RESET, END, Buffer.from('the request body is too large'));
    return drop(call);
  }
  call.parts.push(Buffer.from(payload));
  call.received += payload.length;
  if (flags & END) {
    call.body = Buffer.concat(call.parts);
    call.parts = null;
    current.run(call, run, call);
  } else if (call.received >= CREDIT / 2) {
    const b = Buffer.allocUnsafe(4);
    b.writeUInt32LE(call.received, 0);
    call.received = 0;
    frame(call.id, WINDOW, 0, b);
  }
}

async function run(call) {
  if (call.head.t > 0) call.timer = setTimeout(timedOut, call.head.t, call);
  try {
    if (!main) {
      try {
        await load();
      } catch (e) {
        writeLog(call, 2, loadFailure(e));
        return finish(call, 503);
      }
    }
    const result = await main(new Context(call));
    clearTimeout(call.timer);
    if (!call.over) answer(call, result);
  } catch (e) {
    fail(call, e);
  }
}

function timedOut(call) {
  if (call.over) return;
  writeLog(call, 2, 'Execution timed out.');
  finish(call, 500, ',"t":1,"r":1');
}

function fail(call, e) {
  clearTimeout(call.timer);
  if (call.over) return;
  writeLog(call, 2, errorText(e));
  finish(call, 500);
}

// finish answers without a body.
function finish(call, status, marks = '') {
  if (call.over) return;
  endLogs(call);
  headFrame(call.id, END, `{"s":${status}${marks}}`, NONE);
  forget(call);
}

function answer(call, result) {
  if (result === null || result === undefined) {
    writeLog(call, 2, 'Return statement missing. return context.res.empty() if no response is expected.');
    return finish(call, 500);
  }
  const status = Number(result.statusCode ?? 200);
  if (!Number.isSafeInteger(status)) throw new RangeError(`Invalid status code: ${String(result.statusCode)}`);
  const head = JSON.stringify({ s: status, h: headerFields(result.headers) });
  const body = bytes(result.body);
  if (!body) {
    const stream = open(result.body);
    headFrame(call.id, 0, head, NONE);
    return pump(call, stream);
  }
  if (body.length <= PIECE) {
    endLogs(call);
    headFrame(call.id, END, head, body);
    return forget(call);
  }
  headFrame(call.id, 0, head, body.subarray(0, PIECE));
  return pump(call, once(body.subarray(PIECE)));
}

function forget(call) {
  call.over = true;
  clearTimeout(call.timer);
  calls.delete(call.id);
}

// drop ends a call that the host has given up.
function drop(call) {
  forget(call);
  call.parts = null;
  call.cancel?.();
  call.wake();
}

// ---- bodies ----

// bytes returns what a body that is not a stream consists of, else undefined.
function bytes(body) {
  switch (typeof body) {
    case 'string':
      return Buffer.from(body);
    case 'undefined':
      return NONE;
    case 'object':
      if (body === null) return NONE;
      if (Buffer.isBuffer(body)) return body;
      if (ArrayBuffer.isView(body)) return Buffer.from(body.buffer, body.byteOffset, body.byteLength);
      if (body instanceof ArrayBuffer || body instanceof SharedArrayBuffer) return Buffer.from(body);
      return undefined;
    case 'function':
    case 'symbol':
      throw new TypeError('Response body must be a string, bytes or a stream.');
  }
  return Buffer.from(String(body));
}

// open returns an iterator over the pieces of a stream. Its cancel ends the
// stream even while a piece is awaited.
function open(body) {
  if (typeof body.stream === 'function') body = body.stream(); // a Blob
  if (typeof body.getReader === 'function') {
    const reader = body.getReader();
    return { next: () => reader.read(), cancel: () => reader.cancel() };
  }
  const make = body[Symbol.asyncIterator] ?? (typeof body.next === 'function' ? body[Symbol.iterator] : undefined);
  if (!make) throw new TypeError('Response body must be a string, bytes or a stream.');
  const it = make.call(body);
  if (typeof body.destroy === 'function') return { next: () => it.next(), cancel: () => body.destroy() };
  return { next: () => it.next(), cancel: () => it.return?.() };
}

function once(piece) {
  let given = false;
  return {
    next() {
      if (given) return { done: true };
      given = true;
      return { done: false, value: piece };
    },
    cancel: ignore,
  };
}

// pump sends a stream as fast as the host takes it.
async function pump(call, stream) {
  call.cancel = () => {
    call.cancel = null;
    Promise.resolve(stream.cancel()).catch(ignore);
  };
  try {
    for (;;) {
      const { done, value } = await stream.next();
      if (call.over) return;
      if (done) break;
      const piece = bytes(value);
      if (!piece) throw new TypeError('A stream must consist of strings or bytes.');
      await send(call, piece);
    }
    endLogs(call);
    frame(call.id, DATA, END, NONE);
    forget(call);
  } catch (e) {
    abort(call, e);
  }
}

async function send(call, piece) {
  for (let at = 0; at < piece.length && !call.over; ) {
    if (call.credit <= 0) {
      await new Promise((resolve) => {
        call.wake = resolve;
      });
      continue;
    }
    const end = Math.min(piece.length, at + PIECE, at + call.credit);
    call.credit -= end - at;
    frame(call.id, DATA, 0, piece.subarray(at, end));
    at = end;
  }
}

// abort ends a call whose response has begun.
function abort(call, e) {
  if (call.over) return;
  writeLog(call, 2, errorText(e));
  endLogs(call);
  frame(call.id, RESET, END, Buffer.from(`stream failed: ${e instanceof Error ? e.message : String(e)}`.slice(0, 512)));
  forget(call);
  call.cancel?.();
}

// ---- headers ----

function headerFields(headers) {
  const fields = [];
  let typed = false;
  for (const [key, value] of entries(headers)) {
    const name = String(key).toLowerCase();
    if (name.startsWith('x-open-runtimes-')) continue;
    for (const v of Array.isArray(value) ? value : [value]) {
      if (v === undefined || v === null) continue;
      if (name === 'content-type') typed = true;
      fields.push([name, name === 'content-type' ? contentType(String(v)) : String(v)]);
    }
  }
  if (!typed) fields.push(['content-type', 'text/plain; charset=utf-8']);
  return fields;
}

function entries(headers) {
  if (headers === null || headers === undefined) return [];
  if (typeof headers[Symbol.iterator] === 'function') return headers; // Headers, Map
  return Object.entries(headers);
}

function contentType(value) {
  const lower = value.toLowerCase();
  if (lower.startsWith('multipart/') || lower.includes('charset=')) return value;
  return `${lower}; charset=utf-8`;
}

// ---- what user code sees ----

class Context {
  constructor(call) {
    this.req = new Request(call);
    this.res = { ...responses };
    this.log = (...args) => writeLog(call, 1, args);
    this.error = (...args) => writeLog(call, 2, args);
  }
}

class Request {
  #body;

  constructor({ head, body }) {
    this.#body = body;
    this.method = head.m;
    this.headers = requestHeaders(head.h);
    const mark = head.p.indexOf('?');
    this.path = mark < 0 ? head.p : head.p.slice(0, mark);
    this.queryString = mark < 0 ? '' : head.p.slice(mark + 1);
    this.query = parseQuery(this.queryString);
    this.scheme = this.headers['x-forwarded-proto'] || 'http';
    const standard = this.scheme === 'https' ? 443 : 80;
    const [, host, port] = /^(.*?)(?::(\d+))?$/s.exec(this.headers.host ?? '');
    this.host = host;
    this.port = port ? Number(port) : standard;
    this.url = `${this.scheme}://${host}${this.port === standard ? '' : `:${this.port}`}${this.path}`;
    if (this.queryString) this.url += `?${this.queryString}`;
  }

  get bodyBinary() {
    return this.#body;
  }

  get bodyText() {
    return this.#body.toString('utf8');
  }

  get bodyRaw() {
    return this.bodyText;
  }

  get bodyJson() {
    return JSON.parse(this.bodyText);
  }

  get body() {
    if (!(this.headers['content-type'] ?? '').toLowerCase().startsWith('application/json')) return this.bodyText;
    return this.#body.length === 0 ? {} : this.bodyJson;
  }
}

function requestHeaders(given = {}) {
  const headers = {};
  for (const name in given) if (!name.startsWith('x-open-runtimes-')) headers[name] = given[name];
  return Object.assign(headers, enforced);
}

function parseQuery(text) {
  const query = {};
  if (text === '') return query;
  for (const part of text.split('&')) {
    const at = part.indexOf('=');
    const key = at < 0 ? part : part.slice(0, at);
    if (key !== '') query[key] = at < 0 ? '' : part.slice(at + 1);
  }
  return query;
}

const responses = {
  send: (body, statusCode = 200, headers = {}) => ({ body, statusCode, headers }),
  text: (body, statusCode = 200, headers = {}) => ({ body: Buffer.from(String(body)), statusCode, headers }),
  binary: (body, statusCode = 200, headers = {}) => ({ body, statusCode, headers }),
  json: (value, statusCode = 200, headers = {}) => ({
    body: Buffer.from(JSON.stringify(value) ?? ''), statusCode,
    headers: withHeader(headers, 'content-type', 'application/json'),
  }),
  empty: () => ({ body: '', statusCode: 204, headers: {} }),
  redirect: (url, statusCode = 301, headers = {}) => ({
    body: '', statusCode, headers: withHeader(headers, 'location', String(url)),
  }),
};

// withHeader returns headers as a plain object, which user code may change,
// with one header set whatever the case of its name was.
function withHeader(headers, name, value) {
  const all = {};
  for (const [key, v] of entries(headers)) {
    if (String(key).toLowerCase() !== name) all[key] = Object.prototype.hasOwnProperty.call(all, key) ? [all[key], v].flat() : v;
  }
  all[name] = value;
  return all;
}

// ---- logs ----

// writeLog logs one line: a text, or the arguments of log.
function writeLog(call, stream, line) {
  if (call.over || !call.logging) return;
  const text = typeof line === 'string' ? line : line.map(show).join(' ');
  logFrame(call.id, stream, limited(text) + '\n');
}

function limited(text) {
  if (text.length <= LINE_LIMIT) return text;
  return `${text.slice(0, LINE_LIMIT)}... Log truncated due to size limit (${LINE_LIMIT} characters)`;
}

function errorText(e) {
  return String(e?.stack || e);
}

function show(value) {
  if (typeof value === 'string') return value;
  if (value instanceof Error) return errorText(value);
  if (value instanceof Date || value instanceof RegExp || value instanceof URL) return plain(value);
  if (typeof value !== 'object' || value === null) return String(value);
  try {
    return JSON.stringify(value, replace) ?? String(value);
  } catch {
    return String(value); // circular
  }
}

function plain(value) {
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString();
  return String(value);
}

function replace(key, value) {
  if (typeof value === 'bigint') return String(value);
  if (value instanceof Set || value instanceof Map) return [...value];
  if (value instanceof RegExp) return String(value);
  if (value instanceof Error) return { name: value.name, message: value.message };
  return value;
}

// nativeOutput logs what user code wrote past context.log.
function nativeOutput(call, text) {
  if (!call.native) {
    call.native = true;
    logFrame(call.id, 1, 'Native logs detected. Use context.log() or context.error() for better experience.\n');
  }
  const end = text.lastIndexOf('\n');
  if (end >= 0) {
    for (const line of (call.partial + text.slice(0, end)).split('\n')) logFrame(call.id, 1, limited(line) + '\n');
    call.partial = '';
  }
  // No more of a line is kept than is shown of it.
  call.partial = (call.partial + text.slice(end + 1)).slice(0, LINE_LIMIT + 1);
}

function endLogs(call) {
  if (call.partial === '') return;
  logFrame(call.id, 1, limited(call.partial) + '\n');
  call.partial = '';
}

function capture(stream) {
  const write = stream.write.bind(stream);
  stream.write = (chunk, encoding, done) => {
    const call = current.getStore();
    if (!call || !call.logging) return write(chunk, encoding, done);
    if (!call.over) nativeOutput(call, typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString());
    const callback = typeof encoding === 'function' ? encoding : done;
    if (callback) process.nextTick(callback);
    return true;
  };
}

// stray logs an error nobody caught; other calls of the process go on. Where the runtime
// has forgotten which call it is of, it is of the one that runs, or of none.
function stray(e) {
  const call = current.getStore() ?? (calls.size === 1 ? calls.values().next().value : undefined);
  if (call && !call.over) writeLog(call, 2, errorText(e));
  else process.stderr.write(`${errorText(e)}\n`);
}

function ignore() {}

// captureConsole has the console write to the streams, which only that of Node.js does.
function captureConsole() {
  const { Console } = require('console');
  const own = new Console({ stdout: process.stdout, stderr: process.stderr });
  for (const name of Object.keys(console)) if (typeof own[name] === 'function') console[name] = own[name].bind(own);
}

capture(process.stdout);
capture(process.stderr);
if (Bun || Deno) captureConsole();
process.on('uncaughtException', stray);
process.on('unhandledRejection', stray);
connect();
