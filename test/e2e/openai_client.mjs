// The official `openai` package against a running gateway (test_openai.py). Reads from standard input what there is:
// {"origin", "key", "poor", "few"}: keys of accounts with money, without, and with ten requests a minute;
// and writes a line for each check: {"name", "problem"}, where no problem is "", or {"left", "at"}: which model's call was
// left, and when by the machine's monotonic clock.
import OpenAI from 'openai';
import {readFileSync} from 'node:fs';

const given = JSON.parse(readFileSync(0, 'utf8'));
const baseURL = `${given.origin}/v1`;
const client = new OpenAI({apiKey: given.key, baseURL, maxRetries: 0});
const model = 'gpt-4o-mini';
const messages = [{role: 'user', content: 'Say something'}];

async function check(name, run) {
  let problem = '';
  try {
    await run();
  } catch (error) {
    problem = `${error.constructor.name}: ${error.message}`;
  }
  console.log(JSON.stringify({name, problem}));
}

function expect(good, what) {
  if (!good)
    throw new Error(what);
}

async function refusal(promise, kind, code) {
  try {
    await promise;
  } catch (error) {
    expect(error instanceof kind, `${error.constructor.name} (${error.message}) in place of ${kind.name}`);
    expect(error.code === code, `code ${error.code} in place of ${code}`);
    expect(error.requestID, 'it names no request');
    return error;
  }
  throw new Error(`not refused with ${kind.name}`);
}

await check('models', async () => {
  const ids = [];
  for await (const each of client.models.list())
    ids.push(each.id);
  expect(ids.includes('gpt-4'), `gpt-4 is none of ${ids}`);
  expect((await client.models.retrieve('gpt-4')).owned_by === 'openai', 'who owns gpt-4');
  await refusal(client.models.retrieve('gpt-99'), OpenAI.NotFoundError, 'model_not_available');
});

await check('completions', async () => {
  const done = await client.completions.create({model: 'gpt-4', prompt: 'Hello world', max_tokens: 100});
  expect(done.choices[0].text.includes('Hello world') && done.usage.total_tokens > 0, JSON.stringify(done));
  let text = '';
  for await (const chunk of await client.completions.create({model: 'gpt-4', prompt: 'Hello world', stream: true}))
    text += chunk.choices[0]?.text ?? '';
  expect(text === done.choices[0].text, `streamed: ${text}`);
});

await check('chat', async () => {
  const {data, response} = await client.chat.completions.create({model, messages, seed: 1, temperature: 0.2, top_p: 0.9}).withResponse();
  expect(data.choices[0].message.content.includes('Say something'), JSON.stringify(data));
  expect(response.headers.get('x-job-id') === data.id, 'the job is not named');
});

await check('a streamed chat', async () => {
  let text = '', usage = null, reason = null;
  const stream = await client.chat.completions.create({model, messages, stream: true, stream_options: {include_usage: true}});
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? '';
    reason = chunk.choices[0]?.finish_reason ?? reason;
    usage = chunk.usage ?? usage;
  }
  expect(text.includes('Say something') && reason === 'stop' && usage.total_tokens > 0, `${text} ${reason} ${JSON.stringify(usage)}`);
});

await check('the stream helper', async () => {
  const helper = (client.chat.completions.stream ? client.chat : client.beta.chat).completions;
  const done = await helper.stream({model, messages}).finalChatCompletion();
  expect(done.choices[0].message.content.includes('Say something'), JSON.stringify(done));
});

await check('AuthenticationError', () =>
  refusal(new OpenAI({apiKey: 'fsk-wrong', baseURL, maxRetries: 0}).chat.completions.create({model, messages}),
          OpenAI.AuthenticationError, 'invalid_api_key'));

await check('NotFoundError', () =>
  refusal(client.chat.completions.create({model: 'gpt-99', messages}), OpenAI.NotFoundError, 'model_not_available'));

