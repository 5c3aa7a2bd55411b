/**
 * The tokens of the recordings have expired and their key is unknown, so they are signed anew: the same
 * claims, moved to the present. What was wrong with a token stays wrong.
 */
import { createHmac } from "node:crypto";

export const REPLAY_KEY = "the key of the replay";

const TIMES = ["exp", "iat", "nbf"] as const;

function decoded(part: string): Record<string, unknown> {
  return JSON.parse(Buffer.from(part, "base64url").toString("utf8")) as Record<string, unknown>;
}

function encoded(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

/** A signature's length tells its algorithm, which the header may belie. */
function hashOf(signature: string): string | undefined {
  return new Map([
    [43, "sha256"],
    [64, "sha384"],
    [86, "sha512"],
  ]).get(signature.length);
}

export class Resigner {
  readonly #shiftSeconds: number;
  /** The first signature seen of each content: another one over the same is a forgery. */
  readonly #genuine = new Map<string, string>();

  /** @param recordedAt when the recording was made, in milliseconds since 1970 */
  constructor(recordedAt: number) {
    this.#shiftSeconds = Math.round((Date.now() - recordedAt) / 1000);
  }

  /** An `Authorization` header with its token signed anew; what holds no token stays as it is. */
  header(value: string): string {
    const match = /^(.*?)(eyJ[\w-]+)\.([\w-]+)\.([\w-]*)$/.exec(value);
    if (match === null) return value;
    const [, scheme = "", head = "", claims = "", signature = ""] = match;
    return `${scheme}${this.#signed(head, claims, signature)}`;
  }

  #signed(head: string, claims: string, signature: string): string {
    const payload = decoded(claims);
    for (const name of TIMES) {
      const time = payload[name];
      if (typeof time === "number") payload[name] = time + this.#shiftSeconds;
    }
    const content = `${head}.${encoded(payload)}`;
    const hash = hashOf(signature);
    if (hash === undefined) return `${content}.`;
    const genuine = this.#genuine.get(`${head}.${claims}`) ?? signature;
    this.#genuine.set(`${head}.${claims}`, genuine);
    const key = genuine === signature ? REPLAY_KEY : "a key of somebody else";
    return `${content}.${createHmac(hash, key).update(content).digest("base64url")}`;
  }
}
