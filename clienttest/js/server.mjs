// A journey of a trusted server through the whole life of a function. The two
// versions of the SDK differ in a few calls, which their adapters give.

import assert from 'node:assert/strict';
import { archive, built, over, refused, step, until } from './kit.mjs';

const big = 11 * 1024 * 1024;

export async function journey({ fns, Query, ID, adapter }) {
  const id = ID.unique();

  const runtime = await step('list runtimes and specifications', async () => {
    const { runtimes, total } = await fns.listRuntimes();
    assert.equal(total, runtimes.length);
    const specs = await fns.listSpecifications();
    assert(specs.specifications.some((s) => s.slug === 's-1vcpu-512mb' && s.memory === 512 && s.cpus === 1 && s.enabled));
    return runtimes.find((r) => r.key === 'node').$id;
  });

  await step('create a function', async () => {
    const f = await adapter.create(id, 'Journey', runtime);
    assert.deepEqual([f.$id, f.name, f.runtime, f.enabled, f.timeout, f.scopes], [id, 'Journey', runtime, true, 15, ['functions.read']]);
    assert.match(f.$createdAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$/);
    assert.deepEqual(await fns.get(id), f);
    await refused(409, 'document_already_exists', adapter.create(id, 'Again', runtime));
    await refused(404, 'function_not_found', fns.get(ID.unique()));
    await refused(400, 'general_argument_invalid', adapter.create(ID.unique(), 'Bad', 'node-1'));
    await refused(404, 'deployment_not_found', call({}));
    const made = await adapter.create('unique()', 'Named by the server', runtime);
    assert.match(made.$id, /^[0-9a-f]{20}$/);
    await fns.delete(made.$id);
  });

  await step('be refused without a key that holds', () =>
    refused(401, 'user_unauthorized', adapter.withKey('no-such-key').get(id)));

  const variable = await step('create variables', async () => {
    const v = await adapter.createVariable(id, 'SECRET', 'first');
    assert.deepEqual([v.key, v.value, v.resourceId], ['SECRET', 'first', id]);
    await refused(409, 'variable_already_exists', adapter.createVariable(id, 'SECRET', 'x'));
    const { total, variables } = await fns.listVariables(id);
    assert.deepEqual([total, variables.map((v) => v.value)], [1, ['first']]);
    assert.equal((await fns.getVariable(id, v.$id)).value, 'first');
    return v.$id;
  });

  const first = await step('upload a small archive, which is built', async () => {
    const code = archive('one');
    const d = await ready(await adapter.upload(id, code));
    assert.match(d.buildLogs, /built with first/);
    await sameAs(d, code);
    assert.equal((await fns.get(id)).deployment, d.$id);
    return d.$id;
  });

  await step('call it', async () => {
    const x = await call({ body: 'päylöad 🙂', path: '/a/b?c=d', method: 'PUT', headers: { 'X-Custom': 'yes' } });
    assert.equal(x.status, 'completed', x.errors);
    assert.deepEqual([x.responseStatusCode, x.logs, x.errors, x.trigger], [200, 'trigger http\n', '', 'http']);
    assert.deepEqual([x.requestMethod, x.requestPath, x.functionId], ['PUT', '/a/b?c=d', id]);
    assert(x.duration > 0 && x.duration < 15, String(x.duration));
    const headers = Object.fromEntries(x.responseHeaders.map((h) => [h.name, h.value]));
    assert.equal(headers['x-answer'], 'forty-two');
    assert.match(headers['content-type'], /^application\/json/);
    assert.deepEqual(JSON.parse(x.responseBody), {
      method: 'PUT', path: '/a/b', query: { c: 'd' }, body: 'päylöad 🙂', header: 'yes', user: '', secret: 'first', version: 'one', blob: 0, self: '',
    });
    const again = await fns.getExecution(id, x.$id);
    assert.deepEqual([again.logs, again.responseBody, again.responseStatusCode], ['trigger http\n', '', 200]);
  });

  await step('call it with much', async () => {
    const body = '0123456789'.repeat(200_000);
    assert((await answer({ body })).body === body, 'the body came back as another');
  });

  await step('call it when it fails, complains and refuses', async () => {
    const failed = await call({ path: '/?fail=1' });
    assert.deepEqual([failed.status, failed.responseStatusCode], ['failed', 500]);
    assert.match(failed.errors, /asked to fail/);
    const complained = await call({ path: '/?complain=1&status=418' });
    assert.deepEqual([complained.status, complained.responseStatusCode, complained.errors], ['completed', 418, 'a complaint\n']);
    await refused(400, 'general_argument_invalid', call({ method: 'BREW' }));
    await refused(400, 'general_argument_invalid', call({ headers: { 'x-appwrite-trigger': 'forged' } }));
  });

  await step('have it call the API', async () => {
    assert.equal((await answer({ path: '/?self=1' })).self, 'Journey');
  });

  await step('call it in the background', async () => {
    const x = await call({ body: 'later', async: true });
    assert.deepEqual([x.status, x.responseBody], ['waiting', '']);
    const done = await until('the execution', () => fns.getExecution(id, x.$id), (x) => ['completed', 'failed'].includes(x.status));
    assert.deepEqual([done.status, done.responseStatusCode, done.logs], ['completed', 200, 'trigger http\n'], done.errors);
  });

  await step('plan a call and take it back', async () => {
    const at = new Date(Math.ceil(Date.now() / 60_000) * 60_000 + 120_000).toISOString();
    const x = await call({ async: true, scheduledAt: at });
    assert.equal(x.status, 'scheduled');
    assert.equal(Date.parse(x.scheduledAt), Date.parse(at));
    await fns.deleteExecution(id, x.$id);
    await refused(404, 'execution_not_found', fns.getExecution(id, x.$id));
    await refused(400, 'general_bad_request', call({ async: false, scheduledAt: at }));
  });

  await step('change a variable', async () => {
    assert.equal((await fns.updateVariable(id, variable, 'SECRET', 'second')).value, 'second');
    assert.equal((await answer({})).secret, 'second');
  });

  const second = await step('upload 11 MB in parts', async () => {
    const code = archive('two', big);
    const seen = [];
    const d = await ready(await adapter.upload(id, code, { progress: (p) => seen.push(p.progress) }));
    assert.deepEqual([seen.length, Math.max(...seen)], [3, 100]);
    await sameAs(d, code);
    const { version, blob } = await answer({});
    assert.deepEqual([version, blob], ['two', big]);
    return d.$id;
  });

  await step('upload what cannot be built', async () => {
    const broken = await built(fns, id, (await adapter.upload(id, Buffer.from('no archive'))).$id);
    assert.equal(broken.status, 'failed');
    assert.notEqual(broken.buildLogs, '');
    const failing = await built(fns, id, (await adapter.upload(id, archive('failing'), { commands: 'echo so far; exit 3' })).$id);
    assert.equal(failing.status, 'failed');
    assert.match(failing.buildLogs, /so far/);
    assert.equal((await answer({})).version, 'two', 'the one before stays active');
  });

  await step('cancel a build', async () => {
    const d = await adapter.upload(id, archive('canceled'), { commands: 'echo begun; exec sleep 600' });
    await until('the start of the build', () => fns.getDeployment(id, d.$id), (d) => over(d) || d.buildLogs.includes('begun'));
    assert.equal((await adapter.cancel(id, d.$id)).status, 'canceled');
    assert.equal((await built(fns, id, d.$id)).status, 'canceled');
  });

  await step('go back to the first deployment, and build the second again', async () => {
    assert.equal((await adapter.activate(id, first)).deployment, first);
    assert.equal((await answer({})).version, 'one');
    await refused(400, 'build_already_completed', adapter.cancel(id, second));
    await refused(404, 'deployment_not_found', adapter.activate(id, ID.unique()));
    await adapter.rebuild(id, second);
    const { deployments, total } = await fns.listDeployments(id, [Query.orderDesc('$createdAt'), Query.limit(1)]);
    assert.equal(total, 6);
    assert.notEqual(deployments[0].$id, second);
    await ready(deployments[0]);
  });

  await step('list deployments with queries', async () => {
    const all = await deployments([]);
    assert.equal(all.length, 6);
    for (const [queries, want, total = 6] of [
      [[Query.orderDesc('$createdAt')], all.toReversed()],
      [[Query.orderAsc('$createdAt'), Query.cursorAfter(all[1]), Query.limit(2)], all.slice(2, 4)],
      [[Query.cursorBefore(all[3]), Query.limit(2)], all.slice(1, 3)],
      [[Query.offset(4)], all.slice(4)],
      [[Query.greaterThanEqual('size', big)], [all[1], all[5]], 2],
      [[Query.or([Query.equal('$id', all[0]), Query.equal('$id', [all[2]])])], [all[0], all[2]], 2],
      [[Query.and([Query.greaterThan('size', big), Query.notEqual('$id', all[1])])], [all[5]], 1],
    ]) assert.deepEqual(await deployments(queries, total), want, queries.join());
    await refused(400, 'general_cursor_not_found', fns.listDeployments(id, [Query.cursorAfter(ID.unique())]));
  });

  await step('list executions with queries', async () => {
    const all = (await fns.listExecutions(id)).total;
    for (const [queries, want] of [
      [[Query.equal('status', ['failed'])], 1],
      [[Query.equal('status', ['failed', 'completed'])], all],
      [[Query.equal('responseStatusCode', [418]), Query.equal('status', 'completed')], 1],
      [[Query.greaterThan('duration', 60.5), Query.limit(5)], 0],
      [[Query.startsWith('requestPath', '/a/')], 1],
      [[Query.between('responseStatusCode', 400, 499)], 1],
    ]) assert.equal((await fns.listExecutions(id, queries)).total, want, queries.join());
    const { executions } = await fns.listExecutions(id, [Query.orderDesc('$createdAt'), Query.limit(2)]);
    assert.deepEqual(executions.map((x) => [x.logs, x.responseBody]), [['trigger http\n', ''], ['trigger http\n', '']]);
  });

  await step('list functions with queries', async () => {
    const other = (await adapter.create(ID.unique(), 'Ødegård', runtime)).$id;
    for (const [queries, search, want] of [
      [[], undefined, [id, other]],
      [[Query.equal('$id', [id])], undefined, [id]],
      [[Query.equal('name', 'Ødegård'), Query.equal('enabled', true)], undefined, [other]],
      [[Query.equal('name', ['Ødegård']), Query.equal('enabled', [false])], undefined, []],
      [[], 'journey', [id]],
    ]) {
      const { functions, total } = await adapter.list(queries, search);
      assert.deepEqual([functions.map((f) => f.$id), total], [want, want.length], `${queries} ${search}`);
    }
    await refused(400, 'general_argument_invalid', fns.list([Query.equal('nothing', ['x'])]));
  });

  await step('change the function', async () => {
    const f = await fns.update(id, 'Renamed', runtime, ['users'], ['users.*.create'], '*/5 * * * *', 20, false, false);
    assert.deepEqual([f.name, f.execute, f.events, f.schedule, f.timeout, f.enabled, f.logging, f.entrypoint],
      ['Renamed', ['users'], ['users.*.create'], '*/5 * * * *', 20, false, false, 'index.js']);
    assert.equal((await call({})).logs, '');
    await refused(400, 'general_argument_invalid', fns.update(id, 'Renamed', runtime, ['any'], [], 'every day'));
  });

  await step('delete everything', async () => {
    const { executions } = await fns.listExecutions(id, [Query.limit(1)]);
    for (const [type, remove] of [
      ['execution_not_found', () => fns.deleteExecution(id, executions[0].$id)],
      ['variable_not_found', () => fns.deleteVariable(id, variable)],
      ['deployment_not_found', () => fns.deleteDeployment(id, second)],
      ['function_not_found', () => fns.delete(id)],
    ]) {
      await remove();
      await refused(404, type, remove());
    }
    await refused(404, 'function_not_found', fns.listDeployments(id));
  });

  function call({ body, async, path, method, headers, scheduledAt }) {
    return fns.createExecution(id, body, async, path, method, headers, scheduledAt);
  }

  // answer is what the function answers to a call that goes well.
  async function answer(request) {
    const x = await call(request);
    assert.deepEqual([x.status, x.responseStatusCode], ['completed', 200], x.errors);
    return JSON.parse(x.responseBody);
  }

  async function ready(d) {
    const done = await built(fns, id, d.$id);
    assert.equal(done.status, 'ready', done.buildLogs);
    return done;
  }

  // sameAs checks that a deployment holds the code that was uploaded.
  async function sameAs(d, code) {
    assert.equal(d.size, code.length);
    const back = Buffer.from(await fns.getDeploymentDownload(id, d.$id));
    assert(back.equals(code), `uploaded ${code.length} bytes, ${back.length} come back`);
  }

  async function deployments(queries, total = 6) {
    const list = await fns.listDeployments(id, queries);
    assert.equal(list.total, total, queries.join());
    return list.deployments.map((d) => d.$id);
  }
}
