/** The names and secrets with which this host logs in to targets: `iscsi.chap.*` of the configuration. */
import { readFile, stat } from "node:fs/promises";
import { StorageError } from "@libstorage/model";
import type { ScopedConfig } from "@libstorage/model";
import type { IscsiDoor } from "./door.js";

export interface Credentials {
  readonly userName: string;
  readonly secret: string;
}

export interface ChapCredentials {
  /** This host's, for the target. */
  readonly own: Credentials;
  /** The target's, for this host. */
  readonly target?: Credentials;
}

const KEYS = {
  own: ["iscsi.chap.userName", "iscsi.chap.secretFile"],
  target: ["iscsi.chap.mutual.userName", "iscsi.chap.mutual.secretFile"],
} as const;

/** What open-iscsi keeps in a line of its record. */
const MAX_LENGTH = 255;

function bad(message: string, file?: string): StorageError {
  return new StorageError("failed-precondition", message, { ...(file !== undefined && { file }) });
}

/** @throws {StorageError} that never has a part of the secret in it */
async function secretIn(file: string, key: string): Promise<string> {
  const found = await stat(file).catch((error: NodeJS.ErrnoException) => {
    throw bad(`cannot read the secret file ${file} (${key}): ${error.code}`, file);
  });
  if ((found.mode & 0o077) !== 0)
    throw bad(
      `the secret file ${file} (${key}) can be read by others than its owner: chmod 600 ${file}`,
      file,
    );
  const secret = (await readFile(file, "utf8")).replace(/\r?\n$/, "");
  // It becomes a line of open-iscsi's record, which cuts blanks at the ends.
  if (!/^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(secret) || secret.length > MAX_LENGTH)
    throw bad(
      `the secret file ${file} (${key}) must hold one line of 1 to ${MAX_LENGTH} printable ASCII characters without blanks at its ends`,
      file,
    );
  return secret;
}

async function pair(
  config: ScopedConfig,
  [userKey, fileKey]: readonly [string, string],
  why: string,
): Promise<Credentials> {
  const text = (key: string): string => {
    const value = config.find(key)?.value;
    if (typeof value === "number" || (typeof value === "string" && value !== ""))
      return String(value);
    throw bad(`${why}, and ${key} is not set in this host's configuration`);
  };
  const userName = text(userKey);
  if (!/^[\x21-\x7e]{1,255}$/.test(userName))
    throw bad(`${userKey} must be 1 to ${MAX_LENGTH} printable ASCII characters without blanks`);
  return { userName, secret: await secretIn(text(fileKey), fileKey) };
}

/**
 * @returns undefined when the target asks for none
 * @throws {StorageError} `failed-precondition`, naming the key or file that is missing
 */
export async function credentialsFor(
  config: ScopedConfig,
  { iqn, chap }: IscsiDoor,
): Promise<ChapCredentials | undefined> {
  if (chap === "none") return undefined;
  const own = await pair(config, KEYS.own, `the target ${iqn} wants CHAP (${chap})`);
  if (chap === "one-way") return { own };
  return {
    own,
    target: await pair(config, KEYS.target, `the target ${iqn} wants mutual CHAP`),
  };
}