await check('BadRequestError', async () => {
  const error = await refusal(client.chat.completions.create({model, messages, bogus: 1}), OpenAI.BadRequestError, 'unknown_parameter');
  expect(error.param === 'bogus', `param ${error.param}`);
});

await check('no balance', async () => {
  const error = await refusal(new OpenAI({apiKey: given.poor, baseURL, maxRetries: 0}).chat.completions.create({model, messages}),
                              OpenAI.APIError, 'insufficient_balance');
  expect(error.status === 402, `status ${error.status}`);
});

await check('RateLimitError', async () => {
  const few = new OpenAI({apiKey: given.few, baseURL, maxRetries: 0});
  const many = async () => {
    for (let i = 0; i < 25; i++)
      await few.chat.completions.create({model, messages});
  };
  await refusal(many(), OpenAI.RateLimitError, 'rate_limit_exceeded');
});

await check('a provider that fails', async () => {
  let failed;
  try {
    await client.chat.completions.create({model: 'sandbox-fail', messages});
  } catch (error) {
    failed = error;
  }
  expect(failed instanceof OpenAI.InternalServerError, `${failed?.constructor.name}`);
});

// ---- tools: models of openai_upstream.py, as OpenAI and as Anthropic have them ----

const parameters = {type: 'object', properties: {place: {type: 'string'}}, required: ['place']};
const definition = {name: 'weather', description: 'The weather of a place', parameters};
const tools = [{type: 'function', function: definition}];
const places = ['Zürich', 'Reykjavík'];
const weathers = 'It is sunny in Zürich, sunny in Reykjavík there.';

function expectCalls(choice) {
  const calls = choice.message.tool_calls;
  expect(choice.finish_reason === 'tool_calls' && calls?.length === 2, JSON.stringify(choice));
  calls.forEach((call, i) => {
    expect(call.id && call.type === 'function' && call.function.name === 'weather', JSON.stringify(call));
    expect(JSON.parse(call.function.arguments).place === places[i], call.function.arguments);
  });
}

for (const name of ['tools', 'claude-tools']) {
  await check(`${name}: calls and results`, async () => {
    const ask = {model: name, messages, tools, tool_choice: 'auto'};
    const {choices: [choice], usage} = await client.chat.completions.create(ask);
    expectCalls(choice);
    expect(usage.prompt_tokens === 11 && usage.completion_tokens === 8, JSON.stringify(usage));
    const results = choice.message.tool_calls.map((call, i) => ({role: 'tool', tool_call_id: call.id, content: `sunny in ${places[i]}`}));
    const done = await client.chat.completions.create({...ask, messages: [...messages, choice.message, ...results]});
    expect(done.choices[0].message.content === weathers && done.choices[0].finish_reason === 'stop', JSON.stringify(done.choices));
  });

  await check(`${name}: streamed`, async () => {
    const done = await client.chat.completions.stream({model: name, messages, tools, stream_options: {include_usage: true}})
                       .finalChatCompletion();
    expectCalls(done.choices[0]);
    expect(done.usage.total_tokens === 19, JSON.stringify(done.usage));
  });

  for (const stream of [false, true])
    await check(`${name}: runTools${stream ? ', streamed' : ''}`, async () => {
      const asked = [];
      const weather = ({place}) => (asked.push(place), `sunny in ${place}`);
      const runner = client.chat.completions.runTools(
          {model: name, messages, stream, tools: [{type: 'function', function: {...definition, function: weather, parse: JSON.parse}}]});
      const content = await runner.finalContent();
      expect(content === weathers && asked.join() === places.join(), `${content} ${asked}`);
    });
}

// ---- answers that are given again: whichever way they came, whichever way they are asked for ----

