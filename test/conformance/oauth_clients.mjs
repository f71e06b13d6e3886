// openid-client and oauth4webapi against a running gateway. Reads from standard input what there is:
// {"origin", "back", "email", "password", "confidential": {"client_id", "client_secret"}, "public": {"client_id"}}
// and writes a line for each check: {"group", "name", "problem"}, where no problem is "".
import * as oauth from 'oauth4webapi';
import * as client from 'openid-client';
import {readFileSync} from 'node:fs';

const given = JSON.parse(readFileSync(0, 'utf8'));
const server = new URL(given.origin);
const scope = 'provision:create provision:read';
const http = {[oauth.allowInsecureRequests]: true};

async function check(group, name, run) {
  let problem = '';
  try {
    await run();
  } catch (error) {
    problem = `${error.code ?? error.name}: ${error.message} ${error.cause ? JSON.stringify(error.cause) : ''}`;
  }
  console.log(JSON.stringify({group, name, problem}));
}

function expect(good, what) {
  if (!good)
    throw new Error(what);
}

async function refusal(promise, word) {
  try {
    await promise;
  } catch (error) {
    expect(error.error === word, `refused with ${error.error ?? error.message} in place of ${word}`);
    return;
  }
  throw new Error(`not refused with ${word}`);
}

// What a browser does with the page: where the answer sends it.
async function consent(url, answer = 'allow') {
  const page = await fetch(url);
  const text = await page.text();
  expect(page.status === 200, `the page is a ${page.status}: ${text}`);
  const hidden = [...text.matchAll(/<input type="hidden" name="(\w+)" value="([^"]*)">/g)].map((found) => [found[1], found[2]]);
  const form = new URLSearchParams([...hidden, ['answer', answer], ['email', given.email], ['password', given.password]]);
  const cookie = page.headers.getSetCookie().map((field) => field.split(';')[0]).join('; ');
  const sent = await fetch(`${given.origin}/oauth/authorize`, {method: 'POST', body: form, headers: {cookie}, redirect: 'manual'});
  expect(sent.status === 303, `the form's answer is a ${sent.status}`);
  return new URL(sent.headers.get('location'));
}

// ---- openid-client ----

async function configure(kind, authentication) {
  const {client_id, client_secret} = given[kind];
  return client.discovery(server, client_id, client_secret, authentication,
                          {algorithm: 'oauth2', execute: [client.allowInsecureRequests]});
}

async function flow(config, change = {}) {
  const verifier = client.randomPKCECodeVerifier();
  const state = client.randomState();
  const code_challenge = await client.calculatePKCECodeChallenge(verifier);
  const url = client.buildAuthorizationUrl(config, {redirect_uri: given.back, scope, state, code_challenge,
                                                    code_challenge_method: 'S256', ...change.ask});
  const back = await consent(url, change.answer);
  return {back, run: () => client.authorizationCodeGrant(config, back, {pkceCodeVerifier: change.verifier ?? verifier,
                                                                         expectedState: state})};
}

async function withOpenidClient(group, kind, authentication) {
  const config = await configure(kind, authentication);
  let tokens;
  await check(group, 'code with PKCE, state and iss', async () => {
    tokens = await (await flow(config)).run();
    expect(tokens.token_type === 'bearer' && tokens.expiresIn() > 3500 && tokens.scope === scope, JSON.stringify(tokens));
  });
  await check(group, 'refresh', async () => {
    const next = await client.refreshTokenGrant(config, tokens.refresh_token, {scope: 'provision:read'});
    expect(next.scope === 'provision:read' && next.refresh_token !== tokens.refresh_token, JSON.stringify(next));
    await refusal(client.refreshTokenGrant(config, tokens.refresh_token), 'invalid_grant');
    await refusal(client.refreshTokenGrant(config, next.refresh_token), 'invalid_grant');
  });
  await check(group, 'a code twice', async () => {
    const {run} = await flow(config);
    await run();
    await refusal(run(), 'invalid_grant');
  });
  await check(group, 'a wrong verifier', async () => {
    await refusal((await flow(config, {verifier: client.randomPKCECodeVerifier()})).run(), 'invalid_grant');
  });
  await check(group, 'a user who says no', async () => {
    await refusal((await flow(config, {answer: 'deny'})).run(), 'access_denied');
  });
  await check(group, 'revocation', async () => {
    const fresh = await (await flow(config)).run();
    await client.tokenRevocation(config, fresh.refresh_token);
    await refusal(client.refreshTokenGrant(config, fresh.refresh_token), 'invalid_grant');
  });
  if (kind === 'public')
    return;
  await check(group, 'client credentials and introspection', async () => {
    const own = await client.clientCredentialsGrant(config, {scope: 'provision:read'});
    const info = await client.tokenIntrospection(config, own.access_token);
    expect(info.active && info.scope === 'provision:read' && info.client_id === given[kind].client_id, JSON.stringify(info));
    await client.tokenRevocation(config, own.access_token);
    expect((await client.tokenIntrospection(config, own.access_token)).active === false, 'still active');
  });
  await check(group, 'more than it may have', async () => {
    await refusal(client.clientCredentialsGrant(config, {scope: 'payments'}), 'invalid_scope');
  });
}

