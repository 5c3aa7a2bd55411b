/**
 * Who must show which password. Passwords stand in a file that only its owner can read, on both ends; they are
 * in no record, no log and no argument.
 */
import { readFile, stat } from "node:fs/promises";
import * as v from "valibot";
import { parse } from "yaml";
import { StorageError } from "@libstorage/model";

export const CHAP_MODES = ["none", "one-way", "mutual"] as const;
export type ChapMode = (typeof CHAP_MODES)[number];

/** What an initiator shows, and for `mutual` what it wants to be shown. */
export interface Credentials {
  readonly user: string;
  readonly secret: string;
  readonly targetUser?: string | undefined;
  readonly targetSecret?: string | undefined;
}

const user = v.pipe(
  v.string(),
  v.regex(/^[\w.:@-]{1,128}$/, "must be up to 128 letters, digits, _ . : @ -"),
  v.check(
    (text) => !text.startsWith("NULL"),
    "must not begin with NULL, the kernel's word for none",
  ),
);

/** RFC 7143, section 9.2.1 wants 96 bits; `,` and `=` separate values in what tgtd is told. */
const secret = v.pipe(
  v.string(),
  v.regex(/^[!-~]{12,255}$/, "must be 12 to 255 printable characters without blanks"),
  v.check((text) => !/[,=]/.test(text), "must not have a comma or an equals sign"),
  v.check(
    (text) => !text.startsWith("NULL"),
    "must not begin with NULL, the kernel's word for none",
  ),
);

const Entry = v.strictObject({
  /** An initiator's name, or `*` for all that have no entry of their own. */
  initiator: v.pipe(v.string(), v.minLength(1), v.maxLength(223)),
  user,
  secret,
  targetUser: v.optional(user),
  targetSecret: v.optional(secret),
});
const SecretsFile = v.pipe(
  v.array(Entry),
  v.check(hasOneSecretPerUser, "a user has two secrets; give each its own name"),
);

/** A target knows one password for a user, whoever comes by that name. */
function hasOneSecretPerUser(entries: v.InferOutput<typeof Entry>[]): boolean {
  const secrets = new Map<string, string>();
  const pairs = entries.flatMap((one) => [
    [one.user, one.secret] as const,
    ...(one.targetUser !== undefined && one.targetSecret !== undefined
      ? [[one.targetUser, one.targetSecret] as const]
      : []),
  ]);
  return pairs.every(([name, value]) => {
    const known = secrets.get(name) ?? value;
    secrets.set(name, value);
    return known === value;
  });
}

/**
 * Reads an initiator's entry. The file is read each time, so a change counts from the next attach.
 * @throws {StorageError} `failed-precondition` when the file cannot be used, or has no entry; no text of the file is shown
 */
async function readCredentials(
  path: string,
  mode: Exclude<ChapMode, "none">,
  initiator: string,
): Promise<Credentials> {
  const entries = await readSecrets(path);
  const found =
    entries.find((entry) => entry.initiator.toLowerCase() === initiator) ??
    entries.find((entry) => entry.initiator === "*");
  if (found === undefined)
    throw refusal(path, `has no entry for the initiator ${initiator}, and none for "*"; add one`);
  if (mode === "one-way") return { user: found.user, secret: found.secret };
  if (found.targetUser === undefined || found.targetSecret === undefined)
    throw refusal(
      path,
      `has no targetUser and targetSecret for the initiator ${initiator}, which mutual CHAP needs; add them, or set chap.mode to one-way`,
    );
  if (found.targetSecret === found.secret)
    throw refusal(
      path,
      `has the same secret and targetSecret for the initiator ${initiator}; they must differ (RFC 7143, section 9.2.1)`,
    );
  return found;
}

/** What a door needs; undefined when it needs nothing. */
export async function credentialsFor(
  secretsFile: string | undefined,
  { chap, initiator }: { readonly chap: ChapMode; readonly initiator: string },
): Promise<Credentials | undefined> {
  if (chap === "none") return undefined;
  if (secretsFile !== undefined) return readCredentials(secretsFile, chap, initiator);
  throw new StorageError(
    "failed-precondition",
    `${initiator} was let in with CHAP (${chap}), and chap.secretsFile is not set now; set it again, or detach and attach the volume`,
    { initiatorName: initiator },
  );
}

async function readSecrets(path: string): Promise<v.InferOutput<typeof SecretsFile>> {
  let text: string;
  try {
    const { mode } = await stat(path);
    if ((mode & 0o077) !== 0)
      throw refusal(
        path,
        `can be read by others (mode ${(mode & 0o777).toString(8)}); chmod 600 it`,
      );
    text = await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof StorageError) throw error;
    throw refusal(path, `cannot be read (${(error as NodeJS.ErrnoException).code ?? "unknown"})`);
  }
  const result = v.safeParse(SecretsFile, parsed(path, text));
  if (result.success) return result.output;
  const [issue] = result.issues;
  // The issue's own text may quote what was found, which may be a secret.
  const where = v.getDotPath(issue) ?? "";
  const what = issue.type === "regex" || issue.type === "check" ? issue.message : "is not right";
  throw refusal(path, `is not as it must be: ${where} ${what}`);
}

function parsed(path: string, text: string): unknown {
  try {
    return parse(text);
  } catch {
    throw refusal(path, "is no YAML");
  }
}

function refusal(path: string, what: string): StorageError {
  return new StorageError("failed-precondition", `the file of CHAP secrets ${path} ${what}`, {
    path,
  });
}