for (const name of ['tools', 'claude-tools'])
  await check(`${name}: from the cache`, async () => {
    const ask = {model: name, messages, tools, cache: true, user: 'nobody in particular'};
    const first = await client.chat.completions.create({...ask, stream: true}).withResponse();
    for await (const _ of first.data) {
    }
    const {data, response} = await client.chat.completions.create(ask).withResponse();
    const caches = [first.response, response].map((each) => each.headers.get('x-cache'));
    expect(caches.join() === 'MISS,HIT', caches.join());
    expectCalls(data.choices[0]);
    const plain = await client.chat.completions.create({...ask, cache: false});
    expectCalls(plain.choices[0]);
    const same = ({choices: [{message}], usage}) => JSON.stringify([message.content, message.refusal, usage]);
    expect(same(data) === same(plain), `${same(data)} in place of ${same(plain)}`);
    const again = await client.chat.completions.stream({...ask, stream_options: {include_usage: true}}).finalChatCompletion();
    expectCalls(again.choices[0]);
    expect(again.usage.total_tokens === data.usage.total_tokens, JSON.stringify(again.usage));
  });

// ---- keys ----

await check('a call under a key', async () => {
  const ask = () => client.chat.completions.create({model, messages}, {headers: {'Idempotency-Key': 'npm-once'}}).withResponse();
  const [first, again] = [await ask(), await ask()];
  expect(again.data.id === first.data.id && again.response.headers.get('idempotent-replayed') === 'true', again.data.id);
});

await check('an overload of Anthropic in the middle of a stream', async () => {
  let text = '', failed;
  try {
    for await (const chunk of await client.chat.completions.create({model: 'claude-overload', messages, stream: true}))
      text += chunk.choices[0]?.delta?.content ?? '';
  } catch (error) {
    failed = error;
  }
  expect(text === 'It' && failed instanceof OpenAI.APIError, `${text}, ${failed?.constructor.name}`);
});

// ---- many at once ----

await check('a hundred at once', async () => {
  const one = async (i) => {
    const ask = {model, messages: [{role: 'user', content: `number ${i}.`}]};
    let text = '';
    if (i % 2)
      text = (await client.chat.completions.create(ask)).choices[0].message.content;
    else
      for await (const chunk of await client.chat.completions.create({...ask, stream: true}))
        text += chunk.choices[0]?.delta?.content ?? '';
    expect(text.includes(`number ${i}.`), `${i}: ${text}`);
  };
  await Promise.all(Array.from({length: 100}, (_, i) => one(i)));
});

// ---- clients that leave ----

const now = () => Number(process.hrtime.bigint()) / 1e9;
const leave = (left, at) => console.log(JSON.stringify({left, at}));

async function stops(promise, kind) {
  let failed;
  try {
    await promise;
  } catch (error) {
    failed = error;
  }
  const at = now();
  expect(failed instanceof kind, `${failed?.constructor.name} in place of ${kind.name}`);
  return at;
}

await check('a timeout', async () => {
  const asked = client.chat.completions.create({model: 'npm-timeout', messages}, {timeout: 500});
  leave('npm-timeout', await stops(asked, OpenAI.APIConnectionTimeoutError));
});

await check('a call that is aborted', async () => {
  const controller = new AbortController();
  const asked = client.chat.completions.create({model: 'npm-abort', messages}, {signal: controller.signal});
  setTimeout(() => controller.abort(), 500);
  leave('npm-abort', await stops(asked, OpenAI.APIUserAbortError));
});

await check('a stream that is aborted', async () => {
  const controller = new AbortController();
  const {data, response} = await client.chat.completions.create({model: 'npm-stream', messages, stream: true},
                                                                {signal: controller.signal}).withResponse();
  for await (const _ of data) {
    controller.abort();
    break;
  }
  leave('npm-stream', now());
  const job = `${baseURL}/jobs/${response.headers.get('x-job-id')}`;
  const headers = {authorization: `Bearer ${given.key}`};
  const deadline = Date.now() + 2000;
  let status;
  do
    status = (await (await fetch(job, {headers})).json()).status;
  while (status === 'processing' && Date.now() < deadline);
  expect(status === 'cancelled', `its job is ${status}`);
});