// ---- oauth4webapi: every answer through its own checks ----

async function withOauth4webapi(group, kind, authentication) {
  const self = {client_id: given[kind].client_id};
  let as;
  await check(group, 'discovery (RFC 8414)', async () => {
    const answer = await oauth.discoveryRequest(server, {algorithm: 'oauth2', ...http});
    as = await oauth.processDiscoveryResponse(server, answer);
    expect(as.authorization_response_iss_parameter_supported === true, 'no iss');
    expect(as.code_challenge_methods_supported.join() === 'S256', 'more than S256');
  });
  async function exchange(change = {}) {
    const verifier = oauth.generateRandomCodeVerifier();
    const state = `${oauth.generateRandomState()} +&="'<>%é🦀`;
    const url = new URL(as.authorization_endpoint);
    url.search = new URLSearchParams({client_id: self.client_id, redirect_uri: given.back, response_type: 'code', scope, state,
                                      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
                                      code_challenge_method: 'S256'});
    const parameters = oauth.validateAuthResponse(as, self, await consent(url), state);
    const answer = await oauth.authorizationCodeGrantRequest(as, self, authentication, parameters, change.back ?? given.back,
                                                             verifier, http);
    return oauth.processAuthorizationCodeResponse(as, self, answer);
  }
  let tokens;
  await check(group, 'code with PKCE, a state of odd characters, iss (RFC 9207)', async () => {
    tokens = await exchange();
  });
  await check(group, 'another redirect_uri than asked', async () => {
    await refusal(exchange({back: `${given.back}/`}), 'invalid_grant');
  });
  await check(group, 'refresh', async () => {
    const answer = await oauth.refreshTokenGrantRequest(as, self, authentication, tokens.refresh_token, http);
    tokens = await oauth.processRefreshTokenResponse(as, self, answer);
  });
  await check(group, 'revocation (RFC 7009)', async () => {
    const answer = await oauth.revocationRequest(as, self, authentication, tokens.refresh_token, http);
    await oauth.processRevocationResponse(answer);
  });
  if (kind === 'public')
    return;
  await check(group, 'introspection (RFC 7662)', async () => {
    const answer = await oauth.introspectionRequest(as, self, authentication, tokens.access_token, http);
    const info = await oauth.processIntrospectionResponse(as, self, answer);
    expect(info.active === false, 'its grant has ended, and it is active');
  });
  await check(group, 'client credentials', async () => {
    const answer = await oauth.clientCredentialsGrantRequest(as, self, authentication, {scope}, http);
    await oauth.processClientCredentialsResponse(as, self, answer);
  });
  await check(group, 'a wrong secret', async () => {
    const wrong = oauth.ClientSecretPost('wrong');
    const answer = await oauth.clientCredentialsGrantRequest(as, self, wrong, {scope}, http);
    await refusal(oauth.processClientCredentialsResponse(as, self, answer), 'invalid_client');
  });
}

const secret = given.confidential.client_secret;
await withOpenidClient('openid-client basic', 'confidential', client.ClientSecretBasic(secret));
await withOpenidClient('openid-client post', 'confidential', client.ClientSecretPost(secret));
await withOpenidClient('openid-client public', 'public', client.None());
await withOauth4webapi('oauth4webapi basic', 'confidential', oauth.ClientSecretBasic(secret));
await withOauth4webapi('oauth4webapi post', 'confidential', oauth.ClientSecretPost(secret));
await withOauth4webapi('oauth4webapi public', 'public', oauth.None());
