import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { describe, it } from "node:test";
import { SignJWT, UnsecuredJWT } from "jose";
import type { KeyObject } from "node:crypto";
import { SILENT } from "../../core/log.js";
import { openAuth } from "./auth.js";
import type { AuthRules } from "./auth.js";

const SECRET = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const secret = new TextEncoder().encode(SECRET);
const REFUSED = { code: "unauthenticated", message: "invalid security token" };

function sign(alg: string, key: Uint8Array | KeyObject, subject = "ann"): Promise<string> {
  return new SignJWT({ sub: subject })
    .setProtectedHeader({ alg })
    .setIssuedAt()
    .setNotBefore("-1s")
    .setExpirationTime("1m")
    .sign(key);
}

function rules({ alg = "HS256", key = SECRET, allow = ["ann"], deny = [] as string[] }): AuthRules {
  return { alg, key, allow: new Set(allow), deny: new Set(deny) };
}

async function check(config: AuthRules, token: string): Promise<string | undefined> {
  const auth = await openAuth(config);
  return (await auth.check(`Bearer ${token}`, SILENT)).subject;
}

function pair(alg: string): { publicKey: KeyObject; privateKey: KeyObject } {
  if (!alg.startsWith("ES")) return generateKeyPairSync("rsa", { modulusLength: 2048 });
  const namedCurve = { ES256: "P-256", ES384: "P-384", ES512: "P-521" }[alg] ?? "";
  return generateKeyPairSync("ec", { namedCurve });
}

describe("tokens", () => {
  for (const alg of ["HS256", "HS384", "HS512"])
    it(`are checked by ${alg}`, async () => {
      assert.equal(await check(rules({ alg }), await sign(alg, secret)), "ann");
    });

  for (const alg of [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
  ])
    it(`are checked by ${alg}, with the public key alone`, async () => {
      const { publicKey, privateKey } = pair(alg);
      const key = publicKey.export({ type: "spki", format: "pem" }).toString();
      const config = rules({ key, alg });
      assert.equal(await check(config, await sign(alg, privateKey)), "ann");
      const stranger = pair(alg).privateKey;
      await assert.rejects(check(config, await sign(alg, stranger)), REFUSED);
    });

  it("cannot choose the algorithm themselves", async () => {
    const { publicKey, privateKey } = pair("RS256");
    const key = publicKey.export({ type: "spki", format: "pem" }).toString();
    const config = rules({ key, alg: "RS256" });
    await assert.rejects(check(config, await sign("PS256", privateKey)), REFUSED);
    // The classic: the public key taken for a shared secret.
    await assert.rejects(check(config, await sign("HS256", Buffer.from(key))), REFUSED);
    const now = Math.floor(Date.now() / 1000);
    const none = new UnsecuredJWT({ sub: "ann", nbf: now, iat: now, exp: now + 60 }).encode();
    await assert.rejects(check(config, none), REFUSED);
  });

  it("let subjects in without case, and denied ones never", async () => {
    const config = rules({ allow: ["ann", "bob", "eve"], deny: ["eve"] });
    assert.equal(await check(config, await sign("HS256", secret, "BOB")), "bob");
    await assert.rejects(check(config, await sign("HS256", secret, "eve")), REFUSED);
    await assert.rejects(check(config, await sign("HS256", secret, "joe")), REFUSED);
  });

  it("with deny alone nobody gets in", async () => {
    await assert.rejects(
      check(rules({ allow: [], deny: ["eve"] }), await sign("HS256", secret)),
      REFUSED,
    );
  });

  it("a configuration that cannot work is refused at the start", async () => {
    const ec = pair("ES256").publicKey.export({ type: "spki", format: "pem" }).toString();
    const open = (key: string, alg: string) => openAuth(rules({ key, alg }));
    await assert.rejects(open("x", "RS256"), /auth\.key: is no PEM/);
    await assert.rejects(open(ec, "RS256"), /does not fit RS256/);
    await assert.rejects(open(ec, "ES384"), /does not fit ES384/);
    await assert.rejects(
      openAuth(undefined, { s: rules({ alg: "ES256", key: "x" }) }),
      /services\.s\.auth\.key/,
    );
  });

  it("without rules nothing is checked", async () => {
    assert.ok((await openAuth(undefined)).isOpen);
  });

  it("each service may have a key of its own", async () => {
    const auth = await openAuth(undefined, {
      a: rules({}),
      b: rules({ key: `${SECRET}b` }),
    });
    const caller = await auth.check(`Bearer ${await sign("HS256", secret)}`, SILENT);
    assert.equal((await auth.checkService(caller, "A", SILENT)).subject, "ann");
    await assert.rejects(auth.checkService(caller, "b", SILENT), REFUSED);
    await assert.rejects(auth.checkAllServices(caller, SILENT), REFUSED);
  });
});
