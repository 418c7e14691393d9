// What the journeys deploy: a function that answers with what it was called with.

const fs = require('node:fs');
const path = require('node:path');

const file = (name) => path.join(__dirname, name);

module.exports = async ({ req, res, log, error }) => {
  log(`trigger ${req.headers['x-appwrite-trigger']}`);
  if (req.query.fail) throw new Error('asked to fail');
  if (req.query.complain) error('a complaint');
  return res.json({
    method: req.method, path: req.path, query: req.query, body: req.bodyText,
    header: req.headers['x-custom'] ?? '', user: req.headers['x-appwrite-user-id'] ?? '',
    secret: process.env.SECRET ?? '', version: fs.readFileSync(file('version.txt'), 'utf8'),
    blob: fs.existsSync(file('blob.bin')) ? fs.statSync(file('blob.bin')).size : 0,
    self: req.query.self ? await self(req) : '',
  }, Number(req.query.status ?? 200), { 'x-answer': 'forty-two' });
};

// self asks the API for the name of this function, with the key of the call.
async function self(req) {
  const env = process.env;
  const answer = await fetch(`${env.APPWRITE_FUNCTION_API_ENDPOINT}/functions/${env.APPWRITE_FUNCTION_ID}`, {
    headers: { 'x-appwrite-project': env.APPWRITE_FUNCTION_PROJECT_ID, 'x-appwrite-key': req.headers['x-appwrite-key'] },
  });
  const { name, message } = await answer.json();
  return name ?? message;
}
