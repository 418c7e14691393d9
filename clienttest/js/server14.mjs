// The journey with node-appwrite 14, which speaks the format of 1.6.

import { Client, Functions, ID, Query } from 'node-appwrite-14';
import { InputFile } from 'node-appwrite-14/file';
import { env } from './kit.mjs';
import { journey } from './server.mjs';

const withKey = (key) => new Functions(new Client().setEndpoint(env.endpoint).setProject(env.project).setKey(key));
const fns = withKey(env.key);

await journey({
  fns, Query, ID,
  adapter: {
    withKey,
    create: (id, name, runtime) =>
      fns.create(id, name, runtime, ['any'], [], '', 15, true, true, 'index.js', 'echo "built with $SECRET"', ['functions.read']),
    list: (queries, search) => fns.list(queries, search),
    createVariable: (id, key, value) => fns.createVariable(id, key, value),
    upload: (id, code, { commands, progress } = {}) =>
      fns.createDeployment(id, InputFile.fromBuffer(code, 'code.tar.gz'), true, undefined, commands, progress),
    activate: (id, deployment) => fns.updateDeployment(id, deployment),
    rebuild: (id, deployment) => fns.createBuild(id, deployment),
    cancel: (id, deployment) => fns.updateDeploymentBuild(id, deployment),
  },
});
