/** Who may: the tokens of section 12 of the contract. */
import { createPublicKey } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { errors, jwtVerify } from "jose";
import { StorageError } from "@libstorage/model";
import type { Logger } from "../../core/log.js";

/** One check, as the configuration gives it: keys are read, lists hold subjects in lower case. */
export interface AuthRules {
  /** The signing key (HS*), or the public key or certificate in PEM (others). */
  readonly key: string;
  readonly alg: string;
  readonly allow: ReadonlySet<string>;
  readonly deny: ReadonlySet<string>;
}

export interface Auth {
  /** Whether any check is configured at all; without one `check` need not be called. */
  readonly isOpen: boolean;
  /** The check of every routed path. @throws {StorageError} `unauthenticated` */
  check(authorization: string | undefined, log: Logger): Promise<Caller>;
  /** The further check of a service's routes. @throws {StorageError} `unauthenticated` */
  checkService(caller: Caller, service: string, log: Logger): Promise<Caller>;
  /** The check of routes about all services. @throws {StorageError} `unauthenticated` */
  checkAllServices(caller: Caller, log: Logger): Promise<Caller>;
}

/** What is known of a caller so far. `subject` is set once a token was verified. */
export interface Caller {
  readonly authorization: string | undefined;
  readonly subject?: string;
}

const REFUSAL = "invalid security token";

class Refused extends Error {}

/** Verifies signatures and times of tokens; nothing else. */
class Verifier {
  readonly #key: KeyObject | Uint8Array;
  readonly #algorithm: string;
  /** Tokens seen, so that a client's every request does not cost a signature. */
  readonly #seen = new Map<string, { subject: string; from: number; until: number }>();

  constructor(key: KeyObject | Uint8Array, algorithm: string) {
    this.#key = key;
    this.#algorithm = algorithm;
  }

  /** @returns the subject in lower case @throws {Refused} with the reason, for the log */
  async subjectOf(authorization: string | undefined): Promise<string> {
    const token = /^Bearer ([\w-]+\.[\w-]+\.[\w-]+)$/.exec(authorization ?? "")?.[1];
    if (token === undefined) throw new Refused("no token");
    const now = Date.now() / 1000;
    const seen = this.#seen.get(token);
    if (seen !== undefined && now >= seen.from && now < seen.until) return seen.subject;
    const { payload } = await jwtVerify(token, this.#key, {
      algorithms: [this.#algorithm],
      requiredClaims: ["sub", "iat", "exp", "nbf"],
    });
    const subject = (payload.sub ?? "").toLowerCase();
    if (subject === "") throw new Refused("the subject is empty");
    if (this.#seen.size >= 1024) this.#seen.clear();
    this.#seen.set(token, { subject, from: payload.nbf ?? now, until: payload.exp ?? now });
    return subject;
  }
}

/** One guard: a verifier and the lists of those it lets in. */
class Guard {
  readonly verifier: Verifier;
  readonly #allow: ReadonlySet<string>;
  readonly #deny: ReadonlySet<string>;

  constructor(verifier: Verifier, { allow, deny }: AuthRules) {
    this.verifier = verifier;
    this.#allow = allow;
    this.#deny = deny;
  }

  /** @throws {Refused} */
  admit(subject: string): void {
    if (this.#deny.has(subject)) throw new Refused(`subject ${subject} is denied`);
    if (!this.#allow.has(subject)) throw new Refused(`subject ${subject} is not allowed`);
  }
}

async function guarded<T>(log: Logger, about: object, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof Refused) && !(error instanceof errors.JOSEError)) throw error;
    log.warn({ ...about, reason: error.message }, "token refused");
    throw new StorageError("unauthenticated", REFUSAL);
  }
}

async function openVerifier({ alg, key: text }: AuthRules, path: string): Promise<Verifier> {
  const key = alg.startsWith("HS") ? new TextEncoder().encode(text) : publicKey(text, path);
  await tryKey(key, alg, path);
  return new Verifier(key, alg);
}

function publicKey(pem: string, path: string): KeyObject {
  try {
    return createPublicKey(pem);
  } catch (error) {
    throw new StorageError(
      "invalid-argument",
      `${path}.key: is no PEM key or certificate`,
      {},
      {
        cause: error,
      },
    );
  }
}

/** A key of another kind, curve or length shows at the first token; so one is tried at once. */
async function tryKey(key: KeyObject | Uint8Array, alg: string, path: string): Promise<void> {
  const header = Buffer.from(JSON.stringify({ alg })).toString("base64url");
  try {
    await jwtVerify(`${header}.e30.AA`, key, { algorithms: [alg] });
  } catch (error) {
    if (error instanceof errors.JWSSignatureVerificationFailed) return;
    throw new StorageError(
      "invalid-argument",
      `${path}.key: does not fit ${alg}`,
      {},
      {
        cause: error,
      },
    );
  }
}

/**
 * Opens the checks. With a global check a token is verified by its key alone, and a service only applies
 * its own lists.
 * @throws {StorageError} `invalid-argument` for a key that does not fit its algorithm
 */
export async function openAuth(
  global: AuthRules | undefined,
  services: Readonly<Record<string, AuthRules | undefined>> = {},
): Promise<Auth> {
  const root =
    global === undefined ? undefined : new Guard(await openVerifier(global, "auth"), global);
  const guards = new Map<string, Guard>();
  for (const [name, own] of Object.entries(services)) {
    if (own === undefined) continue;
    const verifier = root?.verifier ?? (await openVerifier(own, `services.${name}.auth`));
    guards.set(name.toLowerCase(), new Guard(verifier, own));
  }
  const pass = async (guard: Guard, caller: Caller, about: object, log: Logger): Promise<string> =>
    guarded(log, about, async () => {
      const subject = caller.subject ?? (await guard.verifier.subjectOf(caller.authorization));
      guard.admit(subject);
      return subject;
    });
  return {
    isOpen: root === undefined && guards.size === 0,
    async check(authorization, log) {
      if (root === undefined) return { authorization };
      return { authorization, subject: await pass(root, { authorization }, {}, log) };
    },
    async checkService(caller, service, log) {
      const guard = guards.get(service.toLowerCase());
      if (guard === undefined) return caller;
      return { ...caller, subject: await pass(guard, caller, { service }, log) };
    },
    async checkAllServices(caller, log) {
      let subject = caller.subject;
      for (const [service, guard] of guards) subject = await pass(guard, caller, { service }, log);
      return subject === undefined ? caller : { ...caller, subject };
    },
  };
}
