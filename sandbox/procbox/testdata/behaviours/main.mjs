// Node.js, Bun and Deno.
import process from 'node:process';

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let late = Promise.resolve();

export default async ({ req, res, log }) => {
  switch (req.path) {
    case '/enforced': {
      const h = req.headers;
      const text = `${h['x-own']} ${h['x-open-runtimes-kept']} ${h['x-open-runtimes-secret'] ?? 'none'}`;
      return res.text(text, 200, { 'X-Open-Runtimes-Log-Id': 'x', 'X-Yes': 'yes' });
    }
    case '/values':
      log('text', 1, true, { a: [1, 'é'] }, [1, 2], null);
      return res.empty();
    case '/binary':
      log('\x1b[31mred\x00', Buffer.from([0xff]).toString());
      console.log('\x1b[31mred\x00');
      return res.empty();
    case '/late':
      late = pause(20).then(() => {
        log('late');
        console.log('late');
      });
      return res.text('early');
    case '/waits':
      await late;
      log('mine');
      return res.text('waited');
    case '/stray':
      setTimeout(() => {
        throw new Error('stray');
      });
      Promise.reject(new Error('rejected'));
      await pause(50);
      return res.text('lives');
    case '/reject':
      await pause(1);
      return Promise.reject(new Error('on purpose'));
    case '/print':
      for (let i = 0; i < 3; i++) {
        console.error(req.query.n);
        await pause(0);
      }
      return res.empty();
    case '/size':
      return res.text(String(req.bodyBinary.length));
    case '/pid':
      return res.text(String(process.pid));
  }
  return res.text('not found', 404);
};
