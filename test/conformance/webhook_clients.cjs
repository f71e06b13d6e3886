// Who gets webhooks, with code that is not ours: the libraries standardwebhooks and svix, and the verifier that seed 1 shows. Reads
// from standard input [{"name", "secret", "old": secret or null, "raw": boolean, "own": header or null, "headers", "body"}]
// and writes a line for each check: {"group", "name", "problem"}, where no problem is "".
const crypto = require('crypto');
const {readFileSync} = require('fs');
const standard = require('standardwebhooks');
const svix = require('svix');

// As it stands there.
function verifyWebhook(payload, signature, secret) {
  const expectedSignature = crypto
    .createHmac('sha256', secret)
    .update(payload)
    .digest('hex');

  return crypto.timingSafeEqual(
    Buffer.from(signature),
    Buffer.from(expectedSignature)
  );
}

function check(group, name, run) {
  let problem = '';
  try {
    run();
  } catch (error) {
    problem = `${error.name}: ${error.message}`;
  }
  console.log(JSON.stringify({group, name, problem}));
}

function refused(run, what) {
  try {
    run();
  } catch {
    return;
  }
  throw new Error(`${what} is taken`);
}

function verifyWith(Webhook, delivery, secret, options) {
  const hook = new Webhook(secret, options);
  const said = hook.verify(delivery.body, delivery.headers);
  if (JSON.stringify(said) !== JSON.stringify(JSON.parse(delivery.body)))
    throw new Error('the body is another');
  refused(() => hook.verify(delivery.body + ' ', delivery.headers), 'another body');
  refused(() => hook.verify(delivery.body, {...delivery.headers, 'webhook-id': 'evt_0'}), 'another id');
  const late = String(Number(delivery.headers['webhook-timestamp']) + 1);
  refused(() => hook.verify(delivery.body, {...delivery.headers, 'webhook-timestamp': late}), 'another time');
}

for (const delivery of JSON.parse(readFileSync(0, 'utf8'))) {
  const options = delivery.raw ? {format: 'raw'} : undefined;
  for (const secret of [delivery.secret, delivery.old].filter(Boolean)) {
    const name = `${delivery.name}, ${secret === delivery.old ? 'old' : 'new'} secret`;
    check('standardwebhooks', name, () => verifyWith(standard.Webhook, delivery, secret, options));
    check('svix', name, () => verifyWith(svix.Webhook, delivery, secret, options));
  }
  for (const header of ['x-webhook-signature', delivery.own].filter(Boolean))
    check('the verifier of seed 1', `${delivery.name}, ${header}`, () => {
      if (!verifyWebhook(delivery.body, delivery.headers[header], delivery.secret))
        throw new Error('it does not fit');
      if (verifyWebhook(delivery.body + ' ', delivery.headers[header], delivery.secret))
        throw new Error('another body is taken');
    });
}
