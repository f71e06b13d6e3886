// The seed's own lines (SELF cloud, "OAuth 2.0 Flow"): a JSON text as the body of fetch, without a Content-Type.
// node oauth_client.js ORIGIN CODE CLIENT_ID CLIENT_SECRET
const [origin, authorizationCode, CLIENT_ID, CLIENT_SECRET] = process.argv.slice(2);

const token = await fetch(`${origin}/oauth/token`, {
  method: 'POST',
  body: JSON.stringify({
    grant_type: 'authorization_code',
    code: authorizationCode,
    client_id: CLIENT_ID,
    client_secret: CLIENT_SECRET
  })
});

console.log(JSON.stringify({status: token.status, body: await token.json()}));
