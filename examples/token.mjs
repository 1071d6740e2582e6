// A token of a user's for auditstream, as any library for JSON Web Tokens makes it (jsonwebtoken, jose, ...).
import { createHmac } from 'node:crypto';

const part = (object) => Buffer.from(JSON.stringify(object)).toString('base64url');

export function tokenFor(user) {
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, exp: Math.floor(Date.now() / 1000) + 3600 })}`;
  return `${signed}.${createHmac('sha256', process.env.JWT_SECRET).update(signed).digest('base64url')}`;
}
