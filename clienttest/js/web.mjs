// A journey of signed-in users and a guest with the web SDK: they call functions
// and see their own executions, and nothing else.

import assert from 'node:assert/strict';
import { Client, Functions, Query } from 'appwrite-web';
import { Client as Server, Functions as ServerFunctions, ID } from 'node-appwrite-14';
import { InputFile } from 'node-appwrite-14/file';
import { archive, built, env, refused, step, until } from './kit.mjs';

const server = new ServerFunctions(new Server().setEndpoint(env.endpoint).setProject(env.project).setKey(env.key));
const visitor = () => new Client().setEndpoint(env.endpoint).setProject(env.project);
const clients = { token: visitor().setJWT(env.annToken), session: visitor().setSession(env.annToken) };
const bob = new Functions(visitor().setSession(env.bobToken));
const guest = new Functions(visitor());

const open = await deploy('Open', ['any']);
const users = await deploy('Users', ['users']);
const crew = await deploy('Crew', ['team:crew']);
const anns = await deploy('Ann', [`user:${env.ann}`]);
const closed = await deploy('Closed', []);

for (const [name, client] of Object.entries(clients)) {
  const fns = new Functions(client);

  const own = await step(`call as a user with a ${name}`, async () => {
    const x = await fns.createExecution(users, 'hi', false, '/me?fail=', 'POST', { 'x-custom': 'from the web' });
    assert.equal(x.status, 'completed', x.errors);
    const body = JSON.parse(x.responseBody);
    assert.deepEqual([body.user, body.body, body.header, body.path], [env.ann, 'hi', 'from the web', '/me']);
    assert.deepEqual([x.logs, x.errors, x.$permissions], ['', '', [`read("user:${env.ann}")`]]);
    assert.equal((await server.getExecution(users, x.$id)).logs, 'trigger http\n', 'the server sees them');
    return x.$id;
  });

  await step(`call in the background with a ${name}`, async () => {
    const x = await fns.createExecution(users, '', true);
    assert.equal(x.status, 'waiting');
    const done = await until('the execution', () => fns.getExecution(users, x.$id), (x) => ['completed', 'failed'].includes(x.status));
    assert.deepEqual([done.status, done.logs], ['completed', '']);
  });

  await step(`call what the roles allow with a ${name}`, async () => {
    for (const id of [open, crew, anns]) assert.equal((await fns.createExecution(id)).status, 'completed');
    await refused(401, 'user_unauthorized', fns.createExecution(closed));
    await refused(404, 'function_not_found', fns.createExecution(ID.unique()));
  });

  await step(`see only own executions with a ${name}`, async () => {
    const others = [await server.createExecution(users), await bob.createExecution(users), await guest.createExecution(open)];
    const { executions, total } = await fns.listExecutions(users, [Query.orderDesc('$createdAt'), Query.limit(100)]);
    assert.equal(total, executions.length);
    assert.equal(executions.at(-1).$id, (await fns.listExecutions(users, [Query.limit(1)])).executions[0].$id);
    assert(executions.some((x) => x.$id === own));
    assert(executions.every((x) => x.$permissions.includes(`read("user:${env.ann}")`) && x.logs === ''));
    for (const x of others) {
      assert(!executions.some(({ $id }) => $id === x.$id));
      await refused(404, 'execution_not_found', fns.getExecution(x.functionId, x.$id));
    }
    assert.equal((await bob.listExecutions(users, [Query.equal('$id', own)])).total, 0);
  });

  await step(`be refused what is the server's with a ${name}`, async () => {
    const send = (method, path) => client.call(method, new URL(env.endpoint + path), { 'content-type': 'application/json' });
    for (const [method, path] of [
      ['get', '/functions'], ['get', `/functions/${users}`], ['delete', `/functions/${users}`], ['get', `/functions/${users}/variables`],
      ['get', `/functions/${users}/deployments`], ['get', '/functions/runtimes'],
    ]) await refused(401, 'general_unauthorized_scope', send(method, path));
    await refused(404, 'function_not_found', send('delete', `/functions/${users}/executions/${own}`));
  });
}

await step('call as another user', async () => {
  for (const id of [open, users]) assert.equal((await bob.createExecution(id)).status, 'completed');
  for (const id of [crew, anns, closed]) await refused(401, 'user_unauthorized', bob.createExecution(id));
});

await step('call as a guest', async () => {
  const x = await guest.createExecution(open);
  assert.equal(x.status, 'completed');
  assert.equal(JSON.parse(x.responseBody).user, '');
  for (const id of [users, crew, anns, closed]) await refused(401, 'user_unauthorized', guest.createExecution(id));
  await refused(401, 'general_unauthorized_scope', guest.listExecutions(open));
  await refused(401, 'general_unauthorized_scope', guest.getExecution(open, x.$id));
});

await step('refuse a token that is none, and take a session that is none for a guest', async () => {
  await refused(401, 'user_jwt_invalid', new Functions(visitor().setJWT('no.such.token')).createExecution(open));
  await refused(401, 'user_unauthorized', new Functions(visitor().setSession('none')).createExecution(users));
});

await step('call as a user of a browser that keeps no cookies', async () => {
  const kept = JSON.stringify({ [`a_session_${env.project}`]: env.annToken });
  globalThis.window = { localStorage: { getItem: (name) => (name === 'cookieFallback' ? kept : null), setItem() {} }, console };
  try {
    assert.equal(JSON.parse((await guest.createExecution(anns)).responseBody).user, env.ann);
  } finally {
    delete globalThis.window;
  }
});

await step('find a disabled function no more', async () => {
  await server.update(users, 'Users', undefined, ['users'], [], '', 15, false);
  await refused(404, 'function_not_found', bob.createExecution(users));
  await refused(404, 'function_not_found', bob.listExecutions(users));
});

await step('answer a browser before it sends and when it does', async () => {
  const origin = 'http://localhost:3000';
  const url = `${env.endpoint}/functions/${open}/executions`;
  const asked = ['content-type', 'x-appwrite-project', 'x-appwrite-response-format', 'x-appwrite-session', 'x-fallback-cookies', 'x-sdk-name', 'x-sdk-version'];
  const before = await fetch(url, {
    method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': asked.join() },
  });
  assert.equal(before.status, 204);
  const allowed = before.headers.get('access-control-allow-headers').toLowerCase().split(/, */);
  for (const name of asked) assert(allowed.includes(name), name);
  const sent = await fetch(url, { method: 'POST', headers: { origin, 'x-appwrite-project': env.project } });
  assert.equal(sent.status, 201);
  for (const { headers } of [before, sent]) {
    assert.equal(headers.get('access-control-allow-origin'), origin);
    assert.equal(headers.get('access-control-allow-credentials'), 'true');
  }
});

async function deploy(name, execute) {
  const { runtimes } = await server.listRuntimes();
  const runtime = runtimes.find((r) => r.key === 'node').$id;
  const f = await server.create(ID.unique(), name, runtime, execute, [], '', 15, true, true, 'index.js');
  const d = await server.createDeployment(f.$id, InputFile.fromBuffer(archive('web'), 'code.tar.gz'), true);
  const done = await built(server, f.$id, d.$id);
  assert.equal(done.status, 'ready', done.buildLogs);
  return f.$id;
}
