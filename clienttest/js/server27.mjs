// The journey with node-appwrite 27, which sends the parts of an upload side by
// side. What it renamed or dropped after 1.6 goes through its client.

import assert from 'node:assert/strict';
import { Client, Functions, ID, Query } from 'node-appwrite-27';
import { InputFile } from 'node-appwrite-27/file';
import { env } from './kit.mjs';
import { journey } from './server.mjs';

// It speaks a later format, of which the server warns in each answer.
const warnings = new Set();
console.warn = (text) => warnings.add(text);

const clientWithKey = (key) => new Client().setEndpoint(env.endpoint).setProject(env.project).setKey(key);
const withKey = (key) => new Functions(clientWithKey(key));
const client = clientWithKey(env.key);
const fns = new Functions(client);

function send(method, path, params = {}) {
  const headers = { 'X-Appwrite-Project': env.project, 'content-type': 'application/json', accept: 'application/json' };
  return client.call(method, new URL(env.endpoint + path), headers, params);
}

await journey({
  fns, Query, ID,
  adapter: {
    withKey,
    create: (id, name, runtime) =>
      fns.create(id, name, runtime, ['any'], [], '', 15, true, true, 'index.js', 'echo "built with $SECRET"', ['functions.read']),
    list: (queries, search) => (search === undefined ? fns.list(queries) : send('get', '/functions', { queries, search })),
    createVariable: (id, key, value) => fns.createVariable(id, ID.unique(), key, value, false),
    upload: (id, code, { commands, progress } = {}) =>
      fns.createDeployment(id, InputFile.fromBuffer(code, 'code.tar.gz'), true, undefined, commands, progress),
    activate: (id, deployment) => send('patch', `/functions/${id}/deployments/${deployment}`),
    rebuild: (id, deployment) => send('post', `/functions/${id}/deployments/${deployment}/build`),
    cancel: (id, deployment) => send('patch', `/functions/${id}/deployments/${deployment}/build`),
  },
});
assert.equal(warnings.size, 1, [...warnings].join());
assert.match([...warnings][0], /1\.9\.5.*1\.6/);
