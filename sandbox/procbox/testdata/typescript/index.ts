import { Buffer } from 'node:buffer';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';

interface Context {
  req: Record<string, any>;
  res: Record<string, (...args: any[]) => unknown>;
  log: (...args: unknown[]) => void;
  error: (...args: unknown[]) => void;
}

let count: number = 0;
let closed: number = 0;

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function* pieces(n: number) {
  for (let i = 0; i < n; i++) yield `piece ${i}\n`;
}

const given: Record<string, number> = {};

async function* endless(key: string) {
  const piece = Buffer.alloc(64 << 10, 'x');
  given[key] = 0;
  try {
    for (;;) {
      yield piece;
      given[key]++;
    }
  } finally {
    closed++;
  }
}

async function* waits() {
  yield 'piece\n';
  await new Promise(() => {});
}

async function* breaks() {
  yield 'half';
  throw new Error('broken on purpose');
}

// burn uses milliseconds of the process's CPU time.
function burn(ms: number) {
  const since = process.cpuUsage();
  for (;;) {
    const { user, system } = process.cpuUsage(since);
    if (user + system >= ms * 1000) return;
  }
}

function fill(mib: number) {
  const file = path.join(os.tmpdir(), 'filled');
  try {
    for (let i = 0; i < mib; i++) fs.appendFileSync(file, Buffer.alloc(1 << 20, 'x'));
  } finally {
    fs.rmSync(file);
  }
}

async function children(n: number) {
  const ends: Promise<unknown>[] = [];
  const all: ReturnType<typeof spawn>[] = [];
  try {
    while (all.length < n) {
      const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
      if (!child.pid) throw (await new Promise((resolve) => child.once('error', resolve)));
      all.push(child);
      ends.push(new Promise((resolve) => child.once('exit', resolve)));
    }
  } finally {
    for (const child of all) child.kill('SIGKILL');
    await Promise.all(ends);
  }
}

export default async ({ req, res, log, error }: Context) => {
  const q = req.query;
  switch (req.path) {
    case '/hello':
      return res.json({ hello: 'world' });
    case '/echo':
      return res.binary(req.bodyBinary, 200, { 'content-type': req.headers['content-type'] });
    case '/request':
      return res.json({
        method: req.method, scheme: req.scheme, host: req.host, port: req.port, path: req.path,
        queryString: req.queryString, query: req.query, url: req.url, headers: req.headers, bodyText: req.bodyText,
      });
    case '/body':
      return res.json({ body: req.body });
    case '/bodyjson':
      return res.json({ body: req.bodyJson });
    case '/text':
      return res.text('téxt', 201, { 'X-Custom': 'Value' });
    case '/binary':
      return res.binary(Buffer.from(Array.from({ length: 256 }, (_, i) => i)));
    case '/json':
      return res.json({ a: 1, b: 'é', c: { d: true } });
    case '/empty':
      return res.empty();
    case '/redirect':
      return res.redirect('https://example.org/a');
    case '/found':
      return res.redirect('https://example.org/b', 302, { 'x-why': 'moved' });
    case '/send':
      return res.send('sent', 202);
    case '/noreturn':
      res.text('dropped');
      return;
    case '/record':
      return { body: 'own' };
    case '/status':
      return res.text('status', Number(q.n));
    case '/type':
      return res.text('typed', 200, { 'Content-Type': req.bodyText });
    case '/cookies':
      return res.text('cookies', 200, { 'set-cookie': ['a=1', 'b=2'] });
    case '/crlf':
      return res.text('crlf', 200, { 'x-bad': 'a\r\nx-evil: 1' });
    case '/throw':
      log('before throw');
      throw new Error('thrown on purpose');
    case '/env':
      return res.json({ value: process.env[q.name] ?? null });
    case '/environ':
      return res.json({ ...process.env });
    case '/log':
      log('one', 'two');
      error('three');
      return res.text('logged');
    case '/logs':
      for (let i = 0; i < Number(q.n); i++) log(`line ${i}`);
      return res.text('logged');
    case '/longlog':
      log('x'.repeat(9000));
      return res.text('logged');
    case '/native':
      console.log('native out');
      return res.text('native');
    case '/sleep':
      log('sleep start');
      await sleep(Number(q.ms));
      log('sleep end');
      return res.text('slept');
    case '/hang':
      log('hanging');
      return new Promise(() => {});
    case '/spin':
      log('spinning');
      await sleep(50);
      for (;;);
    case '/exit':
      log('exiting');
      await sleep(50);
      process.exit(3);
    case '/count':
      return res.text(String(++count));
    case '/big':
      return res.text('x'.repeat(Number(q.mib) << 20));
    case '/stream':
      return res.send(pieces(Number(q.n)));
    case '/endless':
      return res.send(endless(q.key));
    case '/given':
      return res.text(String(given[q.key]));
    case '/waits':
      return res.send(waits());
    case '/alloc':
      return res.text(Buffer.alloc(Number(q.mib) << 20, 'x').length ? 'allocated' : '');
    case '/closed':
      return res.text(String(closed));
    case '/breaks':
      return res.send(breaks());
    case '/cwd':
      return res.text(process.cwd());
    case '/tmp': {
      const file = path.join(os.tmpdir(), 'written');
      fs.writeFileSync(file, 'x');
      return res.text(file);
    }
    case '/child': {
      const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
      child.unref();
      return res.text(String(child.pid));
    }
    case '/children':
      await children(Number(q.n));
      return res.text('started');
    case '/burn':
      burn(Number(q.ms));
      return res.text('burned');
    case '/fill':
      fill(Number(q.mib));
      return res.text('written');
    case '/garbage':
      try {
        fs.writeSync(3, Buffer.alloc(64, 0xff));
      } catch {
        return res.text('no');
      }
      return new Promise(() => {});
    default:
      return res.text('not found', 404);
  }
};
