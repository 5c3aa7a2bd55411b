import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { SignJWT, UnsecuredJWT } from "jose";
import type { KeyObject } from "node:crypto";
import { SILENT } from "../../core/log.js";
import { openAuth } from "./auth.js";
import type { AuthConfig } from "./auth.js";

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

async function check(config: AuthConfig, token: string): Promise<string | undefined> {
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
      assert.equal(await check({ key: SECRET, alg, allow: "ann" }, await sign(alg, secret)), "ann");
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
      const config = { key, alg, allow: ["ann"] };
      assert.equal(await check(config, await sign(alg, privateKey)), "ann");
      const stranger = pair(alg).privateKey;
      await assert.rejects(check(config, await sign(alg, stranger)), REFUSED);
    });

  it("cannot choose the algorithm themselves", async () => {
    const { publicKey, privateKey } = pair("RS256");
    const key = publicKey.export({ type: "spki", format: "pem" }).toString();
    const config = { key, alg: "RS256", allow: "ann" };
    await assert.rejects(check(config, await sign("PS256", privateKey)), REFUSED);
    // The classic: the public key taken for a shared secret.
    await assert.rejects(check(config, await sign("HS256", Buffer.from(key))), REFUSED);
    const now = Math.floor(Date.now() / 1000);
    const none = new UnsecuredJWT({ sub: "ann", nbf: now, iat: now, exp: now + 60 }).encode();
    await assert.rejects(check(config, none), REFUSED);
  });

  it("the key may stand in a file", async () => {
    const folder = mkdtempSync(join(tmpdir(), "libstorage-auth-"));
    const file = join(folder, "key");
    writeFileSync(file, SECRET);
    assert.equal(await check({ key: file, allow: "ann" }, await sign("HS256", secret)), "ann");
    rmSync(folder, { recursive: true });
    await assert.rejects(openAuth({ key: file, allow: "ann" }), /auth\.key: cannot read/);
  });

  it("lists take subjects, tokens and tagged tokens, without case", async () => {
    const byToken = await sign("HS256", secret, "Bob");
    const tagged = `laptop:${await sign("HS256", secret, "eve")}`;
    const config = { key: SECRET, allow: `ANN ${byToken} ${tagged}`, deny: ["eve"] };
    for (const subject of ["ann", "BOB"])
      assert.equal(
        await check(config, await sign("HS256", secret, subject)),
        subject.toLowerCase(),
      );
    await assert.rejects(check(config, await sign("HS256", secret, "eve")), REFUSED);
  });

  it("with deny alone nobody gets in", async () => {
    await assert.rejects(check({ key: SECRET, deny: "eve" }, await sign("HS256", secret)), REFUSED);
  });

  it("a configuration that cannot work is refused at the start", async () => {
    const ec = pair("ES256").publicKey.export({ type: "spki", format: "pem" }).toString();
    await assert.rejects(openAuth({ key: SECRET, alg: "HS1", allow: "a" }), /auth\.alg: "HS1"/);
    await assert.rejects(openAuth({ allow: "a" }), /auth\.key: is missing/);
    await assert.rejects(openAuth({ key: "x", alg: "RS256", allow: "a" }), /auth\.key: is no PEM/);
    await assert.rejects(openAuth({ key: ec, alg: "RS256", allow: "a" }), /does not fit RS256/);
    await assert.rejects(openAuth({ key: ec, alg: "ES384", allow: "a" }), /does not fit ES384/);
    await assert.rejects(
      openAuth(undefined, { s: { alg: "none", key: "x", allow: "a" } }),
      /services\.s\.auth\.alg/,
    );
  });

  it("without lists, or disabled, nothing is checked", async () => {
    assert.ok((await openAuth(undefined)).isOpen);
    assert.ok((await openAuth({ key: SECRET })).isOpen);
    assert.ok((await openAuth({ key: SECRET, allow: "a", disabled: true })).isOpen);
  });

  it("each service may have a key of its own", async () => {
    const auth = await openAuth(undefined, {
      a: { key: SECRET, allow: "ann" },
      b: { key: `${SECRET}b`, allow: "ann" },
    });
    const caller = await auth.check(`Bearer ${await sign("HS256", secret)}`, SILENT);
    assert.equal((await auth.checkService(caller, "A", SILENT)).subject, "ann");
    await assert.rejects(auth.checkService(caller, "b", SILENT), REFUSED);
    await assert.rejects(auth.checkAllServices(caller, SILENT), REFUSED);
  });
});
