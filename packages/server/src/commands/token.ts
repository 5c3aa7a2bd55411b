/** `libstorage-server token`: makes and reads the tokens of section 12 of the contract. */
import { createPublicKey } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import {
  SignJWT,
  decodeJwt,
  decodeProtectedHeader,
  importPKCS8,
  importSPKI,
  jwtVerify,
} from "jose";
import { StorageError, parseDuration } from "@libstorage/model";
import { TOKEN_ALGORITHMS } from "../config.js";
import { EXIT, UsageError, isSet, textOf } from "./command.js";
import type { Command, Input } from "./command.js";

const DEFAULT_LIFE = "8760h";

function settingOf(input: Input, option: string): string | undefined {
  const variable = `TOKEN_${option.toUpperCase()}`;
  return (
    textOf(input, option) ??
    process.env[`LIBSTORAGE_${variable}`] ??
    process.env[`REXRAY_${variable}`]
  );
}

/** The key, or the content of the file that it names. */
function keyText(input: Input): string {
  const key = settingOf(input, "key");
  if (key === undefined || key === "")
    throw new UsageError("needs --key, the signing key or a file that holds it");
  const isFile = statSync(key, { throwIfNoEntry: false })?.isFile() === true;
  return isFile ? readFileSync(key, "utf8") : key;
}

function algorithmOf(input: Input): string {
  const alg = (settingOf(input, "alg") ?? "HS256").toUpperCase();
  if (!(TOKEN_ALGORITHMS as readonly string[]).includes(alg))
    throw new UsageError(`unknown algorithm ${alg}: use one of ${TOKEN_ALGORITHMS.join(", ")}`);
  return alg;
}

type Key = Uint8Array | Awaited<ReturnType<typeof importPKCS8>>;

/** @throws {StorageError} when a file is no key for the algorithm */
async function importKey(text: string, alg: string, use: "sign" | "verify"): Promise<Key> {
  if (alg.startsWith("HS")) return new TextEncoder().encode(text);
  try {
    if (use === "sign") return await importPKCS8(text, alg);
    // A private key and a certificate hold the public key as well.
    const spki = createPublicKey(text).export({ type: "spki", format: "pem" }).toString();
    return await importSPKI(spki, alg);
  } catch (error) {
    throw new StorageError(
      "invalid-argument",
      `the key does not fit ${alg}: ${use === "sign" ? "a private key in PKCS #8 PEM" : "a key or certificate in PEM"} is needed`,
      {},
      { cause: error },
    );
  }
}

async function makeTokens(input: Input, subjects: readonly string[]): Promise<number> {
  if (subjects.length === 0) throw new UsageError("token new: name at least one subject");
  const alg = algorithmOf(input);
  const life = settingOf(input, "exp") ?? DEFAULT_LIFE;
  const lifeMs = parseDuration(life);
  if (lifeMs === undefined || lifeMs < 1000)
    throw new UsageError(`--exp ${life} is no duration such as 8760h or 30d`);
  const key = await importKey(keyText(input), alg, "sign");
  const now = Math.floor(Date.now() / 1000);
  for (const subject of subjects) {
    const token = await new SignJWT({})
      .setProtectedHeader({ alg, typ: "JWT" })
      .setExpirationTime(now + Math.floor(lifeMs / 1000))
      .setIssuedAt(now)
      .setNotBefore(now)
      .setSubject(subject)
      .sign(key);
    input.out(token);
  }
  return EXIT.done;
}

async function decodeToken(input: Input, tokens: readonly string[]): Promise<number> {
  const [given] = tokens;
  if (given === undefined || tokens.length > 1)
    throw new UsageError("token decode: give one token");
  const isFile = statSync(given, { throwIfNoEntry: false })?.isFile() === true;
  const token = (isFile ? readFileSync(given, "utf8") : given).trim();
  try {
    const header = decodeProtectedHeader(token);
    const claims = decodeJwt(token);
    input.out(JSON.stringify({ header, claims }, undefined, 2));
    if (!isSet(input, "verify")) return EXIT.done;
    const alg = algorithmOf(input);
    await jwtVerify(token, await importKey(keyText(input), alg, "verify"), {
      algorithms: [alg],
      requiredClaims: ["sub", "iat", "exp", "nbf"],
    });
    input.err("the token is valid");
    return EXIT.done;
  } catch (error) {
    if (error instanceof UsageError || error instanceof StorageError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new StorageError(
      "invalid-argument",
      `the token is not valid: ${why}`,
      {},
      { cause: error },
    );
  }
}

export const token: Command = {
  name: "token",
  args: "new SUBJECT... | decode TOKEN",
  summary: "Makes tokens for subjects, or shows what a token says.",
  details:
    "Key, algorithm and life also come from LIBSTORAGE_TOKEN_KEY, _ALG and _EXP (or REXRAY_TOKEN_...).",
  options: {
    key: { type: "string", value: "KEY", meaning: "The signing key, or a file that holds it." },
    alg: { type: "string", value: "NAME", meaning: "HS256 (default), ..., PS512." },
    exp: {
      type: "string",
      value: "TIME",
      meaning: `Life of a new token; default ${DEFAULT_LIFE}.`,
    },
    verify: { type: "boolean", meaning: "decode: fails unless the token is valid under --key." },
  },
  async run(input) {
    const [what, ...rest] = input.positionals;
    if (what === "new") return makeTokens(input, rest);
    if (what === "decode") return decodeToken(input, rest);
    throw new UsageError(`say "new" or "decode"${what === undefined ? "" : `, not "${what}"`}`);
  },
};
