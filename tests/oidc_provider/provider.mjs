// An OpenID Connect provider on a free loopback port, for tests: anybody logs in by naming himself. Prints its port, serves until its
// standard input ends. Who is called "unverified-..." has a mail address that nobody has verified.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: 'folkmoot',
        client_secret: 'a secret that the tests know',
        redirect_uris: ['http://127.0.0.1/callback', 'https://portal.example/callback'],
        grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
        response_types: ['code'],
        application_type: 'native',
      },
    ],
    pkce: { required: () => true },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
    features: { deviceFlow: { enabled: true } },
    cookies: { keys: ['a key of cookies'] },
    findAccount: (_context, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        email: `${id.replace('unverified-', '')}@alpha.example`,
        email_verified: !id.startsWith('unverified-'),
      }),
    }),
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
