// What all journeys share: where the server is, archives to upload, and checks
// that end the journey at the first surprise.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';

export const env = {
  endpoint: need('FNKIT_ENDPOINT'), project: need('FNKIT_PROJECT'), key: need('FNKIT_KEY'),
  ann: need('FNKIT_ANN'), annToken: need('FNKIT_ANN_TOKEN'), // a member of the team crew
  bob: need('FNKIT_BOB'), bobToken: need('FNKIT_BOB_TOKEN'),
};

function need(name) {
  if (!process.env[name]) throw new Error(`set ${name}`);
  return process.env[name];
}

const source = readFileSync(new URL('../functions/node/index.js', import.meta.url));

// archive returns a gzipped tar of the function, which says it is this version;
// padding adds a file of that many random bytes, which do not compress.
export function archive(version, padding = 0) {
  const files = { 'index.js': source, 'version.txt': Buffer.from(version) };
  if (padding > 0) files['blob.bin'] = randomBytes(padding);
  const blocks = Object.entries(files).flatMap(([name, data]) =>
    [header(name, data.length), data, Buffer.alloc((512 - (data.length % 512)) % 512)]);
  return gzipSync(Buffer.concat([...blocks, Buffer.alloc(1024)]), { level: 1 });
}

// header is that of a file in a tar archive: name, mode, size, time, checksum.
function header(name, size) {
  const h = Buffer.alloc(512);
  h.write(name, 0);
  h.write('0000644', 100);
  h.write(`${size.toString(8).padStart(11, '0')}\x0000000000000`, 124);
  h.write('        0', 148);
  h.write('ustar\x0000', 257);
  const sum = h.reduce((a, b) => a + b, 0);
  h.write(`${sum.toString(8).padStart(6, '0')}\x00 `, 148);
  return h;
}

// step runs one step of a journey and says how long it took.
export async function step(name, act) {
  const start = performance.now();
  try {
    return await act();
  } finally {
    console.log(`${(performance.now() - start).toFixed(0).padStart(6)} ms  ${name}`);
  }
}

// until asks again and again until the answer is right, in bounded time.
export async function until(what, ask, right) {
  const end = performance.now() + 60_000;
  for (;;) {
    const got = await ask();
    if (right(got)) return got;
    assert(performance.now() < end, `${what} took over a minute; the last answer was ${JSON.stringify(got)}`);
    await sleep(20);
  }
}

// built waits until the build of a deployment is over.
export function built(fns, id, deployment) {
  return until('the build', () => fns.getDeployment(id, deployment), over);
}

export function over(deployment) {
  return ['ready', 'failed', 'canceled'].includes(deployment.status);
}

// refused checks that the server refuses, and that the client says so by its own
// exception, with a status and a type of error.
export async function refused(code, type, promise) {
  const err = await promise.then(
    (got) => assert.fail(`wanted ${type}, was answered ${JSON.stringify(got)}`),
    (err) => err,
  );
  assert.deepEqual([err.name, err.code, err.type], ['AppwriteException', code, type], err.stack);
  assert.notEqual(err.message, '');
}
