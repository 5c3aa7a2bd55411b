/** What the file system and its tools say, in the words of the API. */
import { StorageError } from "@libstorage/model";
import type { ErrorCode } from "@libstorage/model";
import { CommandError } from "../../core/exec.js";

interface Meaning {
  readonly code: ErrorCode;
  readonly text: string;
}

const NO_SPACE: Meaning = {
  code: "resource-exhausted",
  text: "the file system is full; free some space and try again",
};
const OVER_QUOTA: Meaning = {
  code: "resource-exhausted",
  text: "the size limit is reached; expand the volume or free some space in it",
};
const READ_ONLY: Meaning = {
  code: "failed-precondition",
  text: "the file system is mounted read-only; mount it writable and try again",
};
const NOT_ALLOWED: Meaning = {
  code: "failed-precondition",
  text: "the server's user may not do this; check the owner and the mode of the root",
};

const BY_ERRNO: Readonly<Record<string, Meaning>> = {
  ENOSPC: NO_SPACE,
  EDQUOT: OVER_QUOTA,
  EROFS: READ_ONLY,
  EACCES: NOT_ALLOWED,
  EPERM: NOT_ALLOWED,
  EMFILE: { code: "resource-exhausted", text: "too many open files; raise the server's limit" },
  ENFILE: { code: "resource-exhausted", text: "the host has too many open files" },
};

/** The texts of the C locale, in which commands run. */
const BY_STDERR: readonly (readonly [RegExp, Meaning])[] = [
  [/No space left on device/, NO_SPACE],
  [/Disk quota exceeded/, OVER_QUOTA],
  [/Read-only file system/, READ_ONLY],
  [/Permission denied|Operation not permitted/, NOT_ALLOWED],
];

function meaningOf(error: unknown): Meaning | undefined {
  if (error instanceof CommandError)
    return BY_STDERR.find(([form]) => form.test(error.stderr))?.[1];
  if (error instanceof Error && "code" in error) return BY_ERRNO[String(error.code)];
  return undefined;
}

/**
 * The error to throw for one that was caught: a `StorageError` where the cause is known.
 * @param doing such as `create volume vfs-001`
 */
export function failureOf(error: unknown, doing: string): unknown {
  const meaning = meaningOf(error);
  if (meaning !== undefined) {
    const data = error instanceof CommandError ? error.data : {};
    return new StorageError(meaning.code, `cannot ${doing}: ${meaning.text}`, data, {
      cause: error,
    });
  }
  if (error instanceof Error && error.name === "AbortError")
    return new StorageError("cancelled", `${doing} was cancelled`, {}, { cause: error });
  if (error instanceof Error && "errno" in error)
    return new StorageError("internal", `cannot ${doing}: ${error.message}`, {}, { cause: error });
  return error;
}
